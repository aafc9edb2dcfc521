"""Fine-tuning: references first, what is trained and what is not, what is kept in mind, and what is refused."""

from __future__ import annotations

import io
import json
import math
import shutil
from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.lj import LennardJones
from rich.console import Console

import adatom
from adatom import model_file
from adatom.data.dataset import Dataset
from adatom.data.read import read
from adatom.errors import ChargeError, CheckpointError, ConfigError, DataError, SourceWarning, UnknownElementError
from adatom.graph import collate
from adatom.models import MODELS
from adatom.neighbors import graph_from_atoms
from adatom.nn import lora
from adatom.potential import Potential
from adatom.statistics import shift_references
from adatom.train.config import TrainConfig
from adatom.train.defaults import resolved
from adatom.train.finetune import FinetuneConfig, begin, choose_weights, learning_rates, set_factors
from adatom.train.forgetting import ReplayConfig, levelled, replayed
from adatom.train.generic import generic, kept
from adatom.train.loop import Trainer
from adatom.train.recipe import recipe
from adatom.train.run import train
from narrow import NARROW
from toy import REFERENCES, toy_potential
from train.runs import NETWORK, configuration, frames, log, run, slices, write

SHIFT = -101.6  # eV/atom, as another code counts energies
OFF = {"replay": {"share": 0.0}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    return slices(tmp_path_factory.mktemp("data"), 24, 6)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any]) -> Path:
    """A silicon model, hardly trained."""
    return run(configuration(data, limits={"steps": 40}), tmp_path_factory.mktemp("base")) / "model.adatom"


def shifted(folder: Path, name: str = "shifted", count: int = 16) -> str:
    """Frames of silicon whose energies another code counts from elsewhere."""
    chosen = [atoms.copy() for atoms in frames("train")[5::9][:count]]
    for atoms in chosen:
        atoms.info["REF_energy"] += SHIFT * len(atoms)
    return str(write(folder / f"{name}.xyz", chosen))


def molybdenum(folder: Path, count: int = 10) -> str:
    """Frames of molybdenum, labelled by pairs of Lennard and Jones."""
    made = []
    for k in range(count):
        atoms = bulk("Mo", "bcc", a=3.1 + 0.02 * k, cubic=True)
        atoms.rattle(0.05, seed=k)
        atoms.calc = LennardJones(sigma=2.5, epsilon=0.4, rc=6.0, smooth=True)
        labels = (atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False))
        atoms.calc = None
        atoms.info |= {"REF_energy": labels[0] - 10.0 * len(atoms), "REF_stress": labels[2].ravel()}
        atoms.arrays["REF_forces"] = labels[1]
        made.append(atoms)
    return str(write(folder / "mo.xyz", made))


def tune(base: Path, files: str, folder: Path, resume: bool = False, **changes: Any) -> Path:
    """Fine-tune for a few steps, and keep quiet about it."""
    return train(settings(base, files, **changes), folder, resume, Console(file=io.StringIO(), width=120))


def settings(base: Path, files: str, finetune: dict[str, Any] | None = None, **changes: Any) -> TrainConfig:
    values = configuration({"train": [files]}, **changes)
    values["finetune"] = {"model": str(base), **OFF, **(finetune or {})}
    del values["model"]
    return TrainConfig.parse(values)


def silent(potential: Potential, atoms: ase.Atoms, source: int = 0) -> float:
    graph = graph_from_atoms(atoms, potential.cutoff)
    graph = graph.replace(source=torch.full_like(graph.source, source))
    return float(potential.eval()(graph, forces=False).energy)


def dataset(files: str, cutoff: float = 4.0) -> Dataset:
    return Dataset(read(files)[0], cutoff)


# --- references -------------------------------------------------------------------------------------------------------


