"""Vibrations: analytic molecules, ASE beside it, rigid motions gone, thermochemistry as tables have it."""

from __future__ import annotations

import json
import math

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.constraints import FixAtoms, FixBondLength
from ase.thermochemistry import IdealGasThermo
from ase.vibrations import Vibrations as AseVibrations

from adatom.errors import ConfigError, SimulationError
from adatom.properties.thermochemistry import count_rotations, temperatures, thermochemistry
from adatom.properties.vibrations import Vibrations, vibrations
from adatom.report.card.vibrations import section
from adatom.report.picture import write_figure
from adatom.report.record import Record
from adatom.sim.calculator import Calculator
from pairs import PairCalculator
from toy import toy_potential

STRENGTH = 143.0  # eV/Å^2, that of N2 about


def springs(length: float, strength: float = STRENGTH) -> PairCalculator:
    """Every two atoms held by a spring."""
    return PairCalculator(lambda r: (0.5 * strength * (r - length) ** 2, strength * (r - length)))


def nitrogen() -> Vibrations:
    return vibrations(Atoms("N2", [[0, 0, 0], [0.3, 0.4, math.sqrt(1.0977**2 - 0.25)]]), springs(1.0977))


@pytest.fixture(scope="module")
def water() -> Vibrations:
    return vibrations(molecule("H2O"), toy_potential(bend=0.02), relax_first=True, fmax=1e-4, displacement_A=0.005)


def test_a_diatomic_vibrates_as_its_spring_says() -> None:
    found, mass = nitrogen(), Atoms("N").get_masses()[0]
    hertz = math.sqrt(STRENGTH * units._e * 1e20 / (0.5 * mass * units._amu)) / (2 * math.pi)
    assert found.frequencies_per_cm == pytest.approx([hertz / (100 * units._c)], rel=1e-4)
    assert found.reduced_masses_amu == pytest.approx([mass], rel=1e-9)  # of unit displacement: 1 / (2 (1/2) / m)
    assert found.force_constants_eV_per_A2 == pytest.approx([2 * STRENGTH], rel=2e-4)
    assert found.zero_point_eV == pytest.approx(0.5 * units._hplanck * hertz / units._e, rel=1e-4)
    assert found.shape == "line"
    assert found.imaginary == 0


def test_frequencies_are_those_of_ase(water: Vibrations, tmp_path) -> None:
    atoms = water.atoms.copy()
    atoms.calc = Calculator(toy_potential(bend=0.02))
    theirs = AseVibrations(atoms, name=str(tmp_path / "vib"), delta=0.005)
    theirs.run()
    np.testing.assert_allclose(water.frequencies_per_cm, theirs.get_frequencies().real[-3:], rtol=1e-5)


def test_second_derivatives_are_what_differences_come_to(water: Vibrations) -> None:
    exact = vibrations(water.atoms, toy_potential(bend=0.02), hessian="autograd")
    np.testing.assert_allclose(exact.hessian, water.hessian, atol=2e-2)
    np.testing.assert_allclose(exact.frequencies_per_cm, water.frequencies_per_cm, rtol=2e-4)
    with pytest.raises(ConfigError, match="analytic Hessian"):
        vibrations(molecule("N2"), springs(1.0977), hessian="autograd", fmax=10.0)


def test_rigid_motions_are_no_modes(water: Vibrations) -> None:
    masses = water.atoms.get_masses()
    arms = water.atoms.positions - water.atoms.get_center_of_mass()
    for mode in water.modes:
        assert np.linalg.norm(mode) == pytest.approx(1.0)
        np.testing.assert_allclose(masses @ mode, 0.0, atol=1e-10)
        np.testing.assert_allclose((masses[:, None] * np.cross(arms, mode)).sum(0), 0.0, atol=1e-10)
    weighted = water.modes * np.sqrt(masses)[:, None]
    products = np.einsum("kia,lia->kl", weighted, weighted)
    np.testing.assert_allclose(products, np.diag(water.reduced_masses_amu), atol=1e-9)


@pytest.mark.parametrize(
    ("atoms", "shape", "count"),
    [
        (Atoms("Cu"), "atom", 0),
        (Atoms("Cu3", [[0, 0, 0], [2.5, 0, 0], [5.0, 0, 0]]), "line", 4),
        (Atoms("Cu3", [[0, 0, 0], [2.5, 0, 0], [1.2, 2.2, 0]]), "body", 3),
        (bulk("Cu", cubic=True), "periodic", 9),
    ],
)
def test_as_many_modes_as_a_shape_leaves(atoms: Atoms, shape: str, count: int) -> None:
    found = vibrations(atoms, toy_potential(), fmax=100.0)
    assert (found.shape, len(found.frequencies_per_cm)) == (shape, count)


