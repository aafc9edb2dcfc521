"""OpenMM through its PythonForce: the same forces as in ASE, whole systems and solutes, and errors with their type."""

from __future__ import annotations

import copy
from itertools import combinations
from pathlib import Path

import ase
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.constraints import FixAtoms, FixBondLength

from adatom.errors import ConfigError, GeometryError, SimulationError, UnknownElementError
from adatom.graph import Graph
from adatom.model_file import save
from adatom.models import MODELS
from adatom.models.base import NetworkOutput
from adatom.potential import Potential
from adatom.sim.calculator import Calculator
from toy import Toy, toy_potential

openmm = pytest.importorskip("openmm")
from openmm import app, unit  # noqa: E402

from adatom.sim.mixed import mixed_system  # noqa: E402
from adatom.sim.openmm import KJ_PER_MOL, NM, force, reduced_box, typed, whole_system  # noqa: E402

REFERENCE = openmm.Platform.getPlatformByName("Reference")
WATER = app.ForceField("amber14/tip3p.xml")


def context(
    system: openmm.System, positions: np.ndarray, timestep_fs: float = 1.0, platform: openmm.Platform = REFERENCE
) -> openmm.Context:
    made = openmm.Context(system, openmm.VerletIntegrator(timestep_fs * 1e-3), platform)
    made.setPositions(positions)
    return made


def energy_and_forces(made: openmm.Context, **groups: set[int]) -> tuple[float, np.ndarray]:
    """eV and eV/Å."""
    state = made.getState(getEnergy=True, getForces=True, **groups)
    forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
    return state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) / KJ_PER_MOL, forces * NM / KJ_PER_MOL


def started(atoms: ase.Atoms, potential: Potential | None = None, timestep_fs: float = 1.0) -> openmm.Context:
    whole = whole_system(potential or toy_potential(), atoms)
    made = context(whole.system, whole.positions, timestep_fs)
    made.setVelocities(whole.velocities)
    return made


def copper(repeat: int = 2, seed: int = 0) -> ase.Atoms:
    atoms = bulk("Cu", cubic=True) * (repeat, repeat, repeat)
    atoms.rattle(0.05, seed=seed)
    return atoms


def waters(count: int = 64, box: float = 12.6, rigid: bool = False) -> tuple[app.Topology, openmm.System, np.ndarray]:
    """A lattice of water molecules, turned at random: topology, classical system (PME), positions in nm."""
    topology, rng = app.Topology(), np.random.default_rng(4)
    chain = topology.addChain()
    side = round(count ** (1 / 3))
    positions: list[np.ndarray] = []
    for place in np.ndindex(side, side, side):
        residue = topology.addResidue("HOH", chain)
        atoms = [topology.addAtom(n, app.Element.getBySymbol(n[0]), residue) for n in ("O", "H1", "H2")]
        topology.addBond(atoms[0], atoms[1])
        topology.addBond(atoms[0], atoms[2])
        one = molecule("H2O")
        one.rotate(rng.uniform(0, 360), rng.normal(size=3))
        shift = (np.array(place) + 0.5) * box / side - one.positions[0]
        positions.extend(one.positions + shift + rng.normal(scale=0.02, size=(3, 3)))
    topology.setPeriodicBoxVectors(np.eye(3) * box * NM * unit.nanometer)
    system = WATER.createSystem(
        topology, nonbondedMethod=app.PME, nonbondedCutoff=0.6 * unit.nanometer, rigidWater=rigid, removeCMMotion=False
    )
    return topology, system, np.array(positions) * NM


