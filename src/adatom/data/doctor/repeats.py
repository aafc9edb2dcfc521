"""The same structure twice, nearly the same twice, and either of both in two sets that must not share any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from adatom.data.doctor.finding import Finding, Severity, about, count, file_of
from adatom.data.doctor.nearby import NEAR, near_duplicates
from adatom.data.fingerprint import copies
from adatom.data.read import Structure

SAME: Final = 2e-3  # eV/atom that labels of copies may differ by
LEAKY: Final = 0.02  # share of near-duplicates in a test set that deserves a warning
SPLIT: Final = "keep frames of one trajectory together: split by group (data.split: {method: group, group: NAME})"


def check_copies(structures: Sequence[Structure]) -> list[Finding]:
    """The same structure twice: harmless when labelled alike, a contradiction when not."""
    bound = [k for k, s in enumerate(structures) if not s.isolated]
    some = [structures[k] for k in bound]
    pairs = [(bound[i], bound[j]) for i, j in copies(some, some) if i < j]
    apart = {(i, j): abs(structures[i].energy - structures[j].energy) / len(structures[i].atoms) for i, j in pairs}
    different = [pair for pair in pairs if apart[pair] > SAME]
    found = []
    if different:
        worst = max(apart[pair] for pair in different)
        names = "; ".join(f"{structures[i].name} and {structures[j].name}" for i, j in different[:5])
        message = f"{len(different)} pairs of equal structures have different energies, by up to {worst:.3g} eV/atom"
        remedy = "keep one of each, or name the charge and multiplicity that tell them apart under keys"
        involved = tuple(dict.fromkeys(structures[k].name for pair in different for k in pair))
        found.append(Finding("contradicting copies", "warning", names, message, remedy, involved))
    if len(pairs) > len(different):
        unequal = set(different)
        later = sorted({j for pair in pairs if pair not in unequal for j in pair[1:]})
        message = f"{count(len(later), 'structure')} repeat{'s' if len(later) == 1 else ''} another one"
        remedy = "they count double: remove them, above all before a random split"
        found.append(about("copies", "note", structures, later, message, remedy))
    return found


def check_near(structures: Sequence[Structure], copied: Sequence[str] = ()) -> list[Finding]:
    """Structures that hardly differ from another one, beside the ``copied`` ones."""
    partner = near_duplicates(structures)
    known = set(copied)
    near = sorted(k for k in partner if structures[k].name not in known)
    if not near:
        return []
    following = sum(
        file_of(structures[k]) == file_of(structures[partner[k]]) and abs(_frame(structures[k], structures[partner[k]]))
        < 6
        for k in near
    )  # fmt: skip
    share = 100.0 * len(near) / len(structures)
    message = f"{count(len(near), 'structure')} ({share:.2g} %) lie within {NEAR} Å of another one"
    message += " (no atom moved further)" + (
        ", mostly frames that follow each other" if 2 * following > len(near) else ""
    )
    remedy = f"a random split would test on what was trained on; {SPLIT}"
    return [about("near-duplicates", "note", structures, near, message, remedy)]


def _frame(a: Structure, b: Structure) -> int:
    return int(a.name.rpartition(":")[2]) - int(b.name.rpartition(":")[2])


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
            f"{len(near)} of {len(right)} {theirs} structures ({100 * share:.2g} %) lie within {NEAR} Å of one of the "
            f"{ours} set"
        )
        remedy = f"errors on the {theirs} set would be too good; {SPLIT}"
        where = "; ".join(pairs[:5]) + ("; ..." if len(pairs) > 5 else "")
        severity: Severity = "warning" if share >= LEAKY else "note"
        found.append(Finding("near-leakage", severity, where, message, remedy, tuple(both[k].name for k in near)))
    return found
