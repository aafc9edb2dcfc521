"""Property cards: records become sections of a page, and figures become pictures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adatom.errors import ConfigError, DataError
from adatom.report.card.section import Section
from adatom.report.figure import Figure, axis, layout, line, reference_line
from adatom.report.picture import write_figure
from adatom.report.properties import KINDS, parts, records, section_of, write_card
from adatom.report.record import Record


def eos_record(**changes: Any) -> dict[str, Any]:
    volumes = np.linspace(18.0, 22.0, 9)
    energies = -5.4 + 0.02 * (volumes - 20.0) ** 2
    fit = {"V0_A3_per_atom": 20.0, "E0_eV_per_atom": -5.4, "B0_GPa": 90.1, "B0_prime": 4.2, "lattice_constant_A": 5.47}
    values = {"property": "eos", "model": "si.adatom", "formula": "Si2", "fit": fit}
    return values | {"volume_A3_per_atom": volumes.tolist(), "energy_eV_per_atom": energies.tolist()} | changes


def section(**look: Any) -> Section:
    x = np.linspace(0.0, 1.0, 30)
    curves = [line(x, x**2 + 0.1, "a", "@blue"), line(x, x, "b", "@orange/60", 1.0, "dash")]
    figure = Figure("f", "Squares &amp; <i>lines</i>", "a note", curves, layout(axis("x (Å)"), axis("y (eV)")) | look)
    return Section("some", "Some curves", figures=(figure,))


def test_a_card_holds_every_record_in_order_and_asks_the_network_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text(json.dumps(eos_record()))
    (tmp_path / "a.json").write_text(json.dumps(eos_record(formula="Si8")))
    (tmp_path / "other.json").write_text(json.dumps({"no": "property"}))
    text = write_card(tmp_path).read_text(encoding="utf-8")
    assert text.count('class="part"') == 2
    assert 'id="eos"' in text
    assert 'id="eos-2"' in text  # two of one kind are told apart
    assert "Si8, Si2" in text
    assert "90.1" in text
    assert 'http-equiv="Content-Security-Policy" content="default-src \'none\'' in text


def test_every_kind_of_a_card_has_a_file_with_a_section() -> None:
    folder = Path(__file__).parents[2] / "src" / "adatom" / "report" / "card"
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "section"}
    assert set(KINDS) == files


def test_an_unknown_property_and_an_empty_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no properties"):
        write_card(tmp_path)
    with pytest.raises(DataError, match=r"eos(.|\n)*colour"):
        section_of(Record({"property": "colour"}, "x.json"))
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(DataError, match=r"x\.json"):
        records(tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf", ".html"])
def test_a_figure_is_written_in_every_format(tmp_path: Path, suffix: str) -> None:
    path = write_figure(section(shapes=[reference_line(0.5)], showlegend=True), tmp_path / f"f{suffix}")
    assert path.stat().st_size > 1000
    if suffix == ".png":
        with Image.open(path) as image:
            colours = {tuple(pixel[:3]) for pixel in np.asarray(image.convert("RGB")).reshape(-1, 3)[::7].tolist()}
        assert (0x18, 0x68, 0xAB) in colours  # the blue curve is there
    if suffix == ".svg":
        text = path.read_text()
        assert "Squares &amp; lines" in text
        assert "x (Å)" in text


def test_a_picture_has_the_scales_of_the_page(tmp_path: Path) -> None:
    """Logarithmic axes, fixed ranges, named ticks, several axes, bars, bands, error bars, polar curves."""
    x = np.linspace(1.0, 10.0, 12)
    points = {"type": "scatter", "mode": "markers", "x": x.tolist(), "y": x.tolist(), "name": "p",
              "marker": {"color": "@green", "size": 6}, "error_y": {"type": "data", "array": [0.1] * 12}}  # fmt: skip
    band = {"type": "scatter", "mode": "lines", "x": [1, 5, 5, 1], "y": [1, 1, 2, 2], "fill": "toself",
            "fillcolor": "@blue/20", "line": {"width": 0}, "xaxis": "x2", "yaxis": "y2"}  # fmt: skip
    bars = {"type": "bar", "x": ["a", "b"], "y": [1.0, None], "marker": {"color": "@blue/65"}}
    look = layout(axis("x", log_over=x), axis("y", span=(0.0, 12.0)))
    look["xaxis"] |= {"domain": [0.0, 0.6]}
    look |= {
        "xaxis2": axis("n") | {"domain": [0.7, 1.0], "tickvals": [1, 5], "ticktext": ["Γ", "X"]},
        "yaxis2": axis("z"),
    }
    polar = {"type": "scatterpolar", "r": [1.0, 2.0, 1.0], "theta": [0, 90, 180], "line": {"color": "@blue"}}
    figures = (
        Figure("one", "One", "", [points, band], look),
        Figure("two", "Two", "", [bars], layout(axis("k"), axis("n"))),
        Figure("three", "Three", "", [polar], {}),
    )
    assert write_figure(Section("s", "S", figures=figures), tmp_path / "f.svg").read_text().count("Γ") >= 1


def test_no_panel_stays_empty_and_a_short_logarithmic_axis_is_written_out(tmp_path: Path) -> None:
    x = np.geomspace(0.004, 0.06, 12)
    curve = Figure("c", "C", "", [line(x, x, "c", "@blue", 1.6)], layout(axis("x", log_over=x), axis("y", log_over=x)))
    three = Section("s", "S", figures=(curve, curve, curve))
    with Image.open(write_figure(three, tmp_path / "f.png")) as image:
        pixels = np.asarray(image.convert("L"))
    assert pixels[pixels.shape[0] // 2 :, pixels.shape[1] // 2 :].min() < 128
    assert pixels[:, :8].min() == 255, "nothing is cut off on the left"
    said = write_figure(three, tmp_path / "f.svg").read_text()
    assert ">0.02<" in said
    assert "×" not in said


def test_names_and_degrees_stand_clear_of_the_rest(tmp_path: Path) -> None:
    """The first and the last name of a row within the axis, 90° of a circle below the note."""
    names = ["(1 1 1) a", "(1 0 0)", "(1 1 1) b"]
    points = {"type": "scatter", "mode": "markers", "x": names, "y": [1.0, 2.0, 3.0], "marker": {"color": "@blue"}}
    polar = {"type": "scatterpolar", "r": [1.0, 2.0, 1.0], "theta": [0, 90, 180], "line": {"color": "@blue"}}

    def places(trace: dict[str, Any]) -> dict[str, tuple[float, float]]:
        figure = Figure("f", "F", "a note", [trace], layout(axis(""), axis("y")))
        said = write_figure(Section("s", "S", figures=(figure,)), tmp_path / f"{trace['type']}.svg").read_text()
        found = re.findall(r"<text [^>]*translate\(([\d.]+) ([\d.]+)\)[^>]*>([^<]+)</text>", said)
        found += re.findall(r'<text [^>]*x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]+)</text>', said)
        return {text: (float(across), float(down)) for across, down, text in found}

    row, circle = places(points), places(polar)
    step = row[names[1]][0] - row[names[0]][0]
    assert row["F"][0] + 0.4 * step < row[names[0]][0] < row["F"][0] + 0.6 * step, "half a step from the axis"
    assert circle["90°"][1] > circle["a note"][1] + 12.0


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.png, \.svg"):
        write_figure(section(), tmp_path / "f.jpg")
    with pytest.raises(ConfigError, match="nothing to draw"):
        write_figure(Section("empty", "Empty"), tmp_path / "f.png")
    volume = Figure("v", "V", "", [{"type": "volume"}], {})
    with pytest.raises(ConfigError, match="volume"):
        write_figure(Section("s", "S", figures=(volume,)), tmp_path / "f.png")


def test_the_points_of_a_curve_stand_in_its_table() -> None:
    made = parts([Record(eos_record(), "eos.json")])[0].context["property"]
    assert made.facts[0] == ("Lattice constant", "5.4700\u202fÅ")
    assert len(made.tables[0].rows) == 9
