"""Run folder -> one HTML file with everything inside: data, plots, style, script and plotly itself."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from adatom.report import format as written
from adatom.report.dynamics import dynamics
from adatom.report.energy_volume import constants, energy_volume_figure, headline
from adatom.report.figure import Figure
from adatom.report.forgetting import forgetting_figures, forgetting_rows
from adatom.report.learning import TRAIN, VALID, VALID_RMSE, learning_figures
from adatom.report.load import Run, load_run
from adatom.report.parity import covers, parity_figures
from adatom.report.summary import VERDICTS, facts, tiles
from adatom.report.tables import by_config_type, by_element, overall, worst
from adatom.report.trouble import trouble_rows, trouble_told

Context = dict[str, Any]


@dataclass(frozen=True)
class Section:
    """One part of the page: its anchor, its title in the contents, and what its template needs.

    The template is called as the anchor is, unless several sections share one.
    """

    anchor: str
    title: str
    context: Context
    template: str = ""


def write_report(run: Path) -> Path:
    """Write ``report.html`` into a run folder.

    The page holds all it needs and asks the network for nothing. A section whose file is missing is left out.

    Parameters
    ----------
    run
        Folder of a training run.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    DataError
        The folder does not exist, holds nothing to report, or holds a broken file.
    """
    page = Path(run) / "report.html"
    put(page, render(load_run(Path(run))))
    return page


def put(page: Path, text: str) -> None:
    """Write a page whole: a reader never sees half of one."""
    part = page.with_suffix(page.suffix + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, page)


def render(run: Run) -> str:
    """The page as text."""
    sections = [section for build in _SECTIONS if (section := build(run)) is not None]
    return assemble(
        f"{run.name} · adatom report", "Report of a training run", run.name, tiles(run), facts(run), sections
    )


def assemble(
    title: str, kicker: str, heading: str, tiles: Sequence[object], facts: Sequence[str], sections: Sequence[Section]
) -> str:
    """A page of sections: what stands in the tab, above the heading and as heading, headline figures, short facts."""
    figures = [figure for section in sections for figure in _figures(section.context)]
    environment = Environment(
        loader=PackageLoader("adatom.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": lambda value, digits=3: written.raised(written.number(value, digits)),
        "tidy": lambda value: written.raised(written.tidy(value)),
        "raised": written.raised,
        "fixed": written.fixed,
        "signed": written.signed,
        "integer": written.integer,
        "percent": lambda share: written.number(None if share is None else 100.0 * share, 3),
        "plural": written.plural,
    }
    return environment.get_template("page.html.j2").render(
        title=title,
        kicker=kicker,
        heading=heading,
        tiles=tiles,
        facts=facts,
        sections=sections,
        verdicts=VERDICTS,
        specs=embed({figure.name: {"data": figure.data, "layout": figure.layout} for figure in figures}),
        style=_asset("style.css"),
        script=_asset("page.js"),
        plotly=in_script(get_plotlyjs()) if figures else "",
    )


def embed(value: object) -> Markup:
    """JSON that can stand inside a script element: nothing in it can close the element or open a comment."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def in_script(code: str) -> Markup:
    """Code of our own or of plotly, made safe to stand inside a script element."""
    return Markup(code.replace("</script", "<\\/script").replace("<!--", "<\\!--"))


def _asset(name: str) -> Markup:
    return in_script((files("adatom.report") / "templates" / name).read_text(encoding="utf-8"))


def _figures(context: Context) -> list[Figure]:
    """Every figure of a section, however deep it lies."""
    found: list[Figure] = []
    waiting: list[object] = list(context.values())
    while waiting:
        value = waiting.pop(0)
        if isinstance(value, Figure):
            found.append(value)
        elif isinstance(value, list | tuple):
            waiting = [*value, *waiting]
    return found


def _data(run: Run) -> Section | None:
    if run.data is None:
        return None
    counts = run.data.config_types
    splits = list(counts)
    kinds = dict.fromkeys(kind for split in splits for kind in counts[split])
    rows = [(kind, [counts[split].get(kind, 0) for split in splits]) for kind in kinds]
    rows.sort(key=lambda row: -sum(row[1]))
    largest = max((sum(numbers) for _, numbers in rows), default=1)
    return Section("data", "Training data", {"data": run.data, "splits": splits, "kinds": rows, "largest": largest})