def test_atoms_that_are_held_stay(water: Vibrations) -> None:
    atoms = water.atoms.copy()
    atoms.set_constraint(FixAtoms([0]))
    found = vibrations(atoms, toy_potential(bend=0.02))
    assert len(found.frequencies_per_cm) == 6
    assert found.shape == "held"
    assert not found.modes[:, 0].any()
    np.testing.assert_allclose(np.linalg.norm(found.modes.reshape(6, -1), axis=1), 1.0)
    atoms.set_constraint(FixBondLength(0, 1))
    with pytest.raises(ConfigError, match="FixBondLength"):
        vibrations(atoms, toy_potential())
    atoms.set_constraint(FixAtoms([0, 1, 2]))
    with pytest.raises(ConfigError, match="nothing moves"):
        vibrations(atoms, toy_potential())


def test_atoms_that_are_pushed_have_no_vibrations_yet() -> None:
    with pytest.raises(SimulationError, match=r"a largest force of 14.3 eV/Å"):
        vibrations(Atoms("N2", [[0, 0, 0], [0, 0, 1.1977]]), springs(1.0977))
    relaxed = vibrations(Atoms("N2", [[0, 0, 0], [0, 0, 1.1977]]), springs(1.0977), relax_first=True)
    assert relaxed.frequencies_per_cm == pytest.approx(nitrogen().frequencies_per_cm, rel=1e-4)
    assert relaxed.fmax <= 0.01


def test_a_top_of_a_barrier_is_marked_imaginary() -> None:
    # in the middle of a stretched row, between two atoms that are held and pull
    row = Atoms("N3", [[-2.0, 0, 0], [0, 0, 0], [2.0, 0, 0]], constraint=FixAtoms([0, 2]))
    attraction = PairCalculator(lambda r: (-np.exp(-r), np.exp(-r)))
    found = vibrations(row, attraction)
    assert found.imaginary == 1
    assert found.frequencies_per_cm[0] < 0.0
    shown = section(Record(found.to_record(), "x"))
    assert "1 imaginary mode: a transition state has one" in shown.warnings[0]
    assert shown.tables[0].rows[0][1].endswith("i")


def test_thermochemistry_is_that_of_ase(water: Vibrations) -> None:
    ours = thermochemistry(water, temperature_K=420.0, pressure_bar=3.0, symmetry_number=2)
    theirs = IdealGasThermo(
        vib_energies=water.frequencies_per_cm * units.invcm,
        geometry="nonlinear",
        potentialenergy=water.energy_eV,
        atoms=water.atoms,
        symmetrynumber=2,
        spin=0,
    )
    assert ours.enthalpy_eV == pytest.approx(theirs.get_enthalpy(420.0, verbose=False), abs=1e-9)
    assert ours.entropy_eV_per_K == pytest.approx(theirs.get_entropy(420.0, 3e5, verbose=False), rel=1e-7)
    assert ours.gibbs_eV == pytest.approx(theirs.get_gibbs_energy(420.0, 3e5, verbose=False), abs=1e-7)
    low, high = temperatures(water, [419.5, 420.5], pressure_bar=3.0, symmetry_number=2)
    assert ours.heat_capacity_eV_per_K == pytest.approx(high.enthalpy_eV - low.enthalpy_eV, rel=1e-5)


def test_the_entropy_of_nitrogen_and_argon_is_that_of_the_tables() -> None:
    # NIST-JANAF: N2 191.609, Ar 154.845 J/mol/K at 298.15 K and 1 bar
    assert thermochemistry(nitrogen(), symmetry_number=2).entropy_J_per_mol_K == pytest.approx(191.6, abs=0.3)
    argon = vibrations(Atoms("Ar"), PairCalculator(lambda r: (np.zeros_like(r), np.zeros_like(r))))
    assert thermochemistry(argon).entropy_J_per_mol_K == pytest.approx(154.845, abs=0.02)
    doublet = thermochemistry(argon, multiplicity=2).entropy_J_per_mol_K
    assert doublet - thermochemistry(argon).entropy_J_per_mol_K == pytest.approx(8.314462618 * math.log(2), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "number"),
    [("HCl", 1), ("N2", 2), ("CO2", 2), ("H2O", 2), ("NH3", 3), ("C2H4", 4), ("C2H6", 6), ("CH4", 12), ("C6H6", 12),
     ("CH3OH", 1), ("H2O2", 2)],
)  # fmt: skip
def test_the_symmetry_number_counts_the_rotations_of_a_molecule(name: str, number: int) -> None:
    """Wherever it stands, and a little out of shape, as relaxations leave it."""
    atoms = molecule(name)
    atoms.rotate(40, (1, 2, 3))
    atoms.rattle(0.01, seed=1)
    assert count_rotations(atoms) == number


