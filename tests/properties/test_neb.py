"""Nudged elastic bands: known saddles, ASE beside it, periodic ways, and no barrier where none was found."""

from __future__ import annotations

import json

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.mep import NEB
from ase.optimize import FIRE

from adatom.errors import ConfigError, GeometryError, SimulationError
from adatom.properties.band import by_distances, straight
from adatom.properties.neb import ReactionPath, neb
from adatom.properties.vibrations import vibrations
from adatom.report.card.neb import section
from adatom.report.picture import write_figure
from adatom.report.record import Record
from adatom.sim.calculator import Calculator
from pairs import MullerBrown
from toy import toy_potential

LOW, MIDDLE = (-0.558224, 1.441726), (-0.050011, 0.466694)  # minima of Müller and Brown
SADDLE, BARRIER, WAY_BACK = (-0.822002, 0.624313), 0.40109, 1.06034


def at(place: tuple[float, float]) -> Atoms:
    return Atoms("H", [[*place, 0.0]])


def hop(first: int = 0) -> tuple[Atoms, Atoms]:
    """A vacancy in copper (31 atoms) that a neighbour falls into."""
    crystal = bulk("Cu", cubic=True, a=3.55) * 2
    near = int(np.argsort(crystal.get_distances(first, range(len(crystal)), mic=True))[1])
    start, end = crystal.copy(), crystal.copy()
    end.positions[near] = crystal.positions[first]
    del start[first], end[first]
    return start, end


@pytest.fixture(scope="module")
def vacancy() -> ReactionPath:
    return neb(*hop(), toy_potential(cutoff=4.0), images=3, fmax=0.02).require_converged()


def test_the_saddle_of_a_known_surface_is_found() -> None:
    path = neb(at(MIDDLE), at(LOW), MullerBrown(), images=7, fmax=0.005, relax_ends=False).require_converged()
    np.testing.assert_allclose(path.saddle.positions[0, :2], SADDLE, atol=2e-3)
    assert path.barrier_forward_eV == pytest.approx(BARRIER, abs=1e-4)
    assert path.barrier_backward_eV == pytest.approx(WAY_BACK, abs=1e-4)
    assert path.reaction_energy_eV == pytest.approx(BARRIER - WAY_BACK, abs=2e-4)
    assert path.slopes_eV_per_A[path.highest] == pytest.approx(0.0, abs=0.01)
    assert path.intermediates == ()
    assert vibrations(path.saddle, MullerBrown(), fmax=0.02).shape == "atom"


def test_without_climbing_the_curve_between_the_images_is_close() -> None:
    path = neb(at(MIDDLE), at(LOW), MullerBrown(), images=8, climb=False, fmax=0.01, relax_ends=False)
    assert path.climbing is None
    assert path.require_converged().barrier_forward_eV == pytest.approx(BARRIER, abs=0.02)


def test_a_way_over_another_minimum_says_so() -> None:
    far = (0.623499, 0.028038)
    path = neb(at(LOW), at(far), MullerBrown(), images=13, fmax=0.02, steps=1000, relax_ends=False)
    assert len(path.intermediates) == 1
    assert path.require_converged().barrier_forward_eV == pytest.approx(WAY_BACK, abs=1e-3)
    assert "another minimum" in section(Record(path.to_record(), "x")).warnings[0]


def test_a_vacancy_hops_as_in_ase(vacancy: ReactionPath) -> None:
    engine = Calculator(toy_potential(cutoff=4.0))
    images = [vacancy.images[0].copy() for _ in range(2)] + [vacancy.images[-1].copy()]
    for image in images:
        image.calc = engine
    theirs = NEB(images, k=1.0, climb=True, method="improvedtangent", allow_shared_calculator=True)
    theirs.interpolate("idpp")
    assert FIRE(theirs, logfile=None).run(fmax=0.02, steps=200)
    heights = [image.get_potential_energy() for image in images]
    assert vacancy.barrier_forward_eV == pytest.approx(max(heights) - heights[0], abs=2e-3)
    assert vacancy.barrier_forward_eV == pytest.approx(vacancy.barrier_backward_eV, abs=2e-3)
    assert vacancy.barrier_forward_eV > 0.05


