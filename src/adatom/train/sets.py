"""The structures of a run: read, parted, examined before anything is learned from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from rich.console import Console
from rich.text import Text

from adatom.data.doctor import Finding, examine
from adatom.data.doctor.examine import SAMPLE
from adatom.data.read import Found, Structure, found_table, read, require
from adatom.data.selection import Selection, concatenated
from adatom.data.split import check_leaks, split
from adatom.errors import DataError
from adatom.train.config import DataConfig

QUICK = 2_000  # structures of a store that are looked at before training
AGREE = ("energy and forces", "energy and stress")
COLOURS = {"error": "bold red", "warning": "yellow", "note": "green"}  # of findings


@dataclass(frozen=True)
class Sets:
    """The structures of a run, parted, with what their files held and what the doctor says."""

    train: Sequence[Structure]
    valid: Sequence[Structure]
    test: Sequence[Structure]
    found: dict[str, list[Found]]  # part -> its files
    findings: list[Finding]
    sources: dict[str, np.ndarray] = field(default_factory=dict)  # part -> source of each of its structures

    def source_of(self, part: str, first: int = 0) -> np.ndarray:
        """Source of the labels of each structure of a part, counted from ``first``."""
        return first + self.sources.get(part, np.zeros(len(self.parts()[part]), dtype=np.int64))

    def parts(self) -> dict[str, Sequence[Structure]]:
        """By name."""
        return {"train": self.train, "valid": self.valid, "test": self.test}


def read_all(config: DataConfig, needed: set[str], console: Console) -> Sets:
    """The structures of all sources of labels, one source after the other."""
    every = config.by_source()
    if len(every) == 1:
        return read_sets(every[0][1], needed, console)
    read: list[Sets] = []
    for name, own in every:
        console.print(Text.assemble(("source ", "bold"), name))
        read.append(read_sets(own, needed, console))
    parts = {part: concatenated(*(sets.parts()[part] for sets in read)) for part in read[0].parts()}
    sources = {part: np.repeat(np.arange(len(read)), [len(sets.parts()[part]) for sets in read]) for part in parts}
    found = {part: [f for sets in read for f in sets.found.get(part, [])] for part in parts}
    return Sets(**parts, found=found, findings=[f for sets in read for f in sets.findings], sources=sources)


def read_sets(config: DataConfig, needed: set[str], console: Console) -> Sets:
    """Read all files, show what was found, split; labels must be there, and no test structure in the training set."""
    found: dict[str, list[Found]] = {}
    parts: dict[str, Sequence[Structure]] = {"valid": [], "test": []}
    everything: Sequence[Structure]
    everything, found["train"] = read(config.train, config.keys, config.units)
    for part, files in (("valid", config.valid), ("test", config.test)):
        if files:
            parts[part], found[part] = read(files, config.keys, config.units)
    console.print(found_table([f for files in found.values() for f in files]))
    cut = config.split.model_copy(
        update={name: 0 for name in ("valid", "test") if parts[name]}  # given as files: nothing to split off
    )
    training, valid, test = split(everything, cut)
    valid, test = parts["valid"] or valid, parts["test"] or test
    for structures in (training, valid, test):
        if structures:
            bulk = structures is training or bool(Selection.of(structures).periodic.any())
            require(structures, needed if bulk else needed - {"stress"})  # molecules alone have none to validate on
    remarks = check_leaks(concatenated(training, valid), test)
    findings = [Finding("sample", "note", "data", remark) for remark in remarks]
    examined = {"train": training, "valid": valid, "test": test}
    sample = SAMPLE if isinstance(training, list) else QUICK
    findings += examine(examined, used=sorted(needed), sample=sample, tables=False).findings
    show(findings, console)
    console.print(f"{len(training)} structures to train on, {len(valid)} to validate, {len(test)} to test")
    return Sets(training, valid, test, found, findings)


def show(findings: Sequence[Finding], console: Console) -> None:
    """Print findings, what is to be done about warnings too; DataError at the first that forbids training.

    Of the notes those that say that labels agree are printed, and the others counted.
    """
    notes = 0
    for finding in findings:
        if finding.severity == "note" and finding.kind not in AGREE:
            notes += 1
            continue
        console.print(Text.assemble((finding.severity, COLOURS[finding.severity]), f": {finding.message}"))
        if finding.severity == "error":
            raise DataError(finding.message, where=finding.where, remedy=finding.remedy)
        if finding.severity == "warning":
            console.print(Text(f"  {finding.where}\n  → {finding.remedy}", style="dim"), soft_wrap=True)
    if notes:
        console.print(f"{notes} more notes: adatom data check tells them", style="dim")