def test_a_shift_of_the_level_of_theory_is_gone_before_the_first_step(base: Path, tmp_path: Path) -> None:
    plain, moved = (str(write(tmp_path / f"{k}.xyz", frames("train")[5::9][:16])) for k in "ab")
    moved = shifted(tmp_path)
    firsts = []
    for files in (plain, moved):
        folder = tune(base, files, tmp_path / Path(files).stem, limits={"steps": 3})
        firsts.append(log(folder, "valid")[0])
    assert firsts[0]["step"] == firsts[1]["step"] == 0
    for name in ("energy_rmse_meV_per_atom", "forces_rmse_meV_per_A"):
        assert firsts[1][name] == pytest.approx(firsts[0][name], rel=1e-6)
    old, new = (begin(FinetuneConfig(model=str(base)), dataset(files), {}, torch.float64) for files in (plain, moved))
    assert new.references.energies[14] - old.references.energies[14] == pytest.approx(SHIFT, abs=1e-9)
    assert new.references.source[14] == "least squares"


def test_references_are_moved_as_little_as_the_labels_ask_for() -> None:
    water = np.array([8, 1, 1])
    moved = shift_references({1: -13.0, 8: -430.0, 6: -1.0}, [water, water], [3.0, 3.0])
    assert 2 * moved.energies[1] + moved.energies[8] == pytest.approx(-456.0 + 3.0)
    assert (moved.energies[8] + 430.0, moved.energies[1] + 13.0) == pytest.approx((0.6, 1.2)), "of smallest norm"
    assert moved.energies[6] == -1.0
    assert moved.source[6] == "model"
    assert any("tell apart 1 of 2 elements" in remark for remark in moved.remarks)
    fixed = shift_references({1: -13.0, 8: -430.0}, [water, water], [3.0, 3.0], given={8: -431.0})
    assert fixed.energies[1] == pytest.approx(-11.0)
    assert (fixed.energies[8], fixed.source[8]) == (-431.0, "given")


def test_a_free_atom_does_not_speak_for_bound_ones_but_where_there_is_nothing_else(base: Path, tmp_path: Path) -> None:
    bound = read(shifted(tmp_path))[0]
    free = [ase.Atoms([z], [[0.0, 0.0, 0.0]], info={"REF_energy": energy}) for z, energy in ((14, -90.0), (42, -7.5))]
    atoms = read(write(tmp_path / "free.xyz", free))[0]
    config = FinetuneConfig(model=str(base))
    alone = begin(config, Dataset(bound, 4.0), {}, torch.float64).references.energies
    joined = begin(config, Dataset([*bound, *atoms], 4.0), {}, torch.float64).references.energies
    assert joined[14] == pytest.approx(alone[14], abs=1e-12)
    assert joined[42] == pytest.approx(-7.5)


def test_references_can_be_kept_or_given(base: Path, tmp_path: Path) -> None:
    files = shifted(tmp_path)
    old = model_file.load(base).references_of()
    kept = begin(FinetuneConfig(model=str(base), references="keep"), dataset(files), {}, torch.float64)
    assert kept.potential.references_of() == old
    given = begin(FinetuneConfig(model=str(base)), dataset(files), {14: -106.5}, torch.float64)
    assert given.potential.references_of() == {14: -106.5}
    with pytest.raises(ConfigError, match="references are kept, and the model has none of Mo"):
        begin(FinetuneConfig(model=str(base), references="keep"), dataset(molybdenum(tmp_path)), {}, torch.float64)


def test_an_element_without_a_labelled_structure_is_refused(base: Path, tmp_path: Path) -> None:
    atoms = bulk("Mo", cubic=True)
    atoms.arrays["REF_forces"] = np.zeros((2, 3))
    forces_alone = dataset(str(write(tmp_path / "a.xyz", [atoms])))
    with pytest.raises(DataError, match="no labelled structure holds Mo"):
        begin(FinetuneConfig(model=str(base)), forces_alone, {}, torch.float32)
    begun = begin(FinetuneConfig(model=str(base)), forces_alone, {42: -10.0}, torch.float32)
    assert begun.potential.references_of()[42] == -10.0


# --- new elements -----------------------------------------------------------------------------------------------------


