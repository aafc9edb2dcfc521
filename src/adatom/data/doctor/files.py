"""Files to an examination: what cannot be read is a finding among others, and the other files are looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from adatom.data.doctor.examine import CUTOFFS, SAMPLE, Examination, examine
from adatom.data.doctor.finding import Finding, ordered
from adatom.data.labels import Keys
from adatom.data.read import Found, Structure, Units, read
from adatom.data.selection import concatenated
from adatom.errors import AdatomError


def examine_files(
    parts: Mapping[str, Sequence[str | Path]],
    keys: Keys | None = None,
    units: Units | None = None,
    cutoffs: Sequence[float] = CUTOFFS,
    sample: int = SAMPLE,
) -> Examination:
    """Read the files of each part (``train``, ``valid``, ``test``) and examine them together.

    A file that cannot be read - missing, truncated, of impossible geometry, with labels that are no numbers - is a
    finding of the kind ``unreadable`` with the words of the error.
    """
    structures: dict[str, Sequence[Structure]] = {}
    found: list[Found] = []
    broken: list[Finding] = []
    for part, files in parts.items():
        read_parts = _read(list(files), keys, units)
        found += [f for _, one, _ in read_parts for f in one]
        broken += [f for *_, trouble in read_parts for f in trouble]
        held = [own for own, *_ in read_parts if len(own)]
        structures[part] = held[0] if len(held) == 1 else concatenated(*held) if held else []
    examination = examine({part: s for part, s in structures.items() if len(s)}, found, cutoffs=cutoffs, sample=sample)
    return replace(examination, findings=tuple(ordered([*broken, *examination.findings])))


def _read(
    files: list[str | Path], keys: Keys | None, units: Units | None
) -> list[tuple[Sequence[Structure], list[Found], list[Finding]]]:
    """All files at once; one by one where that fails."""
    if not files:
        return []
    try:
        return [(*read(files, keys, units), [])]
    except AdatomError as error:
        if len(files) == 1:
            return [([], [], [unreadable(error, str(files[0]))])]
    return [result for file in files for result in _read([file], keys, units)]


def unreadable(error: AdatomError, file: str) -> Finding:
    """An error of reading as a finding."""
    wanted = f"; wanted: {error.wanted}" if error.wanted else ""
    got = f"; got: {error.got}" if error.got else ""
    message = f"{error.problem}{wanted}{got}"
    return Finding("unreadable", "error", error.where or file, message, error.remedy or "repair the file")
