from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import ase
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes

from adatom.errors import ConfigError, DataError
from adatom.properties.liquid import LiquidConfig, count_vibrations, liquid
from adatom.report.card.liquid import section
from adatom.report.record import Record
from adatom.sim.calculator import StressError
from adatom.units import BOLTZMANN, EV_PER_A3_IN_GPA
from stub_calculators import Springs
from toy import toy_potential

KELVIN, LENGTH, STIFFNESS = 300.0, 1.1, 10.0  # K, Å, eV/Å^2
VOLUME, MASS = 1e3, 1000.0  # Å^3 of a molecule, amu of an atom: so far apart and so slow that they never meet
PRESSURE = BOLTZMANN * KELVIN / VOLUME  # eV/Å^3 of the ideal gas


class Dimers(Calculator):
    """Atoms 2i and 2i + 1 on a spring, E = k/2 sum (r - r0)^2; molecules do not know of one another."""

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces", "stress"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        way = self.atoms.positions[1::2] - self.atoms.positions[::2]
        r = np.linalg.norm(way, axis=1)
        pull = STIFFNESS * (r - LENGTH)[:, None] * way / r[:, None]
        forces = np.zeros((len(self.atoms), 3))
        forces[::2], forces[1::2] = pull, -pull
        energy = 0.5 * STIFFNESS * float(np.square(r - LENGTH).sum())
        self.results = {"energy": energy, "free_energy": energy, "forces": forces}
        if self.atoms.pbc.all():
            virial = (way.T @ pull) / self.atoms.get_volume()
            self.results["stress"] = virial.ravel()[[0, 4, 8, 5, 2, 1]]


class Bound(Calculator):
    """No forces; in a periodic cell each atom has -0.4 eV, alone in the open none: the simplest liquid there is."""

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces", "stress"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        energy = -0.4 * len(self.atoms) if self.atoms.pbc.all() else 0.0
        forces = np.zeros((len(self.atoms), 3))
        self.results = {"energy": energy, "free_energy": energy, "forces": forces, "stress": np.zeros(6)}