@pytest.mark.parametrize(
    "atoms",
    [
        pytest.param(molecule("CH3CH2OH", pbc=False), id="an open molecule"),
        pytest.param(copper(1), id="a crystal thinner than the cutoff"),
        pytest.param(bulk("Cu", "hcp", a=2.5, c=4.1) * (1, 2, 1), id="a hexagonal crystal"),
        pytest.param(
            ase.Atoms("SiO", [[0, 0, 0], [1.4, 1, 0.3]], cell=[[1, 3, 0], [4, 0, 1], [0, 1, 5]], pbc=True),
            id="a left-handed triclinic cell",
        ),
    ],
)  # fmt: skip
def test_energy_and_forces_are_those_of_ase_in_the_axes_of_openmm(atoms: ase.Atoms) -> None:
    potential = Potential(Toy().double(), {1: -13.0, 6: -1000.0, 8: -432.0, 14: -163.0, 29: -197.0})
    atoms.rattle(0.05)
    atoms.calc = Calculator(potential)
    whole = whole_system(potential, atoms)
    for platform in (REFERENCE, openmm.Platform.getPlatformByName("CPU")):
        energy, forces = energy_and_forces(context(whole.system, whole.positions, platform=platform))
        assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(forces @ whole.rotation.T, atoms.get_forces(), atol=1e-9)
    assert np.linalg.det(whole.rotation) == pytest.approx(1.0)


def test_a_reduced_box_spans_the_lattice_of_the_cell_and_pleases_openmm() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        cell = rng.normal(size=(3, 3)) * 4 + np.diag(rng.choice([-6.0, 6.0], size=3))
        box, rotation = reduced_box(cell)
        steps = box @ np.linalg.inv(cell @ rotation)  # integers of determinant one
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-9)
        assert abs(np.linalg.det(steps)) == pytest.approx(1.0)
        openmm.System().setDefaultPeriodicBoxVectors(*(box * NM))  # raises for a box that is not reduced


def test_energy_is_conserved_and_the_path_is_that_of_ase() -> None:
    atoms = copper(1)
    atoms.set_momenta(np.random.default_rng(1).normal(scale=2.0, size=(4, 3)))
    atoms.calc = Calculator(toy_potential())
    made = started(atoms, timestep_fs=2.0)
    totals = []
    for _ in range(20):
        made.getIntegrator().step(5)
        state = made.getState(getEnergy=True)
        total = state.getPotentialEnergy() + state.getKineticEnergy()
        totals.append(total.value_in_unit(unit.kilojoule_per_mole) / KJ_PER_MOL)
    kinetic = state.getKineticEnergy().value_in_unit(unit.kilojoule_per_mole) / KJ_PER_MOL
    assert np.ptp(totals) < 0.01 * kinetic
    assert totals[0] == pytest.approx(atoms.get_total_energy(), abs=0.01 * kinetic)  # masses, momenta, units


def test_a_barostat_moves_the_box_of_the_potential() -> None:
    atoms = copper(1)
    whole = whole_system(toy_potential(), atoms)
    barostat = openmm.MonteCarloBarostat(1e5 * unit.bar, 300 * unit.kelvin, 1, False)
    barostat.setRandomNumberSeed(1)
    whole.system.addForce(barostat)
    made = context(whole.system, whole.positions)
    made.getIntegrator().step(60)
    state = made.getState(getPositions=True, getEnergy=True)
    box = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.angstrom)
    assert 0.5 < np.linalg.det(box) / atoms.get_volume() < 0.97  # 10 GPa squeeze it
    after = ase.Atoms(atoms.numbers, state.getPositions(asNumpy=True).value_in_unit(unit.angstrom), cell=box, pbc=True)
    after.calc = Calculator(toy_potential())
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) / KJ_PER_MOL
    assert energy == pytest.approx(after.get_potential_energy(), abs=1e-9)


def test_fixed_atoms_stay_where_they_are() -> None:
    atoms = copper(1)
    atoms.set_constraint(FixAtoms([0, 2]))
    made = started(atoms)
    made.getIntegrator().step(5)
    moved = made.getState(getPositions=True).getPositions(asNumpy=True).value_in_unit(unit.angstrom) - atoms.positions
    assert (np.abs(moved).max(axis=1) > 1e-6).tolist() == [False, True, False, True]
    atoms.set_constraint(FixBondLength(0, 1))
    with pytest.raises(ConfigError, match="FixBondLength"):
        whole_system(toy_potential(), atoms)


def flexible(region: list[int]) -> tuple[app.Topology, openmm.System, openmm.System, np.ndarray]:
    topology, system, positions = waters()
    return topology, system, mixed_system(toy_potential(), topology, system, region), positions


def two_molecules(positions: np.ndarray) -> ase.Atoms:
    atoms = ase.Atoms("OHHOHH", positions / NM, cell=np.eye(3) * 12.6, pbc=True)
    atoms.calc = Calculator(toy_potential())
    return atoms