def _learning(run: Run) -> Section | None:
    figures = learning_figures(run.history) if run.history else []
    if not figures or run.history is None:
        return None
    legend = (TRAIN, VALID, VALID_RMSE)
    return Section("learning", "Learning curves", {"figures": figures, "legend": legend, "end": run.history.end})


def _forgetting(run: Run) -> Section | None:
    figures, rows = forgetting_figures(run), forgetting_rows(run.metrics.record("forgetting"))
    if not (figures or rows):
        return None
    drawn = {trace["name"] for figure in figures for trace in figure.data}
    context: Context = {"record": run.metrics.record("forgetting"), "rows": rows, "figures": figures, "drawn": drawn}
    return Section("forgetting", "Forgetting", context)


def _trouble(run: Run) -> Section | None:
    rows, left_out = trouble_rows(run.history.trouble if run.history else ())
    told = trouble_told(run.metrics.record("not_finite"))
    if not (rows or told):
        return None
    return Section("trouble", "Trouble", {"rows": rows, "left_out": left_out, "told": told})


def _parity(run: Run) -> Section | None:
    references = (
        {r.text("element"): e for r in run.data.references if (e := r.real("energy_eV")) is not None}
        if run.data
        else {}
    )
    sets = [(p, figures) for p in run.predictions if (figures := parity_figures(p, references))]
    if not sets:
        return None
    predictions, figures = sets[0]
    kinds = sorted({str(kind) for kind in predictions.config_types} - {""})
    context: Context = {
        "split": predictions.split,
        "figures": figures,
        "kinds": kinds,
        "above_references": covers(predictions, references),
    }
    return Section("parity", "Parity", context)


def _errors(run: Run) -> Section | None:
    if not run.predictions:
        return None
    p = run.predictions[0]
    kinds = by_config_type(p)
    return Section(
        "errors",
        "Errors in detail",
        {
            "split": p.split,
            "totals": [(other.split, overall(other)) for other in run.predictions],
            "kinds": kinds if any(row.name for row in kinds) else [],
            "elements": by_element(p),
            "worst": worst(p),
        },
    )


def _energy_volume(run: Run) -> Section | None:
    figure = energy_volume_figure(run.curves)
    if figure is None:
        return None
    context: Context = {
        "figure": figure,
        "rows": constants(run.curves),
        "reference": run.curves[1].label if len(run.curves) > 1 else "",
        "note": headline(run.curves),
    }
    return Section("energy-volume", "Energy and volume", context)


def _dynamics(run: Run) -> Section | None:
    shown = [dynamics(trajectory) for trajectory in run.trajectories]
    shown = [item for item in shown if item.figures or item.facts]
    if not shown:
        return None
    return Section("dynamics", "Molecular dynamics", {"runs": shown, "figures": [item.figures for item in shown]})


def _verify(run: Run) -> Section | None:
    if run.verify is None or not run.verify.records("checks"):
        return None
    return Section("verify", "Verification", {"verify": run.verify, "checks": run.verify.records("checks")})


def _speed(run: Run) -> Section | None:
    if run.speed is None:
        return None
    rows = run.speed.records("rows")
    times = [value for row in rows if (value := row.real("us_per_atom_energy_forces")) is not None]
    sizes = [value for row in rows if (value := row.real("peak_memory_MB")) is not None]
    context = {
        "speed": run.speed,
        "rows": rows,
        "slowest": max(times, default=None),
        "heaviest": max(sizes, default=None),
    }
    return Section("speed", "Speed and memory", context)


def _provenance(run: Run) -> Section | None:
    card = dict(run.card.values) if run.card else {}
    versions = card.pop("versions", {})
    shown = yaml.safe_dump(card, sort_keys=False, allow_unicode=True) if card else ""
    if not (run.config or card or versions or run.data):
        return None
    context = {
        "config": run.config,
        "card": shown,
        "versions": versions if isinstance(versions, dict) else {},
        "fingerprint": run.data.fingerprint if run.data else "",
    }
    return Section("provenance", "Provenance", context)


_SECTIONS: tuple[Callable[[Run], Section | None], ...] = (
    _data,
    _learning,
    _forgetting,
    _trouble,
    _parity,
    _errors,
    _energy_volume,
    _dynamics,
    _verify,
    _speed,
    _provenance,
)