def on_a_grid(count: int) -> tuple[np.ndarray, float]:
    """Places (count, 3) far from one another, and the side of their box."""
    side = (count * VOLUME) ** (1 / 3)
    return np.stack(np.unravel_index(np.arange(count), (4, 4, -(-count // 16))), axis=1) * side / 4, side


def gas_of_dimers(count: int = 48) -> ase.Atoms:
    """In equilibrium already: bonds as long as 300 K have them, molecules anywhere."""
    rng = np.random.default_rng(0)
    places, side = on_a_grid(count)
    ways = rng.normal(size=(count, 3))
    bond = LENGTH + rng.normal(scale=np.sqrt(BOLTZMANN * KELVIN / STIFFNESS), size=(count, 1))
    ways *= bond / np.linalg.norm(ways, axis=1, keepdims=True)
    both = np.stack([places, places + ways], axis=1).reshape(-1, 3)
    return ase.Atoms(f"N{2 * count}", both, masses=[MASS] * 2 * count, cell=np.eye(3) * side, pbc=True)


def short(**settings: object) -> LiquidConfig:
    """Dimers in a box that hardly moves: it scales bonds with everything else, and would tear at them."""
    quick = {
        "temperature_K": KELVIN, "pressure_GPa": PRESSURE * EV_PER_A3_IN_GPA, "timestep_fs": 5.0,
        "equilibration_ps": 0.5, "production_ps": 5.0, "gas_ps": 10.0, "barostat_ps": 200.0, "thermostat_ps": 0.1,
        "compressibility_per_GPa": 1.0 / (PRESSURE * EV_PER_A3_IN_GPA), "log_every": 10, "frames_every": 100,
    }  # fmt: skip
    return LiquidConfig.parse(quick | settings)


def test_the_simplest_liquid_has_the_density_of_an_ideal_gas_and_its_heat_of_vaporisation(tmp_path: Path) -> None:
    """P V = n k T, and E_gas - E_liquid / n + R T - P V / n = 0.4 eV, for the last two cancel."""
    places, side = on_a_grid(32)
    start = ase.Atoms("He32", places, masses=[MASS] * 32, cell=np.eye(3) * side, pbc=True)
    found = liquid(start, Bound(), tmp_path, short(barostat_ps=1.0, timestep_fs=10.0, production_ps=20.0))
    ideal = MASS / VOLUME * 1.66054
    assert abs(found.density_g_per_cm3 - ideal) < 4 * found.density_error_g_per_cm3
    assert found.density_error_g_per_cm3 < 0.15 * ideal
    assert found.density_g_per_cm3 == pytest.approx(MASS * 32 / found.volume_A3.value * 1.66054, rel=1e-4)
    assert (found.formula, found.molecules) == ("He", 32)
    work = 2.4943 * (1.0 - found.volume_A3.value / (32 * VOLUME))  # kJ/mol, R T - P V / n at 300 K
    assert found.vaporisation_kJ_per_mol == pytest.approx(0.4 * 96.485 + work, abs=0.01)
    assert found.temperature_K.value == pytest.approx(KELVIN, rel=0.05)


def test_molecules_that_do_not_know_one_another_take_no_heat_to_part(tmp_path: Path) -> None:
    found = liquid(gas_of_dimers(), Dimers(), tmp_path, short())
    assert (found.formula, found.molecules) == ("N2", 48)
    assert found.integrity.whole
    assert found.gas is not None
    assert found.gas.energy_eV == pytest.approx(0.5 * BOLTZMANN * KELVIN, abs=4 * found.gas.error_eV)
    # every dimer keeps the energy it was born with: 48 of them are within a seventh of the mean
    assert found.vaporisation_kJ_per_mol == pytest.approx(0.0, abs=0.7)
    record = json.loads(json.dumps(found.to_record()))
    shown = section(Record(record))
    assert shown.facts[0][0] == "density"
    assert any(name == "heat of vaporisation" for name, _ in shown.facts)
    assert len(shown.figures) == 2


def test_by_equipartition_the_gas_needs_no_run(tmp_path: Path) -> None:
    settings = short(gas="harmonic", production_ps=1.0, equilibration_ps=0.2)
    found = liquid(gas_of_dimers(), Dimers(), tmp_path, settings)
    assert found.gas is not None
    assert found.gas.energy_eV == pytest.approx(0.5 * BOLTZMANN * KELVIN, abs=1e-5)
    assert not (tmp_path / "gas.jsonl").exists()
    assert any("too few" in text for text in found.warnings())


@pytest.mark.parametrize(("name", "count"), [("H2O", 3), ("CO2", 4), ("N2", 1), ("CH4", 9)])
def test_a_molecule_has_as_many_vibrations_as_it_should(name: str, count: int) -> None:
    assert count_vibrations(molecule(name)) == count
    assert count_vibrations(ase.Atoms("Ar")) == 0


@pytest.mark.parametrize("stage", ["liquid", "gas"])
def test_an_interrupted_call_goes_on_and_ends_the_same(tmp_path: Path, stage: str) -> None:
    settings = short(production_ps=0.6, equilibration_ps=0.2, gas_ps=0.4)
    atoms = gas_of_dimers(16)

    def interrupt(name: str, step: int, steps: int, thermo: object) -> None:
        if name == stage and step >= steps // 2:
            raise KeyboardInterrupt

    whole = liquid(atoms, Dimers(), tmp_path / "whole", settings)
    with pytest.raises(KeyboardInterrupt):
        liquid(atoms, Dimers(), tmp_path / "parts", settings, progress=interrupt)
    with pytest.raises(ConfigError, match="exists"):
        liquid(atoms, Dimers(), tmp_path / "parts", settings)
    parts = liquid(atoms, Dimers(), tmp_path / "parts", settings, restart=True)
    assert parts.to_record() == whole.to_record()
    longer = liquid(
        atoms, Dimers(), tmp_path / "parts", settings.model_copy(update={"production_ps": 1.0}), restart=True
    )
    assert len(longer.series["time_ps"]) > len(whole.series["time_ps"])


def test_a_network_has_a_density_but_no_heat_of_vaporisation(tmp_path: Path) -> None:
    crystal = bulk("Cu", a=3.4535, cubic=True) * 2
    settings = short(pressure_GPa=0.0, compressibility_per_GPa=0.01, production_ps=0.4, equilibration_ps=0.1)
    with pytest.raises(DataError, match="network"):
        liquid(crystal, toy_potential(), tmp_path, settings)
    found = liquid(crystal, toy_potential(), tmp_path, settings.model_copy(update={"gas": "none"}))
    assert found.vaporisation_kJ_per_mol is None
    assert found.density_g_per_cm3 == pytest.approx(63.546 * 4 / 3.4535**3 * 1.66054, rel=0.03)


def test_what_cannot_be_done_is_said_before_any_run(tmp_path: Path) -> None:
    atoms = gas_of_dimers(16)
    with pytest.raises(StressError, match="no volume"):
        liquid(ase.Atoms("N2", [[0, 0, 0], [1.1, 0, 0]]), Dimers(), tmp_path)
    with pytest.raises(StressError, match="gives none"):
        liquid(atoms, Springs(atoms, 1.0), tmp_path, short())
    mixed = atoms + ase.Atoms("O2", [[9.0, 9.0, 9.0], [10.2, 9.0, 9.0]])
    with pytest.raises(DataError, match="16 N2, 1 O2"):
        liquid(mixed, Dimers(), tmp_path, short())
    charged = atoms.copy()
    charged.info["total_charge"] = 1
    with pytest.raises(ConfigError, match="charge"):
        liquid(charged, Dimers(), tmp_path, short())
    with pytest.raises(ConfigError, match="did you mean 'harmonic'"):
        short(gas="harmonc")
    assert list(tmp_path.iterdir()) == []


def test_runs_too_short_for_their_means_are_refused_before_they_begin() -> None:
    with pytest.raises(ConfigError, match=r"production_ps of 0\.05 is too short"):
        LiquidConfig.parse({"production_ps": 0.05})
    with pytest.raises(ConfigError, match=r"gas_ps of 0\.05 is too short"):
        LiquidConfig.parse({"gas_ps": 0.05})
    assert LiquidConfig.parse({"gas_ps": 0.05, "gas": "harmonic"}).gas == "harmonic"
