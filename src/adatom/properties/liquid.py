"""Density and heat of vaporisation of a molecular liquid: constant pressure beside one molecule in the gas."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

import ase
import ase.io
import numpy as np
from ase.calculators.calculator import BaseCalculator
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from adatom.config import Config, Switch
from adatom.errors import ConfigError, DataError
from adatom.neighbors import charge_and_spin
from adatom.potential import Potential
from adatom.properties.molecules import Integrity, Molecules, integrity, kinds, molecules
from adatom.properties.observables import FEWEST, Average, average
from adatom.properties.vibrations import rigid_motions
from adatom.report.figure import plain, thin
from adatom.report.record import Record, read_lines
from adatom.sim.calculator import StressError, require_volume
from adatom.sim.md import MDConfig, run
from adatom.sim.record import Files, Thermo
from adatom.sim.relax import as_calculator, relax
from adatom.units import BOLTZMANN, ENERGY, EV_PER_A3_IN_GPA

AMU_PER_A3 = 1.66053906660  # g/cm^3
EV_IN_KJ_PER_MOL = 1.0 / ENERGY["kJ/mol"]
POINTS = 500  # of a curve in a record
STARTS = 0.1  # of the run of the gas is left out of its mean
Gas = Literal["dynamics", "harmonic", "none"]
Progress = Callable[[str, int, int, Thermo], None]  # stage, step, of steps, what was logged


class LiquidConfig(Config):
    """How long, at what temperature and pressure; the gas by dynamics of one molecule, by equipartition, or not at all.

    ``equilibration_ps`` of constant pressure are left out of all means. ``compressibility_per_GPa`` sets how fast the
    volume answers (water has 0.45).
    """

    temperature_K: PositiveFloat = 300.0
    pressure_GPa: float = 1e-4
    timestep_fs: PositiveFloat = 0.5
    equilibration_ps: NonNegativeFloat = 10.0
    production_ps: PositiveFloat = 40.0
    gas: Gas = "dynamics"
    gas_ps: PositiveFloat = 20.0
    thermostat_ps: PositiveFloat = 0.5
    barostat_ps: PositiveFloat = 1.0
    compressibility_per_GPa: PositiveFloat = 0.5
    log_every: PositiveInt = 20
    frames_every: PositiveInt = 200
    min_distance_margin: NonNegativeFloat | None = None
    seed: NonNegativeInt = 0
    compile: Switch = "auto"

    @model_validator(mode="after")
    def _enough(self) -> Self:
        """What the means are made of must be there when the runs are done: lines of the log, and a frame."""
        begin, end = (round(1e3 * ps / self.timestep_fs) for ps in (self.equilibration_ps, self.total_ps))
        last = end // self.frames_every * self.frames_every
        if _lines(begin, end, self.log_every) < FEWEST or last < begin:
            raise ValueError(
                f"production_ps of {self.production_ps:g} is too short: its means need {FEWEST} lines and a frame"
            )
        begin, end = (round(1e3 * share * self.gas_ps / self.timestep_fs) for share in (STARTS, 1.0))
        if self.gas == "dynamics" and _lines(begin, end, self.log_every) < FEWEST:
            raise ValueError(f"gas_ps of {self.gas_ps:g} is too short: its mean needs {FEWEST} lines of the log")
        return self

    @property
    def total_ps(self) -> float:
        """Of the liquid."""
        return self.equilibration_ps + self.production_ps

    def liquid(self) -> MDConfig:
        """The run at constant pressure."""
        own = {
            "ensemble": "npt", "thermostat": "bussi", "thermostat_ps": self.thermostat_ps,
            "pressure_GPa": self.pressure_GPa, "barostat_ps": self.barostat_ps,
            "compressibility_per_GPa": self.compressibility_per_GPa,
            "steps": round(1e3 * self.total_ps / self.timestep_fs),
            "compile": self.compile,
        }  # fmt: skip
        return MDConfig.parse(self._shared() | own, where="liquid")

    def vapour(self) -> MDConfig:
        """The run of one molecule: friction, for a single molecule does not share its heat by itself."""
        own = {
            "ensemble": "nvt", "thermostat": "langevin", "thermostat_ps": 0.1, "compile": "off",
            "steps": round(1e3 * self.gas_ps / self.timestep_fs),
        }  # fmt: skip
        return MDConfig.parse(self._shared() | own, where="liquid, gas")

    def _shared(self) -> dict[str, Any]:
        return {
            "temperature_K": self.temperature_K, "initial_temperature_K": self.temperature_K,
            "timestep_fs": self.timestep_fs, "log_every": self.log_every, "trajectory_every": self.frames_every,
            "min_distance_margin": self.min_distance_margin, "seed": self.seed,
        }  # fmt: skip


@dataclass(frozen=True)
class GasPhase:
    """Mean potential energy of one molecule alone, and how it was found."""

    energy_eV: float
    error_eV: float
    by: Gas
    correlation_ps: float | None
    intact: bool


@dataclass(frozen=True)
class Liquid:
    """A liquid at constant pressure; errors are standard errors of the mean."""

    formula: str  # of a molecule, where there is one kind; of the system else
    molecules: int
    density_g_per_cm3: float
    density_error_g_per_cm3: float
    volume_A3: Average
    energy_eV: Average  # potential energy of the whole liquid
    temperature_K: Average
    pressure_GPa: Average
    integrity: Integrity
    gas: GasPhase | None
    vaporisation_kJ_per_mol: float | None
    vaporisation_error_kJ_per_mol: float | None
    series: dict[str, np.ndarray]  # time_ps, density_g_per_cm3, energy_eV, temperature_K, from the very start
    config: LiquidConfig

    def warnings(self) -> list[str]:
        """What a reader of the figures must know."""
        found = []
        for name, one in (("density", self.volume_A3), ("energy", self.energy_eV)):
            if not one.sufficient:
                found.append(
                    f"the {name} is correlated over {one.correlation_ps:.2g} ps: the run is worth "
                    f"{one.independent:.0f} independent values, too few for an error that can be trusted; run longer"
                )
            if abs(one.drift) > 3.0:
                found.append(f"the {name} still drifts: the halves of the run differ by {abs(one.drift):.1f} errors")
        if not self.integrity.whole:
            found.append(
                f"{self.integrity.torn_ever} of {self.integrity.molecules} molecules were seen broken apart, "
                f"{self.integrity.torn_at_end} still are at the end"
            )
        if self.gas is not None and not self.gas.intact:
            found.append("the molecule in the gas broke apart: its energy is that of fragments")
        return found

    def to_record(self) -> dict[str, Any]:
        """Plain values as the report reads them."""
        keep = thin(len(self.series["time_ps"]), POINTS)
        return {
            "property": "liquid",
            "formula": self.formula,
            "molecules": self.molecules,
            "density_g_per_cm3": self.density_g_per_cm3,
            "density_error_g_per_cm3": self.density_error_g_per_cm3,
            "vaporisation_kJ_per_mol": self.vaporisation_kJ_per_mol,
            "vaporisation_error_kJ_per_mol": self.vaporisation_error_kJ_per_mol,
            "volume_A3": self.volume_A3.to_record(),
            "energy_eV": self.energy_eV.to_record(),
            "temperature_K": self.temperature_K.to_record(),
            "pressure_GPa": self.pressure_GPa.to_record(),
            "integrity": asdict(self.integrity),
            "gas": None if self.gas is None else asdict(self.gas),
            "config": self.config.model_dump(mode="json"),
            "series": {name: plain(values[keep]) for name, values in self.series.items()},
            "warnings": self.warnings(),
        }


def liquid(
    atoms: ase.Atoms,
    calculator: BaseCalculator | Potential | str | Path,
    folder: str | Path,
    config: LiquidConfig | None = None,
    *,
    restart: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Liquid:
    """Density and heat of vaporisation of the liquid that ``atoms`` start.

    rho = m / <V>,    dH = <E_gas> - <E_liquid> / n + R T - P <V> / n

    E are potential energies: classical kinetic energies are the same on both sides. The gas is ideal. Errors come from
    blocks that outlast the correlation found in the series. ``folder`` receives ``liquid`` and ``gas`` runs as
    ``adatom md`` writes them; an interrupted call goes on with ``restart``, also to a longer production.

    Raises
    ------
    StressError
        There is no volume, or the model gives no stress.
    DataError
        The system is a network, or holds more than one kind of molecule: before any run, unless ``gas="none"``.
    SimulationError, ConfigError, CheckpointError
        Of the runs: see ``adatom.sim.md.run``.
    """
    config = config or LiquidConfig()
    require_volume(atoms)
    engine = as_calculator(calculator)
    if "stress" not in engine.implemented_properties:
        raise StressError(
            "constant pressure needs stress, and this calculator gives none",
            where=type(engine).__name__,
            wanted="a calculator with stress",
            got=", ".join(engine.implemented_properties),
            remedy="take another model, or run at constant volume: adatom md",
        )
    found = _molecules(atoms, config)
    folder = Path(folder)
    files = Files.of(folder, "liquid")
    going_on = restart and files.restart.exists()
    total = config.liquid().steps
    show = None if progress is None else (lambda step, thermo: progress("liquid", step, total, thermo))
    run(atoms, engine, config.liquid(), folder, "liquid", restart=going_on, overwrite=overwrite, progress=show)
    gas = None
    if config.gas != "none":
        gas = gas_phase(found.one(atoms), engine, folder, config, restart, overwrite, progress)
    return summary(atoms, found, files, config, gas)


def summary(
    atoms: ase.Atoms, found: Molecules, files: Files, config: LiquidConfig, gas: GasPhase | None = None
) -> Liquid:
    """Means, errors and the heat of vaporisation from the files of a finished run."""
    series = _series(files.log)
    late = series["time_ps"] >= config.equilibration_ps - 1e-9
    interval = config.log_every * config.timestep_fs * 1e-3
    means = {
        name: average(series[name][late], interval)
        for name in ("volume_A3", "potential_eV", "temperature_K", "pressure_GPa")
    }
    volume, energy = means["volume_A3"], means["potential_eV"]
    grams = AMU_PER_A3 * float(atoms.get_masses().sum())
    count = len(found.members)
    heat = error = None
    if gas is not None:
        work = config.pressure_GPa / EV_PER_A3_IN_GPA * volume.value / count
        thermal = BOLTZMANN * config.temperature_K
        heat = EV_IN_KJ_PER_MOL * (gas.energy_eV - energy.value / count + thermal - work)
        error = EV_IN_KJ_PER_MOL * math.hypot(gas.error_eV, energy.error / count)
    later = (a for a in ase.io.iread(files.trajectory) if a.info["time_ps"] >= config.equilibration_ps - 1e-9)
    names = kinds(found)
    return Liquid(
        formula=names[0] if len(names) == 1 else atoms.get_chemical_formula(),
        molecules=count,
        density_g_per_cm3=grams / volume.value,
        density_error_g_per_cm3=grams / volume.value * volume.error / volume.value,
        volume_A3=volume,
        energy_eV=energy,
        temperature_K=means["temperature_K"],
        pressure_GPa=means["pressure_GPa"],
        integrity=integrity(later, found),
        gas=gas,
        vaporisation_kJ_per_mol=heat,
        vaporisation_error_kJ_per_mol=error,
        series={
            "time_ps": series["time_ps"],
            "density_g_per_cm3": grams / series["volume_A3"],
            "energy_eV": series["potential_eV"],
            "temperature_K": series["temperature_K"],
        },
        config=config,
    )


def _molecules(atoms: ase.Atoms, config: LiquidConfig) -> Molecules:
    """The molecules at the start; each atom alone where a network has none and no gas is asked for."""
    if config.gas == "none":
        try:
            return molecules(atoms)
        except DataError:  # a network: its density needs no molecules
            alone = tuple(np.array([i]) for i in range(len(atoms)))
            return Molecules(alone, np.zeros((0, 2), dtype=np.int64), atoms.positions, tuple(atoms.symbols))
    found = molecules(atoms)
    names = kinds(found)
    if len(names) > 1:
        raise DataError(
            "a heat of vaporisation is that of one kind of molecule",
            where=atoms.get_chemical_formula(),
            wanted="molecules that are all alike",
            got=", ".join(f"{found.formulas.count(name)} {name}" for name in names[:5]),
            remedy="check the bonds of the start, or ask for the density alone: gas none",
        )
    charge, spin = charge_and_spin(atoms)
    if charge != 0.0 or spin != 1.0:
        raise ConfigError(
            "charge and spin of one molecule are not known from those of the liquid",
            where="liquid",
            wanted="charge 0, multiplicity 1",
            got=f"charge {charge:g}, multiplicity {spin:g}",
            remedy="ask for the density alone: gas none",
        )
    return found


def gas_phase(
    molecule: ase.Atoms,
    engine: BaseCalculator,
    folder: Path,
    config: LiquidConfig,
    restart: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> GasPhase:
    """Mean potential energy of one molecule in the open, by dynamics or by equipartition as the configuration says.

    DataError when the molecule comes apart as it relaxes, SimulationError when it does not come to rest.
    """
    molecule.info |= {"total_charge": 0, "multiplicity": 1}
    rest = relax(molecule, engine, fmax=0.005).require_converged()
    alone = molecules(rest.atoms)
    if len(alone.members) > 1:
        raise DataError(
            "the molecule comes apart when it relaxes alone",
            where=molecule.get_chemical_formula(),
            got=f"parts {', '.join(alone.formulas)}",
            remedy="the model knows no such molecule: train it on single molecules, or ask for gas none",
        )
    if config.gas == "harmonic":
        energy = rest.energy + 0.5 * count_vibrations(rest.atoms) * BOLTZMANN * config.temperature_K
        return GasPhase(energy, 0.0, "harmonic", None, intact=True)
    files = Files.of(folder, "gas")
    going_on = restart and files.restart.exists()
    total = config.vapour().steps
    show = None if progress is None else (lambda step, thermo: progress("gas", step, total, thermo))
    run(rest.atoms, engine, config.vapour(), folder, "gas", restart=going_on, overwrite=overwrite, progress=show)
    series = _series(files.log)
    late = series["time_ps"] >= STARTS * config.gas_ps
    mean = average(series["potential_eV"][late], config.log_every * config.timestep_fs * 1e-3)
    seen = integrity(ase.io.iread(files.trajectory), alone)
    return GasPhase(mean.value, mean.error, "dynamics", mean.correlation_ps, seen.whole)


def count_vibrations(molecule: ase.Atoms) -> int:
    """How many vibrations a molecule has: 3N - 6, 3N - 5 where it is linear, none of an atom."""
    _, rigid = rigid_motions(molecule, np.arange(len(molecule)))
    return 3 * len(molecule) - int(rigid.shape[1])


def _lines(begin: int, end: int, every: int) -> int:
    """How many steps from ``begin`` to ``end`` are logged."""
    return end // every - (begin - 1) // every


def _series(log: Path) -> dict[str, np.ndarray]:
    """Columns of a thermo log."""
    steps: list[Record] = [line for line in read_lines(log) if line.text("kind") == "step"]
    names = ("time_ps", "volume_A3", "potential_eV", "temperature_K", "pressure_GPa")
    return {
        name: np.array([math.nan if (v := step.real(name)) is None else v for step in steps], dtype=np.float64)
        for name in names
    }