def test_an_atom_goes_the_short_way_through_the_wall(vacancy: ReactionPath) -> None:
    start, end = hop()
    shift = np.array([0.3, 0.6, -0.2])  # some atoms leave the cell, and are folded back, differently at both ends
    for atoms in (start, end):
        atoms.positions += shift
        atoms.wrap()
    end.positions[3] += end.cell[0]
    path = neb(start, end, toy_potential(cutoff=4.0), images=3, fmax=0.02)
    assert path.barrier_forward_eV == pytest.approx(vacancy.barrier_forward_eV, abs=2e-3)
    assert path.distances_A[-1] == pytest.approx(vacancy.distances_A[-1], abs=0.05)


def test_what_has_not_converged_is_no_barrier() -> None:
    path = neb(at(MIDDLE), at(LOW), MullerBrown(), fmax=0.001, steps=3, relax_ends=False)
    assert not path.converged
    assert (path.barrier_forward_eV, path.barrier_backward_eV) == (None, None)
    with pytest.raises(SimulationError, match="no barrier"):
        path.require_converged()
    shown = section(Record(json.loads(json.dumps(path.to_record())), "neb.json"))
    assert "no barrier" in shown.warnings[0]
    assert not [name for name, _ in shown.facts if "Barrier" in name]


def test_ends_that_are_no_ends_are_refused() -> None:
    start, end = hop()
    potential = toy_potential(cutoff=4.0)
    with pytest.raises(GeometryError, match="one state"):
        neb(start, start, potential)
    with pytest.raises(GeometryError, match="different cells"):
        neb(start, Atoms(end.numbers, end.positions, cell=1.1 * end.cell, pbc=True), potential)
    with pytest.raises(GeometryError, match="other atoms"):
        neb(start, end[:-1], potential)
    with pytest.raises(GeometryError, match="seem to number their atoms in different order"):
        neb(start, end[[*range(5, 31), *range(5)]], potential, relax_ends=False, end_fmax=10.0)
    water = molecule("H2O")
    with pytest.raises(GeometryError, match="atom 0 is O and H"):
        neb(water, water[[1, 0, 2]], potential)
    with pytest.raises(SimulationError, match="first end of the path is not at rest"):
        neb(at((0.2, 1.0)), at(LOW), MullerBrown(), relax_ends=False)
    with pytest.raises(ConfigError, match="images"):
        neb(start, end, potential, images=0)


def test_atoms_that_change_places_may_if_asked() -> None:
    pair = Atoms("H2", [[0, 0, 0], [1.0, 0, 0]], cell=[6, 6, 6], pbc=True)
    swapped = pair[[1, 0]]
    swapped.positions[0, 1] += 0.2
    with pytest.raises(GeometryError, match="any_order=True"):
        neb(pair, swapped, toy_potential(cutoff=2.5), relax_ends=False, end_fmax=10.0)
    path = neb(
        pair, swapped, toy_potential(cutoff=2.5), relax_ends=False, end_fmax=10.0, any_order=True, images=2,
        steps=1, interpolation="linear",
    )  # fmt: skip
    assert len(path.images) == 4
    np.testing.assert_allclose(path.images[-1].positions, swapped.positions)


def test_interpolated_distances_change_evenly() -> None:
    # one atom swings around another by a right angle: on the straight line they come closer
    first, last = np.array([[0.0, 0, 0], [1.0, 0, 0]]), np.array([[0.0, 0, 0], [0, 1.0, 0]])
    line = straight(first, last, 3)
    assert np.linalg.norm(line[2, 1] - line[2, 0]) == pytest.approx(np.sqrt(0.5))
    held = np.array([True, False])
    bent = by_distances(line, np.zeros((3, 3)), np.zeros(3, dtype=bool), held)
    np.testing.assert_allclose(np.linalg.norm(bent[:, 1] - bent[:, 0], axis=1), 1.0, atol=0.01)
    np.testing.assert_array_equal(bent[:, 0], line[:, 0])


def test_a_path_is_written_and_drawn(vacancy: ReactionPath, tmp_path) -> None:
    vacancy.write(tmp_path / "path.xyz")
    images = ase.io.read(tmp_path / "path.xyz", index=":")
    energies = [image.get_potential_energy() for image in images]
    np.testing.assert_allclose(np.array(energies) - energies[0], vacancy.energies_eV, atol=1e-6)
    shown = section(Record(json.loads(json.dumps(vacancy.to_record())), "neb.json"))
    assert shown.facts[0][0] == "Barrier forward"
    assert not shown.warnings
    assert write_figure(shown, tmp_path / "neb.png").stat().st_size > 10_000