def test_the_energy_of_a_mixed_system_is_classical_minus_its_inside_plus_the_potential() -> None:
    region = [3, 4, 5, 6, 7, 8]  # two molecules side by side
    topology, system, mixed, positions = flexible(region)
    positions[region] += np.random.default_rng(2).normal(scale=0.01, size=(6, 3))  # stretched bonds, bent angles
    inside = app.Modeller(topology, positions * unit.nanometer)
    inside.delete([atom for atom in topology.atoms() if atom.index not in region])
    alone = WATER.createSystem(inside.topology, nonbondedMethod=app.NoCutoff, rigidWater=False, removeCMMotion=False)
    atoms = two_molecules(positions[region])
    found, forces = energy_and_forces(context(mixed, positions))
    whole, whole_forces = energy_and_forces(context(system, positions))
    inner, inner_forces = energy_and_forces(context(alone, positions[region]))
    assert abs(inner) > 0.1
    assert found == pytest.approx(whole - inner + atoms.get_potential_energy(), abs=2e-4)
    whole_forces[region] += atoms.get_forces() - inner_forces
    np.testing.assert_allclose(forces, whole_forces, atol=2e-3)


def test_the_potential_of_a_region_is_that_of_its_atoms_alone() -> None:
    region = [3, 4, 5, 6, 7, 8]
    _, _, mixed, positions = flexible(region)
    learned = next(part for part in mixed.getForces() if part.getName() == "adatom")
    learned.setForceGroup(7)
    energy, forces = energy_and_forces(context(mixed, positions), groups={7})
    atoms = two_molecules(positions[region])
    assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    np.testing.assert_allclose(forces[region], atoms.get_forces(), atol=1e-9)
    assert not np.delete(forces, region, axis=0).any()


def test_of_a_rigid_molecule_the_constraints_are_taken_and_it_stays_one_molecule() -> None:
    topology, system, positions = waters(rigid=True)
    before = context(system, positions).getMolecules()
    mixed = mixed_system(toy_potential(), topology, system, [0, 1, 2])
    assert mixed.getNumConstraints() == system.getNumConstraints() - 3
    assert context(mixed, positions).getMolecules() == before


def test_a_solute_in_rigid_water_conserves_energy() -> None:
    topology, system, positions = waters(rigid=True)
    mixed = mixed_system(toy_potential(), topology, system, [0, 1, 2])
    made = context(mixed, positions, timestep_fs=0.5)
    made.applyConstraints(1e-8)
    openmm.LocalEnergyMinimizer.minimize(made, maxIterations=20)
    made.setVelocitiesToTemperature(200.0, 1)
    totals = []
    for _ in range(10):
        made.getIntegrator().step(4)
        state = made.getState(getEnergy=True)
        totals.append((state.getPotentialEnergy() + state.getKineticEnergy()).value_in_unit(unit.kilojoule_per_mole))
    kinetic = state.getKineticEnergy().value_in_unit(unit.kilojoule_per_mole)
    assert np.ptp(totals) < 0.02 * kinetic


def peptide() -> tuple[app.Topology, openmm.System, np.ndarray]:
    """ACE-ALA-NME, cut out of the protein that OpenMM ships, in a force field with torsion maps."""
    pdb = app.PDBFile(str(Path(app.__file__).parent / "data" / "test.pdb"))
    residues = [{atom.name: atom for atom in r.atoms()} for r in list(pdb.topology.residues())[6:9]]
    parts = {
        "ACE": [(residues[0]["CA"], "CH3"), (residues[0]["C"], "C"), (residues[0]["O"], "O")],
        "ALA": [(atom, name) for name, atom in residues[1].items()],
        "NME": [(residues[2]["N"], "N"), (residues[2]["H"], "H"), (residues[2]["CA"], "C")],
    }
    topology, places = app.Topology(), pdb.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    chain, positions = topology.addChain(), []
    for name, atoms in parts.items():
        residue = topology.addResidue(name, chain)
        for atom, called in atoms:
            topology.addAtom(called, atom.element, residue)
            positions.append(places[atom.index])
    topology.createStandardBonds()
    field = app.ForceField("amber19-all.xml")
    modeller = app.Modeller(topology, np.array(positions) * unit.nanometer)
    modeller.addHydrogens(field)
    system = field.createSystem(modeller.topology, nonbondedMethod=app.NoCutoff, constraints=app.HBonds)
    return modeller.topology, system, np.array(modeller.positions.value_in_unit(unit.nanometer))


