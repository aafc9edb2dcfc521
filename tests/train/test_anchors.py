"""Anchors: isolated pairs whose labels are those of the atoms and their cores, learned along with the data."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from adatom.model_file import load
from adatom.neighbors import graph_from_atoms
from adatom.potential import Potential
from adatom.priors.zbl import ZBL, ZBLConfig
from adatom.sim.calculator import Calculator
from adatom.train.anchors import START, anchors
from toy import Toy, ToyConfig
from train.runs import configuration, run, slices

CLOSEST = {"H-H": 1.2, "H-O": 0.9}


def potential(depth: float) -> Potential:
    network = Toy(ToyConfig(cutoff=4.0, depth=depth, bend=0.0)).double()
    card = {"min_distance_A": CLOSEST}
    prior = ZBL(ZBLConfig(closest=CLOSEST))
    return Potential(network, {1: -13.6, 8: -432.1}, 5.0, (prior,), card=card).eval()


def test_labels_are_what_is_left_without_the_network() -> None:
    held = anchors(potential(depth=0.4), 6)
    assert len(held) == 3 * 6
    silent = Calculator(potential(depth=0.0))
    for structure in held:
        atoms = structure.atoms.copy()
        atoms.calc = silent
        assert structure.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(structure.forces, atoms.get_forces(), atol=1e-9)
        assert np.isnan(structure.stress).all()
    assert np.isnan(anchors(potential(0.4), 2, energies=False)[0].energy)
    assert anchors(potential(0.4), 0) == []


def test_distances_reach_from_contact_to_the_cutoff() -> None:
    held = anchors(potential(0.4), 8)
    water = [s.atoms.get_distance(0, 1) for s in held if s.atoms.get_chemical_formula() == "HO"]
    assert START * 0.9 <= min(water) < START * 0.9 + 0.5
    assert 3.4 < max(water) <= 4.0
    oxygen = [s.atoms.get_distance(0, 1) for s in held if s.atoms.get_chemical_formula() == "O2"]
    assert 1.0 <= min(oxygen) < 1.5, "a pair that the data do not hold"
    again = anchors(potential(0.4), 8)
    assert [s.energy for s in again] == [s.energy for s in held], "a resumed run has the same ones"


def test_a_run_learns_them_beside_its_data(tmp_path) -> None:
    values = configuration(slices(tmp_path, 12), limits={"steps": 40})
    pair = graph_from_atoms(Atoms("Si2", [[0, 0, 0], [3.0, 0, 0]]), 4.0)
    off = []
    for count in (0, 40):  # more dimers than frames
        found = load(run(values | {"anchors": count}, tmp_path / str(count)) / "model.adatom")
        off.append(abs(float(found(pair, forces=False).energy) - 2 * found.references_of()[14]))
    assert off[1] < 0.5 * off[0], off
