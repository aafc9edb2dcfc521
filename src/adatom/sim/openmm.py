"""OpenMM: a potential as one force of a System, alone or for a solute in a classical solvent.

    force = adatom.sim.openmm.force("model.adatom", topology)
    system.addForce(force)

OpenMM works in nm, ps and kJ/mol; positions come in and forces go out in those. All of it runs through its PythonForce,
with barostats and integrators as they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import ase
import numpy as np
import torch
from ase import units as ase_units
from ase.constraints import FixAtoms

from adatom.compile import Mode
from adatom.errors import AdatomError, ConfigError, GeometryError, SimulationError
from adatom.potential import Potential
from adatom.sim.calculator import Calculator
from adatom.units import ENERGY

try:
    from openmm import OpenMMException, PythonForce, State, System, unit
    from openmm.app import Element, Topology
except ImportError as error:
    raise ConfigError(
        "OpenMM is not installed, or has no PythonForce",
        got=str(error),
        remedy="pip install 'adatom[openmm]'",
    ) from error

KJ_PER_MOL = 1.0 / ENERGY["kJ/mol"]  # of one eV
NM = 0.1  # of one Å

# OpenMM hands on the text of an error and forgets its type: by its text it is found again
_raised: dict[str, BaseException] = {}


@dataclass(frozen=True)
class Settings:
    """How the potential is run; the fields are those of ``adatom.Calculator``."""

    device: str = "cpu"
    dtype: torch.dtype | None = None
    compile: Mode | None = None
    source: str | None = None

    def calculator(self, potential: Potential | str | Path) -> Calculator:
        """The calculator that is run so."""
        return Calculator(potential, self.device, self.dtype, compile=self.compile, source=self.source)


def force(
    potential: Potential | str | Path,
    structure: ase.Atoms | Topology,
    atoms: Sequence[int] | None = None,
    *,
    periodic: bool | None = None,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    compile: Mode | None = None,
    source: str | None = None,
    total_charge: float | None = None,
    multiplicity: float | None = None,
) -> PythonForce:
    """The potential as a force, to be added to a System.

    Parameters
    ----------
    potential
        A Potential, or a model file: only with a file can the System be written as XML.
    structure
        Says what the particles of the System are, one after the other: of an ``ase.Atoms`` numbers, ``pbc``, total
        charge and multiplicity are taken, of a Topology elements, and the box as a sign of periodicity.
    atoms
        Which particles feel the potential; all by default. In a periodic box such a region must be well inside:
        the cutoff at most half the box, so that no atom meets two images of another.
    periodic
        Whether the box of the System is that of the potential; by default what ``structure`` says. There is no box that
        is open in one direction: a slab is periodic, its vacuum wider than the cutoff.
    device, dtype, compile, source
        As in ``adatom.Calculator``.
    total_charge, multiplicity
        Of the atoms that feel the potential, where the structure does not say.

    Raises
    ------
    UnknownElementError, ChargeError
        The potential was not made for these atoms.
    ConfigError
        Indices that do not exist; particles without element; a structure open in some directions only.

    Notes
    -----
    An error inside a running simulation (a figure that is no number, another number of particles, a box too small)
    stops the step and leaves the positions before it. OpenMM says it as an ``OpenMMException`` with our text;
    inside ``with adatom.sim.openmm.typed():`` it is what it was.
    """
    settings = Settings(device, dtype, compile, source)
    numbers, pbc, info = _kind(structure)
    chosen = _checked_indices(atoms, len(numbers))
    if chosen is not None:
        numbers = numbers[chosen]
    if (numbers == 0).any():
        raise ConfigError(
            "a particle has no element: a virtual site, or a Topology that does not name it",
            where=f"particle {int(np.flatnonzero(numbers == 0)[0])} of those that feel the potential",
            wanted="atoms",
            remedy="choose other atoms, or a solvent model without virtual sites",
        )
    template = ase.Atoms(numbers, np.zeros((len(numbers), 3)), pbc=pbc if periodic is None else periodic)
    given = {"total_charge": total_charge, "multiplicity": multiplicity}
    template.info = info | {key: value for key, value in given.items() if value is not None}
    made = PythonForce(Region.of(potential, template, chosen is not None, settings))
    made.setName("adatom")
    made.setUsesPeriodicBoundaryConditions(bool(template.pbc.any()))
    if chosen is not None:
        made.setParticles([int(i) for i in chosen])
    return made


class Region:
    """What OpenMM calls: energy in kJ/mol and forces in kJ/mol/nm of a State.

    It is written to XML as the path of its model file and that file's checksum. The file is read again at the first
    evaluation: an error while OpenMM unpacks a System would end the process.
    """

    def __init__(self, template: ase.Atoms, part: bool, calculator: Calculator | None, recipe: Recipe | None) -> None:
        self._atoms, self._part, self._calculator, self._recipe = template, part, calculator, recipe
        self._box = np.zeros((3, 3))

    @classmethod
    def of(cls, potential: Potential | str | Path, template: ase.Atoms, part: bool, settings: Settings) -> Region:
        """Of a potential; from a file it can be written to XML."""
        calculator = settings.calculator(potential)
        calculator.check(template)
        if isinstance(potential, Potential):
            return cls(template, part, calculator, None)
        path = Path(potential).resolve()
        numbers, info = tuple(int(z) for z in template.numbers), tuple(template.info.items())
        recipe = Recipe(str(path), _checksum(path), numbers, bool(template.pbc.any()), info, part, settings)
        return cls(template, part, calculator, recipe)

    def __call__(self, state: State) -> tuple[float, np.ndarray]:
        """One evaluation; an error stops the step."""
        try:
            return self._evaluate(state)
        except AdatomError as error:
            _raised[str(error)] = error
            raise
        except KeyboardInterrupt as error:
            text = "interrupted inside the potential"
            _raised[text] = error
            raise KeyboardInterrupt(text) from error

    def __reduce__(self) -> tuple[Any, ...]:
        if self._recipe is None:
            raise ConfigError(
                "this force was made of a Potential in memory, which XML cannot hold",
                wanted="a model file",
                remedy="adatom.save(potential, 'model.adatom'), and make the force of that file",
            )
        return _again, (self._recipe,)

    @property
    def calculator(self) -> Calculator:
        """The calculator, of its model file where it has not been read yet."""
        if self._calculator is None:
            assert self._recipe is not None
            self._calculator = self._recipe.calculator()
        return self._calculator

    def _evaluate(self, state: State) -> tuple[float, np.ndarray]:
        atoms = self._atoms
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)  # (N, 3)
        if len(positions) != len(atoms):
            raise ConfigError(
                "the System holds another number of particles than the structure of the force",
                where="adatom.sim.openmm.force",
                wanted=f"{len(atoms)} particles, {atoms.get_chemical_formula()}",
                got=f"{len(positions)}",
                remedy="make the force of the structure or topology that the System was made of",
            )
        if atoms.pbc.any():
            box = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.angstrom)
            if not np.array_equal(box, self._box):
                self._enter(box)
        atoms.positions = positions
        found = self.calculator.potential(self.calculator.neighbors.graph(atoms))
        energy, forces = float(found.energy), found.forces.detach().cpu().numpy()
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            bad = np.flatnonzero(~np.isfinite(forces).all(axis=1))
            raise SimulationError(
                "the potential gives no number",
                where=f"step {state.getStepCount()}" + (f", atom {int(bad[0])} of the region" if len(bad) else ""),
                wanted="finite energy and forces",
                got=f"energy {energy:g} eV",
                remedy="take a shorter timestep, minimise the energy first, or train on such structures",
            )
        return energy * KJ_PER_MOL, forces * (KJ_PER_MOL / NM)

    def _enter(self, box: np.ndarray) -> None:
        """Take another box; of a region no atom may meet two images of another."""
        widths = _widths(box)
        reach = self.calculator.potential.cutoff
        if self._part and widths.min() < 2.0 * reach:
            raise GeometryError(
                "the box is too small for the region of the potential",
                where=f"box {', '.join(f'{w:.2f}' for w in widths)} Å wide",
                wanted=f"at least twice the cutoff of {reach:g} Å in every direction",
                got=f"{widths.min():.2f} Å",
                remedy="take more solvent",
            )
        self._box = box
        self._atoms.cell[:] = box


class Recipe(NamedTuple):
    """All that a force is made of, as plain values."""

    path: str
    checksum: str
    numbers: tuple[int, ...]
    periodic: bool
    info: tuple[tuple[str, Any], ...]
    part: bool
    settings: Settings

    def calculator(self) -> Calculator:
        """ConfigError where the model file is another one by now, ModelFileError where there is none."""
        path = Path(self.path)
        calculator = self.settings.calculator(path)
        if _checksum(path) != self.checksum:
            raise ConfigError(
                "the model file is not the one that this System was written with",
                where=str(path),
                wanted=f"SHA-256 {self.checksum[:16]}...",
                got=f"{_checksum(path)[:16]}...",
                remedy="put the old file there again, or make the System anew",
            )
        return calculator


def _again(recipe: Recipe) -> Region:
    """The force of a recipe."""
    template = ase.Atoms(recipe.numbers, np.zeros((len(recipe.numbers), 3)), pbc=recipe.periodic)
    template.info = dict(recipe.info)
    return Region(template, recipe.part, None, recipe)


@contextmanager
def typed() -> Iterator[None]:
    """Inside the block an error of ours that went through OpenMM is again what it was, Ctrl-C too."""
    try:
        yield
    except OpenMMException as error:
        first = _raised.pop(str(error), None)
        if first is None:
            raise
        raise first from error
    finally:
        _raised.clear()


@dataclass(frozen=True)
class Whole:
    """A structure as OpenMM takes it.

    ``rotation`` (3, 3) leads from the axes of the structure to those of OpenMM: row vectors r @ rotation.
    """

    topology: Topology
    system: System
    positions: np.ndarray  # (N, 3)  nm
    velocities: np.ndarray  # (N, 3)  nm/ps
    rotation: np.ndarray  # (3, 3)


def whole_system(
    potential: Potential | str | Path,
    atoms: ase.Atoms,
    *,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    compile: Mode | None = None,
    source: str | None = None,
) -> Whole:
    """A System of these atoms whose only force is the potential.

    OpenMM wants the first box vector along x and the second in the plane of x and y, reduced: the structure is rotated,
    and its cell replaced by the reduced one of the same lattice. Masses are those of ``atoms``; of constraints
    ``FixAtoms`` is kept, as a mass of zero. Errors as in ``force``; ConfigError for other constraints.
    """
    made = force(potential, atoms, device=device, dtype=dtype, compile=compile, source=source)
    box, rotation = reduced_box(atoms.cell.array) if atoms.pbc.all() else (None, np.eye(3))
    system, topology = System(), Topology()
    for mass in _masses(atoms):
        system.addParticle(float(mass))
    residue = topology.addResidue("ALL", topology.addChain())
    for symbol in atoms.get_chemical_symbols():
        topology.addAtom(symbol, Element.getBySymbol(symbol), residue)
    if box is not None:
        vectors = [tuple(row) for row in box * NM]
        system.setDefaultPeriodicBoxVectors(*vectors)
        topology.setPeriodicBoxVectors(vectors * unit.nanometer)
    system.addForce(made)
    per_ps = 1000.0 * ase_units.fs * NM  # Å per time unit of ASE -> nm/ps
    return Whole(
        topology, system, atoms.positions @ rotation * NM, atoms.get_velocities() @ rotation * per_ps, rotation
    )


def reduced_box(cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The box that OpenMM wants for the lattice of ``cell`` (Å, rows), and the rotation (3, 3) that leads there."""
    if not np.abs(np.linalg.det(cell)) > 1e-9:
        raise GeometryError(
            "a periodic structure has no cell",
            wanted="three lattice vectors that span a volume",
            got=f"cell {cell.tolist()}",
            remedy="set the cell, or pbc = False",
        )
    right_handed = cell if np.linalg.det(cell) > 0 else -cell  # the same lattice
    q, r = np.linalg.qr(right_handed.T)
    signs = np.where(np.diag(r) < 0, -1.0, 1.0)
    box, rotation = (r * signs[:, None]).T, q * signs
    box = np.tril(box)
    for row, by in ((2, 1), (2, 0), (1, 0)):
        box[row] -= box[by] * np.round(box[row, by] / box[by, by])
    return box, rotation


