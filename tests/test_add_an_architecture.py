"""The page on adding an architecture: its code is an architecture, keeps the contract, and trains."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml

import adatom
from adatom.models import MODELS
from adatom.models.overview import overview
from adatom.testing import verify
from adatom.testing.untrained import untrained
from adatom.train.config import TrainConfig
from test_cli import call
from train.runs import configuration, log, run, slices

PAGE = (Path(__file__).parents[1] / "docs" / "add_an_architecture.md").read_text(encoding="utf-8")
MODULE = "adatom.models.schnet"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def install(monkeypatch: pytest.MonkeyPatch, change: tuple[str, str] = ("", "")) -> None:
    """What the page does: a file among the models, an entry in the table. Both are gone after the test."""
    file, entry = blocks("python")
    assert change[0] in file
    module = ModuleType(MODULE)
    monkeypatch.setitem(sys.modules, MODULE, module)
    exec(compile(file.replace(*change) if change[0] else file, "schnet.py", "exec"), module.__dict__)
    monkeypatch.setitem(MODELS, "schnet", MODELS["mlanet"])  # for the monkeypatch to take the entry out again
    exec(compile(entry, "page", "exec"), {})
    assert MODELS["schnet"].__name__ == "SchNet"


def test_the_file_is_short() -> None:
    lines = [line for line in blocks("python")[0].splitlines() if line.strip()]
    assert len(lines) < 75, "prose, imports and configuration included"


def test_it_keeps_the_contract(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    install(monkeypatch)
    (command,) = blocks("sh")
    assert call(*command.split()[1:]) == 0
    assert "every claim holds" in capsys.readouterr().out


def test_without_its_envelope_it_fails_as_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, (" * fade", ""))
    result = verify(untrained("schnet"))
    failed = {check.name for check in result.checks if check.verdict == "fail"}
    shown = re.findall(r"^(.*?) +fail$", PAGE, flags=re.MULTILINE)
    assert len(shown) == 2
    assert set(shown) <= failed


def test_it_trains_for_two_steps_and_its_file_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch)
    (text,) = blocks("yaml")
    model = TrainConfig.parse(yaml.safe_load(text)).model
    values = configuration(slices(tmp_path, 8, 1), model=model.model_dump(), limits={"steps": 2})
    values["data"]["split"] = {"valid": 1}
    folder = run(values, tmp_path)
    assert log(folder, "step")[-1]["step"] == 2
    potential = adatom.load(folder / "model.adatom")
    assert type(potential.network) is MODELS["schnet"]
    assert torch.isfinite(potential.network.embedding.weight).all()


def test_it_stands_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    entry = next(entry for entry in overview() if entry.architecture == "schnet")
    assert (entry.derivatives, entry.sees) == (("gradient",), ())
    assert set(entry.parameters) == {"S", "M", "L"}
    assert entry.about.startswith("a baseline")
