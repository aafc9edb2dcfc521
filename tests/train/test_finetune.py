"""Fine-tuning: references first, what is trained and what is not, what is kept in mind, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

import adatom
from adatom import model_file
from adatom.data.dataset import Dataset
from adatom.data.read import read
from adatom.errors import ChargeError, CheckpointError, ConfigError, DataError, UnknownElementError
from adatom.graph import collate
from adatom.models import MODELS
from adatom.neighbors import graph_from_atoms
from adatom.nn import lora
from adatom.potential import Potential
from adatom.priors.zbl import ZBL
from adatom.sim.guard import wall_of
from adatom.statistics import shift_references
from adatom.train.config import TrainConfig
from adatom.train.finetune import FinetuneConfig, begin, choose_weights, learning_rates, set_factors
from adatom.train.loop import Trainer
from adatom.train.recipe import recipe
from narrow import NARROW
from toy import REFERENCES, toy_potential
from train.runs import NETWORK, configuration, frames, log, run, slices, write
from train.tuned import SHIFT, dataset, molybdenum, shifted, silent, tune


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    return slices(tmp_path_factory.mktemp("data"), 24, 6)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any]) -> Path:
    """A silicon model, hardly trained."""
    return run(configuration(data, limits={"steps": 40}), tmp_path_factory.mktemp("base")) / "model.adatom"


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


def test_pairs_of_a_new_element_get_a_floor_and_a_wall_and_old_pairs_keep_theirs(base: Path, tmp_path: Path) -> None:
    before = model_file.load_whole(base)
    begun = begin(FinetuneConfig(model=str(base)), dataset(molybdenum(tmp_path)), {}, torch.float64)
    (old,), (new,) = (potential.priors for potential in (before, begun.potential))
    assert isinstance(new, ZBL)
    assert isinstance(old, ZBL)
    assert set(new.config.closest) - set(old.config.closest) == {"Mo-Mo"}
    assert new.config.closest["Mo-Mo"] == begun.potential.network.config.closest["Mo-Mo"]
    assert new.config.closest["Si-Si"] == old.config.closest["Si-Si"]
    assert wall_of(begun.potential) is new


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


# --- what is refused, and what is chosen ------------------------------------------------------------------------------


def test_what_is_built_into_the_weights_cannot_be_asked_to_change(base: Path, tmp_path: Path) -> None:
    values = configuration({"train": ["a.xyz"]}, finetune={"model": str(base)})
    with pytest.raises(
        ConfigError, match=r"model\.cutoff, model\.channels(.|\n)*cutoff 4.0, channels 8(.|\n)*cutoff 6"
    ):
        TrainConfig.parse(values | {"model": {"cutoff": 6.0, "channels": 16}})
    parsed = TrainConfig.parse({k: v for k, v in values.items() if k != "model"})
    assert parsed.model.cutoff == NETWORK["cutoff"]
    assert (parsed.optimizer.name, parsed.optimizer.lr) == ("adamw", 0.004)
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
