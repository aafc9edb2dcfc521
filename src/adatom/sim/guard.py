"""Physical ground: what a simulation may not leave without being stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ase
import numpy as np
import torch
from ase import units
from ase.calculators.calculator import BaseCalculator
from torch import Tensor

from adatom.elements import covalent_radius, symbol
from adatom.errors import SimulationError
from adatom.nn.floor import pair_table
from adatom.potential import Potential
from adatom.priors.zbl import ZBL
from adatom.sim.calculator import Calculator
from adatom.sim.committee import Committee
from adatom.sim.skin import SkinList, farthest

SKIN = 0.5  # Å
FAR = 1e3  # Å
FEW = 32  # atoms of an open structure of which every pair is listed, once and for all
MARGIN = 0.85  # of the shortest distance of the training set
HEAT = 25.0  # in k_B T: two atoms that repel each other by more were not brought there by heat
UNTRAINED = 0.5  # of the sum of the covalent radii, for pairs whose trained minimum is not known
_RELAX_FIRST = "relax the structure first, take a shorter timestep or a lower temperature, or train on such structures"


def closest_allowed(
    numbers: np.ndarray,
    card: Mapping[str, Any],
    margin: float = MARGIN,
    wall: ZBL | None = None,
    temperature_K: float = 0.0,
) -> np.ndarray:
    """Shortest distance in Å allowed between each pair of the species ``numbers`` (Z,): a symmetric table (Z, Z).

    ``margin`` times the shortest distance of the training set (``card["min_distance_A"]``, keys such as ``"H-O"``),
    or half the sum of the covalent radii where the card does not name the pair. Behind a ``wall`` hot atoms may come
    nearer: as near as a repulsion of 25 k_B T lets them.
    """
    trained = _shortest(numbers, card.get("min_distance_A", {}))
    radii = covalent_radius(numbers)
    table: np.ndarray = np.where(np.isnan(trained), UNTRAINED * (radii[:, None] + radii[None, :]), margin * trained)
    if wall is not None and temperature_K > 0.0:
        walled = ~np.isnan(_shortest(numbers, wall.config.closest or {})) & ~np.isnan(trained)
        z = torch.tensor(numbers, device=wall.outers.device)  # the potential may live on a card
        a, b = torch.meshgrid(z, z, indexing="ij")
        hot = wall.nearest(a, b, HEAT * units.kB * temperature_K).cpu().numpy()
        table = np.where(walled, np.minimum(table, hot), table)
    return table


def potentials_of(calculator: BaseCalculator) -> tuple[Potential, ...]:
    """What is behind a calculator: one potential, the members of a committee, none of ours."""
    if isinstance(calculator, Committee):
        return tuple(member.potential for member in calculator.members)
    return (calculator.potential,) if isinstance(calculator, Calculator) else ()


def card_of(calculator: BaseCalculator) -> dict[str, Any]:
    """The card of the potential behind a calculator; of a committee what all members have been trained on."""
    cards = [potential.card for potential in potentials_of(calculator)]
    if len(cards) < 2:
        return cards[0] if cards else {}
    pairs: dict[str, float] = {}
    for card in cards:
        for pair, distance in card.get("min_distance_A", {}).items():
            pairs[pair] = max(distance, pairs.get(pair, 0.0))
    return {"min_distance_A": pairs}


def wall_of(*potentials: Potential) -> ZBL | None:
    """The repulsion of cores in front of all that a network does not see, or None; all of a committee must have it.

    A network with a floor (``adatom.nn.floor``) says nothing new where two atoms are nearer than in its training data,
    and the repulsion begins before: nothing falls in there. Without the one or the other nobody knows what is there.
    """
    walls = [
        prior
        for potential in potentials
        for prior in potential.priors
        if potential.network.config.closest and isinstance(prior, ZBL) and prior.config.closest
        and prior.config.beyond >= 1.0
    ]  # fmt: skip
    alike = len(walls) == len(potentials) and all(wall.config == walls[0].config for wall in walls)
    return walls[0] if walls and alike else None


@dataclass(frozen=True)
class Approach:
    """Two atoms nearer than the margin of the trained minimum: the nearest in terms of that minimum."""

    step: int
    atoms: tuple[int, int]
    elements: tuple[str, str]
    distance_A: float
    trained_A: float

    def __str__(self) -> str:
        (a, b), (i, j) = self.elements, self.atoms
        return (
            f"{a}-{b} came as near as {self.distance_A:.3f} Å (atoms {i} and {j}, step {self.step}), "
            f"and no nearer than {self.trained_A:.3f} Å in training"
        )


class Guard:
    """Checks of one simulation; each raises SimulationError with step, atoms, figure and remedy.

    Parameters
    ----------
    atoms
        The structure at the start: its species and volume are those of the run.
    card
        Of the potential; ``min_distance_A`` is used.
    margin
        Of the trained minimum distance that is still allowed, whatever the heat; None: 0.85, and nearer as
        ``warm`` lets hot atoms come.
    wall
        Of the potential (``wall_of``), if it has one.
    device
        Where the positions live that are to be looked at.

    Attributes
    ----------
    nearest
        The nearest approach below 0.85 of a trained minimum that was let pass, if any was.
    """

    def __init__(
        self,
        atoms: ase.Atoms,
        card: Mapping[str, Any],
        margin: float | None = None,
        wall: ZBL | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        species, index = np.unique(atoms.numbers, return_inverse=True)
        self._species, self._card, self._margin, self._wall = species, card, margin, wall
        self._index = torch.from_numpy(index).to(device)  # (N,)
        self._table = self._allowing(0.0, device)  # (Z, Z)
        trained = np.nan_to_num(_shortest(species, card.get("min_distance_A", {})), nan=0.0)
        self._trained = torch.from_numpy(trained).to(device)  # (Z, Z)  Å, 0 where nothing is known
        self._record = MARGIN  # of the trained minimum: nearer is an approach to be remembered
        self.nearest: Approach | None = None
        self._numbers = atoms.numbers.copy()
        few = len(atoms) <= FEW and not atoms.pbc.any()
        reach = max(float(self._table.max()), MARGIN * float(self._trained.max()))
        self._list = SkinList(reach, FAR if few else SKIN, device)
        self._list.meet(atoms)
        # distances when they were looked at last: where the atoms stood, and how far every pair was from the forbidden
        self._seen, self._cell, self._slack = torch.zeros(0, 3), np.zeros((3, 3)), 0.0

    def warm(self, temperature_K: float) -> None:
        """Allow what heat brings about at this temperature, where the potential has a wall and no margin was given."""
        if self._margin is None:
            self._table, self._slack = self._allowing(temperature_K, self._table.device), 0.0

    def _allowing(self, temperature_K: float, device: torch.device | str) -> Tensor:
        if not len(self._species):
            return torch.zeros(1, 1, dtype=torch.float64, device=device)
        margin = MARGIN if self._margin is None else self._margin
        table = closest_allowed(self._species, self._card, margin, self._wall, temperature_K)
        return torch.from_numpy(table).to(device)

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
        """No two atoms closer than the margin of the training set, or heat, allows; positions (N, 3).

        Pairs are looked at again only when two atoms may have used up the slack that was left the last time.
        """
        same = self._seen.shape == positions.shape and np.array_equal(cell, self._cell)
        if same and 2.0 * farthest(positions, self._seen) < self._slack:
            return
        pairs, lengths = self._list.pairs(positions, cell)
        spare = lengths - self._of(self._table, pairs)
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
        self._slack = self._list.beyond(positions)
        if worst is not None:
            self._remember(step, pairs, lengths)
            new = lengths - self._record * self._of(self._trained, pairs)  # what would be nearer than ever
            self._slack = min(float(torch.minimum(spare, new).min()), self._slack)
        self._seen, self._cell = positions.clone(), cell.copy()

    def _remember(self, step: int, pairs: Tensor, lengths: Tensor) -> None:
        """The nearest approach so far, in terms of the trained minimum."""
        trained = self._of(self._trained, pairs)
        ratio = torch.where(trained > 0.0, lengths / trained, torch.inf)
        nearest = int(ratio.argmin())
        if not ratio[nearest] < self._record:
            return
        self._record = float(ratio[nearest])
        i, j = pairs[:, nearest].tolist()
        elements = (symbol(self._numbers[i]), symbol(self._numbers[j]))
        self.nearest = Approach(step, (i, j), elements, float(lengths[nearest]), float(trained[nearest]))

    def _of(self, table: Tensor, pairs: Tensor) -> Tensor:
        """What a table (Z, Z) says of each pair, (H,) Å."""
        return table[self._index.index_select(0, pairs[0]), self._index.index_select(0, pairs[1])]

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


def _shortest(numbers: np.ndarray, distances: Mapping[str, float]) -> np.ndarray:
    """Distances of pairs such as ``"H-O"`` as a table (Z, Z) of the species; NaN where a pair is not named."""
    table = pair_table(distances).numpy()[np.ix_(numbers, numbers)]
    return np.where(table > 0.0, table, np.nan)


def _at(step: int, detail: str) -> str:
    return f"step {step}, {detail}"


def _some(indices: np.ndarray, most: int = 5) -> str:
    named = ", ".join(str(i) for i in indices[:most])
    return f"{named}, ..." if len(indices) > most else named
