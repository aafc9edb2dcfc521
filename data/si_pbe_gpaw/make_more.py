"""Make more cells like those of this folder: small silicon cells, labelled with GPAW at the settings of README.md.

    python make_more.py --count diamond=20 md900=10 vacancy=5 --seed 7 --out more.xyz
    python make_more.py --count eos=13 --out cells.xyz --no-labels      # geometries alone, GPAW is not needed

Needs numpy and ASE; the labels need GPAW (Debian: ``apt install gpaw``; elsewhere ``pip install gpaw`` and its PAW
setups). The same seed gives the same cells. Frames are written as they are finished, so a run that is stopped loses
nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import ase
import ase.io
import numpy as np
from ase import units
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.md.langevin import Langevin
from ase.neighborlist import neighbor_list

LATTICE = 5.47  # Å, diamond silicon in PBE
CLOSEST = 1.6  # Å; cells with closer atoms are drawn again
WARM_UP, BETWEEN = 1000, 200  # fs of dynamics before the first frame, and from one to the next
KINDS = (
    *("eos", "diamond", "beta-tin", "sc", "lonsdaleite", "vacancy", "interstitial"),
    *("md300", "md900", "md1600", "md2500", "md4000"),
)


class StillingerWeber(Calculator):
    """Stillinger and Weber's silicon, Phys. Rev. B 31, 5262 (1985).

    The MD frames get their positions from it; labels never come from it.

    E = sum_{i<j} eps A (B (s/r)^4 - 1) exp(s / (r - a s)) + sum_{i, j<k} eps lam (cos t_jik + 1/3)^2 g(r_ij) g(r_ik),
    g(r) = exp(gam s / (r - a s)); pairs beyond a s do not interact.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]
    eps, s, a, lam, gam, A, B = 2.1683, 2.0951, 1.80, 21.0, 1.20, 7.049556277, 0.6022245584

    def calculate(
        self,
        atoms: ase.Atoms | None = None,
        properties: list[str] | tuple[str, ...] = ("energy",),
        system_changes: list[str] = all_changes,
    ) -> None:
        """Energy in eV and forces in eV/Å of ``atoms``."""
        super().calculate(atoms, properties, system_changes)
        reach = self.a * self.s
        i, j, r, vectors = neighbor_list("ijdD", self.atoms, reach * (1 - 1e-9))
        unit = vectors / r[:, None]
        fade = np.exp(self.s / (r - reach))
        power = self.B * (self.s / r) ** 4
        pair = 0.5 * self.eps * self.A * (power - 1.0) * fade  # each pair stands twice in the list
        slope = 0.5 * self.eps * self.A * fade * (-4.0 * power / r - (power - 1.0) * self.s / (r - reach) ** 2)
        pull = slope[:, None] * unit  # (E, 3)  dE / d vectors
        energy = float(pair.sum())
        g = np.exp(self.gam * self.s / (r - reach))
        dg = -self.gam * self.s / (r - reach) ** 2 * g
        for atom in range(len(self.atoms)):
            own = np.flatnonzero(i == atom)
            cosine = unit[own] @ unit[own].T  # (m, m)
            tilt = cosine + 1.0 / 3.0
            np.fill_diagonal(tilt, 0.0)  # j = k is no angle
            strength = self.lam * self.eps * tilt * g[own][None, :]  # (m, m)
            energy += 0.5 * float((strength * tilt * g[own][:, None]).sum())
            along = (strength * tilt).sum(axis=1) * dg[own]
            turn = 2.0 * strength * g[own][:, None] / r[own][:, None]
            pull[own] += (
                along[:, None] * unit[own] + turn @ unit[own] - (turn * cosine).sum(axis=1)[:, None] * unit[own]
            )
        forces = np.zeros((len(self.atoms), 3))
        np.add.at(forces, i, pull)
        np.add.at(forces, j, -pull)
        self.results = {"energy": energy, "forces": forces}


def shortest(atoms: ase.Atoms) -> float:
    """Shortest distance in Å, images included."""
    return float(min(neighbor_list("d", atoms, 4.0), default=np.inf))


def strained(atoms: ase.Atoms, most: float, random: np.random.Generator) -> ase.Atoms:
    """A copy under a random symmetric strain with entries up to ``most``."""
    strain = random.uniform(-most, most, (3, 3))
    copy = atoms.copy()
    copy.set_cell(copy.cell @ (np.eye(3) + 0.5 * (strain + strain.T)), scale_atoms=True)
    return copy


def rattled(atoms: ase.Atoms, width: float, random: np.random.Generator) -> ase.Atoms:
    """A copy with normal displacements of ``width`` Å per coordinate."""
    copy = atoms.copy()
    copy.positions += random.normal(scale=width, size=copy.positions.shape)
    return copy


