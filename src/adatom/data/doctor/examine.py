"""The whole examination: every check on every part of a data set, between the parts, and the tables to look at."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np

from adatom.data.doctor.charges import charge_table, check_charges
from adatom.data.doctor.energies import PairPotential, check_energies
from adatom.data.doctor.finding import Finding, about, files_of, ordered, softened
from adatom.data.doctor.forces import check_forces
from adatom.data.doctor.labels import (
    check_constants,
    check_coverage,
    check_resolution,
    check_zeros,
    coverage,
    has,
)
from adatom.data.doctor.references import (
    check_references,
    composition_table,
    conditioning,
    reference_table,
    references_of,
)
from adatom.data.doctor.repeats import check_copies, check_leakage, check_near, copied_pairs
from adatom.data.doctor.shears import check_shears
from adatom.data.doctor.slopes import check_kinds, check_slopes, slope_table
from adatom.data.doctor.surroundings import Neighbourhood, check_cells, check_contacts, half_pairs
from adatom.data.pairs import Pairs, close_pairs
from adatom.data.read import LABELS, Found, Structure
from adatom.elements import symbols
from adatom.errors import DataError

CUTOFFS: Final = (4.0, 5.0, 6.0)  # Å
SAMPLE: Final = 20_000  # structures that the costly checks look at
ATOMS: Final = 300_000  # atoms whose neighbours are counted
EVERY: Final = 100_000  # structures up to which the cheap checks look at all of them
BLOCK: Final = 100  # structures in a row that a sample takes: pairs and near-duplicates stand together
DRAWN: Final = 4_000  # points of a figure


@dataclass(frozen=True)
class Examination:
    """What the doctor found, errors first, and the tables behind it; all of it plain values that JSON takes."""

    findings: tuple[Finding, ...]
    tables: dict[str, Any] = field(default_factory=dict)

    @property
    def errors(self) -> list[Finding]:
        """What training must not begin with."""
        return [f for f in self.findings if f.severity == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """What deserves a look."""
        return [f for f in self.findings if f.severity == "warning"]

    @property
    def verdict(self) -> str:
        """``errors``, ``warnings`` or ``clean``."""
        return "errors" if self.errors else "warnings" if self.warnings else "clean"

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it: numbers that are none are null."""
        values = {"verdict": self.verdict, "findings": [asdict(f) for f in self.findings], **self.tables}
        return dict(_plain(values))


def stop(findings: Sequence[Finding]) -> None:
    """Raise the first error among findings as DataError."""
    for finding in findings:
        if finding.severity == "error":
            raise DataError(finding.message, where=finding.where, remedy=finding.remedy)


def consistency(structures: Sequence[Structure], used: Collection[str] = LABELS, sample: int = SAMPLE) -> list[Finding]:
    """All findings on one set, errors first: :func:`examine` without tables.

    What is wrong with labels outside of ``used``, which the loss leaves alone, is a warning at most.
    """
    return list(examine({"train": structures}, used=used, sample=sample, tables=False).findings)


