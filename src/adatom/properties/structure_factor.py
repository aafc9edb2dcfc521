"""Static structure factors: the direct sum over the wave vectors that a periodic cell allows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ase
import numpy as np
from pydantic import PositiveFloat, PositiveInt

from adatom.config import Config
from adatom.elements import symbol
from adatom.errors import DataError, GeometryError
from adatom.properties.trajectory import require_periodic, require_same_atoms
from adatom.report.figure import plain

OPEN = "wave vectors are those of a periodic cell, and this system is not periodic in three directions"


class StructureFactorConfig(Config):
    """Range and width of the shells in q (1/Å), and how many wave vectors of a shell are summed at most."""

    q_max: PositiveFloat = 12.0
    width: PositiveFloat = 0.1
    vectors: PositiveInt | None = 60  # of a shell, drawn at random; None: all


@dataclass(frozen=True)
class StructureFactor:
    """S(q), averaged over frames and over the directions of each shell; shells without a wave vector are left out."""

    q: np.ndarray  # (Q,)  1/Å, mean of the wave vectors of each shell
    total: np.ndarray  # (Q,)  every atom counted alike: 1 for an ideal gas
    faber_ziman: dict[str, np.ndarray]  # "H-O": (Q,)  partial, 1 far out
    ashcroft_langreth: dict[str, np.ndarray]  # "H-O": (Q,)  partial, 1 (like pairs) or 0 (unlike ones) far out
    vectors: np.ndarray  # (Q,)  wave vectors summed in each shell, over all frames
    frames: int

    def to_record(self) -> dict[str, Any]:
        """Plain values as the report reads them."""
        return {
            "q_per_A": plain(self.q),
            "total": plain(self.total),
            "faber_ziman": {pair: plain(values) for pair, values in self.faber_ziman.items()},
            "ashcroft_langreth": {pair: plain(values) for pair, values in self.ashcroft_langreth.items()},
            "frames": self.frames,
        }


def structure_factor(
    frames: Sequence[ase.Atoms], *, q_max: float = 12.0, width: float = 0.1, vectors: int | None = 60
) -> StructureFactor:
    """Static structure factors of the frames of a simulation; the parameters are those of StructureFactorConfig.

    With rho_a(q) = sum_{i in a} exp(-i q r_i) at the reciprocal lattice vectors q of the cell,

    - total: S(q) = < |sum_a rho_a|^2 > / N
    - Ashcroft-Langreth: S_ab(q) = < Re rho_a rho_b* > / sqrt(N_a N_b)
    - Faber-Ziman: A_ab(q) = 1 + (S_ab - delta_ab) / sqrt(c_a c_b), the transform of g_ab(r) - 1; c the concentrations

    No atom is weighed by how strongly it scatters X-rays or neutrons. Frames may have cells that change.

    Raises
    ------
    DataError
        There are no frames, or they are not of the same atoms.
    GeometryError
        A frame is not periodic in three directions, or its cell allows no wave vector up to ``q_max``.
    """
    config = StructureFactorConfig.parse({"q_max": q_max, "width": width, "vectors": vectors}, where="structure factor")
    if not frames:
        raise DataError("there are no frames to average over", wanted="one at least", remedy="check the trajectory")
    for number, atoms in enumerate(frames):
        require_same_atoms(atoms, frames[0], f"frame {number}")
        require_periodic(atoms, OPEN, f"frame {number}")
    numbers = frames[0].numbers
    species = [int(z) for z in np.unique(numbers)]
    pairs = list(itertools.combinations_with_replacement(species, 2))
    shells = max(round(config.q_max / config.width), 1)
    indices = _chosen(frames[0], config, shells)
    sums = {pair: np.zeros(shells) for pair in pairs}
    total, lengths, counts = np.zeros(shells), np.zeros(shells), np.zeros(shells)
    for atoms in frames:
        length = np.linalg.norm(2.0 * np.pi * indices @ np.asarray(atoms.cell.reciprocal()), axis=1)  # (K,)
        shell = np.minimum((length / config.q_max * shells).astype(np.int64), shells)  # beyond: the last, left out
        waves = density_waves(atoms, indices)
        parts = {z: waves[:, numbers == z].sum(axis=1) for z in species}  # (K,)
        counts += _binned(shell, np.ones(len(indices)), shells)
        lengths += _binned(shell, length, shells)
        total += _binned(shell, np.abs(sum(parts.values())) ** 2 / len(atoms), shells)
        for a, b in pairs:
            product = (parts[a] * parts[b].conj()).real / np.sqrt((numbers == a).sum() * (numbers == b).sum())
            sums[a, b] += _binned(shell, product, shells)
    known = counts > 0
    partial = {pair: values[known] / counts[known] for pair, values in sums.items()}
    names = {pair: f"{symbol(pair[0])}-{symbol(pair[1])}" for pair in pairs}
    share = {z: float((numbers == z).mean()) for z in species}
    return StructureFactor(
        q=lengths[known] / counts[known],
        total=total[known] / counts[known],
        faber_ziman={
            names[a, b]: 1.0 + (values - float(a == b)) / np.sqrt(share[a] * share[b])
            for (a, b), values in partial.items()
        },
        ashcroft_langreth={names[pair]: values for pair, values in partial.items()},
        vectors=counts[known],
        frames=len(frames),
    )


def density_waves(atoms: ase.Atoms, indices: np.ndarray) -> np.ndarray:
    """exp(-i q r) of each atom at reciprocal lattice vectors q = 2 pi h, h (K, 3) whole numbers: (K, N) complex.

    Powers of three phases per atom, multiplied: no exponential per wave vector.
    """
    fractions = atoms.positions @ np.linalg.inv(np.asarray(atoms.cell))  # (N, 3)
    waves = np.ones((len(indices), len(atoms)), dtype=np.complex128)
    for axis in range(3):
        low, high = int(indices[:, axis].min()), int(indices[:, axis].max())
        phases = np.exp(-2j * np.pi * np.arange(low, high + 1)[:, None] * fractions[None, :, axis])  # (H, N)
        waves *= phases[indices[:, axis] - low]
    return waves


def allowed(cell: np.ndarray, q_max: float) -> np.ndarray:
    """Whole numbers (K, 3) of the reciprocal lattice vectors up to ``q_max`` (1/Å), one of each h and -h; not zero."""
    reach = np.floor(q_max * np.linalg.norm(cell, axis=1) / (2.0 * np.pi) + 1e-9).astype(np.int64)
    h = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), axis=-1).reshape(-1, 3)
    h = h[len(h) // 2 + 1 :]  # the grid is symmetric about its middle, the zero
    length = np.linalg.norm(2.0 * np.pi * h @ np.linalg.inv(cell).T, axis=1)
    within: np.ndarray = h[length <= q_max * (1.0 + 1e-12)]
    return within


def _chosen(atoms: ase.Atoms, config: StructureFactorConfig, shells: int) -> np.ndarray:
    """Wave vectors to sum: all of a shell, or as many as configured, the same for every frame."""
    cell = np.asarray(atoms.cell)
    indices = allowed(cell, config.q_max)
    if len(indices) == 0:
        raise GeometryError(
            "the cell allows no wave vector in this range",
            where=atoms.get_chemical_formula(),
            wanted=f"q up to {config.q_max:g} 1/Å",
            got=f"a cell of {atoms.get_volume():.4g} Å^3",
            remedy="raise q_max, or take a larger cell",
        )
    if config.vectors is None:
        return indices
    length = np.linalg.norm(2.0 * np.pi * indices @ np.asarray(atoms.cell.reciprocal()), axis=1)
    shell = np.minimum((length / config.q_max * shells).astype(np.int64), shells - 1)
    random = np.random.default_rng(0)
    kept = []
    for number in np.unique(shell):
        members = np.flatnonzero(shell == number)
        few = len(members) <= config.vectors
        kept.append(members if few else random.choice(members, config.vectors, replace=False))
    chosen: np.ndarray = indices[np.sort(np.concatenate(kept))]
    return chosen


def _binned(shell: np.ndarray, values: np.ndarray, shells: int) -> np.ndarray:
    """Sums of values over shells, (B,)."""
    sums: np.ndarray = np.bincount(shell, values, minlength=shells + 1)[:shells]
    return sums
