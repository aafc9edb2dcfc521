"""Property cards: the records of a folder, one JSON file for each property, as sections of one page."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path

from adatom.errors import DataError
from adatom.report.card.section import Section
from adatom.report.page import Section as Part
from adatom.report.page import assemble, put
from adatom.report.record import Record, read_json
from adatom.report.summary import Tile

# in the order of a page; each is a file of report/card
KINDS = (
    "relaxation", "eos", "elastic", "phonons", "expansion", "vacancy", "surface",
    "vibrations", "neb", "dimers", "trajectory", "liquid", "left_out",
)  # fmt: skip
PAGE = "report.html"


def section_of(record: Record) -> Section:
    """What a page shows of a record, by its entry ``property``; DataError for a kind that nobody knows."""
    kind = record.text("property")
    if kind not in KINDS:
        raise DataError(
            "this file holds no property that is known",
            where=record.where,
            wanted=f'"property": one of {", ".join(KINDS)}',
            got=kind or "no such entry",
            remedy="write it anew with adatom properties, or take it out of the folder",
        )
    build: Callable[[Record], Section] = import_module(f"adatom.report.card.{kind}").section
    return build(record)


def records(folder: Path) -> list[Record]:
    """Every record of a folder, in the order of a page; those of one kind by their names. Other files are passed over.

    DataError for one that is no JSON at all.
    """
    found = [read_json(path) for path in sorted(folder.glob("*.json")) if not _a_list(path)]
    return sorted((r for r in found if "property" in r), key=lambda r: _place(r.text("property")))


def parts(found: Iterable[Record]) -> list[Part]:
    """Sections of a page for records; names that two of them share are told apart by a number."""
    made: list[Part] = []
    names: set[str] = set()
    for record in found:
        section = section_of(record)
        name, count = section.name, 2
        while name in names:
            name, count = f"{section.name}-{count}", count + 1
        names.add(name)
        made.append(part(section, name))
    return made


def part(section: Section, anchor: str | None = None) -> Part:
    """A section of the page."""
    context = {"property": section, "figures": list(section.figures)}
    return Part(anchor or section.name, section.title, context, template="property")


def write_card(folder: str | Path) -> Path:
    """Write ``report.html`` of a property card: one page of every record in a folder.

    DataError when there is none, or one is broken.
    """
    folder = Path(folder)
    found = records(folder) if folder.is_dir() else []
    if not found:
        raise DataError(
            "this folder holds no properties",
            where=str(folder),
            wanted="files such as elastic.json, written by adatom properties",
            remedy="compute some: adatom properties MODEL STRUCTURE",
        )
    formulas = list(dict.fromkeys(r.text("formula") for r in found if "formula" in r))
    models = list(dict.fromkeys(r.text("model") for r in found if "model" in r))
    heading = ", ".join(formulas) or folder.resolve().name
    facts = [f"model {name}" for name in models]
    sections = parts(found)
    put(
        folder / PAGE,
        assemble(f"{heading} · adatom properties", "Property card", heading, _tiles(found), facts, sections),
    )
    return folder / PAGE


def write_section(section: Section, path: Path) -> Path:
    """One section as a page of its own."""
    put(path, assemble(f"{section.title} · adatom", "Property", section.title, [], [], [part(section)]))
    return path


def _tiles(found: list[Record]) -> list[Tile]:
    """Headline figures: the first fact of each of the first properties; where they start from is none."""
    tiles = []
    for record in found:
        if record.text("property") in ("relaxation", "left_out"):
            continue
        section = section_of(record)
        if section.facts:
            label, value = section.facts[0]
            state = "bad" if section.warnings else ""
            figure, _, unit = value.partition("\u202f") if "\u202f" in value else (value, "", "")
            tiles.append(Tile(f"{section.title}: {label}", figure, unit, section.subtitle, state))
    return tiles[:4]


def _a_list(path: Path) -> bool:
    """Whether a file begins like a list: then it is somebody's, and no record."""
    return path.read_bytes().lstrip().startswith(b"[")


def _place(kind: str) -> int:
    return KINDS.index(kind) if kind in KINDS else len(KINDS)
