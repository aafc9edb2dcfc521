"""Surface energies: slabs of a crystal cut along planes of its lattice, every distinct place of the cut."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import ase
import numpy as np
from ase.calculators.calculator import BaseCalculator
from pydantic import Field, PositiveFloat

from adatom.config import Config
from adatom.errors import ConfigError
from adatom.potential import Potential
from adatom.properties.crystal import at_rest, conventional_cell, cutoff_of, primitive_cell
from adatom.sim.many import evaluate
from adatom.sim.relax import as_calculator
from adatom.sim.settle import settle
from adatom.sim.symmetry import SpaceGroup, space_group

J_PER_M2 = 16.02176634  # eV/Å^2
SAME_LEVEL = 0.1  # Å, of atoms that belong to one plane
SAME_ENERGY = 1e-4  # J/m^2, of cuts that are the same by symmetry
THICKNESS = 12.0  # Å

Miller = tuple[int, int, int]


class SurfaceConfig(Config):
    """Which planes, and how thick the slabs.

    ``indices`` (h, k, l) in the axes of the conventional cell; None for every distinct plane with indices up to
    ``max_index``. Slabs are at least ``thickness_A`` thick, None for 12 Å or twice the cutoff; ``vacuum_A`` lies
    between a slab and its image.
    """

    indices: tuple[Miller, ...] | None = None
    max_index: int = Field(default=1, ge=1, le=4)
    thickness_A: PositiveFloat | None = None
    vacuum_A: PositiveFloat = 15.0
    fmax: PositiveFloat = 0.01
    smax_GPa: PositiveFloat = 0.02
    steps: int = Field(default=500, ge=1)


@dataclass(frozen=True)
class Surface:
    """One cut through the crystal. Energies are means of the two sides of the slab, which has whole layers."""

    miller: Miller
    cut: int  # number of the cut among those of this plane, that of least unrelaxed energy first
    unrelaxed_J_per_m2: float
    relaxed_J_per_m2: float | None  # None where the atoms did not come to rest
    alike: bool  # both sides of the slab are the same by symmetry; if not, no energy of one side is known
    layers: int
    atoms: int
    thickness_A: float
    area_A2: float  # of the cell of the slab
    converged: bool
    steps: int
    fmax: float  # eV/Å
    slab: ase.Atoms  # as it came to rest, z along the normal

    @property
    def name(self) -> str:
        """As in ``(1 1 -1)``."""
        return "(" + " ".join(str(i) for i in self.miller) + ")"


@dataclass(frozen=True)
class Surfaces:
    """Surface energies, planes in the order given, the cuts of a plane by their unrelaxed energies."""

    cuts: tuple[Surface, ...]
    vacuum_A: float
    space_group: str
    warnings: tuple[str, ...]

    def best(self) -> dict[Miller, Surface]:
        """The cut of least energy of every plane: relaxed where there is such an energy."""
        found: dict[Miller, Surface] = {}
        for cut in self.cuts:
            if cut.miller not in found or _energy(cut) < _energy(found[cut.miller]):
                found[cut.miller] = cut
        return found

    def to_record(self) -> dict[str, Any]:
        """As the report reads it."""
        left_out = ("slab",)
        cuts = [
            {key: value for key, value in _plain(cut).items() if key not in left_out} | {"name": cut.name}
            for cut in self.cuts
        ]
        return {
            "property": "surface",
            "space_group": self.space_group,
            "vacuum_A": self.vacuum_A,
            "cuts": cuts,
            "warnings": list(self.warnings),
        }


class Cut(NamedTuple):
    """A slab before it relaxes."""

    miller: Miller
    slab: ase.Atoms
    layers: int
    thickness: float  # Å
    area: float  # Å^2


def surfaces(
    atoms: ase.Atoms,
    calculator: BaseCalculator | Potential | str | Path,
    *,
    indices: Sequence[Miller] | None = None,
    max_index: int = 1,
    thickness_A: float | None = None,
    vacuum_A: float = 15.0,
    fmax: float = 0.01,
    smax_GPa: float = 0.02,
    steps: int = 500,
    progress: Callable[[str], None] | None = None,
) -> Surfaces:
    """Surface energies (E_slab - E_crystal) / 2A; the parameters are those of SurfaceConfig.

    Slabs are whole layers of the primitive lattice, so of the composition of the crystal; each plane is cut between
    every two of its levels of atoms. Unrelaxed slabs are one batch, and all relax together, in 1 x 1 cells with the
    spacing of the crystal: reconstructions that need more room are not found.

    Raises
    ------
    ConfigError
        Parameters that make no sense: (0 0 0), vacuum or slab thinner than the cutoff.
    StressError, GeometryError
        No crystal.
    SimulationError
        The crystal does not come to rest. Where only a slab does not, it is said in the result.
    """
    config = SurfaceConfig.parse(
        {
            "indices": None if indices is None else tuple(tuple(i) for i in indices), "max_index": max_index,
            "thickness_A": thickness_A, "vacuum_A": vacuum_A, "fmax": fmax, "smax_GPa": smax_GPa, "steps": steps,
        },
        where="surface",
    )  # fmt: skip
    say = progress or (lambda _: None)
    engine = as_calculator(calculator)
    thickness, warnings = _thickness(config, cutoff_of(engine))
    say("relaxing the crystal")
    crystal = conventional_cell(at_rest(atoms, engine, min(config.fmax, 0.005), config.smax_GPa, config.steps).atoms)
    group = space_group(crystal)
    planes = config.indices or distinct_planes(group, config.max_index)
    cuts = [cut for plane in planes for cut in slabs(crystal, plane, thickness, config.vacuum_A)]
    say(f"{len(cuts)} cuts through {len(planes)} planes")
    primitive = primitive_cell(crystal)
    whole, *rigid = evaluate([primitive, *(cut.slab for cut in cuts)], engine, forces=False)

    def per_area(cut: Cut, energy: float) -> float:
        return J_PER_M2 * (energy - cut.layers * whole.energy) / (2.0 * cut.area)

    unrelaxed = [per_area(cut, one.energy) for cut, one in zip(cuts, rigid, strict=True)]
    kept = _different(cuts, unrelaxed)
    rest = settle(
        [cuts[k].slab for k in kept], engine, fmax=config.fmax, steps=config.steps,
        progress=lambda step, left: say(f"step {step}: {left} of {len(kept)} slabs still moving"),
    )  # fmt: skip
    found: list[Surface] = []
    for k, end in zip(kept, rest, strict=True):
        cut = cuts[k]
        number = sum(other.miller == cut.miller for other in found)
        relaxed = per_area(cut, end.evaluation.energy) if end.converged else None
        found.append(
            Surface(
                cut.miller, number, unrelaxed[k], relaxed, _alike(cut.slab), cut.layers, len(cut.slab), cut.thickness,
                cut.area, end.converged, end.steps, end.fmax, end.atoms,
            )
        )  # fmt: skip
    for one in found:
        if not one.converged:
            warnings.append(
                f"{one.name}, cut {one.cut}: the slab did not come to rest in {one.steps} steps ({one.fmax:.3g} eV/Å, "
                f"wanted {config.fmax:g}): no relaxed energy is given"
            )
    return Surfaces(tuple(found), config.vacuum_A, str(group), tuple(warnings))


def slabs(crystal: ase.Atoms, miller: Miller, thickness: float, vacuum: float) -> list[Cut]:
    """Slabs of a crystal (its conventional cell) along a plane, one for every place of the cut; ConfigError for 0 0 0.

    z is the normal, x along the shortest lattice vector of the plane.
    """
    primitive = primitive_cell(crystal)
    plane = _in_primitive(crystal, primitive, miller)
    across, along, out = _oriented(plane, primitive.cell.array)
    normal = np.cross(across, along)
    area = float(np.linalg.norm(normal))
    frame = np.array([across / np.linalg.norm(across), np.zeros(3), normal / area])
    frame[1] = np.cross(frame[2], frame[0])
    across, along, out = across @ frame.T, along @ frame.T, out @ frame.T
    if out[2] < 0.0:
        out = -out
    spacing = float(out[2])
    layers = math.ceil(thickness / spacing - 1e-6)
    positions = primitive.positions @ frame.T
    positions -= np.floor(positions[:, 2:] / spacing) * out  # heights in [0, spacing)
    cuts = []
    for height in _gaps(positions[:, 2], spacing):
        lowest = positions + (positions[:, 2:] < height) * out
        stack = np.concatenate([lowest + k * out for k in range(layers)])
        stack[:, 2] += 0.5 * vacuum - height
        cell = np.array([across, along, [0.0, 0.0, layers * spacing + vacuum]])
        slab = ase.Atoms(np.tile(primitive.numbers, layers), positions=stack, cell=cell, pbc=True)
        slab.info.update(primitive.info)
        slab.wrap(pbc=(True, True, False))
        cuts.append(Cut(miller, slab, layers, layers * spacing, area))
    return cuts


def distinct_planes(group: SpaceGroup, highest: int) -> tuple[Miller, ...]:
    """Planes with indices up to ``highest`` that no rotation of the crystal carries into one another."""
    span = range(-highest, highest + 1)
    found: list[Miller] = []
    seen: set[Miller] = set()
    # the plain ones first: small, positive, in order
    for plane in sorted(product(span, repeat=3), key=lambda p: (sum(map(abs, p)), [(i < 0, -i) for i in p])):
        if math.gcd(*plane) != 1 or plane in seen:
            continue
        found.append((plane[0], plane[1], plane[2]))
        for turned in np.array(plane) @ group.rotations:
            h, k, m = (int(i) for i in turned)
            seen |= {(h, k, m), (-h, -k, -m)}
    return tuple(found)


def _in_primitive(crystal: ase.Atoms, primitive: ase.Atoms, miller: Miller) -> tuple[int, int, int]:
    """The same plane in the axes of the primitive cell, without a common divisor."""
    normal = np.array(miller) @ np.linalg.inv(crystal.cell.array).T
    sixths = np.round(6.0 * primitive.cell.array @ normal).astype(int)  # centred cells have halves and thirds
    divisor = math.gcd(*(int(i) for i in sixths))
    if divisor == 0:
        raise ConfigError(
            "(0 0 0) is no plane", where="surface", wanted="three indices, not all zero", remedy="say --miller 111"
        )
    h, k, m = (int(i) // divisor for i in sixths)
    return h, k, m


def _oriented(plane: tuple[int, int, int], cell: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two short lattice vectors in a plane, and a third that leads to the next lattice plane; (3,) Å each."""
    h, k, m = plane
    g, p, q = _bezout(h, k)  # h p + k q = g
    _, r, s = _bezout(g, m)  # g r + m s = 1
    if g == 0:
        u, v, w = np.array([1, 0, 0]), np.array([0, 1, 0]), np.array([0, 0, s])
    else:
        u, v, w = np.array([k // g, -h // g, 0]), np.array([-m * p, -m * q, g]), np.array([r * p, r * q, s])
    across, along = u @ cell, v @ cell
    while True:  # the shortest basis of the plane, by Gauss
        if np.linalg.norm(along) < np.linalg.norm(across) - 1e-9:
            across, along = along, across
        whole = round(float(across @ along) / float(across @ across))
        if whole == 0:
            return across, along, w @ cell
        along = along - whole * across


def _bezout(a: int, b: int) -> tuple[int, int, int]:
    """Greatest common divisor g >= 0 of two integers, and x, y with a x + b y = g."""
    if b == 0:
        return (abs(a), 1 if a >= 0 else -1, 0)
    g, x, y = _bezout(b, a % b)
    return g, y, x - (a // b) * y


def _gaps(heights: np.ndarray, spacing: float) -> list[float]:
    """Heights in [0, spacing) in the middle between neighbouring levels of atoms."""
    levels = np.sort(heights)
    gaps = np.diff(np.append(levels, levels[0] + spacing))
    middles = levels + 0.5 * gaps
    chosen = middles[gaps > SAME_LEVEL]
    return [float(height) for height in np.sort(chosen % spacing)]


def _different(cuts: Sequence[Cut], energies: Sequence[float]) -> list[int]:
    """Numbers of the cuts that differ, those of one plane by their energies."""
    kept: list[int] = []
    for plane in dict.fromkeys(cut.miller for cut in cuts):
        of_plane = sorted((k for k, cut in enumerate(cuts) if cut.miller == plane), key=lambda k: energies[k])
        last = -math.inf
        for k in of_plane:
            if energies[k] - last > SAME_ENERGY:
                kept.append(k)
                last = energies[k]
    return kept


def _alike(slab: ase.Atoms) -> bool:
    """Whether an operation of the slab carries one side into the other."""
    turns = space_group(slab).cartesian(slab.cell.array)
    return bool((turns[:, 2, 2] < -0.5).any())


def _thickness(config: SurfaceConfig, cutoff: float | None) -> tuple[float, list[str]]:
    """Least thickness in Å, and what is to be said of it; ConfigError where vacuum or slab is below the cutoff."""
    thickness = config.thickness_A or max(THICKNESS, 2.0 * (cutoff or 0.0))
    for name, value in (("vacuum", config.vacuum_A), ("thickness", thickness)):
        if cutoff is not None and value < cutoff:
            raise ConfigError(
                "the two sides of a slab feel one another",
                where=f"surface, --{name} ({name}_A)",
                wanted=f"more than the cutoff of the potential, {cutoff:g} Å",
                got=f"{value:g} Å",
                remedy=f"give --{name} {max(2.0 * cutoff, THICKNESS):g}",
            )
    thin = cutoff is not None and thickness < 2.0 * cutoff
    return thickness, [f"slabs of {thickness:g} Å are thinner than twice the cutoff of {cutoff:g} Å"] if thin else []


def _energy(cut: Surface) -> float:
    return cut.unrelaxed_J_per_m2 if cut.relaxed_J_per_m2 is None else cut.relaxed_J_per_m2


def _plain(cut: Surface) -> dict[str, Any]:
    return {name: getattr(cut, name) for name in cut.__dataclass_fields__} | {"miller": list(cut.miller)}