def test_a_new_element_changes_nothing_of_the_old_ones(base: Path, tmp_path: Path) -> None:
    begun = begin(FinetuneConfig(model=str(base)), dataset(molybdenum(tmp_path)), {}, torch.float64)
    assert begun.new == (42,)
    assert begun.potential.elements == [14, 42]
    old = model_file.load(base, dtype=torch.float64)
    silicon = frames("test")[0]
    assert silent(begun.potential, silicon) == silent(old, silicon)
    assert any(remark.startswith("Si: not in the new data") for remark in begun.remarks)
    energies = begin(FinetuneConfig(model=str(base)), dataset(molybdenum(tmp_path)), {}, torch.float64).references
    assert -14.0 < energies.energies[42] < -8.0


def test_only_rows_of_new_elements_change_where_all_else_is_frozen(base: Path, tmp_path: Path) -> None:
    freeze = {"freeze": ["embedding", "layers", "readouts"]}
    folder = tune(base, molybdenum(tmp_path), tmp_path, finetune=freeze)
    old, new = (model_file.load(path).network.state_dict() for path in (base, folder / "model.adatom"))
    start = model_file.load(folder / "start.adatom").network.state_dict()
    assert list(new) == list(old)
    for name, tensor in new.items():
        if name == "body.embedding.weight":
            others = [z for z in range(119) if z != 42]
            assert torch.equal(tensor[others], old[name][others])
            assert not torch.equal(tensor[42], start[name][42])
        else:
            assert torch.equal(tensor, old[name]), name
    silicon = frames("test")[0]
    assert silent(model_file.load(folder / "model.adatom"), silicon) == silent(model_file.load(base), silicon)


# --- what is trained --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["layers.0", "readouts", "embedding", "body.layers.0.edge.weight", "hidden"])
def test_frozen_weights_stay_to_the_last_bit(base: Path, tmp_path: Path, pattern: str) -> None:
    folder = tune(base, shifted(tmp_path), tmp_path, finetune={"freeze": [pattern]}, limits={"steps": 3})
    old, new = (model_file.load(path).network.state_dict() for path in (base, folder / "model.adatom"))
    frozen = [name for name in old if f".{pattern}." in f".{name}."]
    assert frozen
    assert all(torch.equal(new[name], old[name]) for name in frozen)
    assert any(not torch.equal(new[name], old[name]) for name in old if name not in frozen)


def test_a_name_that_no_weight_has_is_answered_with_the_nearest(base: Path) -> None:
    potential = model_file.load(base)
    for wrong, near in (("layer.0", "layers.0"), ("embeding", "embedding"), ("readout", "readouts")):
        with pytest.raises(ConfigError, match=f"no weight is called '{wrong}'(.|\n)*did you mean '{near}'"):
            choose_weights(FinetuneConfig(model="m", freeze=(wrong,)), potential, ())
    with pytest.raises(ConfigError, match="every weight is frozen"):
        choose_weights(FinetuneConfig(model="m", freeze=("body",)), potential, ())


@pytest.mark.parametrize(("architecture", "form"), [(a, f) for a, forms in NARROW.items() for f in forms])
def test_rates_fall_from_the_end_of_a_network_to_its_beginning(architecture: str, form: str) -> None:
    values = {"architecture": architecture, "form": form, **NARROW[architecture][form], "layers": 2}
    network = MODELS[architecture](MODELS[architecture].Config.parse(values))
    rates = learning_rates(network, 0.5)
    assert set(rates) == {name for name, _ in network.named_parameters()}
    assert max(rates.values()) == 1.0
    tables = [rates[name] for name in network.tables if "rounds" not in name and "body.s" not in name[:6]]
    assert all(rate == min(rates.values()) for rate in tables if form == "default")
    inner = "rounds" if form == "paper" and architecture == "nemp" else "blocks" if "paper" in form else "layers"
    inner = "layers" if architecture == "mlanet" else inner
    first, second = (next(r for n, r in rates.items() if f"{inner}.{k}." in n) for k in (0, 1))
    assert first == 0.5 * second
    assert set(learning_rates(network, 1.0).values()) == {1.0}


