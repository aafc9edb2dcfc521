"""The whole path of ``make demo`` in a short form, its report in a browser, and the README's Python on its model."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import ase.io
import numpy as np
import pytest

import adatom
from chromium import visit

ROOT = Path(__file__).parents[1]
SHORT = ["--steps", "120", "--repeat", "1", "--nve-steps", "20", "--nvt-steps", "20"]


def script() -> ModuleType:
    """examples/demo.py as a module."""
    spec = importlib.util.spec_from_file_location("demo", ROOT / "examples" / "demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a short demo."""
    return script().main([*SHORT, "--folder", str(tmp_path_factory.mktemp("runs"))])


@pytest.fixture(scope="module")
def metrics(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


def test_the_metrics_hold_every_figure_that_is_promised(metrics: dict[str, Any]) -> None:
    assert set(metrics["test"]) >= {"energy_rmse_meV_per_atom", "forces_rmse_meV_per_A", "stress_rmse_GPa"}
    names = ("lattice_constant_A", "bulk_modulus_GPa", "nve_drift_meV_per_atom_per_ps", "train_seconds")
    figures = [*(metrics[name] for name in names), *metrics["test"].values()]
    assert all(math.isfinite(figure) for figure in figures)
    assert isinstance(metrics["verify_passed"], bool)


def test_a_short_training_already_gives_silicon(metrics: dict[str, Any]) -> None:
    """Far from good, but a crystal of about the right size that is stiff, and forces that are better than none."""
    assert metrics["test"]["forces_rmse_meV_per_A"] < 1200
    assert metrics["lattice_constant_A"] == pytest.approx(5.477, abs=0.15)
    assert metrics["relaxed_lattice_constant_A"] == pytest.approx(metrics["lattice_constant_A"], abs=0.1)
    assert 40 < metrics["bulk_modulus_GPa"] < 250


def test_the_model_keeps_what_it_claims_however_short_it_was_trained(folder: Path, metrics: dict[str, Any]) -> None:
    checks = json.loads((folder / "verify.json").read_text())["checks"]
    assert [check for check in checks if check["verdict"] == "fail"] == []
    assert metrics["verify_passed"] is True


def test_the_dft_points_give_the_reference_of_the_set(metrics: dict[str, Any]) -> None:
    assert metrics["reference"]["lattice_constant_A"] == pytest.approx(5.477, abs=0.005)
    assert metrics["reference"]["bulk_modulus_GPa"] == pytest.approx(88.3, abs=3.0)


def test_the_run_folder_holds_all_that_the_report_shows(folder: Path) -> None:
    wanted = {
        "config.yaml", "log.jsonl", "data.json", "model.adatom", "card.json", "predictions.npz", "metrics.json",
        "eos.json", "verify.json", "speed.json", "diamond.xyz", "report.html",
    }  # fmt: skip
    assert wanted <= {path.name for path in folder.iterdir()}
    assert {"nve.jsonl", "nvt.jsonl", "nve.xyz", "nvt.xyz", "nve.rdf.json", "nvt.rdf.json"} <= {
        path.name for path in (folder / "md").iterdir()
    }
    for name in ("nve", "nvt"):
        lines = [json.loads(line) for line in (folder / "md" / f"{name}.jsonl").read_text().splitlines()]
        assert lines[-1]["kind"] == "end"
        assert lines[-2]["step"] == 20
    eos = json.loads((folder / "eos.json").read_text())
    np.testing.assert_allclose(eos["volume_A3_per_atom"], eos["reference"]["volume_A3_per_atom"])
    assert json.loads((folder / "speed.json").read_text())["rows"][0]["us_per_atom_energy_forces"] > 0
    assert len(ase.io.read(folder / "diamond.xyz")) == 8


@pytest.mark.browser
def test_the_report_opens_in_a_browser_with_all_its_plots(browser: Any, folder: Path) -> None:
    with visit(browser, folder / "report.html") as seen:
        assert seen.problems == []
        assert seen.requests == []
        counts = seen.page.eval_on_selector_all(
            ".canvas", 'all => all.map(c => c.querySelectorAll(".trace path.js-line, .trace path.point").length)'
        )
        assert len(counts) >= 8
        assert min(counts) > 0


def test_an_earlier_demo_is_kept_under_another_name(tmp_path: Path) -> None:
    earlier = tmp_path / "demo"
    earlier.mkdir()
    (earlier / "report.html").write_text("of yesterday")
    os.utime(earlier, (1e9, 1e9))
    script().set_aside(earlier)
    assert not earlier.exists()
    (kept,) = tmp_path.iterdir()
    assert kept.name.startswith("demo_2001-09-")
    assert (kept / "report.html").read_text() == "of yesterday"


def test_the_python_of_the_readme_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 2
    code = "\n".join(blocks)
    assert '"runs/demo/model.adatom"' in code
    model = str(folder / "model.adatom")
    found: dict[str, Any] = {}
    exec(code.replace('"runs/demo/model.adatom"', repr(model)), found)
    out = capsys.readouterr().out
    assert str(adatom.info(model)["errors"]["test"]) in out
    assert out.splitlines()[-1] == "True"
    assert found["relaxed"].converged
    assert found["potential"].runner is None, "compile='off'"
