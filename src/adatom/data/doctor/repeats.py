"""The same structure twice, nearly the same twice, and either of both in two sets that must not share any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from adatom.data.doctor.finding import Finding, Severity, about, count, file_of, percent
from adatom.data.doctor.nearby import NEAR, near_duplicates
from adatom.data.fingerprint import copies
from adatom.data.read import Structure

SAME: Final = 2e-3  # eV/atom that labels of copies may differ by
LEAKY: Final = 0.02  # share of near-duplicates in a test set that deserves a warning
SPLIT: Final = "keep frames of one trajectory together: split by group (data.split: {method: group, group: NAME})"


def copied_pairs(structures: Sequence[Structure]) -> list[tuple[int, int]]:
    """Pairs i < j of the same structure, free atoms left out."""
    bound = [k for k, s in enumerate(structures) if not s.isolated]
    some = [structures[k] for k in bound]
    return [(bound[i], bound[j]) for i, j in copies(some, some) if i < j]


def check_copies(structures: Sequence[Structure], pairs: Sequence[tuple[int, int]]) -> list[Finding]:
    """The same structure twice: harmless when labelled alike, a contradiction when not."""
    apart = {(i, j): abs(structures[i].energy - structures[j].energy) / len(structures[i].atoms) for i, j in pairs}
    different = [pair for pair in pairs if apart[pair] > SAME]
    found = []
    if different:
        worst = max(apart[pair] for pair in different)
        names = "; ".join(f"{structures[i].name} and {structures[j].name}" for i, j in different[:3])
        message = f"{count(len(different), 'pair')} of equal structures have different energies, by up to {worst:.3g}"
        remedy = "keep one of each, or name the charge and multiplicity that tell them apart under keys"
        if told := _telling(structures, different):
            remedy = f"the field '{told}' tells them apart: train on one value of it, or keep one of each"
            if _counts(structures, told):
                remedy += f"; if it is a charge or a multiplicity, name it: --charge {told}, --spin {told}"
        involved = tuple(dict.fromkeys(structures[k].name for pair in different for k in pair))
        found.append(Finding("contradicting copies", "warning", names, f"{message} eV/atom", remedy, involved))
    if len(pairs) > len(different):
        unequal = set(different)
        later = sorted({j for pair in pairs if pair not in unequal for j in pair[1:]})
        message = f"{count(len(later), 'structure')} repeat{'s' if len(later) == 1 else ''} another one"
        remedy = "they count double: remove them, above all before a random split"
        found.append(about("copies", "note", structures, later, message, remedy))
    return found


def _telling(structures: Sequence[Structure], pairs: Sequence[tuple[int, int]]) -> str:
    """A field that differs in nearly all pairs and has few values: what tells equal structures apart."""
    for name in structures[pairs[0][0]].tags:
        values = [(structures[i].tags.get(name), structures[j].tags.get(name)) for i, j in pairs]
        few = len({v for pair in values for v in pair}) <= 8
        if few and sum(a != b for a, b in values) > 0.97 * len(pairs) and not _is_label(structures[pairs[0][0]], name):
            return name
    return ""


def _counts(structures: Sequence[Structure], name: str) -> bool:
    """Whether a field holds small whole numbers, as charges and multiplicities are."""
    values = {s.tags.get(name, "") for s in structures}
    return all(value.lstrip("+-").removesuffix(".0").isdigit() and len(value) < 5 for value in values)


def check_near(structures: Sequence[Structure], copied: Sequence[tuple[int, int]]) -> list[Finding]:
    """Structures that hardly differ from another one; of copies only the first is looked at."""
    later = {j for _, j in copied}
    some = [s for k, s in enumerate(structures) if k not in later and not s.isolated]
    partner = near_duplicates(some)
    near = sorted(partner)
    if not near:
        return []
    pairs = [(some[k], some[partner[k]]) for k in near]
    following = sum(file_of(a) == file_of(b) and abs(_frame(a, b)) < 6 for a, b in pairs)
    message = f"{len(near):,} structures ({percent(len(near) / len(structures))}) lie within {NEAR} Å of another one"
    message += ", mostly frames that follow each other" if 2 * following > len(near) else ""
    remedy = f"a random split would test on what was trained on: {_grouping(structures, pairs)}"
    return [about("near-duplicates", "note", some, near, message, remedy)]


def _grouping(structures: Sequence[Structure], pairs: Sequence[tuple[Structure, Structure]]) -> str:
    """A field that keeps near-duplicates together, where there is one."""
    best, most = "", 1
    for name in structures[0].tags:
        values = {s.tags.get(name, "") for s in structures}
        if not most < len(values) <= len(structures) // 3 or _is_label(structures[0], name):
            continue
        if sum(a.tags.get(name) == b.tags.get(name) for a, b in pairs) > 0.97 * len(pairs):
            best, most = name, len(values)
    if best:
        return f"split by group (data.split: {{method: group, group: {best}}}: {most} groups)"
    return "give each trajectory a name in a field of its frames, and split by it (data.split: {method: group})"


def _is_label(structure: Structure, name: str) -> bool:
    return name in structure.keys.values()


def _frame(a: Structure, b: Structure) -> int:
    """Frames between two structures of one file."""
    numbers = [s.name.rpartition(":")[2] for s in (a, b)]
    return int(numbers[0]) - int(numbers[1]) if all(n.isdigit() for n in numbers) else 1_000


def check_leakage(parts: Mapping[str, Sequence[Structure]]) -> list[Finding]:
    """Structures of one set in another: copies are errors, near-duplicates warnings where they are many."""
    found = []
    names = list(parts)
    for i, ours in enumerate(names):
        for theirs in names[i + 1 :]:
            found += _leakage(parts[ours], parts[theirs], ours, theirs)
    return found


def _leakage(left: Sequence[Structure], right: Sequence[Structure], ours: str, theirs: str) -> list[Finding]:
    a, b = ([s for s in part if not s.isolated] for part in (left, right))
    found = []
    leaked = {j: i for i, j in reversed(copies(a, b))}
    if leaked:
        pairs = [f"{b[j].name} = {a[i].name}" for j, i in sorted(leaked.items())]
        message = f"{len(leaked)} of {len(right)} {theirs} structures stand in the {ours} set"
        remedy = f"remove them from one of the two: errors on the {theirs} set would be too good"
        where = "; ".join(pairs[:5]) + ("; ..." if len(pairs) > 5 else "")
        found.append(
            Finding(
                "leakage",
                "error" if theirs == "test" else "warning",
                where,
                message,
                remedy,
                tuple(b[j].name for j in sorted(leaked)),
            )
        )
    both = [*a, *b]
    partner = near_duplicates(both, [0] * len(a) + [1] * len(b))
    near = sorted(k for k in partner if k >= len(a) and k - len(a) not in leaked)
    if near:
        pairs = [f"{both[k].name} ~ {both[partner[k]].name}" for k in near]
        share = len(near) / max(len(right), 1)
        message = (
            f"{len(near)} of {len(right)} {theirs} structures ({percent(share)}) lie within {NEAR} Å of one of the "
            f"{ours} set"
        )
        remedy = f"errors on the {theirs} set would be too good; {SPLIT}"
        where = "; ".join(pairs[:5]) + ("; ..." if len(pairs) > 5 else "")
        severity: Severity = "warning" if share >= LEAKY else "note"
        found.append(Finding("near-leakage", severity, where, message, remedy, tuple(both[k].name for k in near)))
    return found