def test_every_parameter_is_in_one_group_with_its_rate(base: Path) -> None:
    potential = model_file.load(base)
    optimizer = torch.optim.AdamW(potential.parameters(), lr=1.0)
    rates = {f"network.{n}": r for n, r in learning_rates(potential.network, 0.5).items()}
    set_factors(optimizer, potential, rates)
    members = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(members) == sorted(id(p) for p in potential.parameters())
    found = {id(p): group["lr_factor"] for group in optimizer.param_groups for p in group["params"]}
    assert all(found[id(p)] == rates[name] for name, p in potential.named_parameters())


def test_early_layers_move_less(base: Path, tmp_path: Path) -> None:
    """The first steps of AdamW have the size of the rate, whatever the gradient."""
    folder = tune(base, shifted(tmp_path), tmp_path, finetune={"layer_decay": 0.01}, limits={"steps": 2})
    old, new = (model_file.load(path).network.state_dict() for path in (base, folder / "model.adatom"))
    moved = {name: float((new[name] - old[name]).abs().max()) for name in old}
    assert 0 < moved["body.embedding.weight"] < 0.05 * moved["body.readouts.0.out.weight"]


def test_low_rank_changes_alone_are_trained_and_merged_into_a_plain_file(base: Path, tmp_path: Path) -> None:
    folder = tune(base, shifted(tmp_path), tmp_path, finetune={"lora": {"rank": 2}}, precision="float64")
    old, new = (
        model_file.load(path, dtype=torch.float64).network.state_dict() for path in (base, folder / "model.adatom")
    )
    assert list(new) == list(old)
    changed = [name for name in old if not torch.equal(new[name], old[name])]
    assert changed
    for name in changed:
        if lora.worthwhile(old[name], 2):
            assert int(torch.linalg.matrix_rank(new[name] - old[name], tol=1e-6).max()) <= 2, name
        else:
            assert new[name].ndim >= 2, f"{name}: what is no matrix stays"
    assert torch.equal(new["body.embedding.weight"], old["body.embedding.weight"])


def test_what_is_named_beside_low_rank_changes_is_trained_whole(base: Path) -> None:
    potential = model_file.load(base)
    config = FinetuneConfig(model="m", lora={"rank": 1, "also": ["embedding", "readouts"]}, freeze=("ask",))
    choose_weights(config, potential, ())
    trained = {n for n, p in potential.network.named_parameters() if p.requires_grad}
    assert "body.embedding.weight" in trained
    assert "body.readouts.0.hidden.bias" in trained
    assert not any("ask" in name for name in trained)
    assert any(name.endswith("edge.parametrizations.weight.0.a") for name in trained)


@pytest.mark.parametrize(
    "finetune", [{"lora": {"rank": 2}}, {"freeze": ["layers.0"]}, {"forgetting": {"bound": 500.0}}]
)
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finetune: dict[str, Any]
) -> None:
    files, settings = (
        molybdenum(tmp_path),
        {"finetune": {**finetune, "replay": {"share": 0.3}}, "limits": {"steps": 16}},
    )
    model = tmp_path / "model.adatom"
    shutil.copy(base, model)
    whole = tune(model, files, tmp_path / "whole", **settings)
    step = Trainer._update

    def stop_at_nine(self: Trainer, *rest: Any) -> None:
        step(self, *rest)
        if self.state.step == 9:
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_update", stop_at_nine)
    monkeypatch.setattr(Trainer, "_overdue", lambda self: self.state.step == 5)
    with pytest.raises(KeyboardInterrupt):
        tune(model, files, tmp_path / "cut", **settings)
    monkeypatch.undo()
    other = model_file.load(model)
    other.references.mul_(1.5)
    model_file.save(other, model)  # whatever becomes of the file: a run goes on from what it was begun with
    again = tune(model, files, tmp_path / "cut", resume=True, **settings)
    one, other = (model_file.load(folder / "model.adatom") for folder in (whole, again))
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]) or bool(tensor.isnan().any()), name
    assert one.references_of() == other.references_of()
    metrics = [json.loads((folder / "metrics.json").read_text())["forgetting"] for folder in (whole, again)]
    assert metrics[0] == metrics[1]


