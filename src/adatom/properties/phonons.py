"""Phonons of a crystal at rest: bands, density of states, thermal properties; forces of displaced supercells."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import ase
import numpy as np
from ase import units as ase_units
from ase.calculators.calculator import BaseCalculator
from ase.dft.kpoints import parse_path_string
from ase.geometry import find_mic
from pydantic import Field, PositiveFloat

from adatom.config import Config
from adatom.errors import ConfigError
from adatom.potential import Potential
from adatom.properties.crystal import Supercell, at_rest, conventional_cell, supercell
from adatom.sim.many import Evaluation, evaluate
from adatom.sim.relax import as_calculator
from adatom.sim.symmetry import space_group
from adatom.units import BOLTZMANN

THZ = float(ase_units._hplanck * 1e12 / ase_units._e)  # eV: h times 1 THz
PATH_SPACING = 0.03  # 1/Å, of points along the bands
FAINT = 0.05  # of the strongest force constant: more than this at the edge of the supercell is cut off there


class PhononsConfig(Config):
    """Supercell, displacement, mesh and temperatures.

    ``length_A``: no atom nearer than this to its images, None for 12 Å or twice the cutoff; ``repeats`` of the
    conventional cell instead. ``mesh_spacing`` of wave vectors, 1/Å. A frequency below minus ``imaginary_THz`` counts
    as imaginary; thermal properties leave out what is below plus that.
    """

    length_A: PositiveFloat | None = None
    repeats: tuple[int, int, int] | None = None
    displacement_A: float = Field(default=0.01, gt=0.0, le=0.2)
    mesh_spacing: float = Field(default=0.1, ge=0.01, le=1.0)
    temperature_max_K: float = Field(default=1000.0, gt=0.0)
    temperature_step_K: float = Field(default=10.0, gt=0.0)
    imaginary_THz: float = Field(default=0.05, gt=0.0)
    fmax: PositiveFloat = 0.001
    smax_GPa: PositiveFloat = 0.02
    steps: int = Field(default=500, ge=1)


@dataclass(frozen=True)
class Segment:
    """Bands from one special point to another; wave vectors in units of the reciprocal primitive cell."""

    start: str
    end: str
    qpoints: np.ndarray  # (Q, 3)
    distances: np.ndarray  # (Q,)  1/Å, from the start of the path
    frequencies: np.ndarray  # (Q, 3n)  THz; negative where imaginary


@dataclass(frozen=True)
class Thermal:
    """Harmonic thermal properties per atom, at temperatures in K."""

    temperatures: np.ndarray  # (T,)
    free_energy_eV: np.ndarray  # (T,)  zero-point energy included, the energy at rest not
    entropy_kB: np.ndarray  # (T,)
    heat_capacity_kB: np.ndarray  # (T,)  at constant volume; 3 at high temperature (Dulong and Petit)
    zero_point_eV: float

    def at(self, temperature: float) -> tuple[float, float, float]:
        """Free energy (eV), entropy and heat capacity (kB) per atom at a temperature in K, between the points.

        NaN beyond the last.
        """
        if temperature > self.temperatures[-1]:
            return math.nan, math.nan, math.nan
        curves = (self.free_energy_eV, self.entropy_kB, self.heat_capacity_kB)
        free, entropy, heat = (float(np.interp(temperature, self.temperatures, curve)) for curve in curves)
        return free, entropy, heat


@dataclass(frozen=True)
class Softest:
    """The lowest frequency found on mesh and path, THz (negative: imaginary), and its wave vector."""

    frequency_THz: float
    qpoint: tuple[float, float, float]
    place: str  # name of the special point, if it is one
    imaginary_share: float  # of the modes of the mesh


@dataclass(frozen=True)
class Phonons:
    """Harmonic vibrations of a crystal."""

    segments: tuple[Segment, ...]
    dos_THz: np.ndarray  # (P,)
    dos_per_atom: np.ndarray  # (P,)  1/THz; the integral is 3
    thermal: Thermal
    softest: Softest
    stable: bool  # no imaginary frequency
    acoustic_eV_per_A2: float  # largest sum of force constants over the atoms, before it was made zero
    edge: float  # strongest force constant at the edge of the supercell by the strongest of all pairs
    space_group: str
    atoms: ase.Atoms  # the primitive cell that wave vectors refer to
    supercell: Supercell
    displacements: int
    mesh: tuple[int, int, int]
    warnings: tuple[str, ...]

    def to_record(self) -> dict[str, Any]:
        """As the report reads it."""
        return {
            "property": "phonons",
            "space_group": self.space_group,
            "supercell": self.supercell.to_record(),
            "displacements": self.displacements,
            "mesh": list(self.mesh),
            "primitive_cell_A": self.atoms.cell.tolist(),
            "bands": [
                {
                    "from": part.start,
                    "to": part.end,
                    "q": part.qpoints.tolist(),
                    "distance_per_A": part.distances.tolist(),
                    "frequency_THz": part.frequencies.T.tolist(),  # one list for each band
                }
                for part in self.segments
            ],
            "dos": {"frequency_THz": self.dos_THz.tolist(), "per_THz_and_atom": self.dos_per_atom.tolist()},
            "thermal": {
                "temperature_K": self.thermal.temperatures.tolist(),
                "free_energy_eV_per_atom": self.thermal.free_energy_eV.tolist(),
                "entropy_kB_per_atom": self.thermal.entropy_kB.tolist(),
                "heat_capacity_kB_per_atom": self.thermal.heat_capacity_kB.tolist(),
            },
            "zero_point_eV_per_atom": self.thermal.zero_point_eV,
            "highest_THz": float(max(part.frequencies.max() for part in self.segments)),
            "softest_THz": self.softest.frequency_THz,
            "softest_q": list(self.softest.qpoint),
            "softest_place": self.softest.place,
            "imaginary_share": self.softest.imaginary_share,
            "stable": self.stable,
            "acoustic_eV_per_A2": self.acoustic_eV_per_A2,
            "edge": self.edge,
            "warnings": list(self.warnings),
        }


class Plan(NamedTuple):
    """A crystal ready to be displaced: the object of phonopy, the supercell, and what is to be evaluated."""

    phonopy: Any
    cell: Supercell
    structures: list[ase.Atoms]  # the supercell at rest, then the displaced ones


class Modes(NamedTuple):
    """Frequencies on a mesh of wave vectors."""

    qpoints: np.ndarray  # (Q, 3)
    frequencies: np.ndarray  # (Q, 3n)  THz
    weights: np.ndarray  # (Q,)  their sum is one
    mesh: tuple[int, int, int]


def phonons(
    atoms: ase.Atoms,
    calculator: BaseCalculator | Potential | str | Path,
    *,
    length_A: float | None = None,
    repeats: tuple[int, int, int] | None = None,
    displacement_A: float = 0.01,
    mesh_spacing: float = 0.1,
    temperature_max_K: float = 1000.0,
    temperature_step_K: float = 10.0,
    imaginary_THz: float = 0.05,
    fmax: float = 0.001,
    smax_GPa: float = 0.02,
    steps: int = 500,
    progress: Callable[[str], None] | None = None,
) -> Phonons:
    """Phonons by finite displacements (phonopy); the parameters are those of PhononsConfig.

    Atoms and cell come to rest first. The displaced supercells are evaluated as one batch, the forces of the supercell
    at rest taken off; force constants are made symmetric and free of net forces. No dipoles: what splits longitudinal
    from transverse optical modes at the centre of the zone of a polar crystal is missing. ``progress`` is called with
    what is being done.

    Raises
    ------
    ConfigError
        Parameters that make no sense, a supercell too small for the cutoff, or phonopy is missing.
    StressError, GeometryError
        No crystal.
    SimulationError
        The crystal does not come to rest.
    """
    config = PhononsConfig.parse(
        {
            "length_A": length_A, "repeats": repeats, "displacement_A": displacement_A, "mesh_spacing": mesh_spacing,
            "temperature_max_K": temperature_max_K, "temperature_step_K": temperature_step_K,
            "imaginary_THz": imaginary_THz, "fmax": fmax, "smax_GPa": smax_GPa, "steps": steps,
        },
        where="phonons",
    )  # fmt: skip
    require_phonopy()
    say = progress or (lambda _: None)
    engine = as_calculator(calculator)
    say("relaxing the crystal")
    rest = at_rest(atoms, engine, config.fmax, config.smax_GPa, config.steps)
    plan = planned(conventional_cell(rest.atoms), engine, config.length_A, config.repeats, config.displacement_A)
    say(f"{len(plan.structures) - 1} displaced supercells of {len(plan.cell.atoms)} atoms")
    acoustic = force_constants(plan, evaluate(plan.structures, engine))
    say("bands, density of states, thermal properties")
    found = modes(plan.phonopy, config.mesh_spacing)
    segments, names = _bands(plan.phonopy)
    softest = _softest(found, segments, names, config.imaginary_THz)
    plan.phonopy.run_total_dos()
    primitive = _atoms(plan.phonopy.primitive)
    edge = _edge(plan)
    temperatures = np.arange(0.0, config.temperature_max_K + 1e-6, config.temperature_step_K)
    return Phonons(
        segments,
        np.array(plan.phonopy.total_dos.frequency_points),
        np.array(plan.phonopy.total_dos.dos) / len(primitive),
        thermal(found, temperatures, config.imaginary_THz),
        softest,
        softest.frequency_THz > -config.imaginary_THz,
        acoustic,
        edge,
        str(space_group(primitive)),
        primitive,
        plan.cell,
        len(plan.structures) - 1,
        found.mesh,
        (*plan.cell.warnings, *_warnings(softest, edge, config.imaginary_THz)),
    )


def planned(
    conventional: ase.Atoms,
    calculator: BaseCalculator,
    length_A: float | None,
    repeats: tuple[int, int, int] | None,
    displacement_A: float,
) -> Plan:
    """Displaced supercells of a crystal at rest, given by its conventional cell; ConfigError where it is too small."""
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms

    cell = supercell(conventional, calculator, length_A, repeats)
    unit = PhonopyAtoms(
        numbers=conventional.numbers,
        cell=conventional.cell.array,
        scaled_positions=conventional.get_scaled_positions(),
        masses=conventional.get_masses(),
    )
    # P, F, I, A, C or R: from the conventional to the primitive cell
    centring: Any = space_group(conventional).symbol[0]
    found: Any = Phonopy(unit, supercell_matrix=np.diag(cell.repeats), primitive_matrix=centring)
    found.generate_displacements(distance=displacement_A)
    displaced = [_atoms(one, conventional.info) for one in found.supercells_with_displacements]
    return Plan(found, cell, [_atoms(found.supercell, conventional.info), *displaced])


def force_constants(plan: Plan, found: Sequence[Evaluation]) -> float:
    """Give the plan its force constants, symmetric; the largest net force constant before, eV/Å^2."""
    plan.phonopy.forces = np.array([one.forces - found[0].forces for one in found[1:]])
    plan.phonopy.produce_force_constants()
    net = float(np.abs(plan.phonopy.force_constants.sum(axis=1)).max())
    plan.phonopy.symmetrize_force_constants()
    return net


def modes(phonopy: Any, spacing: float) -> Modes:
    """Frequencies on a mesh through the centre of the zone, wave vectors ``spacing`` (1/Å) apart."""
    heights = 2.0 * math.pi * np.linalg.norm(np.linalg.inv(phonopy.primitive.cell), axis=0)  # of the reciprocal cell
    a, b, c = (max(int(n), 1) for n in np.ceil(heights / spacing - 1e-6))
    phonopy.run_mesh([a, b, c], is_gamma_center=True)
    weights = np.array(phonopy.mesh.weights, dtype=np.float64)
    mesh = phonopy.mesh
    return Modes(np.array(mesh.qpoints), np.array(mesh.frequencies), weights / weights.sum(), (a, b, c))


def thermal(found: Modes, temperatures: np.ndarray, least_THz: float) -> Thermal:
    """Sums over the modes with frequencies above ``least_THz``, per atom.

    F = sum [h nu / 2 + kT ln(1 - exp(-x))],  S = k sum [x / (e^x - 1) - ln(1 - exp(-x))],
    C = k sum x^2 e^x / (e^x - 1)^2,  x = h nu / kT.
    """
    real = found.frequencies > least_THz
    energies = THZ * np.where(real, found.frequencies, 1.0)[None]  # (1, Q, 3n)  eV
    weights = np.where(real, found.weights[:, None], 0.0) / (found.frequencies.shape[1] / 3)
    zero_point = float((0.5 * energies[0] * weights).sum())
    kT = BOLTZMANN * np.maximum(temperatures, 1e-3)[:, None, None]  # (T, 1, 1)
    x = np.minimum(energies / kT, 500.0)
    ground = np.log1p(-np.exp(-x))
    filled = x / np.expm1(x)
    return Thermal(
        temperatures,
        zero_point + (kT * ground * weights).sum(axis=(1, 2)),
        ((filled - ground) * weights).sum(axis=(1, 2)),
        (filled**2 * np.exp(x) * weights).sum(axis=(1, 2)),
        zero_point,
    )


def imaginary(found: Modes, least_THz: float) -> float:
    """Share of the modes below minus ``least_THz``."""
    return float(((found.frequencies < -least_THz) * found.weights[:, None]).sum() / found.frequencies.shape[1])


def require_phonopy() -> None:
    """ConfigError unless phonopy is there."""
    try:
        import phonopy  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "phonons need phonopy",
            where="this environment",
            wanted="phonopy 2.38 or later",
            got=str(error),
            remedy="pip install 'adatom[properties]'",
        ) from error


def _bands(phonopy: Any) -> tuple[tuple[Segment, ...], dict[str, np.ndarray]]:
    """Frequencies along the path of the lattice, and its special points in units of the reciprocal primitive cell."""
    cell = ase.Atoms(cell=phonopy.primitive.cell, pbc=True).cell
    path = cell.bandpath(npoints=0)  # ASE gives the points in the axes of the very cell that it is given
    reciprocal = 2.0 * math.pi * cell.reciprocal().array
    segments, travelled = [], 0.0
    for piece in parse_path_string(path.path):
        for start, end in pairwise(piece):
            first, last = path.special_points[start], path.special_points[end]
            length = float(np.linalg.norm((last - first) @ reciprocal))
            along = np.linspace(0.0, 1.0, max(math.ceil(length / PATH_SPACING), 2) + 1)
            qpoints = first + along[:, None] * (last - first)
            phonopy.run_qpoints(qpoints)
            frequencies = np.array(phonopy.qpoints.frequencies)
            segments.append(Segment(start, end, qpoints, travelled + length * along, frequencies))
            travelled += length
    return tuple(segments), path.special_points


def _softest(found: Modes, segments: Sequence[Segment], names: dict[str, np.ndarray], least: float) -> Softest:
    """The lowest frequency of all wave vectors; the three that move the whole crystal are none."""
    qpoints = np.concatenate([found.qpoints, *(part.qpoints for part in segments)])
    lowest = np.concatenate([found.frequencies, *(part.frequencies for part in segments)])
    centre = np.all(np.abs(qpoints - np.round(qpoints)) < 1e-9, axis=1)
    ordered = np.sort(np.where(centre[:, None], _without_translations(lowest), lowest), axis=1)[:, 0]
    worst = int(ordered.argmin())
    q = qpoints[worst]
    place = next((name for name, point in names.items() if np.abs(q - point - np.round(q - point)).max() < 1e-6), "")
    a, b, c = (float(x) for x in q)
    return Softest(float(ordered[worst]), (a, b, c), place, imaginary(found, least))


def _without_translations(frequencies: np.ndarray) -> np.ndarray:
    """The same without the three frequencies nearest to zero of each row."""
    still = np.argsort(np.abs(frequencies), axis=1)[:, :3]
    kept = frequencies.copy()
    np.put_along_axis(kept, still, np.inf, axis=1)
    return kept


def _edge(plan: Plan) -> float:
    """Strongest force constant of pairs about as far apart as half a supercell, by the strongest of all pairs."""
    constants = np.linalg.norm(plan.phonopy.force_constants, axis=(2, 3))  # (N, N)
    positions, cell = plan.phonopy.supercell.positions, plan.phonopy.supercell.cell
    first = int(np.where(np.eye(len(constants)), 0.0, constants).max(axis=1).argmax())
    _, distances = find_mic(positions - positions[first], cell)
    pairs = np.arange(len(constants)) != first
    far = pairs & (distances > 0.45 * plan.cell.length_A)
    return float(constants[first, far].max(initial=0.0) / constants[first, pairs].max(initial=np.finfo(float).tiny))


def _warnings(softest: Softest, edge: float, least: float) -> list[str]:
    said = []
    if softest.frequency_THz < -least:
        q = ", ".join(f"{x:.3f}" for x in softest.qpoint)
        place = f" ({softest.place})" if softest.place else ""
        said.append(
            f"imaginary modes: {-softest.frequency_THz:.2f}i THz at q = ({q}){place}, {softest.imaginary_share:.1%} of "
            "the mesh. The crystal is no minimum at 0 K, or the potential is wrong there; thermal properties leave "
            "them out"
        )
    if edge > FAINT:
        said.append(
            f"force constants at the edge of the supercell still are {edge:.0%} of the strongest: compare with a "
            "larger one"
        )
    return said


def _atoms(cell: Any, info: dict[str, Any] | None = None) -> ase.Atoms:
    """Atoms of phonopy as those of ASE."""
    return ase.Atoms(
        cell.numbers, positions=cell.positions, cell=cell.cell, pbc=True, info=dict(info or {}), masses=cell.masses
    )
