"""Parting structures into training, validation and test sets, and the proof that none of the test was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from adatom.config import Config, nearest
from adatom.data.fingerprint import copies
from adatom.data.read import Structure
from adatom.errors import DataError, LeakError

Parts = tuple[list[Structure], list[Structure], list[Structure]]


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

    Raises
    ------
    DataError
        Nothing to split, nothing left to train on, or frames without the field of the groups.
    """
    config = config or Split()
    if not structures:
        raise DataError("there is nothing to split", wanted="at least one structure", remedy="check the data files")
    free = [k for k, s in enumerate(structures) if not s.isolated]
    random = np.random.default_rng(config.seed)
    units = [[k] for k in free] if config.method == "random" else _groups(structures, free, config.group)
    shuffled = [units[k] for k in random.permutation(len(units))]
    parts: list[list[int]] = []
    for name, share in (("test", config.test), ("valid", config.valid)):
        wanted = _count(share, len(free), name)
        part: list[int] = []
        while shuffled and len(part) < wanted:
            part += shuffled.pop()
        parts.append(part)
    held = set(parts[0]) | set(parts[1])
    train = [k for k in range(len(structures)) if k not in held]
    if not [k for k in train if not structures[k].isolated]:
        kind = "structures" if config.method == "random" else "groups"
        raise DataError(
            "the split leaves nothing to train on",
            wanted=f"fewer than all {len(units)} {kind} in valid and test",
            got=f"valid {config.valid}, test {config.test} of {len(free)} structures",
            remedy="lower valid and test, or bring more data",
        )
    test, valid = (sorted(p) for p in parts)
    return [structures[k] for k in train], [structures[k] for k in valid], [structures[k] for k in test]


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


def _groups(structures: Sequence[Structure], among: list[int], key: str) -> list[list[int]]:
    """Indices of the structures of each group, groups in order of first appearance."""
    groups: dict[str, list[int]] = {}
    for k in among:
        structure = structures[k]
        name = structure.config_type if key == "config_type" else structure.tags.get(key, "")
        if not name:
            near = nearest(key, sorted(structure.tags))
            raise DataError(
                f"a frame has no field '{key}' to group by",
                where=structure.name,
                wanted=f"'{key}' in every frame",
                got=f"fields {', '.join(sorted(structure.tags)) or 'none'}",
                remedy=f"did you mean '{near}'?" if near else "name another field under group, or split at random",
            )
        groups.setdefault(name, []).append(k)
    return list(groups.values())


def check_leaks(train: Sequence[Structure], test: Sequence[Structure]) -> None:
    """Make sure that no test structure stands in the training set.

    Found are copies that differ by rounding (up to about 3e-6 Å per coordinate), by wrapping or lattice
    translations, by a rigid shift, by the numbering of atoms, by a rotation of crystals and molecules, and mirror
    images of them. Structures that lie closer than about 0.01 Å to each other can be taken for copies where the
    displacement hardly changes any distance. **Not** found are supercells, other choices of the cell, copies with
    larger noise, and neighbours in time of one trajectory: split those by group. Free atoms and structures of
    different total charge or multiplicity are no leak.

    Raises
    ------
    LeakError
        Names the test structures and the training structures they repeat.
    """
    theirs = [s for s in test if not s.isolated]
    pairs = copies(train, theirs)
    if not pairs:
        return
    leaked = {j: i for i, j in reversed(pairs)}
    listed = [f"{theirs[j].name} = {train[i].name}" for j, i in sorted(leaked.items())]
    raise LeakError(
        f"{len(leaked)} of {len(test)} test structures stand in the training set",
        where="; ".join(listed[:5]) + ("; ..." if len(listed) > 5 else ""),
        wanted="test structures that training never sees",
        remedy="remove the repeated structures from one of the two sets",
    )
