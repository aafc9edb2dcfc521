"""Every sound architecture with a floor of energies: the same in its data, bounded beyond, streamed and grown alike."""

from __future__ import annotations

import ase
import numpy as np
import pytest
import torch
from ase.build import molecule

from adatom.data.dataset import Budget, Dataset
from adatom.data.structure import Structure
from adatom.models import MODELS, read_model
from adatom.models.base import Facts
from adatom.models.grow import with_lowest
from adatom.neighbors import graph_from_atoms
from adatom.potential import Potential
from adatom.train.lowest import LEAST, deepened, lowest_energies

REFERENCES = {1: -13.0, 8: -430.0}
ARCHITECTURES = ["mlanet", "nemp", "allscaip"]


def made(architecture: str, form: str = "default", derivatives: str = "gradient") -> Potential:
    torch.manual_seed(3)
    config = read_model({"architecture": architecture, "form": form, "cutoff": 4.0, "derivatives": derivatives})
    config = config.completed(Facts((1, 8), 20.0, None, None, None))
    return Potential(MODELS[architecture](config).double(), REFERENCES, 5.0, (), derivatives).eval()  # type: ignore[arg-type]


def frames(count: int = 6, seed: int = 0) -> list[Structure]:
    rng = np.random.default_rng(seed)
    found = []
    for k in range(count):
        atoms = molecule("H2O")
        atoms.rattle(0.05, rng=rng)
        nothing = np.full((3, 3), np.nan)
        found.append(Structure(atoms, 0.0, np.zeros((3, 3)), nothing, f"water:{k}", ""))
    return found


def dataset() -> Dataset:
    return Dataset(frames(), 4.0)


def atomic(potential: Potential, atoms: ase.Atoms) -> np.ndarray:
    """Energies of atoms without their references, eV."""
    graph = graph_from_atoms(atoms, 4.0)
    found: np.ndarray = (potential.atomic_energies(graph) - potential.atomic_references(graph)).detach().numpy()
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_data_come_out_as_before_and_what_lies_far_below_does_not(architecture: str) -> None:
    free = made(architecture)
    deep = deepened(free, dataset(), Budget(), None)
    for structure in frames():
        graph = graph_from_atoms(structure.atoms, 4.0)
        for a, b in zip(free(graph), deep(graph), strict=True):
            assert torch.equal(a[~a.isnan()], b[~b.isnan()])
    table = {name: tuple((low + 5.0, 1e-3) for low, _ in layers) for name, layers in deep.network.config.lowest.items()}  # type: ignore[union-attr]
    held = free.remade(with_lowest(free.network, table), REFERENCES).double()
    bottom = 5.0 * np.array([sum(low - 5e-3 for low, _ in table[s.symbol]) for s in frames()[0].atoms])
    np.testing.assert_allclose(atomic(held, frames()[0].atoms), bottom, rtol=1e-9)
    assert float(held(graph_from_atoms(frames()[0].atoms, 4.0)).forces.abs().max()) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("architecture", ["mlanet", "nemp"])
def test_streamed_it_is_the_same(architecture: str) -> None:
    free = made(architecture)
    data = Dataset(frames(6, seed=5), 4.0)
    table = lowest_energies(free, data, Budget())
    assert table is not None
    narrow = {name: tuple((low + 0.02, 0.01) for low, _ in layers) for name, layers in table.items()}
    held = free.remade(with_lowest(free.network, narrow), REFERENCES).eval()
    graph, _ = data.batch(range(6))
    body = next(iter(held.network.children()))
    whole, parts = held.eager(graph), held.streamed(body, graph, stress=False)  # type: ignore[arg-type]
    torch.testing.assert_close(parts.energy, whole.energy, rtol=0, atol=1e-10)
    torch.testing.assert_close(parts.forces, whole.forces, rtol=0, atol=1e-10)
    assert not torch.allclose(whole.forces, free(graph).forces, atol=1e-6), "it was at work"


def test_lowest_and_spread_are_those_of_the_energies_of_atoms() -> None:
    potential, data = made("allscaip"), dataset()
    table = lowest_energies(potential, data, Budget(atoms=4))
    assert table is not None
    found = np.concatenate([atomic(potential, s.atoms) for s in data.structures]) / 5.0
    numbers = np.concatenate([s.atoms.numbers for s in data.structures])
    for z, name in ((1, "H"), (8, "O")):
        ((low, spread),) = table[name]
        own = found[numbers == z]
        assert low == pytest.approx(own.min(), abs=1e-12)
        assert spread == pytest.approx(max(own.mean() - own.min(), LEAST / 5.0), abs=1e-12)


def test_forms_as_published_and_direct_heads_have_none() -> None:
    assert lowest_energies(made("nemp", form="paper"), dataset(), Budget()) is None
    direct = made("nemp", derivatives="direct")
    assert deepened(direct, dataset(), Budget(), None) is direct


def test_elements_of_an_earlier_training_keep_theirs() -> None:
    before = {"Si": ((-1.0, 0.5), (-2.0, 0.5)), "H": ((-9.0, 0.5), (-9.0, 0.5))}
    table = deepened(made("nemp"), dataset(), Budget(), before).network.config.lowest
    assert table is not None
    assert table["Si"] == before["Si"]
    assert table["H"] != before["H"]
