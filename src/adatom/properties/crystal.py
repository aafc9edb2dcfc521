"""Where properties of crystals start from: a cell at rest, its primitive and conventional cells, supercells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ase
import numpy as np
import spglib
from ase.calculators.calculator import BaseCalculator
from ase.geometry import minkowski_reduce

from adatom.elements import symbol
from adatom.errors import ConfigError, GeometryError
from adatom.neighbors import NEUTRAL, charge_and_spin
from adatom.sim.calculator import Calculator, require_volume
from adatom.sim.relax import Relaxation, relax
from adatom.sim.symmetry import ask

LENGTH = 12.0  # Å, of supercells, where the potential does not reach farther: bcc lithium is not stable in 10


def at_rest(atoms: ase.Atoms, calculator: BaseCalculator, fmax: float, smax_GPa: float, steps: int = 500) -> Relaxation:
    """Atoms and cell relaxed with the symmetry they have: what derivatives of the energy are taken at.

    StressError without a volume, GeometryError without a cell, ConfigError with a charge, SimulationError when it does
    not converge.
    """
    require_volume(atoms)
    charge, _ = charge_and_spin(atoms)
    if charge != NEUTRAL:  # primitive cells, supercells and slabs would each need another one
        raise ConfigError(
            "a crystal with a net charge has no properties of its own: they depend on the cell that holds the charge",
            where=atoms.get_chemical_formula(),
            wanted="total charge 0",
            got=f"{charge:g} e",
            remedy="set atoms.info['total_charge'] = 0",
        )
    if atoms.cell.rank < 3 or not np.isfinite(atoms.cell.array).all():
        raise GeometryError(
            "a crystal needs a cell with a volume",
            where=atoms.get_chemical_formula(),
            wanted="three lattice vectors that are not in one plane",
            got=f"{atoms.cell.tolist()} Å",
            remedy="set the cell",
        )
    return relax(
        atoms, calculator, fmax=fmax, smax_GPa=smax_GPa, steps=steps, cell=True, symmetry=True
    ).require_converged()


def primitive_cell(atoms: ase.Atoms) -> ase.Atoms:
    """The smallest cell of the same crystal, not turned."""
    return _cell(atoms, to_primitive=True, no_idealize=True)


def conventional_cell(atoms: ase.Atoms) -> ase.Atoms:
    """The conventional cell, exactly symmetric, in the standard orientation (a along x, b in the xy plane)."""
    return _cell(atoms, to_primitive=False, no_idealize=False)


def _cell(atoms: ase.Atoms, to_primitive: bool, no_idealize: bool) -> ase.Atoms:
    cell, scaled, numbers = ask(atoms, spglib.standardize_cell, to_primitive=to_primitive, no_idealize=no_idealize)
    info = {key: atoms.info[key] for key in ("multiplicity", "spin") if key in atoms.info}
    masses = masses_of(atoms)
    return ase.Atoms(
        numbers, scaled_positions=scaled, cell=cell, pbc=True, info=info, masses=[masses[int(z)] for z in numbers]
    )


def masses_of(atoms: ase.Atoms) -> dict[int, float]:
    """Mass of each element by its atomic number, amu; ConfigError where atoms of one element differ.

    Symmetry does not see masses: another cell of the crystal could not tell which isotope stands where.
    """
    found: dict[int, float] = {}
    for z, mass in zip(atoms.numbers.tolist(), atoms.get_masses().tolist(), strict=True):
        if abs(found.setdefault(z, mass) - mass) > 1e-6:
            raise ConfigError(
                "isotopes of one element in one crystal",
                where=atoms.get_chemical_formula(),
                wanted=f"one mass of all atoms of {symbol(z)}",
                got=f"{found[z]:g} and {mass:g} amu",
                remedy="give all of them the same mass, the mean where they are mixed",
            )
    return found


@dataclass(frozen=True)
class Supercell:
    """Repeats of a cell; ``length_A`` is the distance of an atom from its nearest image."""

    atoms: ase.Atoms
    repeats: tuple[int, int, int]
    length_A: float
    warnings: tuple[str, ...]

    def to_record(self) -> dict[str, Any]:
        """As the report reads it."""
        return {"repeats": list(self.repeats), "atoms": len(self.atoms), "length_A": self.length_A}


def supercell(
    cell: ase.Atoms,
    calculator: BaseCalculator,
    length_A: float | None = None,
    repeats: tuple[int, int, int] | None = None,
) -> Supercell:
    """The smallest repetition of ``cell`` in which no atom is nearer than ``length_A`` to its images.

    By default that is 12 Å, or twice the cutoff of the potential where that is more; ``repeats`` are taken as they are.
    ConfigError for repeats below one and where an atom would feel its own image, a warning where some atom feels both
    another and its image.
    """
    if repeats is not None:
        check_repeats(repeats, "--repeats")
    cutoff = cutoff_of(calculator)
    wanted = max(LENGTH, 2.0 * (cutoff or 0.0)) if length_A is None else length_A
    chosen = repeats or _repeats(cell.cell.array, wanted)
    length = shortest(cell.cell.array * np.array(chosen)[:, None])
    if cutoff is not None and length < cutoff:
        raise ConfigError(
            "the supercell is too small for this potential: an atom that moves feels its own image",
            where=f"{cell.get_chemical_formula()}, {' × '.join(str(n) for n in chosen)} cells",
            wanted=f"images more than {cutoff:g} Å apart, the cutoff; better {2 * cutoff:g} Å",
            got=f"{length:.2f} Å",
            remedy="take more repeats, or leave the choice to the cutoff: no --repeats, no --length (length_A=None)",
        )
    said = []
    if cutoff is not None and length < 2.0 * cutoff - 1e-6:
        said.append(
            f"images are {length:.1f} Å apart, less than twice the cutoff of {cutoff:g} Å: some atoms feel both an "
            "atom and its image"
        )
    if isinstance(calculator, Calculator) and calculator.potential.network.claims.reach == "global":
        said.append("this potential reaches through the whole supercell: compare with a larger one")
    return Supercell(cell.repeat(chosen), chosen, length, tuple(said))


def check_repeats(repeats: tuple[int, int, int], where: str) -> None:
    """ConfigError for repeats of a cell below one."""
    if min(repeats) < 1:
        raise ConfigError(
            "a cell is repeated once at least along each axis",
            where=where,
            wanted="three whole numbers from 1 on, as 2 2 2",
            got=" ".join(str(n) for n in repeats),
            remedy="write 1 where the cell is to stay as it is",
        )


def cutoff_of(calculator: BaseCalculator) -> float | None:
    """Cutoff of the potential behind a calculator, Å; None for calculators of others."""
    return calculator.potential.cutoff if isinstance(calculator, Calculator) else None


def shortest(cell: np.ndarray) -> float:
    """Length of the shortest lattice vector, Å."""
    reduced, _ = minkowski_reduce(cell)
    return float(np.linalg.norm(reduced, axis=1).min())


def _repeats(cell: np.ndarray, length: float) -> tuple[int, int, int]:
    """Numbers of repeats that leave no lattice vector shorter than ``length``."""
    repeats = np.maximum(np.ceil(length / np.linalg.norm(cell, axis=1) - 1e-6).astype(int), 1)
    while shortest(cell * repeats[:, None]) < length - 1e-6:  # a skewed cell: the flattest direction goes on
        heights = repeats / np.linalg.norm(np.linalg.inv(cell), axis=0)
        repeats[int(heights.argmin())] += 1
    a, b, c = (int(n) for n in repeats)
    return a, b, c
