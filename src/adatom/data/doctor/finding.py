"""What every check of the doctor gives: findings, each with the way out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from adatom.data.read import LABELS, Structure

Severity = Literal["error", "warning", "note"]
ORDER: Final[dict[str, int]] = {"error": 0, "warning": 1, "note": 2}
SHOWN: Final = 5  # structures that are named in one line


@dataclass(frozen=True)
class Finding:
    """One thing to know about a data set; ``error``: training on it would learn nonsense."""

    kind: str
    severity: Severity
    where: str
    message: str
    remedy: str = "nothing to do"
    names: tuple[str, ...] = ()  # of all structures that it speaks of, where it speaks of some


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first."""
    return sorted(findings, key=lambda finding: ORDER[finding.severity])


def softened(findings: Iterable[Finding], used: Collection[str]) -> list[Finding]:
    """The same findings; an error in a label that the loss leaves alone is a warning."""
    idle = [label for label in LABELS if label not in used]
    return [
        replace(f, severity="warning") if f.severity == "error" and any(label in f.kind for label in idle) else f
        for f in findings
    ]


def about(
    kind: str, severity: Severity, structures: Sequence[Structure], which: Sequence[int], message: str, remedy: str
) -> Finding:
    """A finding on some structures, which it names."""
    names = tuple(structures[k].name for k in which)
    return Finding(kind, severity, listed(names), message, remedy, names)


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(names[:SHOWN]) + (f", and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def file_of(structure: Structure) -> str:
    """File that a structure stands in."""
    return structure.name.rpartition(":")[0]


def files_of(structures: Sequence[Structure]) -> str:
    """Files that the structures stand in."""
    return ", ".join(dict.fromkeys(file_of(s) for s in structures))


def by_file(structures: Sequence[Structure]) -> dict[str, list[int]]:
    """Indices of the structures of each file."""
    files: dict[str, list[int]] = defaultdict(list)
    for k, s in enumerate(structures):
        files[file_of(s)].append(k)
    return files


def count(number: int, noun: str, plural: str = "") -> str:
    """``1 structure``, ``12,400 structures``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def percent(share: float) -> str:
    """``0.12 %``, ``14 %``, ``100 %``."""
    return f"{100.0 * share:.{0 if share > 0.0995 else 2 if share < 0.01 else 1}f} %"


def most_common(values: Iterable[str]) -> str:
    """The value that occurs most often; empty for none."""
    counted = Counter(values).most_common(1)
    return counted[0][0] if counted else ""
