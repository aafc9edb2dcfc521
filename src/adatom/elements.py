"""Elements by symbol and number, and the radii that priors and checks need."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from ase.data import atomic_numbers, chemical_symbols, covalent_radii

from adatom.errors import ConfigError

MAX_Z = 118


def symbol(number: int) -> str:
    """Chemical symbol of an atomic number."""
    return str(chemical_symbols[int(number)])


def symbols(numbers: Iterable[int]) -> list[str]:
    """Chemical symbols, in the order given."""
    return [symbol(z) for z in numbers]


def number(name: str, where: str | None = None) -> int:
    """Atomic number of a symbol; ConfigError, naming where it was given, when there is no such element."""
    if name not in atomic_numbers or name == "X":
        raise ConfigError(
            f"'{name}' is no element",
            where=where,
            wanted="a chemical symbol such as Si",
            got=name,
            remedy="correct it; capitals count",
        )
    return int(atomic_numbers[name])


def covalent_radius(numbers: np.ndarray | int) -> np.ndarray:
    """Covalent radii in Å (Cordero et al., Dalton Trans. 2832, 2008), as ASE tabulates them."""
    return np.asarray(covalent_radii[numbers], dtype=np.float64)