def test_of_alanine_dipeptide_no_classical_term_is_left() -> None:
    topology, system, positions = peptide()
    assert any(isinstance(part, openmm.CMAPTorsionForce) for part in system.getForces())
    potential = Potential(Toy().double(), {1: -13.6, 6: -1000.0, 7: -1400.0, 8: -2000.0})
    atoms = ase.Atoms(
        [atom.element.symbol for atom in topology.atoms()], positions / NM, calculator=Calculator(potential)
    )
    mixed = mixed_system(potential, topology, system, range(len(atoms)))
    energy, forces = energy_and_forces(context(mixed, positions))
    assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
    np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-8)
    with pytest.raises(ConfigError, match="cuts a molecule"):
        mixed_system(potential, topology, system, range(6))


def custom_terms(system: openmm.System, left_out: set[int]) -> openmm.System:
    """Adds chain terms of every custom kind to six particles, without those that lie wholly in ``left_out``."""

    def ends(length: int) -> list[range]:
        return [c for c in (range(i, i + length) for i in range(7 - length)) if not set(c) <= left_out]

    bonds = openmm.CustomBondForce("k*d^2; d=r-0.1")
    bonds.addPerBondParameter("k")
    angles, torsions = openmm.CustomAngleForce("theta^2"), openmm.CustomTorsionForce("cos(theta)+3")
    ryckaert, pairs = openmm.RBTorsionForce(), openmm.CustomNonbondedForce("0.1/r")
    for chain in ends(2):
        bonds.addBond(*chain, [2.0 + chain[0]])
    for chain in ends(3):
        angles.addAngle(*chain, [])
    for chain in ends(4):
        torsions.addTorsion(*chain, [])
        ryckaert.addTorsion(*chain, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    for _ in range(6):
        pairs.addParticle([])
    for a, b in combinations(sorted(left_out), 2):
        pairs.addExclusion(a, b)
    for part in (bonds, angles, torsions, ryckaert, pairs):
        system.addForce(part)
    return system


def test_custom_terms_inside_the_region_are_silent_and_others_stay() -> None:
    topology, empty = app.Topology(), openmm.System()
    residue = topology.addResidue("X", topology.addChain())
    for _ in range(6):
        topology.addAtom("Cu", app.Element.getBySymbol("Cu"), residue)
        empty.addParticle(63.5)
    positions = np.random.default_rng(0).uniform(0, 0.8, size=(6, 3))
    region = {0, 1, 2, 3}
    wanted = custom_terms(copy.deepcopy(empty), region)
    wanted.addForce(force(toy_potential(), topology, sorted(region)))
    mixed = mixed_system(toy_potential(), topology, custom_terms(copy.deepcopy(empty), set()), sorted(region))
    (energy, forces), (other, others) = (energy_and_forces(context(system, positions)) for system in (mixed, wanted))
    assert energy == pytest.approx(other, abs=1e-9)
    np.testing.assert_allclose(forces, others, atol=1e-9)
    assert np.abs(forces[4:]).min() > 1e-4


def test_a_force_whose_inside_is_unknown_is_named() -> None:
    topology, system, _ = waters(8)
    system.addForce(openmm.GBSAOBCForce())
    with pytest.raises(ConfigError, match="GBSAOBCForce"):
        mixed_system(toy_potential(), topology, system, [0, 1, 2])


def test_a_box_too_small_for_the_region_stops_the_first_step() -> None:
    topology, system, positions = waters()
    mixed = mixed_system(toy_potential(cutoff=6.4), topology, system, [0, 1, 2])
    with pytest.raises(GeometryError, match="too small for the region"):
        raise_in(mixed, positions)


def raise_in(system: openmm.System, positions: np.ndarray) -> None:
    with typed():
        context(system, positions).getState(getEnergy=True)


def test_unknown_elements_and_wrong_indices_are_said_at_once() -> None:
    with pytest.raises(UnknownElementError, match="does not know Au"):
        force(toy_potential(), ase.Atoms("AuCu", [[0, 0, 0], [2, 0, 0]]))
    for wrong in ([], [0, 0], [5], [-1]):
        with pytest.raises(ConfigError, match="no indices of a region"):
            force(toy_potential(), molecule("H2O"), wrong)
    topology = app.Topology()
    topology.addAtom("M", None, topology.addResidue("TIP4", topology.addChain()))
    with pytest.raises(ConfigError, match="virtual site"):
        force(toy_potential(), topology)
    with pytest.raises(ConfigError, match="some directions only"):
        force(toy_potential(), ase.Atoms("Cu", cell=[3, 3, 9], pbc=(True, True, False)))
    with pytest.raises(GeometryError, match="no cell"):
        whole_system(toy_potential(), ase.Atoms("Cu", pbc=True))


def test_another_number_of_particles_is_an_error_of_its_own_type() -> None:
    whole = whole_system(toy_potential(), molecule("H2O"))
    whole.system.addParticle(1.0)
    with pytest.raises(ConfigError, match="another number of particles") as caught:
        raise_in(whole.system, np.zeros((4, 3)))
    assert isinstance(caught.value.__cause__, openmm.OpenMMException)


class NoNumber(Toy):
    """No number as soon as an edge is longer than 1.2 Å."""

    def forward(self, graph: Graph) -> NetworkOutput:
        output = super().forward(graph)
        return output._replace(energy=output.energy + 0.0 * (1.2 - self.vectors(graph).norm(dim=1).max()).sqrt())


def test_a_figure_that_is_no_number_stops_the_run_where_it_stood() -> None:
    potential = Potential(NoNumber().double(), {1: -13.6})
    atoms = ase.Atoms("HH", [[0, 0, 0], [0.9, 0, 0]])
    atoms.set_velocities([[-0.6, 0, 0], [0.6, 0, 0]])
    made = started(atoms, potential, timestep_fs=0.2)
    with pytest.raises(SimulationError, match="gives no number") as caught, typed():
        made.getIntegrator().step(1000)
    assert caught.value.where is not None
    assert caught.value.where.startswith(f"step {made.getStepCount()}")
    assert 5 < made.getStepCount() < 100
    positions = made.getState(getPositions=True).getPositions(asNumpy=True).value_in_unit(unit.angstrom)
    assert 1.2 < positions[1, 0] - positions[0, 0] < 1.25  # not a step further


def test_ctrl_c_inside_the_potential_is_ctrl_c_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    made = started(molecule("H2O"))

    def press(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Potential, "forward", press)
    with pytest.raises(KeyboardInterrupt), typed():
        made.getIntegrator().step(1)


def test_errors_of_openmm_itself_are_left_as_they_are() -> None:
    system = whole_system(toy_potential(), molecule("H2O")).system
    system.addConstraint(0, 0, 1.0)
    with pytest.raises(openmm.OpenMMException, match="constraint"), typed():
        context(system, np.zeros((3, 3)))


def test_a_system_of_a_model_file_goes_through_xml_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "toy", Toy)
    path = save(toy_potential(), tmp_path / "toy.adatom")
    atoms = molecule("H2O")
    whole = whole_system(path, atoms)
    text = openmm.XmlSerializer.serialize(whole.system)
    wanted = energy_and_forces(context(whole.system, whole.positions))
    found = energy_and_forces(context(openmm.XmlSerializer.deserialize(text), whole.positions))
    assert found[0] == wanted[0]
    np.testing.assert_array_equal(found[1], wanted[1])
    save(toy_potential(bend=0.2), path)
    with pytest.raises(ConfigError, match="not the one that this System was written with"), typed():
        context(openmm.XmlSerializer.deserialize(text), whole.positions).getState(getEnergy=True)


def test_a_system_of_a_potential_in_memory_cannot_be_written() -> None:
    whole = whole_system(toy_potential(), molecule("H2O"))
    with pytest.raises(Exception, match="PythonForce") as caught:
        openmm.XmlSerializer.serialize(whole.system)
    assert isinstance(caught.value, openmm.OpenMMException)