def test_a_run_goes_on_only_as_it_was_begun(base: Path, tmp_path: Path) -> None:
    files = shifted(tmp_path)
    tune(base, files, tmp_path, limits={"steps": 3})
    with pytest.raises(CheckpointError, match=r"finetune\.layer_decay"):
        tune(base, files, tmp_path, resume=True, finetune={"layer_decay": 0.5}, limits={"steps": 5})


# --- replay and forgetting --------------------------------------------------------------------------------------------


def test_a_model_file_holds_some_of_its_training_structures(base: Path, tmp_path: Path) -> None:
    samples = adatom.info(base)["samples"]
    assert 4 <= len(samples) <= 16
    assert sum(len(plain["numbers"]) for plain in samples) <= 640
    structures = read(write(tmp_path / "all.xyz", frames("train")))[0]
    chosen = kept(structures, 12)
    assert chosen == kept(structures, 12)
    assert len(chosen) == 12
    kinds = {s.config_type for s in structures}
    positions = {tuple(np.round(s.atoms.positions[0], 4)): s.config_type for s in structures}
    assert len({positions[tuple(plain["positions_A"][0])] for plain in chosen}) == min(len(kinds), 12)
    assert kept(structures, 0) == []


def test_generic_structures_keep_their_distance_and_are_the_same_every_time(base: Path) -> None:
    card = adatom.info(base)
    made = generic(card, [14], 200, seed=1)
    assert sum(len(atoms) for atoms in made) >= 200
    shortest = min(float(a.get_all_distances(mic=True)[~np.eye(len(a), dtype=bool)].min()) for a in made)
    assert shortest > 0.94 * card["min_distance_A"]["Si-Si"]
    again, other = generic(card, [14], 200, seed=1), generic(card, [14], 200, seed=2)
    assert all(np.array_equal(a.positions, b.positions) for a, b in zip(made, again, strict=True))
    assert not np.array_equal(made[0].positions, other[0].positions)


@pytest.mark.parametrize("periodic", [True, False])
def test_without_samples_there_are_prototypes(periodic: bool) -> None:
    made = generic({}, [1, 8, 14], 400, seed=1, periodic=periodic)
    assert any(atoms.pbc.all() for atoms in made) == periodic
    assert any(not atoms.pbc.any() for atoms in made)
    assert {z for atoms in made for z in atoms.numbers.tolist()} == {1, 8, 14}


def test_replay_takes_its_share_and_says_what_the_old_model_says(base: Path) -> None:
    old = model_file.load(base)
    for share in (0.2, 0.5):
        structures = replayed(ReplayConfig(share=share), old, 0, 300, [14], True, False)
        atoms = sum(len(s.atoms) for s in structures)
        assert share <= atoms / (300 + atoms) < share + 0.02
    assert structures[3].energy == pytest.approx(silent(old, structures[3].atoms), abs=1e-5)
    assert np.isfinite(structures[3].stress).all()
    assert replayed(ReplayConfig(), old, 0, 300, [14], True, apart=False) == [], "it could contradict the new labels"
    assert replayed(ReplayConfig(), old, 0, 300, [14], True, apart=True)


def test_old_data_is_moved_to_the_references_of_the_new(base: Path, data: dict[str, Any], tmp_path: Path) -> None:
    begun = begin(FinetuneConfig(model=str(base)), dataset(shifted(tmp_path)), {}, torch.float64)
    old = model_file.load(base, dtype=torch.float64)
    structures = read(data["test"])[0]
    moved = levelled(structures, begun.potential, 0)
    residuals = [s.energy - silent(begun.potential, s.atoms) for s in moved]
    before = [s.energy - silent(old, s.atoms) for s in structures]
    assert np.std(residuals) < 1.2 * np.std(before) + 1e-9
    assert abs(np.mean(residuals)) < 0.5


