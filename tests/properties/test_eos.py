from __future__ import annotations

import json

import ase
import numpy as np
import pytest
from ase.build import bulk
from ase.eos import EquationOfState

from adatom.errors import ConfigError, DataError
from adatom.neighbors import graph_from_atoms
from adatom.properties.eos import (
    EOSFit,
    curve_from_points,
    energy_volume,
    fit_birch_murnaghan,
    lattice_constants,
)
from adatom.sim.calculator import StressError
from adatom.sim.relax import relax
from adatom.units import EV_PER_A3_IN_GPA
from toy import toy_potential

TRUTH = EOSFit(20.4, -5.4, 88.3, 4.2, 0.0, (18.0, 23.0))


def energy_per_volume(volume: float) -> float:
    """Energy of fcc copper at a volume per atom, straight from the toy."""
    potential = toy_potential()
    atoms = bulk("Cu", a=(4 * volume) ** (1 / 3))
    return float(potential(graph_from_atoms(atoms, potential.cutoff), forces=False).energy)


def test_a_curve_made_of_the_equation_gives_its_parameters_back() -> None:
    volumes = np.linspace(17.0, 24.0, 9)
    fit = fit_birch_murnaghan(volumes, TRUTH.energy(volumes))
    assert fit.V0_A3_per_atom == pytest.approx(20.4, rel=1e-9)
    assert fit.E0_eV_per_atom == pytest.approx(-5.4, rel=1e-9)
    assert fit.B0_GPa == pytest.approx(88.3, rel=1e-8)
    assert fit.B0_prime == pytest.approx(4.2, rel=1e-7)
    assert fit.rms_meV_per_atom < 1e-8


def test_the_bulk_modulus_of_the_equation_is_the_curvature_of_its_energy() -> None:
    v, h = TRUTH.V0_A3_per_atom, 1e-3
    low, mid, high = TRUTH.energy(np.array([v - h, v, v + h]))
    assert v * (low - 2 * mid + high) / h**2 * EV_PER_A3_IN_GPA == pytest.approx(88.3, rel=1e-5)


def test_noisy_points_give_what_ase_gives() -> None:
    volumes = np.linspace(18.5, 22.5, 11)
    energies = TRUTH.energy(volumes) + np.random.default_rng(0).normal(scale=2e-4, size=11)
    v0, e0, b0 = EquationOfState(volumes, energies, "birchmurnaghan").fit()
    fit = fit_birch_murnaghan(volumes, energies)
    assert fit.V0_A3_per_atom == pytest.approx(v0, rel=1e-5)
    assert fit.E0_eV_per_atom == pytest.approx(e0, rel=1e-7)
    assert fit.B0_GPa == pytest.approx(b0 * EV_PER_A3_IN_GPA, rel=1e-3)
    assert 0.05 < fit.rms_meV_per_atom < 0.4


def test_the_toy_has_the_bulk_modulus_of_its_own_second_derivative() -> None:
    relaxed = relax(bulk("Cu", a=3.45), toy_potential(), cell=True, smax_GPa=1e-4).require_converged().atoms
    curve = energy_volume(relaxed, toy_potential(), points=9, span=0.04)
    v, h = relaxed.get_volume(), 0.02
    low, mid, high = (energy_per_volume(x) for x in (v - h, v, v + h))
    modulus = v * (low - 2 * mid + high) / h**2 * EV_PER_A3_IN_GPA
    assert curve.fit.B0_GPa == pytest.approx(modulus, rel=0.01)
    assert curve.fit.V0_A3_per_atom == pytest.approx(v, rel=1e-3)
    assert curve.lattice_constants[0] == pytest.approx((4 * v) ** (1 / 3), rel=5e-4)
    assert curve.fit.E0_eV_per_atom == pytest.approx(mid, abs=1e-3)


def test_a_supercell_has_the_curve_of_its_primitive_cell() -> None:
    one = energy_volume(bulk("Cu", a=3.46), toy_potential(), points=5, relax_atoms=False)
    many = energy_volume(bulk("Cu", a=3.46) * 2, toy_potential(), points=5, relax_atoms=False)
    np.testing.assert_allclose(one.energies, many.energies, atol=1e-10)
    assert one.lattice_constants == pytest.approx(many.lattice_constants, rel=1e-8)


