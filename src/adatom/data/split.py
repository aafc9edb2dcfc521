"""Parting structures into training, validation and test sets, and the proof that none of the test was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np

from adatom.config import Config, nearest
from adatom.data.fingerprint import copies
from adatom.data.selection import LARGE, Selection
from adatom.data.store import Store
from adatom.data.structure import Structure
from adatom.errors import DataError, LeakError

Parts = tuple[Sequence[Structure], Sequence[Structure], Sequence[Structure]]

SAMPLED: Final = 500  # of a large set, as many are looked at for copies that are not equal bit for bit


class Split(Config):
    """How structures are parted.

    Parameters
    ----------
    method
        ``random``: structure by structure. ``group``: structures that agree in the field ``group`` stay together,
        as frames of one trajectory must.
    seed
        Seed of the shuffle; the same seed and the same structures give the same split.
    valid, test
        Share of the structures as a fraction below 1, or their number as a whole number. Groups are filled up to
        it, so the parts of a group split can be a little larger.
    group
        Field of the frames that names the group, as ``config_type`` or ``system``.
    """

    method: Literal["random", "group"] = "random"
    seed: int = 0
    valid: float | int = 0.1
    test: float | int = 0
    group: str = "config_type"


def split(structures: Sequence[Structure], config: Split | None = None) -> Parts:
    """Training, validation and test structures, each in the order they came in; free atoms always go to training.

    Copies stay together, so that a random split leaks nothing; the parts can be a little larger for it. Structures of a
    large store give selections of it: nothing is read, and copies are those that are equal bit for bit. A list gives
    lists.

    Raises
    ------
    DataError
        Nothing to split, nothing left to train on, or frames without the field of the groups.
    """
    config = config or Split()
    if not len(structures):
        raise DataError("there is nothing to split", wanted="at least one structure", remedy="check the data files")
    chosen = Selection.of(structures)
    free = np.flatnonzero(~chosen.isolated)
    random = np.random.default_rng(config.seed)
    group = _apart(chosen, free, config) if config.method == "random" else _groups(chosen, free, config.group)
    units = int(group.max(initial=-1)) + 1
    rank = np.empty(units, dtype=np.int64)
    rank[random.permutation(units)[::-1]] = np.arange(units)  # the turn of each unit to be held out
    turns = np.bincount(rank[group], minlength=units)  # structures at each turn
    ends = turns.cumsum()
    begin, bounds = 0, []
    for name, share in (("test", config.test), ("valid", config.valid)):
        wanted = _count(share, len(free), name)
        done = ends[begin - 1] if begin else 0
        end = begin if wanted == 0 else min(int(np.searchsorted(ends, done + wanted)) + 1, units)
        bounds.append((begin, end))
        begin = end
    part = np.full(len(structures), -1)
    for k, (start, stop) in enumerate(bounds):
        part[free[(rank[group] >= start) & (rank[group] < stop)]] = k
    if not (part[free] < 0).any():
        kind = "structures" if config.method == "random" else "groups"
        raise DataError(
            "the split leaves nothing to train on",
            wanted=f"fewer than all {units} {kind} in valid and test",
            got=f"valid {config.valid}, test {config.test} of {len(free)} structures",
            remedy="lower valid and test, or bring more data",
        )
    train, valid, test = (_some(structures, np.flatnonzero(part == k)) for k in (-1, 1, 0))
    return train, valid, test


def _some(structures: Sequence[Structure], which: np.ndarray) -> Sequence[Structure]:
    """Some structures; of a list a list."""
    if isinstance(structures, (Selection, Store)):
        return Selection.of(structures).select(which)
    return [structures[k] for k in which]


def _count(share: float | int, total: int, name: str) -> int:
    """Number of structures that a share means; a share above 0 is at least one structure."""
    if share < 0 or (isinstance(share, float) and share >= 1.0):
        raise DataError(
            f"'{name}: {share}' is no share of the data",
            wanted="a fraction from 0 to below 1, or a whole number of structures",
            remedy="write 0.1 for a tenth, or 100 for a hundred structures",
        )
    if isinstance(share, int):
        return share
    return max(round(share * total), 1) if share > 0 else 0


def _apart(structures: Selection, among: np.ndarray, config: Split) -> np.ndarray:
    """Group of each of some structures: one of its own, but copies have that of the first of them."""
    first = np.arange(len(among))
    if not len(among) or (config.test == 0 and config.valid == 0):
        return first
    some = structures.select(among)
    if len(some) > LARGE:
        _, place, inverse = np.unique(some.geometry_words(), return_index=True, return_inverse=True)
        first = place[inverse]
    else:
        whole = list(some)
        for i, j in copies(whole, whole):
            if first[i] != first[j]:
                first[first == max(first[i], first[j])] = min(first[i], first[j])
    return np.asarray(np.unique(first, return_inverse=True)[1])


def _groups(structures: Selection, among: np.ndarray, key: str) -> np.ndarray:
    """Group of each of some structures, numbered in order of first appearance."""
    group, names = structures.groups(among, key)
    if "" in names:
        structure = structures[int(among[np.flatnonzero(group == names.index(""))[0]])]
        near = nearest(key, sorted(structure.tags))
        raise DataError(
            f"a frame has no field '{key}' to group by",
            where=structure.name,
            wanted=f"'{key}' in every frame",
            got=f"fields {', '.join(sorted(structure.tags)) or 'none'}",
            remedy=f"did you mean '{near}'?" if near else "name another field under group, or split at random",
        )
    return group


def check_leaks(train: Sequence[Structure], test: Sequence[Structure]) -> list[str]:
    """Make sure that no test structure stands in the training set.

    Found are copies that differ by rounding (up to about 3e-6 Å per coordinate), by wrapping or lattice
    translations, by a rigid shift, by the numbering of atoms, by a rotation of crystals and molecules, and mirror
    images of them. Structures that lie closer than about 0.01 Å to each other can be taken for copies where the
    displacement hardly changes any distance. **Not** found are supercells, other choices of the cell, copies with
    larger noise, and neighbours in time of one trajectory: split those by group. Free atoms and structures of
    different total charge or multiplicity are no leak.

    Where training and test structures together are more than 20,000, all are compared bit for bit, and copies of the
    other kinds are looked for among a sample of 500 test structures and those that share their composition.

    Returns
    -------
    list[str]
        What is to be said of how far the comparison went; empty where it was complete.

    Raises
    ------
    LeakError
        Names the test structures and the training structures they repeat.
    """
    ours, theirs = Selection.of(train), Selection.of(test)
    theirs = theirs.select(np.flatnonzero(~theirs.isolated))
    if not len(theirs) or not len(ours):
        return []
    remarks = []
    if len(ours) + len(theirs) > LARGE:
        _raise_for(_equal(ours, theirs), ours, theirs, len(test))
        some = theirs.sample(SAMPLED)
        kin, compared = _kin(ours, some)
        ours, theirs = kin, some
        remarks.append(
            "test structures were compared bit for bit with all training structures; copies that were moved, turned "
            f"or rounded were looked for among {len(some)} of them and {compared} training structures"
        )
    _raise_for(copies(list(ours), list(theirs)), ours, theirs, len(test))  # made once
    return remarks


def _equal(ours: Selection, theirs: Selection) -> list[tuple[int, int]]:
    """Pairs (i, j) of structures with the same geometry bit for bit, charge and multiplicity being the same too."""
    left, right = ours.geometry_words(), theirs.geometry_words()
    order = np.argsort(left, kind="stable")
    place = np.minimum(np.searchsorted(left[order], right), len(left) - 1)
    pairs = np.flatnonzero(left[order][place] == right)
    states = [np.nan_to_num(np.stack([s.charges, s.spins]), nan=-1e300) for s in (ours, theirs)]
    return [(int(order[place[j]]), int(j)) for j in pairs if (states[0][:, order[place[j]]] == states[1][:, j]).all()]


def _kin(ours: Selection, theirs: Selection) -> tuple[Selection, int]:
    """Of our structures those that could be copies of theirs, by number of atoms; at most ten times as many."""
    near = np.flatnonzero(np.isin(ours.atoms, theirs.atoms))
    kin = ours.select(near).sample(10 * SAMPLED)
    return kin, len(kin)


def _raise_for(pairs: list[tuple[int, int]], ours: Selection, theirs: Selection, total: int) -> None:
    """LeakError when there are any."""
    if not pairs:
        return
    leaked = {j: i for i, j in reversed(pairs)}
    listed = [f"{theirs.names[j]} = {ours.names[i]}" for j, i in sorted(leaked.items())[:5]]
    raise LeakError(
        f"{len(leaked)} of {total} test structures stand in the training set",
        where="; ".join(listed) + ("; ..." if len(leaked) > 5 else ""),
        wanted="test structures that training never sees",
        remedy="remove the repeated structures from one of the two sets",
    )