def test_what_was_forgotten_is_told(base: Path, data: dict[str, Any], tmp_path: Path) -> None:
    probe = {"forgetting": {"files": data["test"]}}
    folder = tune(base, shifted(tmp_path), tmp_path, finetune=probe)
    told = json.loads((folder / "metrics.json").read_text())["forgetting"]
    records = log(folder, "forgetting")
    assert told["labels"] == "of files"
    assert told["structures"] == 6
    assert records[0]["ratio"] == pytest.approx(1.0)
    assert told["before"]["forces_rmse_meV_per_A"] == pytest.approx(records[0]["forces_rmse_meV_per_A"])
    assert told["after"]["forces_rmse_meV_per_A"] != told["before"]["forces_rmse_meV_per_A"]
    own = tune(base, shifted(tmp_path), tmp_path / "own")
    told = json.loads((own / "metrics.json").read_text())["forgetting"]
    assert told["labels"].startswith("the model's own")
    assert log(own, "forgetting")[0]["ratio"] == pytest.approx(1.0)
    stated = adatom.info(base)["errors"]["test"]
    assert told["before"]["forces_rmse_meV_per_A"] == pytest.approx(stated["forces_rmse_meV_per_A"])
    change = math.sqrt(told["after"]["forces_rmse_meV_per_A"] ** 2 - told["before"]["forces_rmse_meV_per_A"] ** 2)
    assert change > 0


def test_training_stops_at_the_bound_with_the_last_weights_inside(
    base: Path, data: dict[str, Any], tmp_path: Path
) -> None:
    limited = {"forgetting": {"files": data["test"], "bound": 1.05}}
    wild = {"optimizer": {"lr": 0.3, "warmup_steps": 1, "ema": 0.0}, "limits": {"epochs": 30}}
    folder = tune(base, molybdenum(tmp_path), tmp_path, finetune=limited, **wild)
    records, end = log(folder, "forgetting"), log(folder, "end")[0]
    assert records[-1]["ratio"] > 1.05 >= max(record["ratio"] for record in records[:-1])
    assert "grew" in end["reason"]
    told = json.loads((folder / "metrics.json").read_text())["forgetting"]
    assert told["stopped"]
    assert told["ratio"] == pytest.approx(records[-2]["ratio"], rel=1e-5)
    assert told["ratio"] <= 1.05


def test_a_bound_needs_something_to_be_held_against(base: Path, tmp_path: Path) -> None:
    potential = model_file.load(base)
    del potential.card["errors"]
    bare = model_file.save(potential, tmp_path / "bare.adatom")
    with pytest.raises(ConfigError, match=r"the model file states no errors(.|\n)*--probe"):
        tune(bare, shifted(tmp_path), tmp_path, finetune={"forgetting": {"bound": 1.5}})
    folder = tune(bare, shifted(tmp_path), tmp_path / "unbound", limits={"steps": 2})
    assert json.loads((folder / "metrics.json").read_text())["forgetting"]["ratio"] is None


# --- several sources --------------------------------------------------------------------------------------------------


def test_a_second_source_is_learned_beside_the_first(base: Path, tmp_path: Path) -> None:
    both = {"source": "other", "old_source": "pbe", "replay": {"share": 0.5}}
    folder = tune(base, shifted(tmp_path), tmp_path, finetune=both, limits={"steps": 60})
    path = folder / "model.adatom"
    silicon = frames("test")[3]
    with pytest.warns(SourceWarning, match="pbe, other, and none was asked for: pbe is taken"):
        first = adatom.load(path, compile="off")
    other = adatom.load(path, source="other", compile="off")
    assert silent(other, silicon) - silent(first, silicon) == pytest.approx(SHIFT * len(silicon), rel=0.02)
    assert silent(adatom.load(path, source="pbe", compile="off"), silicon) == silent(first, silicon)
    assert silent(first, silicon) == pytest.approx(silent(model_file.load(base), silicon), abs=1.0)
    assert (first.sources, first.card["source"]) == ((), "pbe")
    for name, potential in (("other", other), ("pbe", first)):
        atoms = silicon.copy()
        atoms.calc = adatom.Calculator(path, source=name, compile="off")
        assert atoms.get_potential_energy() == pytest.approx(silent(potential, silicon), abs=1e-6)
    with pytest.raises(ConfigError, match=r"knows no source 'othr'(.|\n)*did you mean 'other'"):
        adatom.load(path, source="othr")
    whole = model_file.load_whole(path)
    assert silent(whole, silicon, 1) == pytest.approx(silent(other, silicon), abs=1e-5)
    assert model_file.save(whole, tmp_path / "again.adatom").read_bytes()[-2000:] == path.read_bytes()[-2000:]