def examine(
    parts: Mapping[str, Sequence[Structure]],
    found: Iterable[Found] = (),
    used: Collection[str] = LABELS,
    cutoffs: Sequence[float] = CUTOFFS,
    sample: int = SAMPLE,
    tables: bool = True,
) -> Examination:
    """Look at a data set in all ways the doctor knows.

    Energies against the work of forces and stress, labels that are missing, empty or repeated, copies and
    near-duplicates within and between the parts, contacts, neighbours, charges and multiplicities, net forces and
    torques, references and free atoms, energies that nothing explains. O(n log n) in structures.

    Parameters
    ----------
    parts
        Structures by the part they serve: ``train``, ``valid``, ``test``.
    found
        What reading had to say of the files.
    used
        Labels that the loss uses: an error in another one is a warning.
    cutoffs
        Å, for the counts of neighbours.
    sample
        Where a part holds more structures, the costly checks (pairs, copies, neighbours) look at about so many of it,
        in evenly spaced blocks, always the same ones, and a note says so. All checks do beyond 100,000 structures,
        and in sets that are no lists: those make their structures when asked for.
    tables
        Whether to make the tables too.
    """
    findings: list[Finding] = []
    values: dict[str, Any] = {"parts": {}}
    seen: dict[str, list[Structure]] = {}
    looked: dict[str, list[Structure]] = {}
    for part, structures in parts.items():
        if not structures:
            continue
        chosen = seen[part] = choose(structures, sample)
        # what makes its structures when asked for is gone through once, not once by every check
        whole = looked[part] = structures if isinstance(structures, list) and len(structures) <= EVERY else chosen
        if len(chosen) < len(structures):
            what = "pairs, copies and neighbours were" if len(whole) == len(structures) else "everything was"
            message = f"{what} looked for in {len(chosen):,} of {len(structures):,} structures"
            remedy = "ask for more of them with --sample"
            findings.append(Finding("sample", "note", files_of(chosen), message, remedy))
        some, table = _part(whole, chosen, cutoffs, tables)
        if tables:
            table |= {"structures": len(structures)}
        findings += [_in_part(f, part, len(parts)) for f in some]
        values["parts"][part] = table
    findings += check_leakage(seen)
    findings += _strangers(looked)
    if tables:
        values["files"] = [row for part, s in looked.items() for row in _files(s, part)]
        values["sampled"] = {part: len(s) for part, s in seen.items()}
    findings += [
        Finding("reading", "note", f.file, remark, "name the fields under keys where another one was meant")
        for f in found
        for remark in f.remarks
    ]
    return Examination(tuple(ordered(softened(findings, used))), values)


