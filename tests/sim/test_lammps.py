"""The real LAMMPS with forces of ours: the figures of ASE, and dynamics that keeps its laws."""

from __future__ import annotations

from pathlib import Path

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk

import adatom
from adatom.potential import Potential
from adatom.sim.lammps.drive import LammpsRun, run
from adatom.testing.untrained import untrained
from adatom.units import EV_PER_A3_IN_GPA
from lammps_cases import BAR_IN_GPA, TABLE, script, state, structures, thermo, write_data
from toy import toy_potential

NVE = "velocity all create 600 7\nfix move all nve\nthermo 5\n"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def network(architecture: str) -> Potential:
    potential = untrained(architecture, elements=(1, 8, 14, 29), cutoff=4.0).eval()
    potential.network.to(torch.float64)
    return potential


def lammps(atoms: ase.Atoms, boundary: str, body: str, potential: Potential) -> tuple[dict[str, np.ndarray], LammpsRun]:
    """What a script says of a structure at its end."""
    elements = tuple(sorted(set(atoms.get_chemical_symbols())))
    write_data(atoms, Path("start.data"), elements)
    style = f"pair_style adatom\npair_coeff * * {' '.join(elements)}\n"
    Path("in.lmp").write_text(script(Path("start.data"), boundary, style + body))
    found: dict[str, np.ndarray] = {}
    done = run(
        "in.lmp",
        potential,
        charge=0.0,
        multiplicity=1.0,
        compile="off",
        inspect=lambda library: found.update(state(library)),
    )
    return found, done


@pytest.mark.parametrize("name", structures())
def test_a_run_of_no_steps_gives_the_figures_of_ase(name: str) -> None:
    atoms, boundary = structures()[name]
    for potential in (toy_potential(), network("nemp")):
        found, _ = lammps(atoms, boundary, "run 0", potential)
        atoms.calc = adatom.Calculator(potential)
        assert abs(found["pe"] - atoms.get_potential_energy()) < 1e-9
        assert np.abs(found["f"] - atoms.get_forces()).max() < 1e-9
        if atoms.pbc.all():
            pressure = -atoms.get_stress() * EV_PER_A3_IN_GPA
            assert np.abs(found["pressure"] * BAR_IN_GPA - pressure).max() < 1e-5


@pytest.mark.parametrize("architecture", ["mlanet", "allscaip"])
def test_every_architecture_gives_the_figures_of_ase(architecture: str) -> None:
    atoms, boundary = structures()["tilted"]
    potential = network(architecture)
    found, _ = lammps(atoms, boundary, "run 0", potential)
    atoms.info |= {"total_charge": 0, "multiplicity": 1}
    atoms.calc = adatom.Calculator(potential)
    assert abs(found["pe"] - atoms.get_potential_energy()) < 1e-9
    assert np.abs(found["f"] - atoms.get_forces()).max() < 1e-9
    assert np.abs(found["pressure"] * BAR_IN_GPA + atoms.get_stress() * EV_PER_A3_IN_GPA).max() < 1e-5


@pytest.mark.parametrize("architecture", ["nemp", "allscaip"])
def test_the_pressure_of_a_slab_is_the_slope_of_its_energy_by_strain(architecture: str) -> None:
    atoms, boundary = structures()["slab"]
    potential = network(architecture)
    found, _ = lammps(atoms, boundary, "run 0", potential)
    atoms.info |= {"total_charge": 0, "multiplicity": 1}
    energies = []
    for strain in (1e-4, -1e-4):
        stretched = atoms.copy()
        stretched.set_cell(atoms.cell.array * np.array([1.0 + strain, 1.0, 1.0]), scale_atoms=True)
        stretched.calc = adatom.Calculator(potential)
        energies.append(stretched.get_potential_energy())
    slope = (energies[0] - energies[1]) / 2e-4
    assert found["pressure"][0] * BAR_IN_GPA == pytest.approx(-slope / atoms.get_volume() * EV_PER_A3_IN_GPA, rel=1e-4)


def test_the_virial_of_a_molecule_is_that_of_its_forces_and_positions() -> None:
    atoms, boundary = structures()["molecule"]
    for potential in (network("nemp"), network("allscaip")):
        found, _ = lammps(atoms, boundary, "run 0", potential)
        virial = np.einsum("na,na->a", found["x"], found["f"])
        assert np.allclose(found["pressure"][:3] * BAR_IN_GPA * found["vol"] / EV_PER_A3_IN_GPA, virial, atol=1e-6)


