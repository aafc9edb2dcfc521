"""The command line, verb by verb, on one small model; and what it says when something is wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import ase.io
import numpy as np
import pytest
import yaml
from ase.build import bulk
from ase.constraints import FixAtoms

from adatom.cli import main
from adatom.cli.models import _short
from adatom.model_file import info as read_card
from adatom.testing import Check, Verification
from train.runs import configuration, frames, slices, write

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a configuration, a crystal and a trained run."""
    folder = tmp_path_factory.mktemp("cli")
    data = slices(folder, 40, 6)
    values = configuration(data, limits={"epochs": 100})
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    crystal = bulk("Si", cubic=True)
    crystal.rattle(0.05, seed=0)
    write(folder / "crystal.xyz", [crystal])
    return folder


def call(*arguments: object) -> int:
    """Run the command; its exit code."""
    before, sys.argv = sys.argv, ["adatom", *map(str, arguments)]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0


@pytest.fixture
def adatom(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """The command in an empty folder: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = call(*arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture(scope="module")
def trained(place: Path) -> Path:
    """A run folder as ``adatom train`` leaves it."""
    code = call(
        "train", place / "config.yaml", "--folder", place / "runs",
        "--set", "name=small", "--set", "limits.steps=150", "--set", "optimizer.lr=0.01",
    )  # fmt: skip
    assert code == 0
    return place / "runs" / "small"


@pytest.fixture
def model(trained: Path) -> Path:
    return trained / "model.adatom"


# --- the verbs --------------------------------------------------------------------------------------------------------


def test_train_makes_a_run_folder_with_its_report(trained: Path) -> None:
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert (config["name"], config["limits"]["steps"], config["limits"]["epochs"]) == ("small", 150, 100)
    assert (trained / "model.adatom").exists()
    assert "<html" in (trained / "report.html").read_text(encoding="utf-8")[:500]


def test_train_shows_what_it_found_and_how_well_it_did(adatom: Run, place: Path, tmp_path: Path) -> None:
    code, out, err = adatom("train", place / "config.yaml", "--set", "limits.steps=2")
    assert (code, err) == (0, "")
    for said in ("train.xyz", "REF_energy", "36 structures to train on, 4 to validate, 6 to test", "meV/Å"):
        assert said in out
    assert f"model   {Path('runs') / 'run' / 'model.adatom'}" in out
    assert (tmp_path / "runs" / "run" / "report.html").exists()


def test_train_needs_nothing_but_structures(adatom: Run, place: Path, tmp_path: Path) -> None:
    code, out, err = adatom("train", place / "train.xyz", "--set", "limits.steps=2")
    assert (code, err) == (0, "")
    assert "mlanet S, 2 steps of batches of" in out
    assert (tmp_path / "runs" / "train" / "model.adatom").exists()
    wrong(adatom("train", place / "config.yaml", place / "train.xyz"), "ConfigError", "a configuration stands alone")


def test_train_resumes(adatom: Run, place: Path, tmp_path: Path) -> None:
    assert adatom("train", place / "config.yaml", "--set", "limits.steps=2")[0] == 0
    code, _, err = adatom("train", place / "config.yaml", "--set", "limits.steps=2")
    assert code == 1
    assert "continue it with --resume" in err
    assert adatom("train", place / "config.yaml", "--set", "limits.steps=3", "--resume")[0] == 0
    steps = [json.loads(line) for line in (tmp_path / "runs" / "run" / "log.jsonl").read_text().splitlines()]
    assert max(record.get("step", 0) for record in steps) == 3


def test_info_shows_the_card(adatom: Run, model: Path) -> None:
    code, out, _ = adatom("info", model)
    assert code == 0
    for said in ("architecture", "mlanet", "elements", "Si", "fingerprint", "forces_rmse_meV_per_A"):
        assert said in out
    card = read_card(model)
    assert re.search(rf"samples +{len(card['samples'])} structures", out)
    assert "positions_A" not in out
    assert len(out.splitlines()) < 200
    many = card["config"] | {"lowest": {"Si": [[-5.125, 0.5], [-4.5, 1.25]]}}
    assert _short({"config": many})["config"]["lowest"] == {"Si": "-5.125 (0.5), -4.5 (1.25)"}


def test_info_as_json_is_the_whole_card(adatom: Run, model: Path, trained: Path) -> None:
    code, out, _ = adatom("info", model, "--json")
    assert code == 0
    assert json.loads(out) == json.loads((trained / "card.json").read_text())


def test_evaluate_repeats_the_errors_of_training(adatom: Run, model: Path, place: Path, trained: Path) -> None:
    code, out, _ = adatom("evaluate", model, place / "test.xyz", "--out", "found")
    assert code == 0
    assert "E rmse" in out
    found = json.loads(Path("found/metrics.json").read_text())["test"]
    assert found == pytest.approx(json.loads((trained / "metrics.json").read_text())["test"], rel=1e-5)
    with np.load("found/predictions.npz") as ours, np.load(trained / "predictions.npz") as theirs:
        np.testing.assert_allclose(ours["energy"], theirs["energy"], atol=1e-4)
        assert ours["names"].tolist() == theirs["names"].tolist()
    before = Path("found/metrics.json").read_bytes()
    wrong(adatom("evaluate", model, place / "test.xyz", "--out", "found"), "ConfigError", "exists", "--overwrite")
    assert Path("found/metrics.json").read_bytes() == before
    assert adatom("evaluate", model, place / "test.xyz", "--out", "found", "--overwrite")[0] == 0


def test_evaluate_takes_fields_by_name(adatom: Run, model: Path) -> None:
    structures = [atoms.copy() for atoms in frames("test")[:2]]
    for atoms in structures:
        atoms.info["my_e"] = atoms.info.pop("REF_energy") + 1.0
        atoms.arrays["my_f"] = atoms.arrays.pop("REF_forces")
    write(Path("own.xyz"), structures)
    code, out, _ = adatom("evaluate", model, "own.xyz", "--energy", "my_e", "--forces", "my_f", "--batch", 8)
    assert code == 0
    assert "my_e" in out
    assert "my_f" in out


def test_verify_passes_and_writes_its_figures(adatom: Run, model: Path) -> None:
    code, out, _ = adatom("verify", model, "--json", "verify.json")
    values = json.loads(Path("verify.json").read_text())
    failed = [check for check in values["checks"] if check["verdict"] == "fail"]
    assert (code, failed) == (0, [])
    assert values["passed"] is True
    assert "every claim holds" in out


def test_verify_ends_with_code_one_when_a_claim_fails(
    adatom: Run, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = Check("rotation", "symmetry O(3)", 0.5, 1e-10, "relative", "fail", "largest in the energy of 'slab'")
    failed = Verification(False, "MLANet", "float32", 1.0, (check,))
    monkeypatch.setattr("adatom.testing.verify", lambda *_, **__: failed)
    code, out, _ = adatom("verify", model)
    assert code == 1
    assert "a claim does not hold" in out
    assert "largest in the energy of 'slab'" in out


def test_bench_says_what_a_model_costs_on_a_structure_and_on_larger_ones(adatom: Run, model: Path, place: Path) -> None:
    crystal = place / "crystal.xyz"
    code, out, _ = adatom(
        "bench", model, "--structure", crystal, "--atoms", "8,64", "--compile", "off", "--json", "b.json"
    )
    found = json.loads(Path("b.json").read_text())
    assert code == 0
    assert [row["atoms"] for row in found] == [8, 64]
    for row in found:
        assert row["task"] == "forces"
        assert row["us_per_atom"] == pytest.approx(1e6 * row["seconds"] / row["atoms"])
        assert f"{row['us_per_atom']:.1f}" in out
    code, _, error = adatom("bench", model, "--json", "b.json")
    assert code == 1
    assert "nothing is overwritten" in error


def test_bench_takes_an_untrained_network_of_the_elements_of_the_structure(adatom: Run) -> None:
    ase.io.write("methane.xyz", ase.Atoms("CH2", [[0, 0, 0], [0, 0, 1.1], [0, 1.1, 0]]))
    code, out, _ = adatom(
        "bench",
        "--architecture",
        "mlanet",
        "--structure",
        "methane.xyz",
        "--task",
        "forces,training",
        "--compile",
        "off",
    )
    assert code == 0
    assert "mlanet, untrained" in out
    assert "training step" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "bench takes a model file, or an architecture"),
        (("--architecture", "nemp", "--atoms", "64,many"), "sizes are numbers of atoms"),
        (("--architecture", "nemp", "--task", "energies"), "no such task"),
        (("--architecture", "nemp", "--compile", "perhaps"), "no such way to run"),
        (("--architecture", "nemp", "--device", "abacus"), "device 'abacus' cannot be used"),
        (("--architecture", "nemp", "--structure", "missing.xyz"), "missing.xyz"),
    ],
)
def test_bench_refuses_in_words(adatom: Run, arguments: tuple[str, ...], said: str) -> None:
    code, _, error = adatom("bench", *arguments)
    assert code == 1
    assert said in error


def test_relax_finds_the_crystal(adatom: Run, model: Path, place: Path) -> None:
    code, out, _ = adatom("relax", model, place / "crystal.xyz", "--fmax", 0.02, "-o", "relaxed.xyz")
    assert code == 0
    assert "converged after" in out
    relaxed = ase.io.read("relaxed.xyz")
    assert np.abs(relaxed.get_forces()).max() < 0.02
    assert re.search(r"GPa\s*\n(space group .*\n)?converged after", out), "the last step stands on a line of its own"
    wrong(adatom("relax", model, place / "crystal.xyz", "-o", "relaxed.xyz"), "ConfigError", "exists", "--overwrite")
    assert adatom("relax", model, place / "crystal.xyz", "--fmax", 0.05, "-o", "relaxed.xyz", "--overwrite")[0] == 0


def test_relax_leaves_the_fixed_atoms_of_the_file_in_place(adatom: Run, model: Path, place: Path) -> None:
    crystal = ase.io.read(place / "crystal.xyz")
    crystal.set_constraint(FixAtoms([0, 5]))
    ase.io.write("fixed.traj", crystal)
    assert adatom("relax", model, "fixed.traj", "--fmax", 0.05, "-o", "relaxed.traj")[0] == 0
    moved = np.linalg.norm(ase.io.read("relaxed.traj").positions - crystal.positions, axis=1)
    assert moved[[0, 5]].tolist() == [0.0, 0.0]
    assert np.delete(moved, [0, 5]).min() > 1e-4


def test_relax_that_does_not_converge_ends_with_an_error_and_leaves_where_it_stands(
    adatom: Run, model: Path, place: Path
) -> None:
    code, _, err = adatom("relax", model, place / "crystal.xyz", "--fmax", 1e-6, "--steps", 1, "-o", "half.xyz")
    assert code == 1
    assert "has not converged" in err
    half = ase.io.read("half.xyz").info
    assert (half["converged"], half["relax_steps"]) == (False, 1)
    assert half["ending"] == "not converged: steps ran out"


def test_md_writes_log_and_trajectory_and_goes_on(adatom: Run, model: Path, place: Path) -> None:
    arguments = (
        "md", model, place / "crystal.xyz", "--ensemble", "nve", "--temperature", 50, "--folder", "md",
        "--log-every", 2, "--trajectory-every", 5,
    )  # fmt: skip
    code, out, _ = adatom(*arguments, "--steps", 10)
    assert code == 0
    assert "µs per atom and step" in out
    records = [json.loads(line) for line in Path("md/nve.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if r["kind"] == "step"] == [0, 2, 4, 6, 8, 10]
    assert len(ase.io.read("md/nve.xyz", ":")) == 3
    assert adatom(*arguments, "--steps", 14)[0] == 1
    assert adatom(*arguments, "--steps", 14, "--restart")[0] == 0


def test_md_starts_with_the_velocities_and_masses_of_the_file(adatom: Run, model: Path, place: Path) -> None:
    crystal = ase.io.read(place / "crystal.xyz")
    crystal.set_masses([30.0] * len(crystal))
    crystal.set_momenta(np.random.default_rng(0).normal(size=(len(crystal), 3)))
    ase.io.write("moving.traj", crystal)

    def first(*arguments: object) -> ase.Atoms:
        code, _, err = adatom(
            "md", model, "moving.traj", "--ensemble", "nve", "--steps", 1, "--trajectory-every", 1, "--overwrite",
            *arguments,
        )  # fmt: skip
        assert (code, err) == (0, "")
        return ase.io.read("md/nve.xyz", 0)

    np.testing.assert_allclose(first().get_momenta(), crystal.get_momenta(), atol=1e-7)
    assert first().get_masses().tolist() == [30.0] * len(crystal)
    drawn = first("--initial-temperature", 500)
    assert not np.allclose(drawn.get_momenta(), crystal.get_momenta(), atol=0.1)
    start = next(json.loads(line) for line in Path("md/nve.jsonl").read_text().splitlines())
    assert start["initial_temperature_K"] == 500


def test_eos_gives_lattice_and_bulk_modulus(adatom: Run, model: Path, place: Path) -> None:
    write(Path("diamond.xyz"), [bulk("Si", cubic=True)])
    code, out, _ = adatom("eos", model, "diamond.xyz", "--json", "eos.json", "--span", 0.06, "--points", 7)
    assert code == 0
    record = json.loads(Path("eos.json").read_text())
    assert 5.0 < record["fit"]["lattice_constant_A"] < 6.0
    assert record["fit"]["B0_GPa"] > 0
    assert (record["property"], record["formula"]) == ("eos", "Si")
    assert f"{record['fit']['B0_GPa']:.1f}" in out, "as on a page"
    wrong(adatom("eos", model, "diamond.xyz", "--json", "eos.json"), "ConfigError", "eos.json", "--overwrite")
    code, _, _ = adatom("eos", model, "diamond.xyz", "--json", "new/eos.json", "--points", 5)
    assert code == 0
    assert json.loads(Path("new/eos.json").read_text())["fit"]["B0_GPa"] > 0


def test_report_writes_the_page_again(adatom: Run, trained: Path) -> None:
    (trained / "report.html").unlink()
    code, out, _ = adatom("report", trained)
    assert code == 0
    assert "report.html" in out
    assert (trained / "report.html").exists()


# --- what goes wrong --------------------------------------------------------------------------------------------------


def wrong(answer: tuple[int, str, str], kind: str, *said: str) -> None:
    """Exit code 1, and the error in full on stderr, without a traceback."""
    code, out, err = answer
    assert code == 1
    assert err.startswith(f"error ({kind})")
    for text in said:
        assert text in err
    assert "Traceback" not in out + err


def test_an_unknown_entry_of_a_configuration_names_the_nearest(adatom: Run, place: Path) -> None:
    answer = adatom("train", place / "config.yaml", "--set", "optimizer.learning_rates=1")
    wrong(answer, "ConfigError", "unknown key 'optimizer.learning_rates'", str(place / "config.yaml"))
    wrong(adatom("train", place / "config.yaml", "--set", "limits.step=1"), "ConfigError", "did you mean 'steps'?")
    wrong(adatom("train", place / "config.yaml", "--set", "seeds=1"), "ConfigError", "did you mean 'seed'?")


def test_a_setting_without_a_value_and_one_through_a_value_are_refused(adatom: Run, place: Path) -> None:
    wrong(adatom("train", place / "config.yaml", "--set", "seed"), "ConfigError", "--set takes key=value")
    wrong(adatom("train", place / "config.yaml", "--set", "name.x=1"), "ConfigError", "'name' holds a value")


def test_a_setting_that_is_no_yaml_is_refused(adatom: Run, place: Path) -> None:
    wrong(adatom("train", place / "config.yaml", "--set", "data.train=[a.xyz"), "ConfigError", "data.train=[a.xyz")


def test_files_that_are_not_there_are_named(adatom: Run, model: Path, place: Path) -> None:
    wrong(adatom("train", "none.yaml"), "ConfigError", "none.yaml")
    wrong(adatom("info", "none.adatom"), "ModelFileError", "none.adatom", "remedy")
    wrong(adatom("evaluate", model, "none.xyz"), "DataError", "none.xyz")
    wrong(adatom("md", model, "none.xyz"), "DataError", "none.xyz")
    wrong(adatom("report", place / "nowhere"), "DataError", "nowhere")


def test_a_pickle_is_refused(adatom: Run) -> None:
    Path("model.pt").write_bytes(b"\x80\x04N.")
    for verb in (["info", "model.pt"], ["verify", "model.pt"]):
        wrong(adatom(*verb), "ModelFileError", "this is a pickle", "model.pt")


def test_an_unknown_element_is_named_before_anything_is_computed(adatom: Run, model: Path) -> None:
    gold = bulk("Au", cubic=True)
    gold.info["REF_energy"] = -1.0
    write(Path("gold.xyz"), [gold])
    for verb in ("relax", "md", "eos"):
        answer = adatom(verb, model, "gold.xyz")
        wrong(answer, "UnknownElementError", "does not know Au", "structures of Si", "where:  gold.xyz")
    wrong(adatom("verify", model, "gold.xyz"), "UnknownElementError", "gold.xyz")
    wrong(adatom("evaluate", model, "gold.xyz"), "UnknownElementError", "gold.xyz:0")
    assert not Path("md").joinpath("nvt.jsonl").exists()


def test_a_file_without_labels_cannot_be_evaluated(adatom: Run, model: Path) -> None:
    write(Path("bare.xyz"), [bulk("Si", cubic=True)])
    wrong(adatom("evaluate", model, "bare.xyz"), "LabelError", "none of these structures has a label", "bare.xyz")
    write(Path("free.xyz"), [ase.Atoms("Si")])
    wrong(adatom("evaluate", model, "free.xyz"), "LabelError", "free.xyz")


def test_a_place_that_cannot_be_written_is_named_before_anything_is_computed(
    adatom: Run, model: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def computed(*_: object, **__: object) -> None:
        raise AssertionError("computed first")

    for function in ("sim.relax.relax", "properties.eos.energy_volume", "testing.verify", "train.evaluate.predict"):
        monkeypatch.setattr(f"adatom.{function}", computed)
    crystal = place / "crystal.xyz"
    Path("file").write_text("")
    Path("folder").mkdir()
    for target in ("file/x.json", "folder", "file"):
        wrong(adatom("eos", model, crystal, "--json", target), "ConfigError", target)
        wrong(adatom("verify", model, "--json", target), "ConfigError", target)
    wrong(adatom("relax", model, crystal, "-o", "file/x.xyz"), "ConfigError", "file/x.xyz")
    wrong(adatom("evaluate", model, place / "test.xyz", "--out", "file"), "ConfigError", "file")
    for name, said in (("x.foo", "foo"), ("x", "without a suffix"), ("OUTCAR", "vasp-out")):
        wrong(adatom("relax", model, crystal, "-o", name), "ConfigError", "no structure can be written", said)


def test_relax_makes_the_folder_of_its_output(adatom: Run, model: Path, place: Path) -> None:
    assert adatom("relax", model, place / "crystal.xyz", "--fmax", 0.05, "-o", "new/relaxed.xyz")[0] == 0
    assert Path("new/relaxed.xyz").exists()


def test_impossible_settings_are_named(adatom: Run, model: Path, place: Path) -> None:
    wrong(adatom("md", model, place / "crystal.xyz", "--timestep", -1), "ConfigError", "timestep_fs")
    wrong(adatom("md", model, place / "crystal.xyz", "--ensemble", "nvp"), "ConfigError", "ensemble")
    wrong(adatom("md", model, place / "crystal.xyz", "--supercell", -1, 1, 1), "ConfigError", "--supercell", "-1 1 1")
    wrong(adatom("relax", model, place / "crystal.xyz", "--optimizer", "bfgs"), "ConfigError", "optimizer")


def test_a_pressure_that_nothing_would_feel_is_refused(adatom: Run, model: Path, place: Path) -> None:
    wrong(adatom("relax", model, place / "crystal.xyz", "--pressure", 5), "ConfigError", "--cell")
    wrong(adatom("md", model, place / "crystal.xyz", "--pressure", 5), "ConfigError", "npt")
    assert not Path("relaxed.xyz").exists()
    assert not Path("md").exists()


def test_a_file_that_the_system_refuses_is_named_without_a_traceback(adatom: Run, place: Path) -> None:
    Path("taken").write_text("a file where a folder should be made")
    code, out, err = adatom("train", place / "config.yaml", "--folder", "taken")
    assert code == 1
    assert err.startswith("error")
    assert "taken" in err
    assert "Traceback" not in out + err


def test_messages_name_only_commands_that_exist(adatom: Run) -> None:
    source = Path(__file__).parents[1] / "src" / "adatom"
    texts = [path.read_text(encoding="utf-8") for path in source.rglob("*.py")]
    named = {verb for text in texts for verb in re.findall(r"`adatom ([a-z]+)", text)}
    _, out, _ = adatom("--help")
    assert {verb for verb in named if not re.search(rf"\b{verb}\b", out)} == set()


def test_a_wrong_option_ends_with_usage_and_code_two(adatom: Run) -> None:
    code, _, err = adatom("train", "--confg", "x")
    assert code == 2
    assert "--confg" in err


def test_the_version_is_said(adatom: Run) -> None:
    assert adatom("--version") == (0, f"adatom {version('adatom')}\n", "")


def test_help_lists_every_verb(adatom: Run) -> None:
    code, out, _ = adatom("--help")
    assert code == 0
    for verb in ("train", "evaluate", "verify", "info", "relax", "md", "eos", "report"):
        assert verb in out


def test_the_commands_of_the_readme_exist(adatom: Run) -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"adatom (train|evaluate|verify|info|relax|md|eos|report)\b([^`#\n]*)", text)
    assert len(commands) > 8
    for verb, rest in commands:
        code, out, _ = adatom(verb, "--help")
        assert code == 0
        for option in re.findall(r"--[a-z-]+", rest):
            assert option in out, f"adatom {verb} {option}"


def test_the_installed_command_is_light_and_speaks(tmp_path: Path) -> None:
    """As a user meets it: an exit code, an error without a traceback, and no half-made files."""
    command = Path(sys.executable).with_name("adatom")
    if not command.exists():
        pytest.skip("the package is not installed with its command")
    environment = {**os.environ, "COLUMNS": "200"}
    module = subprocess.run([sys.executable, "-m", "adatom", "--version"], capture_output=True, text=True, check=True)
    assert module.stdout == f"adatom {version('adatom')}\n"
    done = subprocess.run(
        [command, "train", "none.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error (ConfigError) no such configuration file")
    assert "Traceback" not in done.stderr + done.stdout
    assert list(tmp_path.iterdir()) == []
