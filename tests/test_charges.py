"""Charge and multiplicity: a potential that was trained with them asks for them, at every door."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import ase
import numpy as np
import pytest
import torch
from ase.build import molecule
from rich.console import Console

import adatom
from adatom import model_file
from adatom.data.dataset import Budget, Dataset
from adatom.data.doctor import unseen
from adatom.data.read import Structure, read
from adatom.errors import ChargeError
from adatom.models import MODELS, read_model
from adatom.models.base import Facts, check_rows
from adatom.neighbors import given_charge_and_spin
from adatom.potential import Potential
from adatom.sim.md import MDConfig
from adatom.sim.md import run as run_md
from adatom.testing.verify import gather
from adatom.train.config import TrainConfig
from adatom.train.evaluate import predict
from adatom.train.run import train
from test_cli import call
from train.runs import write

PAPER = {"form": "paper", "l_max": 1, "channels": 8, "heads": 2, "readout": 8, "layers": 1, "cutoff": 3.0}


def made(charges: tuple[float, float] | None = (-1.0, 1.0), form: str = "paper") -> Potential:
    """The published MLANet, which sees the charge, or the default one, which does not."""
    torch.manual_seed(0)
    facts = Facts((1, 8), 2.0, charges, (1.0, 3.0) if charges else None)
    config = read_model({**PAPER, "form": form}).completed(facts)
    return Potential(MODELS["mlanet"](config), {1: -13.6, 8: -432.0}, derivatives=config.derivatives).eval()


def water(**info: Any) -> ase.Atoms:
    atoms = molecule("H2O")
    atoms.info.update(info)
    return atoms


def structure(name: str = "a.xyz:0", **info: Any) -> Structure:
    return Structure(water(**info), -459.0, np.zeros((3, 3)), np.full((3, 3), np.nan), name)


MISSING = "trained with total charge, and the structure does not give it"
BEYOND = "was not trained on a total charge of 2"


# --- the rule ---------------------------------------------------------------------------------------------------------


def test_a_charge_that_was_trained_on_is_taken_under_either_name() -> None:
    for info in ({"total_charge": 1}, {"charge": -1.0}, {"total_charge": 0.0}):
        made().check_atoms(water(**info))


def test_a_missing_charge_is_asked_for() -> None:
    with pytest.raises(ChargeError, match=MISSING) as caught:
        made().check_atoms(water(), where="my.xyz:3")
    assert caught.value.where == "my.xyz:3"
    assert caught.value.wanted == "a total charge from -1 to 1"
    assert "atoms.info['total_charge']" in str(caught.value.remedy)
    with pytest.raises(ChargeError) as caught:
        made().check_atoms(water())
    assert caught.value.where == "H2O"


@pytest.mark.parametrize("charge", [2, -1.5, np.nan])
def test_a_charge_out_of_the_trained_range_is_refused(charge: float) -> None:
    with pytest.raises(ChargeError, match="was not trained on a total charge of"):
        made().check_atoms(water(total_charge=charge))


def test_what_says_nothing_is_neutral_and_that_is_enough_where_all_was_neutral() -> None:
    made((0.0, 0.0)).check_atoms(water())
    with pytest.raises(ChargeError, match=MISSING):
        made((1.0, 1.0)).check_atoms(water())
    made(None).check_atoms(water(total_charge=0))
    with pytest.raises(ChargeError, match="say nothing of the total charge"):
        made(None).check_atoms(water(total_charge=1))


def test_a_network_that_does_not_see_charges_asks_for_none() -> None:
    for atoms in (water(), water(total_charge=5, multiplicity=7)):
        made(form="default").check_atoms(atoms)


def test_multiplicities_are_held_to_the_same_rule() -> None:
    potential = made(form="default")
    potential.network.embeds_spin = True
    potential.check_atoms(water(multiplicity=2))
    with pytest.raises(ChargeError, match="trained with spin multiplicity"):
        potential.check_atoms(water())
    with pytest.raises(ChargeError, match="spin multiplicity of 4"):
        potential.check_atoms(water(spin=4))


# --- every door -------------------------------------------------------------------------------------------------------


def test_the_calculator_asks_each_time_that_the_charge_is_another() -> None:
    atoms = water(total_charge=1)
    atoms.calc = adatom.Calculator(made())
    first = atoms.get_potential_energy()
    atoms.info["total_charge"] = 0
    assert atoms.get_potential_energy() != first
    for info, said in (({}, MISSING), ({"total_charge": 2}, BEYOND)):
        atoms.info = info
        with pytest.raises(ChargeError, match=said):
            atoms.get_potential_energy()


@pytest.mark.parametrize(("info", "said"), [({}, MISSING), ({"total_charge": 2}, BEYOND)])
def test_simulations_and_relaxations_do_not_begin(info: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ChargeError, match=said):
        adatom.relax(water(**info), made(), steps=1)
    with pytest.raises(ChargeError, match=said):
        run_md(water(**info), made(), MDConfig(steps=1))


def test_an_evaluation_names_the_structure() -> None:
    dataset = Dataset([structure("b.xyz:0", total_charge=1), structure("b.xyz:1")], 3.0)
    with pytest.raises(ChargeError, match=MISSING) as caught:
        predict(made(), dataset, Budget())
    assert caught.value.where == "b.xyz:1"


def test_the_command_line_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model_file.save(made(), "m.adatom")
    write(Path("bare.xyz"), [water()])
    write(Path("ion.xyz"), [water(total_charge=2, REF_energy=-459.0)])
    for verb in ("relax", "md", "eos", "verify"):
        assert call(verb, "m.adatom", "bare.xyz") == 1
        said = capsys.readouterr().err
        assert "error (ChargeError)" in said
        assert "bare.xyz" in said
    assert call("evaluate", "m.adatom", "ion.xyz") == 1
    said = capsys.readouterr().err
    assert "ion.xyz:0" in said
    assert "from -1 to 1" in said


def test_verification_is_made_on_charges_that_were_trained_on() -> None:
    assert {s.atoms.info["total_charge"] for s in gather(made((1.0, 2.0)), None, 0)} == {1.0}
    assert {s.atoms.info["multiplicity"] for s in gather(made((1.0, 2.0)), None, 0)} == {1.0}
    assert {s.atoms.info["total_charge"] for s in gather(made((-2.0, 2.0)), None, 0)} == {0.0}
    assert all(not s.atoms.info for s in gather(made(None), None, 0))


# --- training ---------------------------------------------------------------------------------------------------------


def test_the_doctor_warns_of_charges_that_the_model_does_not_see() -> None:
    data = [structure("a.xyz:0", total_charge=0), structure("a.xyz:1", total_charge=1, multiplicity=2), structure()]
    charge, spin = unseen(data, set())
    assert (charge.kind, charge.severity, charge.where) == ("unseen charge", "warning", "a.xyz")
    assert "total charge 0, 1, and this model does not see it" in charge.message
    assert spin.kind == "unseen spin"
    (missing, unasked) = unseen(data, {"charge"})
    assert (missing.kind, unasked.kind) == ("missing charge", "unseen spin")
    assert missing.severity == "error", "nobody knows what they are"
    assert "1 structures do not give their total charge, and others do" in missing.message
    assert unseen([structure(), structure()], set()) == []
    assert unseen([structure(total_charge=1), structure(total_charge=1)], set()) == []


def ions(path: Path, charges: list[float | None]) -> str:
    """Rattled water of several charges, labelled with something that a molecule might feel."""
    rng = np.random.default_rng(0)
    frames = []
    for charge in charges:
        atoms = water(REF_energy=-459.0 + rng.normal(), **({} if charge is None else {"total_charge": charge}))
        atoms.positions += rng.normal(scale=0.05, size=(3, 3))
        arms = atoms.positions[:, None] - atoms.positions  # along them, equal and opposite: they push and turn nothing
        springs = rng.normal(size=(3, 3))
        atoms.arrays["REF_forces"] = ((springs + springs.T)[:, :, None] * arms).sum(axis=1)
        frames.append(atoms)
    return str(write(path, frames))


def trained(folder: Path, form: str, train_file: str, test_file: str) -> tuple[Path, str]:
    """Run folder of one step, and what was said."""
    values = {
        "data": {"train": [train_file], "test": [test_file], "split": {"valid": 0}, "references": {"H": -13.6}},
        "model": {**PAPER, "form": form}, "priors": [], "limits": {"steps": 1}, "threads": 1, "accelerator": "cpu",
        "loss": {"stress": 0, "late": None},
    }  # fmt: skip
    said = io.StringIO()
    return train(TrainConfig.parse(values), folder, console=Console(file=said, width=200)), said.getvalue()


def test_a_run_keeps_the_range_of_charges_and_its_findings(tmp_path: Path) -> None:
    several, one = ions(tmp_path / "several.xyz", [0, 1, -1] * 4), ions(tmp_path / "one.xyz", [1])
    folder, said = trained(tmp_path / "blind", "default", several, one)
    assert "warning: the data hold structures of total charge -1, 0, 1, and this model does not see it" in said
    kinds = [f["kind"] for f in json.loads((folder / "data.json").read_text())["findings"]]
    assert "unseen charge" in kinds
    folder, said = trained(tmp_path / "seeing", "paper", several, one)
    assert "does not see" not in said
    potential = adatom.load(folder / "model.adatom")
    assert potential.network.config.charges == (-1.0, 1.0)
    with pytest.raises(ChargeError, match=MISSING):
        potential.check_atoms(water())


def test_a_test_set_beyond_the_trained_charges_is_refused_before_training(tmp_path: Path) -> None:
    several, far = ions(tmp_path / "several.xyz", [0, 1] * 6), ions(tmp_path / "far.xyz", [2])
    with pytest.raises(ChargeError, match=BEYOND) as caught:
        trained(tmp_path, "paper", several, far)
    assert caught.value.where == "far.xyz:0"
    assert not (tmp_path / "run").exists()
    assert read(far)[0][0].atoms.info["total_charge"] == 2


def test_a_network_trained_on_charges_alone_refuses_other_multiplicities() -> None:
    config = read_model({"architecture": "allscaip", "charges": (0.0, 1.0), "elements": (1, 8)})
    potential = Potential(MODELS["allscaip"](config), {1: -13.0, 8: -430.0})
    potential.check_atoms(water(total_charge=1))
    with pytest.raises(ChargeError, match="multiplicity of 2"):
        potential.check_atoms(water(total_charge=1, multiplicity=2))


@pytest.mark.parametrize(("charge", "spin"), [(150.0, 1.0), (0.5, 1.0), (0.0, 101.0)])
def test_published_tables_have_rows_for_whole_numbers_only(charge: float, spin: float) -> None:
    values = torch.tensor([0.0, charge]), torch.tensor([1.0, spin])
    with pytest.raises(ChargeError, match="whole numbers"):
        [check_rows(w, v, low, 100) for w, v, low in zip(("charge", "spin"), values, (-100, 0), strict=True)]


@pytest.mark.parametrize("value", ["one", [1, 2]])
def test_a_charge_that_is_no_number_is_named(value: object) -> None:
    with pytest.raises(ChargeError, match="total_charge is not a number"):
        given_charge_and_spin(water(total_charge=value))