def test_a_model_whose_stress_is_a_head_gives_a_molecule_no_pressure_and_not_a_wrong_one() -> None:
    atoms, boundary = structures()["molecule"]
    potential = untrained("mlanet", elements=(1, 8), cutoff=4.0, derivatives="direct").eval()
    found, _ = lammps(atoms, boundary, "run 0", potential)
    assert np.isfinite(found["f"]).all()
    assert np.isnan(found["pressure"]).all()


def test_energies_and_virials_of_single_atoms_add_up() -> None:
    atoms, boundary = structures()["two species"]
    body = (
        "compute e all pe/atom\ncompute w all stress/atom NULL virial\ncompute te all reduce sum c_e\n"
        "compute tw all reduce sum c_w[1] c_w[4]\nthermo_style custom step pe c_te vol c_tw[1] c_tw[2] pxx pxy\n"
        "thermo_modify format float %.12g\nrun 0"
    )
    lammps(atoms, boundary, body, network("nemp"))
    (row,) = thermo(Path("log.lammps"))
    assert row["c_te"] == pytest.approx(row["PotEng"], abs=1e-8)
    assert -row["c_tw[1]"] / row["Volume"] == pytest.approx(row["Pxx"], rel=1e-8)
    assert -row["c_tw[2]"] / row["Volume"] == pytest.approx(row["Pxy"], rel=1e-8)


def test_energy_is_conserved_while_atoms_cross_the_boundaries_of_a_tilted_cell() -> None:
    atoms, boundary = structures()["tilted"]
    body = NVE.replace("600", "2500") + "neighbor 0.4 bin\nrun 120"
    found, done = lammps(atoms, boundary, body, toy_potential())
    rows = thermo(Path("log.lammps"))
    totals = np.array([row["TotEng"] for row in rows])
    kinetic = np.array([row["KinEng"] for row in rows])
    assert np.ptp(kinetic) > 1.0  # energy has changed hands
    assert np.abs(totals - totals[0]).max() < 0.02 * np.ptp(kinetic)
    fractional = found["x"] @ np.linalg.inv(atoms.cell.array)
    assert np.abs(fractional - atoms.get_scaled_positions()).max() > 0.5  # somebody came in on the other side
    assert done.evaluations == 121


@pytest.mark.parametrize(("pressure", "grows"), [(-60_000.0, True), (400_000.0, False)])
def test_a_barostat_drives_the_volume_to_where_the_pressure_asks(pressure: float, grows: bool) -> None:
    atoms, boundary = structures()["tilted"]
    body = (
        f"velocity all create 300 7\nfix move all npt temp 300 300 0.1 tri {pressure} {pressure} 0.5\nthermo 10\nrun 60"
    )
    lammps(atoms, boundary, body, toy_potential())
    volumes = [row["Volume"] for row in thermo(Path("log.lammps"))]
    start = toy_pressure(atoms)
    assert (pressure < start) == grows
    assert (volumes[-1] > 1.002 * volumes[0]) if grows else (volumes[-1] < 0.998 * volumes[0])


def toy_pressure(atoms: ase.Atoms) -> float:
    """Pressure of the toy, bar."""
    atoms.calc = adatom.Calculator(toy_potential())
    return float(-atoms.get_stress()[:3].mean() * EV_PER_A3_IN_GPA / BAR_IN_GPA)


def test_a_thermostat_keeps_the_temperature() -> None:
    atoms, boundary = structures()["cubic"]
    body = NVE.replace("all nve", "all nvt temp 300 300 0.05") + "run 150"
    lammps(atoms, boundary, body, toy_potential())
    temperatures = [row["Temp"] for row in thermo(Path("log.lammps"))]
    assert np.mean(temperatures[-20:]) == pytest.approx(300.0, rel=0.2)


def test_a_minimisation_finds_the_minimum_that_ours_finds() -> None:
    atoms, boundary = bulk("Cu", "fcc", a=3.5, cubic=True), "p p p"
    atoms.rattle(0.05, seed=1)
    body = "fix cell all box/relax iso 0.0 vmax 0.002\nmin_style cg\nminimize 0 1e-5 100 500"
    found, _ = lammps(atoms, boundary, body, toy_potential())
    ours = adatom.relax(atoms, toy_potential(), cell=True, fmax=1e-4, smax_GPa=1e-3).require_converged()
    assert np.abs(found["f"]).max() < 1e-3
    assert found["pe"] == pytest.approx(ours.energy, abs=1e-4)
    assert found["vol"] == pytest.approx(ours.atoms.get_volume(), rel=1e-3)


