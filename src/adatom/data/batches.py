"""Batches filled to a budget of atoms and edges: one plan for an epoch, however many processes carry it out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

import numpy as np
from pydantic import Field

from adatom.config import Config

LANE: Final = 256  # batches packed one after the other; more are packed in lanes side by side
LOOK: Final = 64  # structures that a lane looks ahead for what fits, at least
FRONT: Final = 0.65  # how full a batch gets in turn, at least, where the rest must even out two limits
CLOSERS: Final = 9  # structures that may be put into the rest of a batch out of their turn


class Budget(Config):
    """What a batch may hold: structures are added until no next one would fit."""

    atoms: int = Field(default=32, ge=1)
    edges: int | None = Field(default=None, ge=1)


class Sized(Protocol):
    """What a plan must know of a data set."""

    @property
    def atoms(self) -> np.ndarray:
        """Atoms of each structure, (structures,)."""
        ...

    @property
    def edges(self) -> np.ndarray:
        """Edges of each structure, (structures,); asked for where the budget bounds them."""
        ...


class Plan(Sequence[list[int]]):
    """The batches of an epoch, each a list of indices; ``plan[k:]`` is the rest of the epoch from batch k on."""

    def __init__(self, index: np.ndarray, bounds: np.ndarray) -> None:
        self.order, self.bounds = index, bounds  # (structures,) and (batches + 1,)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, k: Any) -> Any:
        if isinstance(k, slice):
            if k.step in (None, 1):
                start, stop, _ = k.indices(len(self))
                return Plan(self.order, self.bounds[start : max(stop, start) + 1])
            return [self[i] for i in range(*k.indices(len(self)))]
        if not -len(self) <= k < len(self):
            raise IndexError(k)
        k = int(k) % len(self)
        batch: list[int] = self.order[self.bounds[k] : self.bounds[k + 1]].tolist()
        return batch

    def __iter__(self) -> Iterator[list[int]]:
        return (self[k] for k in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(a == b for a, b in zip(self, other))  # noqa: B905

    __hash__ = None  # type: ignore[assignment]


def batches(dataset: Sized, budget: Budget, seed: int = 0, epoch: int = 0, shuffle: bool = True) -> Plan:
    """Indices of the structures of each batch of an epoch: every structure once, the same for the same (seed, epoch).

    In order: a batch is closed when the next structure would not fit. Shuffled: structures are drawn at random, a batch
    takes them in that order until one does not fit, and then, out of those that come next, the ones that fill its rest
    best; batches come in random order. A structure beyond the budget makes a batch of its own. Sets of many batches are
    packed in lanes of some hundred batches side by side.
    """
    limits = np.array([budget.atoms] if budget.edges is None else [budget.atoms, budget.edges])
    columns = [dataset.atoms] if budget.edges is None else [dataset.atoms, dataset.edges]
    sizes = np.stack([np.asarray(c, dtype=np.int64) for c in columns])  # (limits, structures)
    if not shuffle:
        return _in_order(sizes, limits)
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(sizes.shape[1])
    beyond: np.ndarray = np.asarray((sizes > limits[:, None]).any(axis=0))[order]
    packed = _pack(order[~beyond], sizes, limits)
    alone = order[beyond]
    counts = np.concatenate([packed[1], np.ones(len(alone), dtype=np.int64)])
    return _shuffled(np.concatenate([packed[0], alone]), counts, random)


def _shuffled(index: np.ndarray, counts: np.ndarray, random: np.random.Generator) -> Plan:
    """Batches given one after the other, in random order."""
    order = random.permutation(len(counts))
    starts = (counts.cumsum() - counts)[order]
    bounds = np.concatenate([[0], counts[order].cumsum()])
    place = np.arange(len(index)) - np.repeat(bounds[:-1], counts[order]) + np.repeat(starts, counts[order])
    return Plan(index[place], bounds)


def _in_order(sizes: np.ndarray, limits: np.ndarray) -> Plan:
    sums = np.concatenate([np.zeros((len(limits), 1), dtype=np.int64), sizes.cumsum(axis=1)], axis=1)
    total, bounds = sizes.shape[1], [0]
    while bounds[-1] < total:
        at = bounds[-1]
        fit = min(
            int(np.searchsorted(s, s[at] + limit, side="right")) - 1 for s, limit in zip(sums, limits, strict=True)
        )
        bounds.append(max(fit, at + 1))
    return Plan(np.arange(total), np.array(bounds))


def _pack(order: np.ndarray, sizes: np.ndarray, limits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fill batches from structures in this order: indices batch after batch, and how many are in each."""
    if len(order) == 0:
        return order, np.zeros(0, dtype=np.int64)
    shares = sizes[:, order] / limits[:, None]  # (limits, structures)
    expected = float(shares.sum(axis=1).max())  # batches, if all were full
    lanes = max(1, round(expected / LANE))
    length = -(-len(order) // lanes)
    stream = np.full((lanes, length), -1, dtype=np.int64)
    stream.ravel()[: len(order)] = np.arange(len(order))
    each = len(order) / max(expected, 1.0)  # structures of a batch
    look = min(LOOK + round(8 * each), length)
    inside = 1.0 if len(limits) == 1 else max(FRONT, 1.0 - CLOSERS / 2 / each)
    numbers, members = [], []
    lane = _Lanes(stream, shares, look, inside)
    step = 0
    while lane.left():
        rows, who = lane.fill()
        numbers.append(rows + lanes * step)
        members.append(who)
        step += 1
    batch, member = np.concatenate(numbers), np.concatenate(members)
    by_batch = np.argsort(batch, kind="stable")
    _, counts = np.unique(batch, return_counts=True)
    return order[member[by_batch]], counts


class _Lanes:
    """Independent streams of structures, packed in step: every call fills one batch of each.

    ``buffer`` holds the next structures of each lane in their order, -1 where there are no more; ``shares`` the part of
    each limit that they take.
    """

    def __init__(self, stream: np.ndarray, shares: np.ndarray, look: int, inside: float) -> None:
        self.stream = stream
        never = np.full((len(shares), 1), 2.0)  # an empty place never fits
        self.all = np.concatenate([shares, never], axis=1)  # (limits, structures + 1); -1 is the last
        self.buffer = stream[:, :look].copy()
        self.shares = self.all[:, self.buffer]  # (limits, lanes, look)
        self.next = np.full(len(stream), look)
        self.inside = inside

    def left(self) -> bool:
        """Whether anything is left to pack."""
        return bool((self.buffer[:, 0] >= 0).any())

    def fill(self) -> tuple[np.ndarray, np.ndarray]:
        """One batch of each lane: lanes (n,) and structures (n,)."""
        sums = self.shares.cumsum(axis=2)
        took = np.asarray((sums <= self.inside).all(axis=0))  # (lanes, look)  from the front on
        took[:, 0] = self.buffer[:, 0] >= 0
        lanes = np.arange(len(took))
        last = np.maximum(took.sum(axis=1) - 1, 0)
        room = np.where(took[:, 0], 1.0 - sums[:, lanes, last], -1.0)  # (limits, lanes)
        free = np.where(took, 2.0, self.shares)
        for _ in range(CLOSERS):
            rest = room[:, :, None] - free
            score = rest.max(axis=0)
            score[rest.min(axis=0) < 0] = 2.0
            best = score.argmin(axis=1)
            found = np.flatnonzero(score[lanes, best] < 2.0)
            if len(found) == 0:
                break
            took[found, best[found]] = True
            room[:, found] = rest[:, found, best[found]]
            free[:, found, best[found]] = 2.0
        rows, columns = np.nonzero(took)
        chosen = self.buffer[rows, columns]
        self._advance(took)
        return rows, chosen

    def _advance(self, took: np.ndarray) -> None:
        """Close the gaps in the buffer, and fill it up from the stream."""
        look = took.shape[1]
        kept = np.argsort(took, axis=1, kind="stable")
        left = look - took.sum(axis=1)  # (lanes,)
        ahead = np.arange(look) - left[:, None]  # how far into the stream a free place reaches
        self.buffer = np.take_along_axis(self.buffer, kept, axis=1)
        self.shares = np.take_along_axis(self.shares, kept[None], axis=2)
        rows, columns = np.nonzero(ahead >= 0)
        place = self.next[rows] + ahead[rows, columns]
        there = place < self.stream.shape[1]
        fresh = np.where(there, self.stream[rows, np.where(there, place, 0)], -1)
        self.buffer[rows, columns] = fresh
        self.shares[:, rows, columns] = self.all[:, fresh]
        self.next = self.next + (look - left)
