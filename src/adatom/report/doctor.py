"""The page of an examined data set: one HTML file out of the JSON that ``adatom data check`` writes."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from adatom.report.figure import Figure, Json, axis, layout, plain
from adatom.report.format import THIN, integer, number, plural
from adatom.report.page import Section, assemble, put
from adatom.report.record import Record
from adatom.report.summary import Tile

LOOK = {"error": ("✕", "bad"), "warning": ("!", "warn"), "note": ("i", "quiet")}
WORDS = {"errors": "not fit to train on", "warnings": "look at the warnings", "clean": "nothing against them"}
COUNTED = {"error": "errors", "warning": "warnings", "note": "notes"}


def write_data_page(record: Mapping[str, Any], page: Path) -> Path:
    """Write the page of an examination, given as the values of its JSON. It asks the network for nothing."""
    examined = Record(dict(record), "examination")
    files = examined.records("files")
    names = [file.text("file") for file in files]
    heading = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "no data"
    parts = {part: examined.record("parts").record(part) for part in examined.record("parts").values}
    sections = [
        _findings(examined),
        _labels(files),
        _work(parts),
        _elements(parts),
        _surroundings(parts),
        _energies(parts),
    ]
    text = assemble(
        f"{heading} · adatom data check",
        "Examination of a data set",
        heading,
        _tiles(examined, parts),
        _facts(parts),
        [section for section in sections if section is not None],
    )
    put(page, text)
    return page


def _tiles(examined: Record, parts: Mapping[str, Record]) -> list[Tile]:
    """Verdict, size, and how many of the structures carry each label."""
    findings = examined.records("findings")
    counts = {word: sum(f.text("severity") == severity for f in findings) for severity, word in COUNTED.items()}
    verdict = examined.text("verdict")
    value = {"errors": plural(counts["errors"], "error"), "warnings": plural(counts["warnings"], "warning")}
    state = {"errors": "bad", "clean": "good"}.get(verdict, "")
    rest = ", ".join(f"{n} {word}" for word, n in counts.items() if n and word != verdict)
    note = WORDS.get(verdict, "") + (f"; {rest}" if rest else "")
    found = [Tile("Verdict", value.get(verdict, "clean"), "", note, state)]
    structures = sum(p.real("structures") or 0.0 for p in parts.values())
    atoms = sum(p.real("atoms") or 0.0 for p in parts.values())
    told = ", ".join(f"{integer(p.real('structures'))} {part}" for part, p in parts.items())
    found.append(Tile("Structures", integer(structures), "", told if len(parts) > 1 else f"{integer(atoms)} atoms"))
    train = next(iter(parts.values()), Record({}, ""))
    for row in train.records("slopes")[:1]:
        for label in ("forces", "stress"):
            slope, error = row.real(label), row.real(f"{label}_error")
            if slope is not None and error is not None and error < 0.3 * abs(slope):
                good = "good" if 0.75 < slope < 4 / 3 else "bad"
                words = "agree" if good == "good" else "contradict each other"
                title = f"Energy against {label}"
                found.append(Tile(title, number(slope), "", f"± {number(error, 1)}; 1 is right: they {words}", good))
    return found


def _facts(parts: Mapping[str, Record]) -> list[str]:
    train = next(iter(parts.values()), Record({}, ""))
    elements = [row.text("element") for row in train.records("elements")]
    count = train.record("compositions").whole("count") or 0
    found = [", ".join(elements) if len(elements) <= 12 else f"{len(elements)} elements"] if elements else []
    found += [plural(count, "composition")] if count else []
    pbc = train.record("pbc").numbers()
    words = {"TTT": "periodic", "FFF": "open", "TTF": "slabs"}
    return found + [f"{words.get(kind, kind)}{f': {integer(n)}' if len(pbc) > 1 else ''}" for kind, n in pbc.items()]


def _findings(examined: Record) -> Section:
    rows = []
    for finding in examined.records("findings"):
        names = finding.values.get("names") or []
        rows.append((finding, LOOK.get(finding.text("severity"), LOOK["note"]), [str(name) for name in names]))
    return Section("doctor-findings", "Findings", {"rows": rows})


def _labels(files: list[Record]) -> Section | None:
    return Section("doctor-labels", "Files and labels", {"files": files}) if files else None


def _work(parts: Mapping[str, Record]) -> Section | None:
    """Energy differences against the work of the forces and the stress."""
    shown = [(part, _work_figures(part, values), values.records("slopes")) for part, values in parts.items()]
    shown = [entry for entry in shown if entry[1]]
    return Section("doctor-work", "Energies against forces and stress", {"parts": shown}) if shown else None


def _work_figures(part: str, values: Record) -> list[Figure]:
    """Equal cells and strained cells, where there are pairs of each."""
    pairs = values.record("figures").record("pairs")
    energy, forces, stress = (pairs.reals(key) for key in ("dE_eV", "force_work_eV", "stress_work_eV"))
    if energy.size < 8:
        return []
    names = [html.escape(str(name)) for name in pairs.values.get("names", [])]
    strained = stress != 0.0
    figures = []
    for key, title, chosen, work in (
        ("forces", "Equal cells: work of the forces", ~strained, forces),
        ("stress", "Strained cells: work of forces and stress", strained, forces + stress),
    ):
        if chosen.sum() >= 4:
            told = [names[k] for k in np.flatnonzero(chosen)]
            figures.append(
                _identity(
                    f"work-{part}-{key}", title, work[chosen], energy[chosen], pairs.reals("distance_A")[chosen], told
                )
            )
    return figures


def _identity(
    name: str, title: str, work: np.ndarray, energy: np.ndarray, distance: np.ndarray, names: list[str]
) -> Figure:
    low, high = float(min(work.min(), energy.min())), float(max(work.max(), energy.max()))
    margin = 0.05 * (high - low) or 1.0
    span = (low - margin, high + margin)
    points: Json = {
        "type": "scatter",
        "mode": "markers",
        "x": plain(work),
        "y": plain(energy),
        "text": names,
        "customdata": plain(distance, 3),
        "marker": {"color": "@blue", "size": 6, "opacity": 0.55, "line": {"width": 0}},
        "hovertemplate": "<b>%{text}</b>, %{customdata} Å<br>work %{x:.4~g} eV<br>dE %{y:.4~g} eV<extra></extra>",
    }
    look = layout(axis("work (eV)", span=span), axis("energy difference (eV)", span=span), hover="closest")
    diagonal = {"color": "@muted", "width": 1}
    look["shapes"] = [
        {"type": "line", "x0": span[0], "y0": span[0], "x1": span[1], "y1": span[1], "line": diagonal, "layer": "below"}
    ]
    return Figure(name, title, plural(work.size, "pair") + " of near-identical structures", [points], look, "parity")


def _elements(parts: Mapping[str, Record]) -> Section | None:
    shown = [(part, values) for part, values in parts.items() if values.records("elements")]
    if not shown:
        return None
    largest = max(row.real("atoms") or 1.0 for _, values in shown for row in values.records("elements"))
    tables = [
        (part, values.records("elements"), values.record("compositions"), values.record("conditioning"))
        for part, values in shown
    ]
    return Section("doctor-elements", "Elements and compositions", {"tables": tables, "largest": largest})


def _surroundings(parts: Mapping[str, Record]) -> Section | None:
    shown = [(part, values) for part, values in parts.items() if values.records("neighbours")]
    if not shown:
        return None
    figures = []
    part, values = shown[0]
    left, pairs = values.record("distances").reals("left_A"), values.record("distances").reals("pairs")
    if pairs.sum() > 0:
        width = float(left[1] - left[0])
        middle = left + 0.5 * width
        density = pairs / (4.0 * np.pi * middle**2 * width)
        known = np.flatnonzero(pairs)
        first = max(int(known[0]) - 4, 0)
        share = density / density.max()
        bars: Json = {
            "type": "bar",
            "x": plain(middle[first:]),
            "y": plain(share[first:], 3),
            "width": width,
            "customdata": pairs[first:].tolist(),
            "marker": {"color": "@blue/65", "line": {"width": 0}},
            "hovertemplate": "%{customdata:,} pairs at %{x:.3f} Å<extra></extra>",
        }
        look = layout(axis("distance (Å)"), axis("pairs / r² (relative)"), hover="closest") | {"bargap": 0.0}
        title, note = "Distances between atoms", "pairs per shell over its volume"
        figures.append(Figure(f"distances-{part}", title, note, [bars], look))
    tables = [(name, v.records("neighbours")) for name, v in shown]
    return Section(
        "doctor-surroundings",
        "Surroundings of the atoms",
        {"figures": figures, "tables": tables, "closest": values.records("closest")},
    )


def _energies(parts: Mapping[str, Record]) -> Section | None:
    """Energies over the references and the largest force of each structure."""
    figures = []
    for part, values in parts.items():
        figure = values.record("figures")
        energy, force = figure.reals("energy_eV_atom"), figure.reals("largest_force_eV_A")
        if energy.size < 2:
            continue
        names = [html.escape(str(name)) for name in figure.values.get("names", [])]
        of = "" if len(parts) == 1 else f", {part} set"
        counts, edges = np.histogram(energy, bins=min(max(int(energy.size**0.5), 8), 50))
        bars: Json = {
            "type": "bar",
            "x": plain((edges[1:] + edges[:-1]) / 2),
            "y": counts.tolist(),
            "width": float(edges[1] - edges[0]),
            "marker": {"color": "@blue/65", "line": {"width": 0}},
            "hovertemplate": "%{y} structures at %{x:.4~g} eV/atom<extra></extra>",
        }
        look = layout(axis("energy over references (eV/atom)"), axis("structures"), hover="closest") | {"bargap": 0.05}
        note = f"{plural(energy.size, 'structure')}, spread {number(float(energy.std()))}{THIN}eV/atom"
        figures.append(Figure(f"energies-{part}", f"Energies{of}", note, [bars], look))
        if np.isfinite(force).sum() > 1:
            points: Json = {
                "type": "scatter",
                "mode": "markers",
                "x": plain(energy),
                "y": plain(force),
                "text": names,
                "marker": {"color": "@blue", "size": 5, "opacity": 0.55, "line": {"width": 0}},
                "hovertemplate": "<b>%{text}</b><br>%{x:.4~g} eV/atom<br>%{y:.4~g} eV/Å<extra></extra>",
            }
            look = layout(axis("energy over references (eV/atom)"), axis("largest force (eV/Å)"), hover="closest")
            figures.append(
                Figure(f"extremes-{part}", f"Energy and largest force{of}", "one point each", [points], look)
            )
    charges = [(part, values.records("charges")) for part, values in parts.items()]
    charges = [(part, rows) for part, rows in charges if any(_known(row) for row in rows)]
    if not figures and not charges:
        return None
    return Section("doctor-energies", "Energies, forces and charges", {"figures": figures, "charges": charges})


def _known(row: Record) -> bool:
    return row.real("charge") is not None or row.real("multiplicity") is not None
