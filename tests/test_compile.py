"""Compiled code against eager float64, for every network that compiles; traced by the compiler, run without its C++.

One test goes through the C++ compiler; the others use its ``aot_eager`` backend, which traces, differentiates and
guards in the same way and takes seconds.
"""

from __future__ import annotations

import copy
import warnings

import ase
import pytest
import torch
from ase.build import bulk, molecule
from torch._dynamo.utils import counters

import adatom
from adatom import compile as compiling
from adatom.compile import Compiler, Kind, Program, compiled
from adatom.errors import CompileWarning, ConfigError, MemoryLimitError
from adatom.graph import Graph, Results, collate
from adatom.models import MODELS
from adatom.neighbors import graph_from_atoms
from adatom.potential import Potential
from adatom.priors.zbl import ZBL
from adatom.sim.md import MDConfig, run
from adatom.testing.untrained import untrained
from narrow import NARROW

FORMS = [("nemp", "default"), ("mlanet", "default"), ("nemp", "paper"), ("mlanet", "paper")]
slow = {("nemp", "paper"), ("mlanet", "paper")}  # minutes of tracing
every_form = pytest.mark.parametrize(
    ("architecture", "form"), [pytest.param(*f, marks=pytest.mark.slow if f in slow else ()) for f in FORMS]
)


def potential(architecture: str = "nemp", form: str = "default", **given) -> Potential:
    torch.manual_seed(0)
    values = {"architecture": architecture, "form": form, "mean_neighbours": 20.0, "elements": (1, 6, 8, 14)}
    small = {"l_max": 1, "layers": 2} if form == "default" else {}  # tracing takes as long as there are operations
    config = MODELS[architecture].Config.parse(values | NARROW[architecture][form] | small | given)
    network = MODELS[architecture](config)
    return Potential(network, dict.fromkeys((1, 6, 8, 14), -1e3), 0.7, (ZBL(),), config.derivatives)


def graph(*structures: ase.Atoms) -> Graph:
    return collate([graph_from_atoms(atoms, 5.0) for atoms in structures])


def silicon(repeat: int = 1, seed: int = 0) -> ase.Atoms:
    atoms = bulk("Si", cubic=True) * (repeat, 1, 1)
    atoms.rattle(0.1, seed=seed)
    return atoms


def ethanol(seed: int = 0) -> ase.Atoms:
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=seed)
    return atoms


GRAPHS = [
    (ethanol(), silicon()),
    (silicon(2),),
    (ethanol(1), ethanol(2), ethanol(3)),
    (ethanol(4),),
    (silicon(), silicon(3)),
]


@pytest.fixture(autouse=True)
def traced_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "BACKEND", {"backend": "aot_eager"})
    torch._dynamo.reset()
    counters.clear()


def same(found: Results, wanted: Results, bound: float) -> None:
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.detach(), other.detach(), rtol=bound, atol=bound, equal_nan=True)


@every_form
@pytest.mark.parametrize("stress", [False, True])
def test_compiled_code_says_what_eager_code_says(architecture: str, form: str, stress: bool) -> None:
    eager = potential(architecture, form).double().eval()
    fast = compiled(copy.deepcopy(eager), "on")
    for structures in GRAPHS[:3]:
        batch = graph(*structures)
        same(fast(batch, stress=stress), eager(batch, stress=stress), 1e-9)
    assert list(fast.runner.programs) == [Kind(False, stress, torch.float64, "cpu")], "it ran eagerly"
    assert not fast.runner.dropped


@every_form
def test_gradients_of_a_loss_on_forces_are_right(architecture: str, form: str) -> None:
    eager = potential(architecture, form).double().train()
    fast = compiled(copy.deepcopy(eager), "on")
    batch, slopes = graph(*GRAPHS[0]), []
    for one in (eager, fast):
        results = one(batch, stress=True)
        loss = results.forces.square().mean() + results.energy.square().mean() * 1e-6
        loss = loss + torch.where(results.stress.isnan(), 0.0, results.stress).square().mean()
        slopes.append(torch.autograd.grad(loss, list(one.network.parameters()), allow_unused=True))
    assert fast.runner.programs
    for (name, _), found, wanted in zip(eager.network.named_parameters(), *reversed(slopes), strict=True):
        if wanted is not None:
            torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10, msg=name)