def test_elements_are_those_of_the_source_that_is_asked(base: Path, tmp_path: Path) -> None:
    folder = tune(base, molybdenum(tmp_path), tmp_path, finetune={"source": "vasp"}, limits={"steps": 2})
    path = folder / "model.adatom"
    assert model_file.load(path, source="vasp").elements == [42]
    first = model_file.load(path, source="first")
    assert first.elements == [14]
    with pytest.raises(UnknownElementError, match="does not know Mo"):
        first.check_atoms(bulk("Mo", cubic=True))
    with pytest.raises(UnknownElementError, match="asked as vasp, does not know Si"):
        model_file.load_whole(path).check_atoms(bulk("Si"), source=1)


def test_more_data_of_a_source_go_on_with_that_source(base: Path, tmp_path: Path) -> None:
    two = tune(base, shifted(tmp_path), tmp_path / "two", finetune={"source": "other"}, limits={"steps": 2})
    files = shifted(tmp_path, "more", 8)
    with pytest.raises(ConfigError, match=r"knows several sources of labels(.|\n)*--source"):
        tune(two / "model.adatom", files, tmp_path / "no", limits={"steps": 2})
    three = tune(two / "model.adatom", files, tmp_path / "three", finetune={"source": "other"}, limits={"steps": 2})
    assert model_file.load_whole(three / "model.adatom").sources == ("first", "other")
    with pytest.raises(ConfigError, match="two sources of labels have one name"):
        tune(base, files, tmp_path / "same", finetune={"source": "first"}, limits={"steps": 2})


def test_one_training_takes_labels_of_several_sources(data: dict[str, Any], tmp_path: Path) -> None:
    sources = {"gpaw": {"train": data["train"], "test": data["test"]}, "qe": {"train": [shifted(tmp_path)]}}
    values = configuration({"sources": sources}, limits={"steps": 40})
    folder = run(values, tmp_path)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics["sources"]) == {"gpaw", "qe"}
    assert metrics["sources"]["qe"]["train"]["energy_rmse_meV_per_atom"] < 1000
    record = json.loads((folder / "data.json").read_text())
    energies = {name: own["Si"]["energy_eV"] for name, own in record["references_by_source"].items()}
    assert energies["qe"] - energies["gpaw"] == pytest.approx(SHIFT, abs=0.3)
    assert model_file.load(folder / "model.adatom", source="qe").references_of()[14] == energies["qe"]
    assert run(values, tmp_path, resume=True) == folder
    facts = resolved({**values, "loss": "auto", "limits": {"epochs": "auto"}})
    assert facts.loss.stress > 0
    with pytest.raises(ConfigError, match="write them there"):
        TrainConfig.parse(configuration({**data, "sources": sources}))
    with pytest.raises(ConfigError, match="train of the source 'qe': name at least one file"):
        TrainConfig.parse(configuration({"sources": {**sources, "qe": {}}}))


# --- what is refused, and what is chosen ------------------------------------------------------------------------------


