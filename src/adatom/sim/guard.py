"""Physical ground: what a simulation may not leave without being stopped."""

from __future__ import annotations

from typing import Any

import ase
import numpy as np
import torch
from torch import Tensor

from adatom.elements import covalent_radius, symbol
from adatom.errors import SimulationError
from adatom.sim.skin import SkinList, farthest

SKIN = 0.5  # Å
FAR = 1e3  # Å
FEW = 32  # atoms of an open structure of which every pair is listed, once and for all
UNTRAINED = 0.5  # of the sum of the covalent radii, for pairs whose trained minimum is not known
_RELAX_FIRST = "relax the structure first, take a shorter timestep or a lower temperature, or train on such structures"


def closest_allowed(numbers: np.ndarray, card: dict[str, Any], margin: float = 0.85) -> np.ndarray:
    """Shortest distance in Å allowed between each pair of the species ``numbers`` (Z,): a symmetric table (Z, Z).

    ``margin`` times the shortest distance of the training set (``card["min_distance_A"]``, keys such as ``"H-O"``),
    or half the sum of the covalent radii where the card does not name the pair.
    """
    trained: dict[str, float] = card.get("min_distance_A", {})
    table: np.ndarray = UNTRAINED * (covalent_radius(numbers)[:, None] + covalent_radius(numbers)[None, :])
    for row, a in enumerate(numbers):
        for column, b in enumerate(numbers):
            known = trained.get(f"{symbol(a)}-{symbol(b)}", trained.get(f"{symbol(b)}-{symbol(a)}"))
            if known is not None:
                table[row, column] = margin * known
    return table


class Guard:
    """Checks of one simulation; each raises SimulationError with step, atoms, figure and remedy.

    Parameters
    ----------
    atoms
        The structure at the start: its species and volume are those of the run.
    card
        Of the potential; ``min_distance_A`` is used.
    margin
        Of the trained minimum distance that is still allowed.
    device
        Where the positions live that are to be looked at.
    """

    def __init__(
        self, atoms: ase.Atoms, card: dict[str, Any], margin: float = 0.85, device: torch.device | str = "cpu"
    ) -> None:
        species, index = np.unique(atoms.numbers, return_inverse=True)
        table = closest_allowed(species, card, margin) if len(species) else np.zeros((1, 1))
        self._index = torch.from_numpy(index).to(device)  # (N,)
        self._table = torch.from_numpy(table).to(device)  # (Z, Z)
        self._numbers = atoms.numbers.copy()
        few = len(atoms) <= FEW and not atoms.pbc.any()
        self._list = SkinList(float(table.max()), FAR if few else SKIN, device)
        self._list.meet(atoms)
        # distances when they were looked at last: where the atoms stood, and how far every pair was from the forbidden
        self._seen, self._cell, self._slack = torch.zeros(0, 3), np.zeros((3, 3)), 0.0

    def check_numbers(self, step: int, energy: float, forces: np.ndarray) -> None:
        """Energy and forces must be numbers."""
        good = np.isfinite(forces).all(axis=1)
        if np.isfinite(energy) and good.all():
            return
        bad = np.flatnonzero(~good)
        raise SimulationError(
            "the potential gave no number",
            where=_at(step, f"atoms {_some(bad)}" if bad.size else "energy"),
            wanted="finite energy and forces",
            got=f"energy {energy} eV, {bad.size} of {len(forces)} forces not finite",
            remedy=_RELAX_FIRST,
        )

    def check_distances(self, step: int, positions: Tensor, cell: np.ndarray) -> None:
        """No two atoms closer than the training set knows, less the margin; positions (N, 3).

        Pairs are looked at again only when two atoms may have used up the slack that was left the last time.
        """
        same = self._seen.shape == positions.shape and np.array_equal(cell, self._cell)
        if same and 2.0 * farthest(positions, self._seen) < self._slack:
            return
        pairs, lengths = self._list.pairs(positions, cell)
        spare = lengths - self._allowed(pairs)
        worst = int(spare.argmin()) if spare.shape[0] else None
        if worst is not None and spare[worst] < 0.0:
            i, j = pairs[:, worst].tolist()
            raise SimulationError(
                "two atoms came closer than anything the potential was trained on",
                where=_at(step, f"atoms {i} ({symbol(self._numbers[i])}) and {j} ({symbol(self._numbers[j])})"),
                wanted=f"at least {float(lengths[worst] - spare[worst]):.3f} Å",
                got=f"{float(lengths[worst]):.3f} Å",
                remedy=_RELAX_FIRST,
            )
        beyond = self._list.beyond(positions)
        self._slack = beyond if worst is None else min(float(spare[worst]), beyond)
        self._seen, self._cell = positions.clone(), cell.copy()

    def _allowed(self, pairs: Tensor) -> Tensor:
        """Shortest distance allowed to each pair, (H,) Å."""
        return self._table[self._index.index_select(0, pairs[0]), self._index.index_select(0, pairs[1])]

    def check_temperature(self, step: int, temperature: float, limit: float, heats: np.ndarray) -> None:
        """Kinetic temperature (K) below the limit; ``heats`` are the kinetic energies of the atoms, (N,) eV."""
        if temperature <= limit:
            return
        fastest = int(heats.argmax())
        raise SimulationError(
            "the temperature ran away",
            where=_at(step, f"fastest atom {fastest} ({symbol(self._numbers[fastest])}) with {heats[fastest]:.3g} eV"),
            wanted=f"at most {limit:.0f} K",
            got=f"{temperature:.0f} K",
            remedy=_RELAX_FIRST + "; max_temperature_K sets another limit",
        )

    def check_volume(self, step: int, ratio: float, bounds: tuple[float, float]) -> None:
        """Volume, as a multiple of the one at the start, within ``bounds``."""
        if bounds[0] <= ratio <= bounds[1]:
            return
        raise SimulationError(
            "the cell collapsed" if ratio < bounds[0] else "the cell blew up",
            where=_at(step, "cell"),
            wanted=f"between {bounds[0]:g} and {bounds[1]:g} times the volume at the start",
            got=f"{ratio:.3f} times",
            remedy="check pressure and temperature, take a longer barostat_ps, or set volume_bounds",
        )


def _at(step: int, detail: str) -> str:
    return f"step {step}, {detail}"


def _some(indices: np.ndarray, most: int = 5) -> str:
    named = ", ".join(str(i) for i in indices[:most])
    return f"{named}, ..." if len(indices) > most else named