def test_no_recompilation_after_the_third_batch() -> None:
    fast = compiled(potential().eval(), "on")
    for structures in GRAPHS[:3]:
        fast(graph(*structures))
    before = counters["stats"]["unique_graphs"]
    assert before == 1, "one program for all sizes"
    for structures in GRAPHS[3:]:
        fast(graph(*structures))
    assert counters["stats"]["unique_graphs"] == before
    assert not fast.runner.dropped


def test_wrong_second_derivatives_are_found_and_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Right forces, wrong gradients: what torch makes of our gathers when it looks into them too early."""
    fast = potential().double().train()
    batch = graph(*GRAPHS[0])
    wanted = fast(batch)
    compiled(fast, "on")

    def wrong(own: Potential, graph: Graph, stress: bool) -> Results:
        results = own.eager(graph, stress=stress)
        return results._replace(forces=results.forces.detach() + 0.9 * (results.forces - results.forces.detach()))

    monkeypatch.setattr(Program, "__call__", lambda self, own, batch: wrong(own, batch, self.kind.stress))
    with pytest.warns(CompileWarning, match="the gradient by network"):
        found = fast(batch)
    assert fast.runner.dropped
    same(found, wanted, 1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast(batch)


@pytest.mark.parametrize(("label", "factor"), [("energy", 1 + 1e-7), ("forces", 1.001), ("stress", 1.001)])
def test_wrong_results_are_refused(monkeypatch: pytest.MonkeyPatch, label: str, factor: float) -> None:
    """References of 10^3 eV do not hide an energy that is wrong in the fourth digit of what the network says."""
    fast = compiled(potential().eval(), "on")
    batch = graph(*GRAPHS[0])

    def wrong(self: Program, own: Potential, batch: Graph) -> Results:
        results = own.eager(batch, stress=True)
        return results._replace(**{label: getattr(results, label) * factor})

    monkeypatch.setattr(Program, "__call__", wrong)
    with pytest.warns(CompileWarning, match=label):
        fast(batch, stress=True)


def test_without_a_compiler_everything_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no C++ compiler found")

    monkeypatch.setattr(Program, "__call__", broken)
    eager, fast = potential().eval(), compiled(potential().eval(), "on")
    with pytest.warns(CompileWarning, match="no C.. compiler found"):
        found = fast(graph(*GRAPHS[0]))
    same(found, eager(graph(*GRAPHS[0])), 1e-5)


def test_auto_waits_until_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    fast, batch = compiled(potential().eval(), "auto"), graph(*GRAPHS[0])
    fast(batch)
    assert not fast.runner.programs
    fast.runner.spent = compiling.PATIENCE
    fast(batch)
    assert fast.runner.programs


def test_off_is_off_and_other_words_are_refused() -> None:
    assert compiled(potential(), "off").runner is None
    with pytest.raises(ConfigError, match="auto, on or off"):
        compiled(potential(), "fast")  # type: ignore[arg-type]


@pytest.mark.parametrize("structure", [ase.Atoms("O"), ase.Atoms("OH", positions=[[0, 0, 0], [0, 0, 9.0]])])
def test_atoms_without_company_go_through_eager_code(structure: ase.Atoms) -> None:
    eager, fast = potential().eval(), compiled(potential().eval(), "on")
    same(fast(graph(structure)), eager(graph(structure)), 1e-6)
    assert not fast.runner.programs


@pytest.mark.parametrize("name", ["dimer", "one atom in a thin cell", "thin cell beside a molecule"])
def test_smallest_systems(name: str) -> None:
    structures = {
        "dimer": [ase.Atoms("OH", positions=[[0, 0, 0], [0, 0, 1.0]])],
        "one atom in a thin cell": [bulk("Si", cubic=True)[:1]],
        "thin cell beside a molecule": [bulk("Si"), ethanol()],
    }[name]
    eager = potential().double().eval()
    same(compiled(copy.deepcopy(eager), "on")(graph(*structures)), eager(graph(*structures)), 1e-9)


def test_copies_compile_anew_and_weights_are_followed() -> None:
    fast, batch = compiled(potential().double().eval(), "on"), graph(*GRAPHS[0])
    fast(batch)
    twin = copy.deepcopy(fast)
    assert isinstance(twin.runner, Compiler)
    assert not twin.runner.programs
    with torch.no_grad():
        for parameter in fast.network.parameters():
            parameter.mul_(1.1)
    same(fast(batch), fast.eager(batch), 1e-9)


def test_networks_that_do_not_compile_stay_as_they_are() -> None:
    fast = compiled(untrained("allscaip", 0).eval(), "on")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast(graph(silicon()))
    assert not fast.runner.programs


def test_load_compiles_by_itself(tmp_path) -> None:
    adatom.save(untrained("nemp", 0), tmp_path / "m.adatom")
    assert adatom.load(tmp_path / "m.adatom").runner.patience == compiling.PATIENCE
    assert adatom.load(tmp_path / "m.adatom", compile="off").runner is None


def test_through_the_compiler_to_the_end(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """Real machine code, a size it was not made for, and nothing dropped."""
    monkeypatch.setattr(compiling, "BACKEND", {"backend": "inductor"})
    monkeypatch.setenv("ADATOM_CACHE", str(tmp_path))
    eager = potential().eval()
    fast = compiled(copy.deepcopy(eager), "on")
    for structures in GRAPHS:
        batch = graph(*structures)
        same(fast(batch, stress=True), eager(batch, stress=True), 2e-5)
    assert not fast.runner.dropped
    assert fast.runner.seconds > 0


def test_a_graph_that_shares_tables_with_the_one_before_is_not_taken_for_it() -> None:
    """Only positions may differ: another cell, other elements, another order of the same lists is another graph."""
    fast = compiled(potential().double().eval(), "on")
    first = graph(silicon(2))
    moved = first.replace(positions=first.positions + torch.sin(first.positions) * 0.02)
    stretched = moved.replace(cell=moved.cell * 1.02)
    other = stretched.replace(numbers=torch.full_like(first.numbers, 8))
    for one in (first, moved, stretched, other, first):
        same(fast(one, stress=True), fast.eager(one, stress=True), 1e-9)


def test_a_graph_that_was_written_to_is_another_graph() -> None:
    fast, one = compiled(potential().double().eval(), "on"), graph(silicon(2))
    fast(one, stress=True)
    one.cell.mul_(1.02)
    one.positions.mul_(1.02)
    same(fast(one, stress=True), fast.eager(one, stress=True), 1e-9)


def test_a_perfect_crystal_has_no_forces_and_is_no_disagreement() -> None:
    fast = compiled(potential().double().eval(), "on")
    fast(graph(bulk("Si", cubic=True)), stress=True)
    assert fast.runner.programs
    assert not fast.runner.dropped


def test_errors_of_the_user_are_not_errors_of_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 10 bytes")

    fast = compiled(potential().eval(), "on")
    monkeypatch.setattr(Program, "__call__", full)
    with pytest.raises(MemoryLimitError):
        fast(graph(*GRAPHS[0]))
    assert not fast.runner.dropped


def test_dynamics_leave_a_calculator_as_it_was() -> None:
    atoms = silicon()
    calculator = adatom.Calculator(potential(), compile="auto")
    runner = calculator.potential.runner
    run(atoms, calculator, MDConfig(steps=2, compile="off"))
    assert calculator.potential.runner is runner
    chosen = adatom.Calculator(potential(), compile="on")
    run(atoms, chosen, MDConfig(steps=2))
    assert chosen.potential.runner.programs, "an explicit choice is kept where the configuration says auto"