def test_atoms_come_to_rest_at_each_volume() -> None:
    atoms = bulk("Cu", a=3.46, cubic=True)
    atoms.positions[0] += [0.2, 0.1, 0.0]
    seen: list[int] = []
    settings = {"points": 5, "span": 0.05, "fmax": 0.001}
    curve = energy_volume(atoms, toy_potential(), **settings, progress=lambda point, v, e: seen.append(point))
    perfect = energy_volume(bulk("Cu", a=3.46, cubic=True), toy_potential(), **settings)
    np.testing.assert_allclose(curve.energies, perfect.energies, atol=1e-5)
    assert seen == [0, 1, 2, 3, 4]


def test_the_lattice_is_that_of_the_atoms_at_rest_not_of_a_distorted_input() -> None:
    settings = {"points": 5, "span": 0.05}
    perfect = energy_volume(bulk("Cu", a=3.46, cubic=True), toy_potential(), **settings)
    for supercell in ((1, 1, 1), (2, 1, 1)):
        rattled = bulk("Cu", a=3.46, cubic=True).repeat(supercell)
        rattled.rattle(0.05, seed=0)
        curve = energy_volume(rattled, toy_potential(), **settings)
        assert curve.lattice_constants == pytest.approx(perfect.lattice_constants, rel=1e-3)
        assert curve.fit.lattice_constant_A == pytest.approx(3.46, rel=0.05)


@pytest.mark.parametrize(
    ("atoms", "expected"),
    [
        (bulk("Si", a=5.43), (5.43, 5.43, 5.43)),
        (bulk("Si", a=5.43) * 2, (5.43, 5.43, 5.43)),
        (bulk("Mg", a=3.2, c=5.2), (3.2, 3.2, 5.2)),
    ],
)
def test_lattice_constants_are_those_of_the_conventional_cell(atoms: ase.Atoms, expected: tuple[float, ...]) -> None:
    volume = atoms.get_volume() / len(atoms)
    assert lattice_constants(atoms, volume) == pytest.approx(expected, rel=1e-6)
    assert lattice_constants(atoms, volume * 1.1**3) == pytest.approx([1.1 * x for x in expected], rel=1e-6)


def test_the_curve_is_written_as_the_report_reads_it() -> None:
    volumes = np.linspace(18.0, 23.0, 7)[::-1]
    written = json.loads(json.dumps(curve_from_points(volumes, TRUTH.energy(volumes), bulk("Si", a=5.43)).to_record()))
    assert set(written) == {"property", "volume_A3_per_atom", "energy_eV_per_atom", "fit"}
    assert {"V0_A3_per_atom", "E0_eV_per_atom", "B0_GPa", "B0_prime", "lattice_constant_A"} < set(written["fit"])
    assert written["volume_A3_per_atom"] == sorted(written["volume_A3_per_atom"])
    assert written["fit"]["lattice_constant_A"] == pytest.approx((8 * 20.4) ** (1 / 3))


def test_far_points_can_be_kept_out_of_the_fit() -> None:
    volumes = np.linspace(14.0, 27.0, 27)
    energies = TRUTH.energy(volumes) + np.where(np.abs(volumes - 20.5) > 3.0, 0.3, 0.0)  # another phase far out
    curve = curve_from_points(volumes, energies, bulk("Si"), span=0.13)
    assert curve.fit.B0_GPa == pytest.approx(88.3, rel=1e-6)
    assert curve.volumes.shape == (27,)
    assert curve_from_points(volumes, energies, bulk("Si")).fit.B0_GPa != pytest.approx(88.3, rel=0.05)


def test_points_without_a_minimum_or_too_few_of_them_are_refused() -> None:
    volumes = np.linspace(21.0, 25.0, 7)
    with pytest.raises(DataError, match="no minimum"):
        fit_birch_murnaghan(volumes, TRUTH.energy(volumes))
    with pytest.raises(DataError, match="five different volumes"):
        fit_birch_murnaghan([18.0, 19.0, 20.0, 21.0], [1.0, 0.5, 0.5, 1.0])
    with pytest.raises(DataError, match="1 not finite"):
        fit_birch_murnaghan(volumes, [np.nan, *TRUTH.energy(volumes[1:])])
    with pytest.raises(DataError, match="no minimum"):
        energy_volume(bulk("Cu", a=4.2), toy_potential(), points=5, span=0.02)


def test_a_molecule_has_no_equation_of_state() -> None:
    with pytest.raises(StressError, match="not periodic"):
        energy_volume(ase.Atoms("Cu2", [[0, 0, 0], [2.4, 0, 0]]), toy_potential())
    with pytest.raises(ConfigError, match="points"):
        energy_volume(bulk("Cu"), toy_potential(), points=3)