def test_what_is_built_into_the_weights_cannot_be_asked_to_change(base: Path, tmp_path: Path) -> None:
    values = configuration({"train": ["a.xyz"]}, finetune={"model": str(base)})
    with pytest.raises(
        ConfigError, match=r"model\.cutoff, model\.channels(.|\n)*cutoff 4.0, channels 8(.|\n)*cutoff 6"
    ):
        TrainConfig.parse(values | {"model": {"cutoff": 6.0, "channels": 16}})
    parsed = TrainConfig.parse({k: v for k, v in values.items() if k != "model"})
    assert parsed.model.cutoff == NETWORK["cutoff"]
    assert TrainConfig.parse(parsed.model_dump(mode="json")) == parsed
    with pytest.raises(ConfigError, match="fine-tuning has one stage"):
        tune(base, shifted(tmp_path), tmp_path, schedule="direct-then-conservative")


def test_charges_that_the_network_cannot_tell_apart_are_refused(tmp_path: Path) -> None:
    path = model_file.save(toy_like("nemp", (1, 8)), tmp_path / "m.adatom")
    made = []
    for charge in (0, 1):
        atoms = molecule("H2O")
        atoms.info |= {"REF_energy": -14.0, "total_charge": charge}
        atoms.arrays["REF_forces"] = np.zeros((3, 3))
        made.append(atoms)
    files = str(write(tmp_path / "ions.xyz", made))
    with pytest.raises(ChargeError, match=r"does not see total charges(.|\n)*one charge at a time"):
        begin(FinetuneConfig(model=str(path)), dataset(files, 5.0), {}, torch.float32)
    sees = model_file.save(toy_like("allscaip", (1, 8)), tmp_path / "a.adatom")
    begun = begin(FinetuneConfig(model=str(sees)), dataset(files, 5.0), {}, torch.float32)
    assert begun.potential.network.config.charges == (0.0, 1.0)


def toy_like(architecture: str, elements: tuple[int, ...]) -> Potential:
    torch.manual_seed(0)
    values = {"architecture": architecture, "elements": elements, **NARROW[architecture]["default"]}
    return Potential(MODELS[architecture](MODELS[architecture].Config.parse(values)), dict.fromkeys(elements, -1.0))


def test_a_network_that_cannot_grow_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "toy", type(toy_potential().network))
    path = model_file.save(toy_potential(), tmp_path / "toy.adatom")
    with pytest.raises(UnknownElementError, match="cannot learn of Mo"):
        begin(FinetuneConfig(model=str(path)), dataset(molybdenum(tmp_path), 5.0), {}, torch.float64)
    assert 42 not in REFERENCES


def test_a_file_of_before_there_were_sources_is_read(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = adatom.info(base)
    del card["config"]["sources"]
    assert model_file.build(card).references_of() == model_file.load(base).references_of()


def test_settings_come_from_the_data(base: Path, tmp_path: Path) -> None:
    crystals = recipe(base, [Path(shifted(tmp_path, count=20))], "a", {}, {})
    assert crystals["loss"]["late"]["stress"] > 0
    gas = molecule("SiH4")
    gas.info["REF_energy"] = -3.0
    gas.arrays["REF_forces"] = np.zeros((5, 3))
    molecules = recipe(base, [write(tmp_path / "gas.xyz", [gas] * 40)], "b", {"test": [Path("t.xyz")]}, {"freeze": []})
    assert molecules["loss"]["stress"] == molecules["loss"]["late"]["stress"] == 0.0
    assert molecules["data"]["test"] == ["t.xyz"]
    assert molecules["limits"]["epochs"] > crystals["limits"]["epochs"] / 10
    for values in (crystals, molecules):
        TrainConfig.parse(values)


def test_a_fine_tuned_file_says_where_it_came_from(base: Path, tmp_path: Path) -> None:
    folder = tune(base, shifted(tmp_path), tmp_path, limits={"steps": 2})
    card = adatom.info(folder / "model.adatom")
    assert card["finetuned"]["from"]["file"] == base.name
    assert card["finetuned"]["from"]["data"] == adatom.info(base)["data"]
    assert (folder / "report.html").exists()
    graph = collate([graph_from_atoms(frames("test")[0], 4.0)])
    assert bool(torch.isfinite(model_file.load(folder / "model.adatom")(graph).energy).all())
