"""The benchmarks' own arithmetic, and the page that is written from their records."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import ase
import numpy as np
import pytest

from adatom import Calculator
from toy import toy_potential

ROOT = Path(__file__).parent.parent


@pytest.fixture
def benchmark_script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Imports a script of the folder as it imports its neighbours: by its bare name."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield importlib.import_module
    speed = ("speed", "speed_figures", "speed_page", "speed_runs")
    for name in ("accuracy", "outcome", "sets", "stability", "table", "water", *speed):
        sys.modules.pop(name, None)


def frames(rng: np.random.Generator) -> list[ase.Atoms]:
    made = []
    for count in (2, 3):
        atoms = ase.Atoms(f"Si{count}", rng.normal(size=(count, 3)), cell=np.eye(3) * 9.0, pbc=True)
        atoms.info |= {"REF_energy": -float(count), "REF_stress": rng.normal(size=6)}
        atoms.arrays["REF_forces"] = rng.normal(size=(count, 3))
        made.append(atoms)
    return made


def test_errors_are_per_atom_per_component_and_over_all_nine_components_of_the_stress(benchmark_script):
    outcome = benchmark_script("outcome")
    labelled = frames(np.random.default_rng(0))
    shear = np.array([0.0, 0.0, 0.0, 0.3, 0.0, 0.0])  # yz and zy: two of nine components
    found = outcome.errors(
        labelled,
        {
            "energy": np.array([-2.0 + 0.004, -3.0]),
            "forces": np.concatenate([a.arrays["REF_forces"] for a in labelled]) + 0.05,
            "stress": np.array([a.info["REF_stress"] + shear for a in labelled]),
        },
    )
    assert found["energy_rmse_meV_per_atom"] == pytest.approx(2.0 / np.sqrt(2.0))
    assert found["energy_mae_meV_per_atom"] == pytest.approx(1.0)
    assert found["forces_rmse_meV_per_A"] == pytest.approx(50.0)
    assert found["forces_mae_meV_per_A"] == pytest.approx(50.0)
    assert found["stress_rmse_GPa"] == pytest.approx(160.21766208 * 0.3 * np.sqrt(2.0 / 9.0))
    assert found["stress_mae_GPa"] == pytest.approx(160.21766208 * 0.3 * 2.0 / 9.0)


def test_structures_without_stress_have_no_stress_error(benchmark_script):
    outcome = benchmark_script("outcome")
    labelled = frames(np.random.default_rng(1))
    del labelled[0].info["REF_stress"]
    exact = {
        "energy": np.array([-2.0, -3.0]),
        "forces": np.concatenate([a.arrays["REF_forces"] for a in labelled]),
        "stress": np.full((2, 6), np.nan),
    }
    assert set(outcome.errors(labelled, exact).values()) == {0.0}


def test_holding_back_takes_the_same_structures_every_time_and_loses_none(benchmark_script):
    sets = benchmark_script("sets")
    everything = list(range(40))
    kept, held = sets.hold_back(everything, 0.1)
    assert (kept, held) == sets.hold_back(everything, 4)
    assert len(held) == 4
    assert sorted(kept + held) == everything


def test_the_page_of_the_accuracy_table_is_what_the_records_say(benchmark_script):
    written = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8")
    assert written == benchmark_script("table").page()


def test_every_system_of_a_set_was_given_the_same_structures_and_the_same_time(benchmark_script):
    table = benchmark_script("table")
    chosen = table.chosen(table.records("accuracy"))
    for name in table.SETS:
        runs = [r for (which, _), r in chosen.items() if which == name]
        assert len({tuple(r["structures"].items()) for r in runs}) <= 1
        assert len({(r["minutes"], r["cutoff_A"], r["precision"]) for r in runs}) <= 1
        for r in runs:  # the last step may begin just before time is up
            assert r["cpu_seconds"] <= 60 * r["minutes"] * 1.05


def chains(rng: np.random.Generator, stretched: float = 0.0) -> list[ase.Atoms]:
    line = np.array([[0.0, 0.0, 0.0], [1.4, 0.0, 0.0], [2.0, 1.3, 0.0]])
    line[2] += stretched
    return [ase.Atoms("SiOH", line + rng.normal(scale=0.05, size=(3, 3))) for _ in range(3)]


@pytest.mark.parametrize("stretched", [0.0, 2.5])  # the second reaches beyond the cutoff: the graph is made anew
def test_replicas_in_one_batch_feel_what_each_feels_alone(benchmark_script, stretched):
    potential, starts = toy_potential(cutoff=4.0).eval(), chains(np.random.default_rng(2), stretched)
    replicas = benchmark_script("stability").Replicas(potential, starts, compiled=False)
    for atoms in starts:
        atoms.calc = Calculator(potential)
    assert (replicas.rebuilds > 0) == (stretched > 0)
    np.testing.assert_allclose(replicas.forces, np.concatenate([a.get_forces() for a in starts]), atol=1e-12)
    np.testing.assert_allclose(replicas.energies, [a.get_potential_energy() for a in starts], atol=1e-12)


def test_replicas_keep_their_energy_without_a_thermostat(benchmark_script):
    stability = benchmark_script("stability")
    replicas = stability.Replicas(toy_potential().eval(), chains(np.random.default_rng(3)), compiled=False)
    stability.thermal(replicas, 300.0, seed=0)  # draws momenta
    before = replicas.energies + replicas.kinetic()
    step, swings = stability.free(replicas), []
    for _ in range(200):
        step()
        swings.append(float((replicas.energies + replicas.kinetic() - before).abs().max()))
    assert max(swings) < 0.05 * float(replicas.kinetic().mean())


def test_a_bond_that_leaves_its_mean_fails_its_replica_alone_and_freezes_it(benchmark_script):
    stability = benchmark_script("stability")
    starts = chains(np.random.default_rng(4))
    bonds = stability.Bonds.of(starts)
    replicas = stability.Replicas(toy_potential().eval(), starts, compiled=False)
    replicas.positions[3:6] = replicas.positions[3:6] * 1.5
    bonds.look(replicas, 0.125)
    assert bonds.failed_ps == [None, 0.125, None]
    assert replicas.moving.tolist() == [True, False, True]
    step = stability.thermal(replicas, 300.0, seed=1)
    for _ in range(3):
        step()
    assert np.array_equal(replicas.positions[3:6], starts[1].positions)
    assert not np.allclose(replicas.positions[:3], starts[0].positions, atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler's own imports
def test_compiled_replicas_feel_the_forces_of_plain_ones(benchmark_script):
    potential, starts = toy_potential().eval(), chains(np.random.default_rng(5))
    replicas = benchmark_script("stability").Replicas(potential, starts, compiled=True)
    replicas.positions = replicas.positions + 0.02
    replicas.positions[4] += 0.1
    assert replicas.check() < 1e-10


def test_the_spread_of_bonds_and_angles_of_water_is_measured_molecule_by_molecule(benchmark_script):
    water = benchmark_script("water")
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(40):
        lengths, angle = rng.normal(0.97, 0.02, size=(8, 2)), rng.normal(105.0, 5.0, size=8)
        box = ase.Atoms(cell=np.eye(3) * 12.0, pbc=True)
        for number in range(8):
            turn = np.radians(angle[number])
            ways = np.array([[1.0, 0.0, 0.0], [np.cos(turn), np.sin(turn), 0.0]]) * lengths[number][:, None]
            centre = 6.0 * np.array(np.unravel_index(number, (2, 2, 2)))
            box += ase.Atoms("OH2", [centre, *(centre + ways)])
        box.wrap()
        frames.append(box)
    found = water.inner(frames)
    assert found["bond_A"] == pytest.approx(0.97, abs=0.003)
    assert found["bond_spread_A"] == pytest.approx(0.02, rel=0.1)
    assert found["angle_deg"] == pytest.approx(105.0, abs=1.0)
    assert found["angle_spread_deg"] == pytest.approx(5.0, rel=0.15)
