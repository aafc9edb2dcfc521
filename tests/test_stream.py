"""Streaming against differentiation of the whole, and its memory; the memory model against what is measured."""

from __future__ import annotations

import ase
import pytest
import torch
from ase.build import bulk, molecule

from adatom import memory
from adatom import potential as waist
from adatom.compile import compiled
from adatom.errors import MemoryLimitError
from adatom.graph import Graph, collate
from adatom.models import MODELS
from adatom.neighbors import graph_from_atoms
from adatom.potential import Potential
from adatom.priors.zbl import ZBL
from adatom.stream import streamed
from adatom.testing.untrained import untrained
from narrow import NARROW

streaming = pytest.mark.parametrize("architecture", ["nemp", "mlanet"])


def potential(architecture: str) -> Potential:
    torch.manual_seed(0)
    narrow = NARROW[architecture]["default"] | {"layers": 3}
    config = MODELS[architecture].Config.parse({"architecture": architecture, "mean_neighbours": 20.0} | narrow)
    network = MODELS[architecture](config)
    return Potential(network.double(), dict.fromkeys((1, 6, 8, 14), -7.0), 0.7, (ZBL(),)).eval()


def batch() -> Graph:
    silicon, ethanol = bulk("Si", cubic=True), molecule("CH3CH2OH")
    silicon.rattle(0.2, seed=0)
    silicon.set_cell(silicon.cell.array + 0.1, scale_atoms=True)
    ethanol.rattle(0.05, seed=0)
    thin, lone = bulk("Si"), ase.Atoms("O")
    return collate([graph_from_atoms(atoms, 5.0) for atoms in (silicon, lone, ethanol, thin)])


@streaming
@pytest.mark.parametrize("size", [1, 5, 1000])
def test_chunks_of_any_size_say_what_the_whole_says(
    architecture: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, graph = potential(architecture), batch()
    wanted = own.eager(graph, stress=True)
    monkeypatch.setattr(waist, "STREAMED_ATOMS", 0)
    monkeypatch.setattr(waist, "EAGER_CHUNK", size)
    found = own(graph, stress=True)
    assert own.streamable(graph) is not None, "it did not stream"
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10, equal_nan=True)


@streaming
def test_every_part_of_the_way_back_counts(architecture: str) -> None:
    """Forces are the slope of the streamed energy: finite differences, chunks that cut through the molecule."""
    own = potential(architecture)
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=1)
    body = own.network.body

    def energy(positions: torch.Tensor) -> float:
        graph = graph_from_atoms(atoms, 5.0).replace(positions=positions)
        return float(streamed(body, own.scale, own.priors, graph, 4).energy.sum())

    graph = graph_from_atoms(atoms, 5.0)
    slopes = streamed(body, own.scale, own.priors, graph, 4).slopes
    for atom, axis in [(0, 0), (4, 1), (8, 2)]:
        step = torch.zeros_like(graph.positions)
        step[atom, axis] = 1e-4
        slope = (energy(graph.positions + step) - energy(graph.positions - step)) / 2e-4
        assert slope == pytest.approx(float(slopes[atom, axis]), abs=1e-7)


@streaming
def test_training_and_direct_heads_do_not_stream(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waist, "STREAMED_ATOMS", 0)
    own = potential(architecture)
    assert own.train().streamable(batch()) is None
    assert untrained("allscaip", 0).eval().streamable(batch()) is None


@streaming
def test_the_footprint_is_what_autograd_keeps_of_a_larger_system(architecture: str) -> None:
    own = potential(architecture)
    graph = graph_from_atoms(bulk("Si", cubic=True) * (2, 2, 2), 5.0)
    kept = memory._kept(own.network, graph, training=False)
    print_ = memory.footprint(own.network, 14)
    atoms, width = graph.slots.shape
    assert atoms * (print_.per_atom + width * print_.per_slot) == pytest.approx(kept, rel=0.15)
    assert memory.footprint(own.network, 14, training=True).per_slot > print_.per_slot


def test_what_does_not_fit_is_said_before_it_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    own = potential("nemp").train()
    monkeypatch.setattr(memory, "SMALL", 0)
    monkeypatch.setattr(memory, "available", lambda device: 1e6)
    with pytest.raises(MemoryLimitError, match=r"at most about \d+ such atoms in 0.0 GiB"):
        own(batch())
    monkeypatch.setattr(memory, "available", lambda device: 1e12)
    own(batch())


def test_more_atoms_fit_into_more_memory_and_fewer_with_more_neighbours() -> None:
    network = potential("nemp").network
    fit = memory.fit(network, 14, 30.0, 2**30)
    assert 0 < fit.batch < fit.whole < fit.streamed
    assert memory.fit(network, 14, 30.0, 2**31).whole == pytest.approx(2 * fit.whole, abs=2)
    assert memory.fit(network, 14, 60.0, 2**30).whole < fit.whole
    assert memory.fit(untrained("allscaip", 0).network, 14, 30.0, 2**30).streamed is None


@streaming
@pytest.mark.parametrize("name", ["dimers", "lone atoms", "both"])
def test_dilute_gases_stream_too(architecture: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dimer, lone = ase.Atoms("OH", positions=[[0, 0, 0], [0, 0, 1.0]]), ase.Atoms("O")
    structures = {"dimers": [dimer] * 6, "lone atoms": [lone] * 6, "both": [lone, dimer, lone, dimer]}[name]
    own, graph = potential(architecture), collate([graph_from_atoms(atoms, 5.0) for atoms in structures])
    wanted = own.eager(graph)
    monkeypatch.setattr(waist, "STREAMED_ATOMS", 0)
    monkeypatch.setattr(waist, "EAGER_CHUNK", 4)
    for one, other in zip(own(graph), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10, equal_nan=True)


@streaming
def test_what_is_not_asked_for_is_not_there(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waist, "STREAMED_ATOMS", 0)
    found = potential(architecture)(batch(), forces=False)
    assert found.forces.isnan().all()
    assert found.stress.isnan().all()


def test_compiled_code_asks_for_memory_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    own = compiled(potential("nemp").train(), "on")
    monkeypatch.setattr(memory, "SMALL", 0)
    monkeypatch.setattr(memory, "available", lambda device: 1e6)
    with pytest.raises(MemoryLimitError):
        own(batch())


def test_a_container_full_of_file_cache_has_memory_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_cgroup", lambda name: 1e9)
    monkeypatch.setattr(memory, "_reclaimable", lambda: 0.0)
    assert memory.available(torch.device("cpu")) == 1.0
    monkeypatch.setattr(memory, "_reclaimable", lambda: 5e8)
    assert memory.available(torch.device("cpu")) == 5e8
