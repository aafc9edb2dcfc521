"""What the contract is measured on: every kind of boundary, at sensible distances, and measuring rods that measure."""

from __future__ import annotations

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.data import covalent_radii

from adatom.neighbors import check_geometry, graph_from_atoms
from adatom.testing.bench import Bench, Measured, Outcome, compare, prepare, worst
from adatom.testing.smoothness import jump
from adatom.testing.structures import Spacing, cluster, generate, random_rotation, take
from toy import toy_potential

NO_CARD = Spacing({})


@pytest.mark.parametrize("elements", [[14], [29], [1, 8], [1, 6, 7, 8, 9], list(range(1, 95))])
@pytest.mark.parametrize("seed", [0, 1])
def test_generated_structures_have_every_boundary_and_sensible_distances(elements: list[int], seed: int) -> None:
    samples = generate(elements, NO_CARD, seed)
    boundaries = {(False,) * 3, (True, False, False), (True, True, False), (True,) * 3}
    assert {tuple(map(bool, s.atoms.pbc)) for s in samples} == boundaries
    assert {1, 2, 5, 11} <= {len(s.atoms) for s in samples}
    assert len({s.name for s in samples}) == len(samples)
    for sample in samples:
        check_geometry(sample.atoms)
        assert set(sample.atoms.numbers) <= set(elements)
        assert len(set(sample.atoms.numbers)) <= 3
        if sample.atoms.pbc.all():
            assert (
                sample.atoms.get_volume() / len(sample.atoms) > 3.5 * covalent_radii[sample.atoms.numbers].mean() ** 3
            )


def test_the_thin_cell_is_thinner_than_the_cutoff() -> None:
    (thin,) = (s for s in generate([14], NO_CARD) if s.name == "thin triclinic cell")
    graph = graph_from_atoms(thin.atoms, 5.0)
    assert (graph.edges[0] == graph.edges[1]).any(), "atoms neighbour their own images"


def test_the_same_seed_makes_the_same_structures() -> None:
    first, again, other = (generate([1, 6, 8], NO_CARD, seed) for seed in (4, 4, 5))
    assert all(np.array_equal(a.atoms.positions, b.atoms.positions) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0].atoms.positions, other[0].atoms.positions)


def test_distances_keep_above_the_shortest_of_the_training_data() -> None:
    spacing = Spacing.of({"min_distance_A": {"H-O": 1.8, "O-O": 2.3, "Si-Si": 1.6}})
    assert spacing.between(1, 8) == spacing.between(8, 1) == pytest.approx(1.89)
    assert spacing.between(8, 8) == pytest.approx(2.415)
    assert spacing.between(1, 1) == pytest.approx(0.62), "covalent radii where the card does not say"
    rng = np.random.default_rng(0)
    heap = cluster([8] * 8, spacing, rng)
    distances = heap.get_all_distances()[~np.eye(8, dtype=bool)]
    assert distances.min() > 0.94 * spacing.between(8, 8)
    assert spacing.between(14, 14) == pytest.approx(2.22), "not as close as the hottest frames"
    assert Spacing.of({}).between(14, 14) == pytest.approx(2.22)


def test_given_structures_are_spread_bare_and_small() -> None:
    many = [bulk("Si", cubic=True).repeat((1, 1, k)) for k in range(1, 20)]
    many[0].info.update(total_charge=1, energy=-5.0)
    samples = take(many)
    assert len(samples) == 4
    assert [len(s.atoms) for s in samples] == [8, 40, 64, 96]
    assert samples[0].atoms.info == {"total_charge": 1}
    assert take([]) == []


def test_rotations_are_proper() -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        matrix = random_rotation(rng)
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-14)
        assert np.linalg.det(matrix) == pytest.approx(1.0)


def test_a_jump_is_seen_in_full_and_a_kink_hardly() -> None:
    x = np.arange(-20, 20) + 0.5
    assert jump(3 * x).max() < 1e-12
    assert jump(np.where(x > 0, 2.0, 0.0) + x).max() == pytest.approx(2.0)
    for kink in (0.0, 0.2, 0.5):
        assert jump(np.maximum(x - kink, 0.0)).max() <= 0.5, "half of the change of slope in a step"
    assert jump(1e-4 * x**3).max() < 1e-3
    assert np.isnan(jump(np.where(x > 0, np.nan, 0.0)).max())


def test_what_is_no_number_is_the_worst() -> None:
    measured = [Measured(0.1, "a"), Measured(np.nan, "b"), Measured(5.0, "c"), Measured(None, "d")]
    assert worst(measured).detail == "b"
    assert worst(measured[::2]).detail == "c"
    assert worst(measured[3:]).figure is None
    assert worst([]).figure is None


@pytest.fixture(scope="module")
def bench() -> Bench:
    potential = toy_potential()
    return prepare(potential, generate([29], NO_CARD), torch.float64, seed=0)


def test_differences_are_relative_and_name_their_place(bench: Bench) -> None:
    names = [s.name for s in bench.samples]
    pushed = list(bench.outcomes)
    size = float(np.sqrt((pushed[0].forces ** 2).mean()))
    pushed[0] = pushed[0]._replace(forces=pushed[0].forces + 0.01 * size)
    measured = compare(bench, names, pushed, bench.outcomes)
    assert measured.figure == pytest.approx(0.01 * size / max(size, bench.scale.force))
    assert measured.detail == "largest in the forces of 'cluster of 11'"
    assert compare(bench, names, bench.outcomes, bench.outcomes) == Measured(0.0, "no difference at all")


def test_a_missing_number_on_one_side_is_a_difference(bench: Bench) -> None:
    crystal = next(k for k, s in enumerate(bench.samples) if s.name == "crystal")
    wanted = bench.outcomes[crystal]
    silent = Outcome(wanted.energy, wanted.forces, np.full((3, 3), np.nan))
    assert np.isnan(compare(bench, ["crystal"], [silent], [wanted]).figure)
    assert compare(bench, ["crystal"], [silent], [silent]).figure == 0.0


def test_batches_are_cut_where_they_grow_too_large(bench: Bench) -> None:
    heaps = [ase.Atoms("Cu", positions=[[k, 0, 0]]) for k in range(700)] + [bulk("Cu").repeat((4, 4, 4))] * 4
    outcomes = bench.run(heaps)
    assert len(outcomes) == 704
    assert [len(o.forces) for o in outcomes[-5:]] == [1, 64, 64, 64, 64]
    assert outcomes[-1].energy == pytest.approx(64 * bench.run([bulk("Cu")])[0].energy, rel=1e-10)
