"""``adatom analyse | liquid`` as a user calls them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk

from adatom.cli import main
from adatom.model_file import save
from adatom.models import MODELS
from adatom.report.card.trajectory import uncertain
from adatom.sim.md import MDConfig, run
from toy import Toy, toy_potential

Verb = Callable[..., tuple[int, str]]


@pytest.fixture
def adatom(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Verb:
    """The command in an empty folder that holds toy.adatom and copper.xyz: exit code, and all that it says."""
    monkeypatch.setitem(MODELS, "toy", Toy)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    save(toy_potential(), tmp_path / "toy.adatom")
    ase.io.write(tmp_path / "copper.xyz", bulk("Cu", a=3.4535, cubic=True) * 2)

    def call(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["adatom", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out + said.err

    return call


def moving(tmp_path: Path) -> Path:
    config = MDConfig(
        ensemble="nvt", thermostat="bussi", steps=240, timestep_fs=2.0, trajectory_every=4, temperature_K=600.0
    )
    run(ase.io.read(tmp_path / "copper.xyz"), toy_potential(), config, tmp_path, "run")
    return tmp_path / "run.xyz"


def test_analyse_shows_all_of_a_trajectory_and_writes_it(adatom: Verb, tmp_path: Path) -> None:
    path = moving(tmp_path)
    code, said = adatom(
        "analyse", path, "--skip", 0.08, "--reference", path, "--r-max", 5, "--q-max", 5,
        "--json", "all.json", "--figure", "all.png",
    )  # fmt: skip
    assert code == 0, said
    assert "Cu does not diffuse: " in " ".join(said.split())
    assert "estimate" not in said
    assert re.search(r"Cu\s+│\s+–\s+│\s+–\s+│", said), "no D in the table"
    record = json.loads((tmp_path / "all.json").read_text())
    assert record["property"] == "trajectory"
    assert record["frames"] == 51
    assert record["likeness"]["Cu-Cu"]["overlap"] > 0.97
    assert {"pairs", "reference", "structure", "diffusion", "velocities"} <= set(record)
    assert record["velocities"]["resolved"] is True
    assert (tmp_path / "all.png").stat().st_size > 10_000


def test_analyse_leaves_out_what_frames_do_not_hold_and_says_so(adatom: Verb, tmp_path: Path) -> None:
    code, said = adatom("analyse", "copper.xyz", "--json", "one.json")
    assert code == 0, said
    assert "do not say when they were" in said
    record = json.loads((tmp_path / "one.json").read_text())
    assert "diffusion" not in record
    assert max(record["pairs"]["g"]["Cu-Cu"]) > 1
    code, said = adatom("analyse", "copper.xyz", "--only", "diffusion")
    assert code == 1
    assert "three frames" in said
    code, said = adatom("analyse", "coper.xyz")
    assert code == 1
    assert "copper.xyz" in said
    code, said = adatom("analyse", "copper.xyz", "--only", "pear")
    assert code == 1
    assert "pairs" in said


def test_liquid_gives_a_density_and_goes_on_after_an_interruption(
    adatom: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wishes = (
        "liquid", "toy.adatom", "copper.xyz", "--temperature", 300, "--pressure", 0, "--timestep", 2,
        "--equilibration", 0.1, "--production", 0.5, "--gas", "none", "--compile", "off",
        "--json", "liquid.json", "--figure", "liquid.png",
    )  # fmt: skip

    def interrupt(self: object, step: int, thermo: object) -> None:
        if step >= 100:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("adatom.cli.running.MDProgress.show", interrupt)
        code, said = adatom(*wishes)
    assert code == 130
    assert "--restart" in said
    assert not (tmp_path / "liquid.json").exists()
    code, said = adatom(*wishes)
    assert code == 1
    assert "exists" in said
    code, said = adatom(*wishes, "--restart")
    assert code == 0, said
    record = json.loads((tmp_path / "liquid.json").read_text())
    assert record["property"] == "liquid"
    assert record["model"] == "toy.adatom"
    times = [
        json.loads(line).get("time_ps") for line in (tmp_path / "liquid" / "liquid.jsonl").read_text().splitlines()
    ]
    steps = [t for t in times if t is not None]
    np.testing.assert_allclose(np.diff(steps), 0.04)
    assert record["density_g_per_cm3"] == pytest.approx(63.546 * 4 / 3.4535**3 * 1.66054, rel=0.03)
    assert (tmp_path / "liquid.png").stat().st_size > 10_000


def test_liquid_asks_for_molecules_before_any_run(adatom: Verb, tmp_path: Path) -> None:
    code, said = adatom("liquid", "toy.adatom", "copper.xyz")
    assert code == 1
    assert "network" in said
    assert not (tmp_path / "liquid").exists()


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.2312, 0.0123, "0.231 ± 0.012"),
        (2.31e-5, 1.2e-6, "(2.31 ± 0.12)×10⁻⁵"),
        (1234.5, 56.7, "1\u202f234 ± 57"),
        (0.0, 0.02, "0.000 ± 0.020"),
        (1.5, None, "1.50"),
    ],
)
def test_a_figure_has_the_digits_that_its_error_leaves(value: float, error: float | None, text: str) -> None:
    assert uncertain(value, error) == text
