"""Any run folder becomes a page: whole or in part, with nothing to fetch and nothing to run but our own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from adatom.errors import DataError
from adatom.report import write_report
from adatom.report.page import embed, in_script
from report.fake_run import predictions, write

PARTS = {
    "config.yaml": {"provenance"},
    "log.jsonl": {"learning"},
    "data.json": {"data", "provenance"},
    "card.json": {"provenance"},
    "predictions.npz": {"parity", "errors"},
    "valid_predictions.npz": {"parity", "errors"},
    "metrics.json": set(),
    "eos.json": {"energy-volume"},
    "md": {"dynamics"},
    "verify.json": {"verify"},
    "speed.json": {"speed"},
}


def sections(page: Path) -> set[str]:
    return set(re.findall(r'<section id="([\w-]+)" class="part"', page.read_text(encoding="utf-8")))


def own_text(page: Path) -> str:
    """The page without plotly."""
    text = page.read_text(encoding="utf-8")
    scripts = re.findall(r"<script>.*?</script>", text, flags=re.DOTALL)
    return text.replace(max(scripts, key=len), "") if "plotly.js v" in text else text


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(write(tmp_path_factory.mktemp("runs") / "silicon"))


def test_a_full_run_has_all_sections_and_plotly_once(page: Path) -> None:
    assert page.name == "report.html"
    assert sections(page) == set.union(*PARTS.values())
    text = page.read_text(encoding="utf-8")
    assert text.count("plotly.js v") == 1
    assert not page.with_suffix(".html.part").exists()
    links = set(re.findall(r'<a href="#([\w-]+)"', text)) - {"main"}
    assert links == sections(page)


@pytest.mark.parametrize("part", PARTS)
def test_each_file_alone_gives_its_sections_alone(part: str, tmp_path: Path) -> None:
    page = write_report(write(tmp_path, only={part}))
    assert sections(page) == PARTS[part]
    assert ("plotly.js v" in page.read_text(encoding="utf-8")) == bool(
        PARTS[part] - {"provenance", "data", "verify", "speed"}
    )


@pytest.mark.parametrize("part", PARTS)
def test_any_one_file_may_be_missing(part: str, tmp_path: Path) -> None:
    page = write_report(write(tmp_path, only=PARTS.keys() - {part}))
    others = set.union(*(found for name, found in PARTS.items() if name != part))
    assert sections(page) == others


def test_nothing_points_outside_the_page(page: Path) -> None:
    text = own_text(page)
    assert not re.findall(r"https?://|//cdn|@import|url\(", text)
    assert "default-src 'none'" in text  # and plotly, which names servers, is kept from asking any


def test_the_same_run_gives_the_same_page(page: Path, tmp_path: Path) -> None:
    again = write_report(write(tmp_path / "silicon"))
    assert again.read_bytes() == page.read_bytes()


def test_texts_from_files_cannot_become_markup(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>&<!--"
    folder = write(tmp_path / "run")
    arrays = predictions(np.random.default_rng(0))
    arrays["names"] = np.array([evil] * arrays["names"].shape[0])
    arrays["config_types"] = arrays["names"]
    np.savez(folder / "predictions.npz", **arrays)
    for name in ("verify.json", "speed.json", "data.json", "eos.json", "card.json"):
        text = (folder / name).read_text()
        (folder / name).write_text(re.sub(r'(: |\[)"[^"]*"', lambda m: m[1] + json.dumps(evil), text))
    (folder / "config.yaml").write_text(f"name: {evil}\n")
    text = own_text(write_report(folder))
    assert "alert(1)" in text
    assert "<script>alert(1)" not in text
    assert text.count("</script>") == 2  # the data and our own code; plotly's was taken out


def test_embedded_json_reads_back_and_cannot_leave_its_element() -> None:
    value = {"a": "</script><!--\u2028&", "b": [1, None]}
    text = embed(value)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == value
    with pytest.raises(ValueError, match="JSON compliant"):
        embed({"a": float("nan")})
    assert "</script" not in in_script("a = '</script>'")


def test_a_missing_or_strange_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such run folder"):
        write_report(tmp_path / "nowhere")
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match=r"nothing to report(?s:.*)holiday\.jpg"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_the_headline_falls_back_on_the_predictions_and_the_trajectory(tmp_path: Path) -> None:
    whole = own_text(write_report(write(tmp_path / "whole")))
    (write(tmp_path / "bare") / "metrics.json").unlink()
    bare = own_text(write_report(tmp_path / "bare"))
    tile = re.compile(r'<p class="label">(.*?)</p>\s*<p class="value">(.*?)<')
    assert len(tile.findall(whole)) == 8
    shown = dict(tile.findall(bare))
    for label, value in tile.findall(whole):
        if label == "NVE drift":  # the fake metrics and the fake trajectory agree to their noise
            assert float(shown[label]) == pytest.approx(float(value), abs=2e-3)
        else:
            assert shown[label] == value


def test_a_failed_check_is_said_in_words(tmp_path: Path) -> None:
    folder = write(tmp_path)
    checks = json.loads((folder / "verify.json").read_text())
    checks["checks"][1] |= {"verdict": "fail", "figure": 0.25}
    (folder / "verify.json").write_text(json.dumps(checks))
    text = own_text(write_report(folder))
    assert re.search(r'class="tile bad">\s*<p class="label">Verification</p>\s*<p class="value">✕ 1', text)
    row = re.search(r"<tr><th scope=\"row\">rotation.*?</tr>", text, flags=re.DOTALL)
    assert row is not None
    assert "✕</span> fail" in row[0]
    assert "0.25" in row[0]


def test_a_test_set_without_labels_of_one_kind_leaves_that_plot_out(tmp_path: Path) -> None:
    arrays = predictions(np.random.default_rng(0))
    arrays["stress_ref"][:] = np.nan
    folder = write(tmp_path, only={"config.yaml"})
    np.savez(folder / "predictions.npz", **arrays)
    text = own_text(write_report(folder))
    assert re.findall(r'id="plot-(parity-[\w-]+)"', text) == ["parity-test-energy", "parity-test-forces"]


def test_the_report_imports_no_torch() -> None:
    code = "import sys, adatom.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
