"""What a potential costs: how it is timed, what a call does, and what is left behind."""

from __future__ import annotations

import io
import json
from pathlib import Path

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from rich.console import Console

from adatom.errors import AdatomError, ConfigError, MemoryLimitError, UnknownElementError
from adatom.neighbors import graph_from_atoms
from adatom.potential import Potential
from adatom.testing import speed
from adatom.testing.speed import Speed, measure
from adatom.testing.table import speed_table
from adatom.testing.untrained import untrained
from toy import toy_potential


def crystal() -> ase.Atoms:
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.05, seed=0)
    return atoms


def clock(monkeypatch: pytest.MonkeyPatch, calls: list[float]) -> None:
    """One call after another takes these seconds of CPU time, warm-ups first."""
    now, durations = 0.0, iter(calls)

    def call() -> None:
        nonlocal now
        now += next(durations)

    monkeypatch.setattr(speed.time, "process_time", lambda: now)
    monkeypatch.setattr(speed, "step", lambda *_: call)


def test_the_least_of_the_calls_counts_and_the_first_three_do_not(monkeypatch):
    clock(monkeypatch, [0.1, 0.1, 0.1, 5.0, 4.0, 2.0, 3.0, 2.5, 2.1, 2.2, 0.01])
    found = measure(toy_potential(), crystal())
    assert found.seconds == pytest.approx(2.0)
    assert found.rounds == 7


def test_a_call_that_takes_long_is_repeated_three_times_only(monkeypatch):
    clock(monkeypatch, [90.0, 8.0, 6.5, 6.0, 5.5, 1.0])
    found = measure(toy_potential(), crystal())
    assert found.seconds == pytest.approx(5.5)
    assert found.rounds == 3


def test_a_first_call_that_compiles_does_not_pass_for_a_slow_one(monkeypatch):
    clock(monkeypatch, [90.0, 0.2, 0.2, *7 * [0.1]])
    assert measure(toy_potential(), crystal()).rounds == 7


def test_figures_follow_from_the_seconds():
    found = Speed("forces", 64, 1792, 1e-3, 7, 300.0, "least CPU time", "cpu", "eager", 0.5)
    assert found.us_per_atom == pytest.approx(15.625)
    assert found.ns_per_day == pytest.approx(86.4)  # a thousand steps of 1 fs a second
    assert found.to_record()["us_per_atom"] == found.us_per_atom
    json.dumps(found.to_record())


def test_a_call_does_what_its_task_says():
    potential, graph = toy_potential(), graph_from_atoms(crystal(), 5.0)
    with speed.as_found(potential):
        plain = speed.step(potential, graph, "forces")()
        assert plain.forces.isfinite().all()
        assert plain.stress.isnan().all()
        assert not potential.training
        assert speed.step(potential, graph, "stress")().stress.isfinite().all()
        speed.step(potential, graph, "training")()
        pushed = [p.grad for p in potential.parameters() if p.grad is not None]
    assert any(bool((g != 0).any()) for g in pushed)


def test_a_second_training_call_does_not_add_to_the_first():
    potential, graph = toy_potential(), graph_from_atoms(crystal(), 5.0)
    call = speed.step(potential, graph, "training")
    call()
    first = [p.grad.clone() for p in potential.parameters() if p.grad is not None]
    call()
    second = [p.grad for p in potential.parameters() if p.grad is not None]
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("training", [True, False])
def test_a_potential_is_left_as_it_came(training):
    potential = toy_potential().train(training)
    weights = list(potential.parameters())
    weights[0].grad = torch.ones_like(weights[0])
    weights[-1].requires_grad_(False)
    threads = torch.get_num_threads()
    measure(potential, crystal(), "training", rounds=1)
    assert potential.training == training
    assert torch.equal(weights[0].grad, torch.ones_like(weights[0]))
    assert weights[0].requires_grad
    assert not weights[-1].requires_grad
    assert all(w.grad is None for w in weights[1:])
    assert torch.get_num_threads() == threads


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no way to reset the peak here")
def test_the_peak_of_memory_is_that_of_the_call_and_not_of_what_was_before():
    def fill() -> None:
        np.ones(25_000_000)  # 191 MiB

    fill()
    idle = speed.peak_memory(reset=True)
    fill()
    assert 150 < speed.peak_memory() - idle < 300
    assert speed.peak_memory(reset=True) - idle < 100


