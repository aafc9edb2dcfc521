"""Files broken on purpose: each as somebody's script or copy might have left it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ase
import ase.io
import numpy as np
from ase.build import molecule

from adatom.units import ENERGY, EV_PER_A3_IN_GPA, LENGTH

SILICON = Path(__file__).parents[2] / "data" / "si_pbe_gpaw" / "train.xyz.xz"
Frames = list[ase.Atoms]


@dataclass(frozen=True)
class Broken:
    """How to break a file, and what the doctor must say: kind, severity, words of the message, words of the remedy."""

    break_it: Callable[[Frames], Frames]
    kind: str
    severity: str
    message: str
    remedy: str
    where: str = ""


def silicon() -> Frames:
    """Frames of the set in the repository, its labels as fields."""
    frames = ase.io.read(str(SILICON), index=":")
    assert isinstance(frames, list)
    for atoms in frames:
        atoms.info["REF_stress"] = np.asarray(atoms.info["REF_stress"], dtype=float)
        atoms.calc = None
    return frames


def molecules(count: int = 80, seed: int = 3) -> Frames:
    """Rattled ethanol with springs between all atoms: labels that belong together, of charge 0 and multiplicity 1."""
    random = np.random.default_rng(seed)
    start = molecule("CH3CH2OH")
    first, second = np.triu_indices(len(start), 1)
    rest = np.linalg.norm(start.positions[second] - start.positions[first], axis=1)
    made = []
    for _ in range(count):
        atoms = start.copy()
        atoms.positions += 0.05 * random.normal(size=atoms.positions.shape)
        vectors = atoms.positions[second] - atoms.positions[first]
        lengths = np.linalg.norm(vectors, axis=1)
        pull = 8.0 * ((lengths - rest) / lengths)[:, None] * vectors
        forces = np.zeros_like(atoms.positions)
        np.add.at(forces, first, pull)
        np.add.at(forces, second, -pull)
        atoms.info |= {"REF_energy": float(4.0 * ((lengths - rest) ** 2).sum()) - 4200.0}
        atoms.info |= {"total_charge": 0, "multiplicity": 1}
        atoms.arrays["REF_forces"] = forces
        made.append(atoms)
    return made


def write(frames: Frames, path: Path) -> Path:
    ase.io.write(str(path), frames, format="extxyz")
    return path


def each(change: Callable[[ase.Atoms], None], only: slice = slice(None)) -> Callable[[Frames], Frames]:
    """Change frames in place."""

    def apply(frames: Frames) -> Frames:
        for atoms in frames[only]:
            change(atoms)
        return frames

    return apply


def _forces(factor: float) -> Callable[[ase.Atoms], None]:
    def change(atoms: ase.Atoms) -> None:
        atoms.arrays["REF_forces"] = factor * atoms.arrays["REF_forces"]

    return change


def _stress(factor: float) -> Callable[[ase.Atoms], None]:
    def change(atoms: ase.Atoms) -> None:
        atoms.info["REF_stress"] = factor * atoms.info["REF_stress"]

    return change


def _energy(change_energy: Callable[[float, int], float]) -> Callable[[ase.Atoms], None]:
    def change(atoms: ase.Atoms) -> None:
        atoms.info["REF_energy"] = change_energy(atoms.info["REF_energy"], len(atoms))

    return change


def _virial(atoms: ase.Atoms) -> None:
    atoms.info["REF_stress"] = -atoms.get_volume() * atoms.info["REF_stress"]


def _misspell(atoms: ase.Atoms) -> None:
    atoms.info["REF_enrgy"] = atoms.info.pop("REF_energy")


def _no_forces(atoms: ase.Atoms) -> None:
    atoms.arrays["REF_forces"] = np.zeros((len(atoms), 3))


def _shuffled(seed: int) -> Callable[[ase.Atoms], None]:
    random = np.random.default_rng(seed)

    def change(atoms: ase.Atoms) -> None:
        atoms.arrays["REF_forces"] = random.permutation(atoms.arrays["REF_forces"])

    return change


def _nan(atoms: ase.Atoms) -> None:
    atoms.arrays["REF_forces"] = atoms.arrays["REF_forces"].copy()
    atoms.arrays["REF_forces"][2, 1] = np.nan


def _twice(frames: Frames) -> Frames:
    again = frames[7].copy()
    again.info["REF_energy"] += 0.8
    return [*frames, again]


def _open(atoms: ase.Atoms) -> None:
    atoms.pbc = False


def _held(atoms: ase.Atoms) -> None:
    atoms.arrays["REF_forces"] = atoms.arrays["REF_forces"].copy()
    atoms.arrays["REF_forces"][:2] = 0.0


def _constant(atoms: ase.Atoms) -> None:
    atoms.info["REF_energy"] = -40.0


def _triplet(atoms: ase.Atoms) -> None:
    atoms.info["multiplicity"] = 2


def _unpaired(atoms: ase.Atoms) -> None:
    atoms.info["multiplicity"] = 0


def _uncharged(atoms: ase.Atoms) -> None:
    del atoms.info["total_charge"]


def _charged(frames: Frames) -> Frames:
    for atoms in frames:
        atoms.info |= {"total_charge": 1, "multiplicity": 2}
    return each(_uncharged, slice(0, 5))(frames)


def _stale_forces(frames: Frames) -> Frames:
    for k in range(20, 40):
        frames[k].arrays["REF_forces"] = frames[k - 20].arrays["REF_forces"].copy()
    return frames


BROKEN_SILICON: dict[str, Broken] = {
    "forces with the wrong sign": Broken(
        each(_forces(-1.0)), "energy and forces", "error", "contradict", "forces have the opposite sign", "x.xyz"
    ),
    "forces in Hartree/Bohr": Broken(
        each(_forces(LENGTH["Bohr"] / ENERGY["Hartree"])),
        *("energy and forces", "error", "contradict", "--units forces=Hartree/Bohr", "x.xyz"),
    ),
    "energies in Hartree": Broken(
        each(_energy(lambda e, n: e / ENERGY["Hartree"])),
        *("energy and forces", "error", "contradict", "--units energy=Hartree", "x.xyz"),
    ),
    "energies per atom": Broken(
        each(_energy(lambda e, n: e / n)),
        *("energy and forces", "error", "contradict", "energies are per atom, not total", "x.xyz"),
    ),
    "stress with the wrong sign": Broken(
        each(_stress(-1.0)), "energy and stress", "error", "contradict", "--units stress=-eV/Å^3", "x.xyz"
    ),
    "stress in GPa": Broken(
        each(_stress(EV_PER_A3_IN_GPA)), "energy and stress", "error", "contradict", "--units stress=GPa", "x.xyz"
    ),
    "stress in kbar, compression positive": Broken(
        each(_stress(-10.0 * EV_PER_A3_IN_GPA)),
        *("energy and stress", "error", "contradict", "--units stress=-kbar", "x.xyz"),
    ),
    "a virial as stress": Broken(
        each(_virial), "energy and stress", "error", "contradict", "this is a virial, not a stress", "x.xyz"
    ),
    "a key misspelled in half of the frames": Broken(
        each(_misspell, slice(None, None, 2)),
        *("missing energy", "error", "'REF_enrgy'", "rename 'REF_enrgy' to 'REF_energy'", "x.xyz:0"),
    ),
    "zeros in place of some forces": Broken(
        each(_no_forces, slice(30, 40)), "empty forces", "error", "exactly zero in 10 of", "placeholders", "x.xyz:30"
    ),
    "one force that is no number": Broken(
        each(_nan, slice(12, 13)), "missing forces", "error", "1 of 263 structures lack forces", "remove", "x.xyz:12"
    ),
    "a structure twice with other labels": Broken(
        _twice, "contradicting copies", "warning", "different energies", "keep one of each", "x.xyz:7 and x.xyz:263"
    ),
    "one frame of another functional": Broken(
        each(_energy(lambda e, n: e + 0.6 * n), slice(40, 41)), "odd structures", "warning", "fit none", "", "x.xyz:40"
    ),
    "no periodic directions": Broken(
        each(_open), "missing pbc", "error", "263 structures fill a cell", 'pbc="T T T"', "x.xyz:0"
    ),
    "forces of fixed atoms zeroed": Broken(
        each(_held), "fixed atoms", "warning", "a force of exactly zero", "constraint", "x.xyz:0"
    ),
    "one energy everywhere": Broken(each(_constant), "constant energy", "error", "the same energy", "which field"),
    "forces of other frames": Broken(
        _stale_forces, "repeated forces", "error", "exactly the forces of another", "make the file anew"
    ),
}
BROKEN_MOLECULES: dict[str, Broken] = {
    "rows of forces out of order": Broken(
        each(_shuffled(0)), "torque of forces", "error", "forces turn", "in another order", "x.xyz:0"
    ),
    "the wrong parity of electrons": Broken(
        each(_triplet, slice(3, 9)), "multiplicity", "error", "26 electrons", "2S + 1", "x.xyz:3"
    ),
    "unpaired electrons as multiplicity": Broken(
        each(_unpaired), "multiplicity", "error", "a multiplicity that is none: 0", "plus 1", "x.xyz:0"
    ),
    "charges in some frames only": Broken(
        _charged, "missing charge", "warning", "5 of 80 structures do not give", "give total_charge", "x.xyz:0"
    ),
    "energies of one frame far off": Broken(
        each(_energy(lambda e, n: e + 0.5 * n), slice(11, 12)),
        *("odd structures", "warning", "fit none", "", "x.xyz:11"),
    ),
}