def test_a_run_that_goes_on_from_a_restart_file_is_the_unbroken_one() -> None:
    atoms, boundary = structures()["two species"]
    whole, _ = lammps(atoms, boundary, NVE + "run 20\nwrite_restart half.restart\nrun 20", toy_potential())
    style = "pair_style adatom\npair_coeff * * O Si\n"
    Path("more.lmp").write_text(
        f"read_restart half.restart\n{TABLE}{style}fix move all nve\nrun 20\nwrite_data end.data"
    )
    found: dict[str, np.ndarray] = {}
    done = run("more.lmp", toy_potential(), inspect=lambda library: found.update(state(library)))
    assert done.step == 40
    away = (found["x"] - whole["x"]) @ np.linalg.inv(atoms.cell.array)  # they may have been folded at other steps
    assert np.abs(away - np.round(away)).max() < 1e-9
    assert np.abs(found["v"] - whole["v"]).max() < 1e-9
    assert "Velocities" in Path("end.data").read_text()


def test_the_neighbour_list_lives_through_many_steps_and_through_a_resorted_memory() -> None:
    from adatom.sim.lammps import forces

    made: list[forces.Whole] = []
    atoms, boundary = structures()["cubic"]
    built = forces.Whole.__init__

    def remembering(self: forces.Whole, *args: object, **named: object) -> None:
        built(self, *args, **named)
        made.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forces.Whole, "__init__", remembering)
        found, done = lammps(
            atoms,
            boundary,
            "atom_modify sort 5 1.0\n" + NVE + "neigh_modify every 5 delay 0 check no\nrun 60",
            toy_potential(),
        )
    assert done.evaluations == 61
    assert made[0]._list.builds < 12
    atoms.set_positions(found["x"])
    atoms.calc = adatom.Calculator(toy_potential())
    assert np.abs(found["f"] - atoms.get_forces()).max() < 1e-9


def test_fixes_of_the_script_act_on_our_forces_too() -> None:
    atoms, boundary = structures()["cubic"]
    body = (
        "group still id 1:16\nfix hold still setforce 0 0 0\n"
        + NVE.replace("velocity all create 600 7\n", "")
        + "run 10"
    )
    found, _ = lammps(atoms, boundary, body, toy_potential())
    home = atoms.get_positions(wrap=True)
    assert np.abs(found["x"][:16] - home[:16]).max() < 1e-12
    assert np.abs(found["x"][16:] - home[16:]).max() > 1e-4


def test_other_styles_are_added_where_the_script_says_so() -> None:
    atoms, boundary = structures()["cubic"]
    alone, _ = lammps(atoms, boundary, "run 0", toy_potential())
    body = "pair_style hybrid/overlay adatom lj/cut 4.0\npair_coeff * * adatom Cu\npair_coeff * * lj/cut 0.1 2.3\nrun 0"
    both, _ = lammps(atoms, boundary, body, toy_potential())
    pure = "pair_style lj/cut 4.0\npair_coeff * * 0.1 2.3\nfix adatom all nve\n"  # with none of ours, LAMMPS itself
    from adatom.sim.lammps.library import open_library

    library = open_library(["-screen", "none", "-log", "none"])
    for line in script(Path("start.data"), boundary, pure + "run 0").splitlines():
        library.command(line)
    other = state(library)
    library.close()
    assert np.abs(both["f"] - alone["f"] - other["f"]).max() < 1e-9
    assert both["pe"] == pytest.approx(float(alone["pe"] + other["pe"]), abs=1e-9)


def test_atoms_that_come_and_go_are_followed() -> None:
    atoms, boundary = structures()["cubic"]
    body = NVE + "run 5\ngroup gone id 3 9\ndelete_atoms group gone compress no\nrun 5"
    found, _ = lammps(atoms, boundary, body, toy_potential())
    left = ase.Atoms(f"Cu{len(found['x'])}", found["x"], cell=atoms.cell, pbc=True)
    left.calc = adatom.Calculator(toy_potential())
    assert len(left) == len(atoms) - 2
    assert np.abs(found["f"] - left.get_forces()).max() < 1e-9