def test_a_crystal_is_repeated_to_about_the_number_of_atoms_and_no_two_cells_are_alike():
    for wanted, least, most in ((8, 8, 8), (64, 64, 64), (500, 432, 576), (1000, 900, 1100)):
        large = speed.repeated(crystal(), wanted)
        assert least <= len(large) <= most
        assert max(large.cell.lengths()) < 2.01 * min(large.cell.lengths())
    distances = large.get_distances(0, [8, 16], mic=False)
    assert abs(distances[0] - distances[1]) > 1e-3


def test_only_periodic_directions_are_repeated():
    slab = ase.Atoms("Si2", [[0, 0, 0], [1.2, 1.2, 1.5]], cell=[3.0, 3.0, 20.0], pbc=[True, True, False])
    assert speed.repeated(slab, 32).cell.lengths() == pytest.approx([12.0, 12.0, 20.0])


def test_a_molecule_stays_as_it_is():
    assert len(speed.repeated(molecule("H2O"), 3)) == 3
    with pytest.raises(ConfigError, match="cannot be repeated"):
        speed.repeated(molecule("H2O"), 30)


@pytest.mark.parametrize("architecture", ["nemp", "mlanet", "allscaip"])
def test_every_architecture_is_measured_on_a_crystal_of_its_own(architecture):
    potential = untrained(architecture)
    found = speed.sweep(potential, None, [8], ["forces", "training"], code="off")
    assert [(s.task, s.atoms) for s in found] == [("forces", 8), ("training", 8)]
    assert {s.code for s in found} == {"eager"}
    assert all(s.seconds > 0 and s.memory_MiB > 10 and s.edges > 8 for s in found)


def test_a_structure_without_sizes_is_measured_as_it_is_and_progress_is_told():
    said: list[str] = []
    water = molecule("H2O")
    (found,) = speed.sweep(untrained("nemp"), water, None, ["forces"], code="off", progress=said.append)
    assert found.atoms == 3
    assert said == ["3 atoms, energy and forces"]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda p: speed.read_sizes("64,many"), ConfigError),
        (lambda p: speed.read_sizes("0"), ConfigError),
        (lambda p: speed.read_tasks("forces,force"), ConfigError),
        (lambda p: speed.with_code(p, "maybe"), ConfigError),
        (lambda p: speed.on_device(p, "abacus"), ConfigError),
        (lambda p: measure(p, crystal(), rounds=0), ConfigError),
        (lambda p: measure(p, crystal(), "energy"), ConfigError),
        (lambda p: measure(p, ase.Atoms("Si2", [[0, 0, 0], [0, 0, 2.3]]), "stress"), ConfigError),
        (lambda p: measure(p, ase.Atoms("Xe")), UnknownElementError),
    ],
)
def test_what_cannot_be_measured_is_a_typed_error(call, error):
    with pytest.raises(error) as raised:
        call(toy_potential())
    assert isinstance(raised.value, AdatomError)


def test_what_does_not_fit_into_memory_is_said_in_words(monkeypatch):
    def full(self: Potential, *_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9000000000000 bytes")

    potential = toy_potential()
    monkeypatch.setattr(Potential, "forward", full)
    with pytest.raises(MemoryLimitError, match="8 atoms did not fit"):
        measure(potential, crystal())


def test_other_errors_pass_as_they_are(monkeypatch):
    def broken(self: Potential, *_: object, **__: object) -> None:
        raise RuntimeError("shapes do not match")

    potential = toy_potential()
    monkeypatch.setattr(Potential, "forward", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        measure(potential, crystal())


def test_the_table_says_what_was_measured_and_how():
    rows = [
        Speed(task, 64, 1792, 1e-3, 7, 300.0, "least CPU time", "cpu", "eager", 0.5) for task in ("forces", "training")
    ]
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(speed_table("nemp", rows))
    text = console.export_text()
    for word in ("15.6", "86.4", "28.0", "300", "least CPU time", "load 0.5", "training step", "eager code"):
        assert word in text
