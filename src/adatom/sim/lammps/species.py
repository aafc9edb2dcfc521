"""Which type of LAMMPS is which element."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from ase.data import atomic_masses

from adatom.elements import MAX_Z, number, symbol, symbols
from adatom.errors import ConfigError, UnknownElementError
from adatom.potential import Potential

NEAR, ALIKE = 0.02, 0.001  # relative difference of masses: this may be the element, this is the element

_MAP = "name an element for each type, in their order: pair_coeff * * Si O, or --elements Si,O"


def type_map(names: Sequence[str], masses: np.ndarray, potential: Potential, where: str | None) -> np.ndarray:
    """Atomic number of each type, (T,), type 1 first.

    Parameters
    ----------
    names
        Symbols in the order of the types; none: found by the masses among the elements of the potential.
    masses
        Mass of each type in amu, (T,).
    potential
        The one to be asked.
    where
        Where the names were given, for errors.

    Raises
    ------
    ConfigError
        More or fewer names than types, names that are no elements, or a type whose mass is that of another element.
    UnknownElementError
        The potential does not know one of them.
    """
    if names:
        found = [number(name, where) for name in names]
    else:
        found = [_by_mass(mass, k, potential) for k, mass in _typed(masses)]
    if len(found) != len(masses):
        raise ConfigError(
            "the type map does not fit",
            where=where,
            wanted=f"{len(masses)} elements, for as many types of atoms",
            got=f"{len(found)}: {' '.join(names)}",
            remedy=_MAP,
        )
    unknown = sorted(set(found) - set(potential.elements))
    if unknown:
        raise UnknownElementError(
            f"this potential does not know {', '.join(symbols(unknown))}",
            where=where,
            wanted=f"elements among {', '.join(symbols(potential.elements))}",
            got=" ".join(symbols(found)),
            remedy="use a potential trained on these elements, or teach it: adatom finetune MODEL NEW_DATA",
        )
    for (kind, mass), z in zip(_typed(masses), found, strict=True):
        _check_mass(kind, mass, z, where)
    return np.array(found, dtype=np.int64)


def _typed(masses: np.ndarray) -> Iterable[tuple[int, float]]:
    return enumerate((float(mass) for mass in masses), start=1)


def _by_mass(mass: float, kind: int, potential: Potential) -> int:
    """The element of the potential that has such a mass."""
    known = np.array(potential.elements)
    off = np.abs(atomic_masses[known] / mass - 1.0) if mass > 0.0 else np.full(len(known), np.inf)
    if off.min() > NEAR:
        raise ConfigError(
            f"no element of this potential has the mass of type {kind}",
            where="mass",
            wanted=", ".join(f"{symbol(z)} {atomic_masses[z]:.3f}" for z in known),
            got=f"{mass:g} amu",
            remedy=_MAP,
        )
    return int(known[off.argmin()])


def _check_mass(kind: int, mass: float, z: int, where: str | None) -> None:
    """ConfigError for a type that has just the mass of another element: the order is wrong. Isotopes may pass."""
    every = atomic_masses[1 : MAX_Z + 1]
    nearest = int(np.abs(every - mass).argmin()) + 1
    if abs(mass / atomic_masses[z] - 1.0) > NEAR and abs(mass / atomic_masses[nearest] - 1.0) < ALIKE:
        raise ConfigError(
            "the type map does not fit the masses",
            where=where,
            wanted=f"type {kind} as {symbol(nearest)}, for it has a mass of {mass:g} amu",
            got=f"{symbol(z)} ({atomic_masses[z]:.3f} amu)",
            remedy=_MAP + "; or correct the mass",
        )