def _kind(structure: ase.Atoms | Topology) -> tuple[np.ndarray, bool, dict[str, Any]]:
    """Atomic numbers (0: no element), periodicity, and what is said of charge and multiplicity."""
    if isinstance(structure, ase.Atoms):
        if structure.pbc.any() and not structure.pbc.all():
            raise ConfigError(
                "the structure is periodic in some directions only, and OpenMM has no such box",
                where=structure.get_chemical_formula(),
                wanted="pbc = True, True, True or False",
                got=f"pbc = {', '.join(str(bool(p)) for p in structure.pbc)}",
                remedy="make it periodic, with a vacuum wider than the cutoff: atoms.center(vacuum=6, axis=2)",
            )
        return structure.numbers.copy(), bool(structure.pbc.all()), _said(structure)
    numbers = [0 if atom.element is None else atom.element.atomic_number for atom in structure.atoms()]
    return np.array(numbers, dtype=np.int64), structure.getPeriodicBoxVectors() is not None, {}


def _said(atoms: ase.Atoms) -> dict[str, Any]:
    keys = ("total_charge", "charge", "multiplicity", "spin")
    return {key: atoms.info[key] for key in keys if key in atoms.info}


def _checked_indices(atoms: Sequence[int] | None, count: int) -> np.ndarray | None:
    if atoms is None:
        return None
    chosen = np.asarray(atoms, dtype=np.int64).reshape(-1)
    if len(chosen) == 0 or len(np.unique(chosen)) != len(chosen) or chosen.min() < 0 or chosen.max() >= count:
        raise ConfigError(
            "these are no indices of a region",
            where="atoms",
            wanted=f"different numbers from 0 to {count - 1}, at least one",
            got=f"{len(chosen)} numbers" + (f" from {chosen.min()} to {chosen.max()}" if len(chosen) else ""),
            remedy="count particles from 0, in the order of the System",
        )
    return chosen


def _masses(atoms: ase.Atoms) -> np.ndarray:
    masses: np.ndarray = atoms.get_masses().copy()
    for constraint in atoms.constraints:
        if not isinstance(constraint, FixAtoms):
            raise ConfigError(
                f"OpenMM cannot be told of the constraint {type(constraint).__name__}",
                wanted="FixAtoms, or none",
                remedy="remove it with atoms.set_constraint()",
            )
        masses[constraint.index] = 0.0
    return masses


def _widths(box: np.ndarray) -> np.ndarray:
    """Distances between opposite faces, Å."""
    widths: np.ndarray = 1.0 / np.linalg.norm(np.linalg.inv(box), axis=0)
    return widths


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
