"""Vacancies: the energy it takes to remove one atom from each kind of site of a crystal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ase
import numpy as np
from ase.calculators.calculator import BaseCalculator
from pydantic import Field, NonNegativeFloat, PositiveFloat

from adatom.config import Config
from adatom.errors import ConfigError
from adatom.potential import Potential
from adatom.properties.crystal import Supercell, at_rest, conventional_cell, supercell
from adatom.sim.calculator import require_volume
from adatom.sim.many import evaluate
from adatom.sim.relax import as_calculator
from adatom.sim.settle import settle
from adatom.sim.symmetry import space_group


class VacancyConfig(Config):
    """Supercell, and how the atoms around a vacancy come to rest.

    ``length_A``: no vacancy nearer than this to its images, None for 12 Å or twice the cutoff; ``repeats`` of the
    conventional cell instead. The atoms are moved at random by ``rattle_A`` first: in perfect symmetry they could come
    to rest on a saddle. ``potentials``: energy (eV) of the reservoir that an atom of each element goes to.
    """

    length_A: PositiveFloat | None = None
    repeats: tuple[int, int, int] | None = None
    rattle_A: NonNegativeFloat = Field(default=0.03, le=0.3)
    seed: int = Field(default=0, ge=0)
    potentials: dict[str, float] | None = None
    fmax: PositiveFloat = 0.01
    smax_GPa: PositiveFloat = 0.02
    steps: int = Field(default=500, ge=1)


@dataclass(frozen=True)
class Vacancy:
    """One kind of site.

    ``relaxed_eV`` is None where the atoms did not come to rest within the steps allowed.
    """

    element: str
    site: str  # Wyckoff-like: element and number of equivalent sites of the conventional cell
    multiplicity: int
    potential_eV: float  # of the reservoir
    unrelaxed_eV: float  # formation energy, atoms where they were
    relaxed_eV: float | None  # formation energy, atoms at rest in the same cell
    converged: bool
    steps: int
    fmax: float  # eV/Å
    farthest_A: float  # the longest way of an atom


@dataclass(frozen=True)
class Vacancies:
    """Formation energies E(vacancy) + mu - E(crystal) at the volume of the perfect crystal, neutral."""

    sites: tuple[Vacancy, ...]
    reference: str  # where the chemical potentials come from
    space_group: str
    supercell: Supercell
    warnings: tuple[str, ...]

    def to_record(self) -> dict[str, Any]:
        """As the report reads it."""
        return {
            "property": "vacancy",
            "space_group": self.space_group,
            "supercell": self.supercell.to_record(),
            "reference": self.reference,
            "sites": [asdict(site) for site in self.sites],
            "warnings": list(self.warnings),
        }


def vacancies(
    atoms: ase.Atoms,
    calculator: BaseCalculator | Potential | str | Path,
    *,
    length_A: float | None = None,
    repeats: tuple[int, int, int] | None = None,
    rattle_A: float = 0.03,
    seed: int = 0,
    potentials: Mapping[str, float] | None = None,
    fmax: float = 0.01,
    smax_GPa: float = 0.02,
    steps: int = 500,
    progress: Callable[[str], None] | None = None,
) -> Vacancies:
    """Formation energy of a vacancy on every kind of site; the parameters are those of VacancyConfig.

    E_f = E(N - 1) + mu - E(N). For a crystal of one element mu is its own energy per atom; a compound needs
    ``potentials``. Supercells with a vacancy relax together, in the cell of the perfect crystal.

    Raises
    ------
    ConfigError
        Parameters that make no sense, a compound without chemical potentials, a supercell too small for the cutoff.
    StressError, GeometryError
        No crystal.
    SimulationError
        The perfect crystal does not come to rest. Where only a vacancy does not, it is said in the result.
    """
    config = VacancyConfig.parse(
        {
            "length_A": length_A, "repeats": repeats, "rattle_A": rattle_A, "seed": seed, "fmax": fmax,
            "potentials": None if potentials is None else dict(potentials), "smax_GPa": smax_GPa, "steps": steps,
        },
        where="vacancy",
    )  # fmt: skip
    say = progress or (lambda _: None)
    engine = as_calculator(calculator)
    require_volume(atoms)
    _require_potentials(atoms, config.potentials)
    say("relaxing the crystal")
    crystal = conventional_cell(at_rest(atoms, engine, min(config.fmax, 0.005), config.smax_GPa, config.steps).atoms)
    group = space_group(crystal)
    cell = supercell(crystal, engine, config.length_A, config.repeats)
    kinds, counts = np.unique(group.equivalent, return_counts=True)
    holes = [_without(cell.atoms, int(k)) for k in kinds]
    say(f"{len(holes)} kinds of sites in a supercell of {len(cell.atoms)} atoms")
    perfect, *rigid = evaluate([cell.atoms, *holes], engine, forces=False)
    moved = [_rattled(hole, config.rattle_A, config.seed) for hole in holes]
    rest = settle(
        moved, engine, fmax=config.fmax, steps=config.steps,
        progress=lambda step, left: say(f"step {step}: {left} still moving"),
    )  # fmt: skip
    sites = []
    for kind, count, hole, still, end in zip(kinds, counts, holes, rigid, rest, strict=True):
        element = crystal.get_chemical_symbols()[int(kind)]
        mu = (config.potentials or {}).get(element, perfect.energy / len(cell.atoms))
        formed = end.evaluation.energy + mu - perfect.energy
        sites.append(
            Vacancy(
                element,
                f"{element}, {count} a cell",
                int(count),
                float(mu),
                still.energy + mu - perfect.energy,
                formed if end.converged else None,
                end.converged,
                end.steps,
                end.fmax,
                float(np.linalg.norm(end.atoms.positions - hole.positions, axis=1).max(initial=0.0)),
            )
        )
    own = config.potentials is None
    return Vacancies(
        tuple(sites),
        "energy per atom of the same crystal" if own else "chemical potentials that were given",
        str(group),
        cell,
        (*cell.warnings, *(_not_at_rest(site, config) for site in sites if not site.converged)),
    )


def _require_potentials(atoms: ase.Atoms, potentials: dict[str, float] | None) -> None:
    """ConfigError for a compound whose elements have no chemical potentials, and for those of others instead."""
    elements = sorted(set(atoms.get_chemical_symbols()))
    missing = [name for name in elements if name not in (potentials or {})]
    strangers = [name for name in potentials or {} if name not in elements]
    if missing and strangers:
        alone = ", or none at all: a crystal of one element is its own reservoir" if len(elements) == 1 else ""
        raise ConfigError(
            f"a chemical potential of {', '.join(strangers)}, which this crystal does not have",
            where=f"{atoms.get_chemical_formula()}, vacancy, --mu (potentials)",
            wanted=f"an energy in eV for each of {', '.join(elements)}{alone}",
            got=f"{', '.join(strangers)}, and none for {', '.join(missing)}",
            remedy="name elements of the crystal",
        )
    if missing and (len(elements) > 1 or potentials is not None):
        raise ConfigError(
            "a vacancy in a compound needs to know where the atom goes: the chemical potential of its element",
            where=f"{atoms.get_chemical_formula()}, vacancy",
            wanted=f"an energy in eV for each of {', '.join(elements)}",
            got=f"none for {', '.join(missing)}",
            remedy="compute a reservoir with the same potential (the elemental crystal, half a molecule) and give "
            f"potentials={{'{missing[0]}': energy per atom}}, or --mu {missing[0]}=ENERGY",
        )


def _without(atoms: ase.Atoms, number: int) -> ase.Atoms:
    left = atoms.copy()
    del left[number]
    return left


def _rattled(atoms: ase.Atoms, size: float, seed: int) -> ase.Atoms:
    """Every atom moved at random; ``size`` is the standard deviation of each coordinate, Å."""
    moved = atoms.copy()
    moved.positions += np.random.default_rng(seed).normal(0.0, size, moved.positions.shape)
    return moved


def _not_at_rest(site: Vacancy, config: VacancyConfig) -> str:
    return (
        f"the atoms around the vacancy of {site.site} did not come to rest in {site.steps} steps "
        f"({site.fmax:.3g} eV/Å, wanted {config.fmax:g}): no relaxed energy is given"
    )