def parent(kind: str) -> ase.Atoms:
    """The ideal cell of eight atoms that a kind is made from."""
    if kind == "beta-tin":
        sites = [(0, 0, 0), (0, 0.5, 0.25), (0.5, 0.5, 0.5), (0.5, 0, 0.75)]
        cell = ase.Atoms("Si4", cell=[4.81, 4.81, 2.65], scaled_positions=sites)
        atoms = cell.repeat((1, 1, 2))
    elif kind == "sc":
        atoms = bulk("Si", "sc", a=2.53).repeat(2)
    elif kind == "lonsdaleite":
        u, third = 0.0625, 1.0 / 3.0
        sites = [
            (third, 2 * third, u),
            (2 * third, third, 0.5 + u),
            (third, 2 * third, 0.5 - u),
            (2 * third, third, -u),
        ]
        cell = ase.Atoms("Si4", cell=[3.86, 3.86, 6.38, 90, 90, 120], scaled_positions=sites)
        atoms = cell.repeat((2, 1, 1))
    else:
        atoms = bulk("Si", "diamond", a=LATTICE, cubic=True)
    atoms.pbc = True
    return atoms


def one_cell(kind: str, k: int, count: int, random: np.random.Generator) -> ase.Atoms:
    """The k-th of ``count`` cells of a kind."""
    atoms = parent(kind)
    if kind == "eos":
        ratio = 0.80 + 0.48 * k / max(count - 1, 1)
        atoms.set_cell(atoms.cell * ratio ** (1.0 / 3.0), scale_atoms=True)
        return atoms
    if kind == "vacancy":
        del atoms[int(random.integers(len(atoms)))]
        return rattled(strained(atoms, 0.03, random), random.uniform(0.02, 0.15), random)
    if kind == "interstitial":
        atoms.append(ase.Atom("Si", position=random.uniform(size=3) @ np.asarray(atoms.cell)))
        return rattled(strained(atoms, 0.03, random), 0.05, random)
    if kind == "diamond":
        return rattled(strained(atoms, 0.04, random), random.uniform(0.01, 0.22), random)
    return rattled(strained(atoms, 0.04, random), random.uniform(0.02, 0.12), random)


def md_frames(kind: str, count: int, random: np.random.Generator) -> Iterator[ase.Atoms]:
    """Frames of Langevin dynamics with Stillinger-Weber forces, a fresh run in a strained cell for every five."""
    temperature = float(kind.removeprefix("md"))
    spread = np.sqrt(units.kB * temperature * parent("diamond").get_masses())[:, None]
    for k in range(count):
        if k % 5 == 0:
            atoms = rattled(strained(parent("diamond"), 0.02, random), 0.05, random)
            atoms.calc = StillingerWeber()
            atoms.set_momenta(spread * random.normal(size=atoms.positions.shape))
            run = Langevin(
                atoms, units.fs, temperature_K=temperature, friction=0.02 / units.fs, fixcm=False, rng=random
            )
            run.run(WARM_UP)
        run.run(BETWEEN)
        yield ase.Atoms(atoms.symbols, atoms.get_positions(wrap=True), cell=atoms.cell, pbc=True)


def cells(kind: str, count: int, random: np.random.Generator) -> Iterator[ase.Atoms]:
    """``count`` cells of a kind, none with atoms closer than 1.6 Å."""
    if kind not in KINDS:
        raise SystemExit(f"there is no kind '{kind}': {', '.join(KINDS)}")
    if kind.startswith("md"):
        yield from md_frames(kind, count, random)
        return
    for k in range(count):
        atoms = one_cell(kind, k, count, random)
        while shortest(atoms) < CLOSEST:
            atoms = one_cell(kind, k, count, random)
        yield atoms


def label(atoms: ase.Atoms, log: Path | None = None) -> dict[str, Any]:
    """Free energy (eV), forces (eV/Å) and stress (eV/Å^3, tension positive) with GPAW: PBE, plane waves of 350 eV."""
    from gpaw import GPAW, PW, FermiDirac

    work = atoms.copy()
    work.calc = GPAW(
        mode=PW(350),
        xc="PBE",
        kpts={"size": (3, 3, 3), "gamma": True},
        occupations=FermiDirac(0.1),
        convergence={"forces": 1e-3},
        txt=None if log is None else str(log),
    )
    return {
        "REF_energy": float(work.get_potential_energy(force_consistent=True)),
        "REF_forces": work.get_forces(),
        "REF_stress": work.get_stress(voigt=False),
    }


def main(arguments: list[str] | None = None) -> None:
    """Command line: see the head of this file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", nargs="+", required=True, metavar="KIND=N", help=f"kinds: {', '.join(KINDS)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--no-labels", action="store_true", help="write the geometries alone")
    options = parser.parse_args(arguments)
    if options.out.exists():
        raise SystemExit(f"{options.out} is there already: name another file")
    random = np.random.default_rng(options.seed)
    for entry in options.count:
        kind, _, count = entry.partition("=")
        if not count.isdigit():
            raise SystemExit(f"'{entry}' is no KIND=N")
        for atoms in cells(kind, int(count), random):
            atoms.info["config_type"] = kind
            if not options.no_labels:
                found = label(atoms)
                atoms.arrays["REF_forces"] = found.pop("REF_forces")
                atoms.info.update(found)
            ase.io.write(options.out, atoms, format="extxyz", append=True)
            print(f"{kind:13s} {len(atoms)} atoms  {atoms.info.get('REF_energy', '')}", flush=True)


if __name__ == "__main__":
    main()
