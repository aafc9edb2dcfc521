"""The doctor's page in a real browser, without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adatom.data.doctor.files import examine_files
from adatom.report.doctor import write_data_page
from chromium import visit

SILICON = Path(__file__).parents[2] / "data" / "si_pbe_gpaw"
EVIL = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


@pytest.mark.browser
def test_the_page_opens_offline_with_drawn_plots_and_without_problems(browser: Any, tmp_path: Path) -> None:
    record = examine_files({"train": [SILICON / "train.xyz.xz"], "test": [SILICON / "test.xyz.xz"]}).to_dict()
    record["findings"][0]["message"] = EVIL
    page = write_data_page(record, tmp_path / "x.html")
    with visit(browser, page) as seen:
        assert seen.problems == []
        assert seen.requests == []
        assert seen.page.title() == "train.xyz.xz, test.xyz.xz · adatom data check"
        widths = seen.page.evaluate(
            """() => [...document.querySelectorAll(".canvas")].map(
                (div) => div.querySelector("svg.main-svg")?.getBoundingClientRect().width ?? 0)"""
        )
        assert len(widths) == 2 + 1 + 4
        assert min(widths) > 200
        assert not seen.page.evaluate("document.documentElement.scrollWidth > innerWidth + 1")
        anchors = seen.page.evaluate("[...document.querySelectorAll('section[id]')].map((s) => s.id)")
        assert len(anchors) == len(set(anchors)) == 6


def test_data_without_any_label_have_a_page_too(tmp_path: Path) -> None:
    (tmp_path / "x.xyz").write_text("2\n\nH 0 0 0\nH 0 0 0.74\n")
    record = examine_files({"train": [tmp_path / "x.xyz"]}).to_dict()
    assert record["verdict"] == "errors"
    assert "no structure has energy" in write_data_page(record, tmp_path / "x.html").read_text()
    record = examine_files({"train": [tmp_path / "none.xyz"]}).to_dict()
    assert "no such data file" in write_data_page(record, tmp_path / "x.html").read_text()