def choose(structures: Sequence[Structure], most: int) -> list[Structure]:
    """At most about ``most`` structures: blocks of neighbours in evenly spaced places, always the same."""
    count = len(structures)
    if count <= most:
        return structures if isinstance(structures, list) else list(structures)
    blocks = max(most // BLOCK, 1)
    starts = np.unique(np.linspace(0, count - BLOCK, blocks).astype(int))
    kept = np.unique((starts[:, None] + np.arange(BLOCK)).ravel())
    return [structures[int(k)] for k in kept]


def _in_part(finding: Finding, part: str, parts: int) -> Finding:
    return finding if parts == 1 or part == "train" else Finding(
        finding.kind, finding.severity, finding.where, f"{part} set: {finding.message}", finding.remedy, finding.names
    )  # fmt: skip


def _part(
    structures: Sequence[Structure], chosen: Sequence[Structure], cutoffs: Sequence[float], tables: bool
) -> tuple[list[Finding], dict[str, Any]]:
    """Findings and tables of one part; ``chosen`` is what the costly checks look at."""
    pairs = close_pairs(chosen)
    copied = copied_pairs(chosen)
    around, potential = _surroundings(chosen, cutoffs)
    rows = slope_table(chosen, pairs)
    condition = conditioning(structures)
    found = [
        *check_slopes(chosen, pairs),
        *check_kinds(chosen, rows),
        *check_shears(chosen, pairs),
        *check_coverage(structures),
        *check_zeros(structures),
        *check_constants(structures),
        *check_resolution(structures),
        *check_copies(chosen, copied),
        *check_near(chosen, copied),
        *check_contacts(chosen),
        *check_cells(structures),
        *around.findings(chosen),
        *check_forces(structures),
        *check_energies(structures),
        *potential.findings(chosen),
        *potential.shifts(chosen),
        *check_charges(structures),
        *check_references(structures, condition),
    ]
    if not tables:
        return found, {}
    references = references_of(structures)
    elements = reference_table(structures, references)
    for row, z in zip(elements, sorted({int(z) for s in structures for z in np.unique(s.atoms.numbers)}), strict=True):
        least, median = around.nearest_of(z) or (None, None)
        row |= {"nearest_A": least, "nearest_median_A": median}
    return found, {
        "structures": len(structures),
        "atoms": sum(len(s.atoms) for s in structures),
        "labelled": {label: sum(has(s, label) and bool(label in s.keys) for s in structures) for label in LABELS},
        "pbc": dict(Counter("".join("FT"[int(p)] for p in s.atoms.pbc) for s in structures)),
        "elements": elements,
        "conditioning": condition,
        "compositions": composition_table(structures),
        "kinds": dict(Counter(s.config_type for s in structures).most_common(30)),
        "neighbours": around.table(),
        "closest": around.closest_table()[:15],
        "distances": around.distances(),
        "slopes": rows,
        "charges": charge_table(structures),
        "figures": _figures(structures, pairs, references),
    }


def _surroundings(structures: Sequence[Structure], cutoffs: Sequence[float]) -> tuple[Neighbourhood, PairPotential]:
    """One pass over the pairs of atoms of evenly spaced structures, as many as ``ATOMS`` allows."""
    reach = max([*cutoffs, 5.0])
    around = Neighbourhood(cutoffs)
    elements = {int(z) for s in structures for z in np.unique(s.atoms.numbers)}
    potential = PairPotential(sorted(elements))
    total = sum(len(s.atoms) for s in structures)
    step = max(math.ceil(total / ATOMS), 1)
    for k in range(0, len(structures), step):
        s = structures[k]
        if len(s.atoms) == 1 and s.isolated:
            continue
        pairs = half_pairs(s.atoms, reach)
        around.add(s, *pairs)
        if np.isfinite(s.energy) and len(s.atoms) > 1:
            potential.add(k, s, *pairs)
    return around, potential


def _strangers(parts: Mapping[str, Sequence[Structure]]) -> list[Finding]:
    """Elements, charges and multiplicities of the other sets that training never sees."""
    train = parts.get("train", ())
    if not train:
        return []
    known = {int(z) for s in train for z in np.unique(s.atoms.numbers)}
    found = []
    for part, structures in parts.items():
        if part == "train":
            continue
        strange = [k for k, s in enumerate(structures) if not known.issuperset(s.atoms.numbers.tolist())]
        if strange:
            more = sorted({int(z) for k in strange for z in structures[k].atoms.numbers} - known)
            message = f"{len(strange)} {part} structures hold elements that no training structure has: "
            message += ", ".join(symbols(more))
            remedy = f"add such structures to the training set, or leave these out of the {part} set"
            found.append(about("unknown element", "error", structures, strange, message, remedy))
    return found


def _files(structures: Sequence[Structure], part: str) -> list[dict[str, Any]]:
    return [{"part": part, **row} for row in coverage(structures)]


def _figures(structures: Sequence[Structure], pairs: Pairs, references: Any) -> dict[str, Any]:
    """What the page draws: works against energies, energies and forces."""
    step = max(len(pairs.first) // DRAWN, 1)
    energies, largest, names = [], [], []
    every = max(len(structures) // DRAWN, 1)
    for s in (structures[k] for k in range(0, len(structures), every)):
        if len(s.atoms) > 1 and np.isfinite(s.energy) and references is not None:
            energies.append((s.energy - references.total(s.atoms.numbers)) / len(s.atoms))
            largest.append(float(np.abs(s.forces).max()) if np.isfinite(s.forces).all() else None)
            names.append(s.name)
    return {
        "pairs": {
            "dE_eV": pairs.energy[::step].tolist(),
            "force_work_eV": pairs.force_work[::step].tolist(),
            "stress_work_eV": pairs.stress_work[::step].tolist(),
            "distance_A": pairs.distance[::step].tolist(),
            "atoms": pairs.atoms[::step].tolist(),
            "names": [
                f"{structures[int(a)].name} – {structures[int(b)].name}"
                for a, b in zip(pairs.first[::step], pairs.second[::step], strict=True)
            ],
        },
        "energy_eV_atom": energies,
        "largest_force_eV_A": largest,
        "names": names,
    }  # fmt: skip


def _plain(value: Any) -> Any:
    """Nested values as JSON has them."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
