"""What a fine-tune forgot, on the page: the table of the terminal, the curves of the log, the words for both."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adatom.report import write_report
from adatom.report.forgetting import forgetting_figures, forgetting_rows
from adatom.report.load import load_run
from adatom.report.record import Record
from chromium import visit
from report.fake_run import BEFORE, tuned, write
from report.test_page import own_text, sections

FILES = {"log.jsonl", "metrics.json"}


def changed(folder: Path, **changes: Any) -> Path:
    """A run whose metrics say something else of forgetting."""
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["forgetting"] |= changes
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def table(text: str, name: str = "forgetting-table") -> str:
    found = re.search(f'<table[^>]*id="{name}".*?</table>', text, flags=re.DOTALL)
    assert found is not None
    return found[0]


def test_a_row_has_before_after_and_their_ratio_and_nothing_for_what_was_not_stated() -> None:
    rows = forgetting_rows(
        Record(
            {
                "before": {"energy_rmse_meV_per_atom": 4.0},
                "after": {"energy_rmse_meV_per_atom": 5.0, "stress_rmse_GPa": 2.0},
            }
        )
    )
    assert [(r.name, r.unit, r.before, r.after, r.ratio) for r in rows] == [
        ("Energy", "meV/atom", 4.0, 5.0, 1.25),
        ("Stress", "GPa", None, 2.0, None),
    ]
    assert forgetting_rows(Record({})) == []


def test_a_page_shows_the_table_and_a_curve_of_each_quantity(tmp_path: Path) -> None:
    text = own_text(write_report(tuned(write(tmp_path, FILES))))
    assert "56 old structures" in text
    cells = re.findall(r'data-value="([\d.]*)"', table(text))
    assert [float(c) for c in cells] == pytest.approx([v for b in BEFORE.values() for v in (b, 1.5 * b, 1.5)])
    assert re.findall(r'id="plot-(forgetting-\w+)"', text) == [
        f"forgetting-{q}" for q in ("energy", "forces", "stress")
    ]
    assert "within the bound" in text


def test_curves_hold_what_the_log_says_with_the_error_before_and_the_weights_that_were_kept(tmp_path: Path) -> None:
    figure = forgetting_figures(load_run(tuned(write(tmp_path, FILES))))[1]
    traces = {trace["name"]: trace for trace in figure.data}
    assert traces["RMSE"]["x"] == list(range(0, 4201, 300))
    np.testing.assert_allclose(traces["RMSE"]["y"], [80 * (1 + 0.5 * s / 3900) for s in range(0, 4201, 300)], rtol=1e-5)
    assert set(traces["before"]["y"]) == {80.0}
    assert set(traces["bound"]["y"]) == {240.0}
    assert (traces["kept"]["x"], traces["kept"]["y"]) == ([3900.0], [120.0])
    assert figure.note == "80.0 → 120 meV/Å"
    stress = forgetting_figures(load_run(tmp_path))[2]
    assert "bound" not in {trace["name"] for trace in stress.data}, "nobody holds stresses against a bound"


def test_weights_that_are_none_of_the_log_have_no_point(tmp_path: Path) -> None:
    folder = changed(tuned(write(tmp_path, FILES)), after={"forces_rmse_meV_per_A": 77.0})
    assert "kept" not in {trace["name"] for figure in forgetting_figures(load_run(folder)) for trace in figure.data}
    assert "weights that were kept" not in own_text(write_report(folder))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stopped": True}, "the last weights within this bound were kept"),
        ({"labels": "the model's own"}, "errors that the model file states"),
        ({"labels": "the model's own", "before": None, "ratio": None, "bound": None}, "states no errors"),
    ],
)
def test_the_words_say_what_was_measured(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    assert said in own_text(write_report(changed(tuned(write(tmp_path, FILES)), **changes)))


def test_either_file_alone_gives_its_part(tmp_path: Path) -> None:
    folder = tuned(write(tmp_path, FILES))
    metrics = (folder / "metrics.json").read_text()
    (folder / "metrics.json").unlink()  # a run that was stopped
    text = own_text(write_report(folder))
    assert "plot-forgetting-energy" in text
    assert "forgetting-table" not in text
    (folder / "metrics.json").write_text(metrics)
    (folder / "log.jsonl").unlink()
    text = own_text(write_report(folder))
    assert "forgetting-table" in text
    assert "plot-forgetting" not in text


def test_a_run_that_forgot_nothing_and_had_no_trouble_has_neither_section(tmp_path: Path) -> None:
    assert not {"forgetting", "trouble"} & sections(write_report(write(tmp_path)))


@pytest.mark.browser
def test_both_sections_open_without_error_and_fit_a_phone(browser: Any, tmp_path: Path) -> None:
    page = write_report(tuned(write(tmp_path, FILES)))
    with visit(browser, page, width=390, height=844) as seen:
        assert seen.settle("document.documentElement.scrollWidth", 390) == 390
        drawn = "document.querySelectorAll('#plot-forgetting-forces .trace path.js-line').length"
        assert seen.page.evaluate(drawn) == 3  # before, bound, and the curve
        seen.page.locator("#trouble-table th button", has_text="What").click()
        first = seen.page.locator("#trouble-table tbody tr").first
        assert "memory ran out" in first.inner_text()
        assert seen.problems == []
