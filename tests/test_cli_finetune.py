"""``adatom finetune`` from its arguments to what it says."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from adatom import model_file
from adatom.cli import main
from train.runs import configuration, frames, run, slices, write

Run = Callable[..., tuple[int, str, str]]
QUICK = ("--set", "limits.steps=4", "--set", "limits.epochs=null", "--set", "threads=1", "--set", "compile=off")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, old test data and new data of another code."""
    folder = tmp_path_factory.mktemp("finetune")
    data = slices(folder, 16, 4)
    made = run(configuration(data, limits={"steps": 20}), folder)
    (made / "model.adatom").rename(folder / "old.adatom")
    moved = [atoms.copy() for atoms in frames("train")[3::20]]
    for atoms in moved:
        atoms.info["theirs"] = atoms.info.pop("REF_energy") - 100.0 * len(atoms)
    write(folder / "new.xyz", moved)
    return folder


@pytest.fixture
def adatom(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """The command in an empty folder: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["adatom", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def test_a_model_learns_new_data_and_says_what_it_forgot(place: Path, adatom: Run, tmp_path: Path) -> None:
    new = (place / "old.adatom", place / "new.xyz", "--set", "data.keys.energy=theirs", *QUICK)
    code, said, wrong = adatom(
        "finetune", *new, "--test", place / "test.xyz", "--set", "data.split.valid=4", "--set", "loss.stress=0",
        "--probe", place / "test.xyz", "--name", "mine",
    )  # fmt: skip
    assert code == 1
    assert "no frame" in wrong or "theirs" in wrong, "the test file does not have that field, and it is said so"
    code, said, wrong = adatom("finetune", *new, "--probe", place / "test.xyz", "--name", "mine", "--lora", 2)
    assert (code, wrong) == (0, "")
    assert "Forgotten (4 old structures)" in said
    assert "ratio" in said
    folder = tmp_path / "runs" / "mine"
    assert json.loads((folder / "metrics.json").read_text())["forgetting"]["structures"] == 4
    potential = model_file.load(folder / "model.adatom")
    assert -107.0 < potential.references_of()[14] < -103.0
    again = ("finetune", *new, "--probe", place / "test.xyz", "--name", "mine", "--lora", 2)
    assert adatom(*again)[0] == 1
    assert adatom(*again, "--resume")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--freeze", "layer.0"), "did you mean 'layers.0'?"),
        (("--forget-bound", "0.9"), "finetune.forgetting.bound"),
        (("--replay-share", "1.5"), "finetune.replay.share"),
        (("--set", "model.cutoff=7"), "this is built into its weights"),
        (("--set", "finetune.layer_dekay=1"), "did you mean 'layer_decay'?"),
        (("--replay", "missing.xyz"), "missing.xyz"),
    ],
)
def test_what_cannot_be_is_answered_with_the_way_out(place: Path, adatom: Run, arguments, said: str) -> None:
    new = (place / "old.adatom", place / "new.xyz", "--set", "data.keys.energy=theirs", *QUICK)
    code, _, wrong = adatom("finetune", *new, *arguments)
    assert code == 1
    assert said in wrong
    assert "Traceback" not in wrong


def test_a_model_of_two_sources_is_asked_for_one(place: Path, adatom: Run) -> None:
    new = (place / "old.adatom", place / "new.xyz", "--set", "data.keys.energy=theirs", *QUICK)
    assert adatom("finetune", *new, "--source", "theirs", "--name", "two")[0] == 0
    model = "runs/two/model.adatom"
    code, said, _ = adatom("info", model)
    assert code == 0
    assert "theirs" in said
    for source, offset in (("first", 0.0), ("theirs", -100.0)):
        code, said, _ = adatom("evaluate", model, place / "test.xyz", "--source", source, "--out", source)
        assert code == 0
        error = json.loads(Path(source, "metrics.json").read_text())["test"]["energy_mae_meV_per_atom"]
        assert error == pytest.approx(abs(1e3 * offset), abs=3e3)
    assert "knows no source 'thiers'" in adatom("evaluate", model, place / "test.xyz", "--source", "thiers")[2]