def test_isotopes_and_mirror_images_are_no_rotations() -> None:
    heavy = molecule("H2O")
    heavy.set_masses([None, 2.014, None])
    assert count_rotations(heavy) == 1
    assert count_rotations(Atoms("Ar")) == 1
    octahedron = Atoms("SF6", [[0, 0, 0], *(1.56 * np.concatenate([np.eye(3), -np.eye(3)]))])
    assert count_rotations(octahedron) == 24  # 48 with the mirrors


def test_what_is_not_said_of_symmetry_and_spin_is_what_the_atoms_say(water: Vibrations) -> None:
    assert thermochemistry(water) == thermochemistry(water, symmetry_number=2, multiplicity=1)
    oxygen = vibrations(Atoms("O2", [[0, 0, 0], [0, 0, 1.2]], info={"multiplicity": 3}), springs(1.2))
    assert (thermochemistry(oxygen).symmetry_number, thermochemistry(oxygen).multiplicity) == (2, 3)


def test_parts_that_do_not_feel_one_another_are_no_molecule() -> None:
    apart = vibrations(Atoms("Ar2", [[0, 0, 0], [0, 0, 9.0]]), PairCalculator(lambda r: (0.0 * r, 0.0 * r)))
    with pytest.raises(SimulationError, match="no minimum"):
        thermochemistry(apart)


def test_only_molecules_at_a_minimum_make_a_gas(water: Vibrations) -> None:
    with pytest.raises(ConfigError, match="free molecules"):
        thermochemistry(vibrations(bulk("Cu"), toy_potential()))
    bent = vibrations(Atoms("Cu3", [[0, 0, 0], [2.5, 0, 0], [5.0, 0, 0]]), toy_potential(), fmax=100.0)
    with pytest.raises(SimulationError, match="imaginary"):
        thermochemistry(bent)
    with pytest.raises(ConfigError, match="temperature_K"):
        thermochemistry(water, temperature_K=-1.0)


def test_intensities_follow_from_the_derivatives_of_the_dipole() -> None:
    found = nitrogen()
    axis = found.atoms.positions[1] / np.linalg.norm(found.atoms.positions[1])
    charges = np.array([-0.3, 0.3])  # fixed to the atoms: dmu_a / dr_ib = q_i delta_ab
    slopes = charges[:, None, None] * np.eye(3)
    # |dmu/dQ|^2 = q^2 / mu of the stretch, and N_A pi / (3 c^2 4 pi eps0) in SI, from m/mol to km/mol
    mass = 0.5 * found.atoms.get_masses()[0] * units._amu
    strength = units._Nav / (12 * units._eps0 * units._c**2) * (0.3 * units._e) ** 2 / mass / 1e3
    assert found.infrared_km_per_mol(slopes) == pytest.approx([strength], rel=1e-5)
    assert found.infrared_km_per_mol(np.ones((2, 3, 3))) == pytest.approx([0.0], abs=1e-9)  # both ways alike
    assert abs(found.modes[0, 1] @ axis) == pytest.approx(math.sqrt(0.5))
    with pytest.raises(ConfigError, match=r"shape \(2, 3\)"):
        found.infrared_km_per_mol(np.ones((2, 3)))


def test_modes_are_written_as_swings(water: Vibrations, tmp_path) -> None:
    paths = water.write_modes(tmp_path / "modes")
    assert [path.name for path in paths] == ["mode_001.xyz", "mode_002.xyz", "mode_003.xyz"]
    frames = ase.io.read(paths[2], index=":")
    away = [np.abs(np.linalg.norm(f.positions - water.atoms.positions, axis=1)).max() for f in frames]
    assert max(away) == pytest.approx(0.3, abs=1e-6)
    assert frames[0].info["frequency_per_cm"] == pytest.approx(water.frequencies_per_cm[2])


def test_a_page_shows_modes_and_heat(water: Vibrations, tmp_path) -> None:
    record = water.to_record() | {
        "standard": thermochemistry(water, symmetry_number=2).to_record(),
        "thermochemistry": [one.to_record() for one in temperatures(water, [200.0, 300.0, 400.0])],
    }
    shown = section(Record(json.loads(json.dumps(record)), "vibrations.json"))
    assert shown.facts[0][0] == "Zero-point energy"
    assert not shown.warnings
    assert len(shown.tables[0].rows) == 3
    assert [figure.name for figure in shown.figures] == ["vibrations", "thermochemistry"]
    assert write_figure(shown, tmp_path / "v.png").stat().st_size > 10_000
