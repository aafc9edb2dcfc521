"""Molecular dynamics: NVE, NVT and NPT, with thermo log, trajectory, exact restart, and a stop when physics is left."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import ase
import numpy as np
from ase import units
from ase.calculators.calculator import BaseCalculator, PropertyNotImplementedError
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from adatom.config import Config
from adatom.errors import AdatomError, CheckpointError, ConfigError
from adatom.potential import Potential
from adatom.sim.calculator import Calculator, has_volume, require_volume
from adatom.sim.guard import Guard
from adatom.sim.integrators import CellRescaling, Kinetics, Thermostat, integrator
from adatom.sim.record import Files, Recorder, State, Thermo, load_restart
from adatom.sim.relax import as_calculator, card_of
from adatom.units import EV_PER_A3_IN_GPA

Progress = Callable[[int, Thermo], None]


class MDConfig(Config):
    """How to run molecular dynamics.

    ``nve``: velocity Verlet. ``nvt``: Langevin (each atom feels friction and noise) or Bussi's stochastic velocity
    rescaling (heat is exchanged, the dynamics hardly disturbed). ``npt``: the same with isotropic stochastic rescaling
    of the cell.
    """

    ensemble: Literal["nve", "nvt", "npt"] = "nvt"
    timestep_fs: PositiveFloat = 1.0
    temperature_K: NonNegativeFloat = 300.0
    pressure_GPa: float = 0.0
    steps: NonNegativeInt = 1000  # of the whole run, those before a restart included
    thermostat: Literal["langevin", "bussi"] = "langevin"
    thermostat_ps: PositiveFloat = 0.1  # 1 / friction (langevin), relaxation time of the kinetic energy (bussi)
    barostat_ps: PositiveFloat = 1.0
    barostat_every: PositiveInt = 10
    compressibility_per_GPa: PositiveFloat = 0.01  # an estimate: sets the speed of the volume, not its distribution
    initial_temperature_K: NonNegativeFloat | None = None  # None: keep velocities; temperature_K if there are none
    seed: NonNegativeInt = 0
    log_every: PositiveInt = 10
    trajectory_every: NonNegativeInt = 100  # 0: no trajectory
    restart_every: NonNegativeInt = 1000  # 0: at the end only
    max_temperature_K: PositiveFloat | None = None  # None: five times the target, and more for few atoms
    min_distance_margin: float = Field(default=0.85, ge=0.0)  # of the shortest distance of the training set
    volume_bounds: tuple[PositiveFloat, PositiveFloat] = (0.5, 2.0)  # npt, in volumes at the start

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.ensemble != "nve" and self.thermostat == "bussi" and self.temperature_K == 0.0:
            raise ValueError("the bussi thermostat cannot hold 0 K: take langevin")
        return self

    @property
    def acting(self) -> Thermostat:
        """The thermostat at work: none in nve."""
        return "none" if self.ensemble == "nve" else self.thermostat


# what may change when a run is continued; the rest would make another run of it
FREE = {"steps", "log_every", "trajectory_every", "restart_every"} | {
    "max_temperature_K",
    "min_distance_margin",
    "volume_bounds",
}


@dataclass(frozen=True)
class MDRun:
    """A finished run: final atoms (with momenta and calculator), thermo lines of this leg, files if there are any."""

    atoms: ase.Atoms
    thermo: tuple[Thermo, ...]
    files: Files | None
    steps: int  # of this leg
    seconds: float

    @property
    def us_per_atom_step(self) -> float:
        """Wall time in µs per atom and step; NaN when nothing was done."""
        return 1e6 * self.seconds / (self.steps * len(self.atoms)) if self.steps and len(self.atoms) else math.nan


def run(
    atoms: ase.Atoms,
    calculator: BaseCalculator | Potential | str | Path,
    config: MDConfig | None = None,
    folder: str | Path | None = None,
    name: str | None = None,
    *,
    restart: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> MDRun:
    """Run molecular dynamics on a copy of ``atoms``.

    Parameters
    ----------
    atoms
        The start. Constraints are kept. With ``restart`` positions, momenta and cell come from the restart file.
    calculator
        A calculator, a potential, or a model file.
    config
        What to run.
    folder, name
        Writes ``folder/name.jsonl``, ``name.xyz`` and ``name.restart.npz``; name is the ensemble by default. Without a
        folder nothing is written.
    restart
        Go on where the restart file stands, to ``config.steps`` steps in all: bit for bit as if it had never stopped.
    overwrite
        Replace an earlier run of this name, which is an error otherwise.
    progress
        Called with step and thermo line whenever one is logged.

    Raises
    ------
    SimulationError
        The run left physical ground: temperature, distances, volume, or figures that are no numbers. What was written
        stays, and the last line of the log says why.
    ConfigError, CheckpointError
        A run of this name exists; there is none to continue, or it was another.
    """
    config = config or MDConfig()
    if len(atoms) == 0:
        raise ConfigError("there are no atoms to move", where="md", remedy="give a structure")
    if config.ensemble == "npt":
        require_volume(atoms)
        if atoms.constraints:
            raise ConfigError("npt does not go with constraints", where="md", remedy="use nvt, or free the atoms")
    files = None if folder is None else Files.of(Path(folder), name or config.ensemble)
    system = atoms.copy()
    system.calc = as_calculator(calculator)
    simulation = _Simulation(system, config)
    sizes = (0, 0)
    if restart:
        if files is None:
            raise ConfigError("a restart needs the folder of the run", where="md", remedy="give folder and name")
        saved = load_restart(files)
        _check_same(saved.numbers, saved.config, atoms, config, files.restart)
        simulation.resume(saved.state)
        sizes = saved.state.sizes
    elif files is not None:
        files.remove() if overwrite else files.refuse_existing()
    recorder = Recorder(files, sizes)
    try:
        return simulation.run(recorder, progress)
    finally:
        recorder.close()


class _Simulation:
    """State and machinery of one run."""

    def __init__(self, system: ase.Atoms, config: MDConfig) -> None:
        self.system, self.config = system, config
        self.step = 0
        self.rng = np.random.default_rng(config.seed)
        self.kinetics = Kinetics(system, config.acting)
        self.guard = Guard(system, card_of(system.calc), config.min_distance_margin)
        self._velocities()
        self.gives_stress = _gives_stress(system)
        if config.ensemble == "npt":
            system.get_stress()  # says itself why there is none
        self.guard.check_numbers(0, system.get_potential_energy(), system.get_forces())
        self.guard.check_distances(0, system)
        self.hottest_start = self.kinetics.temperature(system)
        self.first_volume = float(system.get_volume()) if has_volume(system) else math.nan
        self.dynamics = integrator(
            system,
            config.acting,
            config.timestep_fs,
            config.temperature_K,
            config.thermostat_ps,
            self.kinetics,
            self.rng,
        )
        self.barostat = CellRescaling(
            config.pressure_GPa / EV_PER_A3_IN_GPA,
            config.temperature_K,
            config.barostat_ps * 1000.0 * units.fs,
            config.compressibility_per_GPa * EV_PER_A3_IN_GPA,
            self.rng,
        )
        self.last: State | None = None  # of the last whole step

    def _velocities(self) -> None:
        config, system = self.config, self.system
        if config.initial_temperature_K is not None:
            self.kinetics.draw(system, config.initial_temperature_K, self.rng)
        elif not np.any(system.get_momenta()):
            self.kinetics.draw(system, config.temperature_K, self.rng)
        elif config.acting == "bussi" and self.kinetics.conserving:
            self.kinetics.stop_drift(system)  # it would scale the drift along with the heat

    def resume(self, state: State) -> None:
        """Stand where an earlier run stood."""
        self.system.set_cell(state.cell)
        self.system.set_positions(state.positions, apply_constraint=False)
        self.system.set_momenta(state.momenta, apply_constraint=False)
        self.rng.bit_generator.state = state.random
        self.step, self.hottest_start, self.first_volume = state.step, state.hottest_start, state.first_volume
        self.last = state

    def run(self, recorder: Recorder, progress: Progress | None) -> MDRun:
        """All steps that are left."""
        begin, first, lines = time.perf_counter(), self.step, []
        reason = "finished"
        try:
            if self.last is None:
                recorder.line("start", self._header())
                lines += self._observe(recorder, progress)
            while self.step < self.config.steps:
                self._advance()
                lines += self._observe(recorder, progress)
        except AdatomError as error:
            reason = " ".join(str(error).split())
            if not isinstance(error, CheckpointError):
                recorder.frame(self.system, self.step, self._time_ps())
                self._save(recorder)
            raise
        except BaseException as error:
            reason = f"interrupted: {type(error).__name__} {error}".rstrip()
            self._save(recorder)
            raise
        else:
            self._save(recorder)
        finally:
            done = MDRun(self.system, tuple(lines), recorder.files, self.step - first, time.perf_counter() - begin)
            figures = {"steps": done.steps, "seconds": done.seconds, "us_per_atom_step": done.us_per_atom_step}
            recorder.line("end", {"reason": reason} | figures)
        return done

    def _advance(self) -> None:
        """One step, and the checks of what came of it."""
        config, system = self.config, self.system
        rescale = config.ensemble == "npt" and (self.step + 1) % config.barostat_every == 0
        self._expect_stress(rescale or self._looks(self.step + 1))
        self.dynamics.step()
        self.step += 1
        self.guard.check_numbers(self.step, system.get_potential_energy(), system.get_forces())
        self.guard.check_temperature(self.step, self.kinetics.temperature(system), self.limit, system)
        self.guard.check_distances(self.step, system)
        if rescale:
            self.barostat.apply(system, config.barostat_every * config.timestep_fs * units.fs)
            self._expect_stress(self._looks(self.step))
            self.guard.check_volume(self.step, system.get_volume() / self.first_volume, config.volume_bounds)

    def _observe(self, recorder: Recorder, progress: Progress | None) -> list[Thermo]:
        """Log, frame and restart file where they are due."""
        config, lines = self.config, []
        if self._logs(self.step):
            lines.append(self._thermo())
            recorder.thermo(lines[0])
            if progress is not None:
                progress(self.step, lines[0])
        if self._frames(self.step):
            self.system.get_forces()
            if self.gives_stress:
                self.system.get_stress()
            recorder.frame(self.system, self.step, self._time_ps())
        self.last = State(
            step=self.step,
            positions=self.system.get_positions(),
            momenta=self.system.get_momenta(),
            cell=np.array(self.system.cell),
            random=dict(self.rng.bit_generator.state),
            hottest_start=self.hottest_start,
            first_volume=self.first_volume,
            sizes=recorder.sizes,
        )
        if config.restart_every and self.step and self.step % config.restart_every == 0:
            self._save(recorder)
        return lines

    def _save(self, recorder: Recorder) -> None:
        if self.last is not None:
            recorder.save(self.last, self.system.numbers, self.config.model_dump(mode="json"))

    def _logs(self, step: int) -> bool:
        return step % self.config.log_every == 0 or step == self.config.steps

    def _frames(self, step: int) -> bool:
        return self.config.trajectory_every > 0 and step % self.config.trajectory_every == 0

    def _looks(self, step: int) -> bool:
        return self._logs(step) or self._frames(step)

    def _expect_stress(self, needed: bool) -> None:
        if needed and self.gives_stress and isinstance(self.system.calc, Calculator):
            self.system.calc.expect("stress")

    def _time_ps(self) -> float:
        return self.step * self.config.timestep_fs * 1e-3

    def _thermo(self) -> Thermo:
        system = self.system
        potential, kinetic = float(system.get_potential_energy()), self.kinetics.energy(system)
        pressure = math.nan
        if self.gives_stress:
            pressure = -float(system.get_stress(include_ideal_gas=True)[:3].mean()) * EV_PER_A3_IN_GPA
        return Thermo(
            step=self.step,
            time_ps=self._time_ps(),
            temperature_K=self.kinetics.temperature(system),
            potential_eV=potential,
            kinetic_eV=kinetic,
            total_eV=potential + kinetic,
            pressure_GPa=pressure,
            volume_A3=float(system.get_volume()) if has_volume(system) else math.nan,
        )

    def _header(self) -> dict[str, object]:
        about = {"atoms": len(self.system), "formula": self.system.get_chemical_formula()}
        return about | self.config.model_dump(mode="json") | {"max_temperature_K": self.limit}

    @property
    def limit(self) -> float:
        """Temperature in K that only a runaway reaches: few atoms fluctuate widely, and a hot start is no runaway."""
        if self.config.max_temperature_K is not None:
            return self.config.max_temperature_K
        target = max(self.config.temperature_K, self.hottest_start)
        spread = math.sqrt(2.0 / max(self.kinetics.freedoms, 1))
        return max(5.0 * target, target + 2000.0, target * (1.0 + 12.0 * spread))


def _gives_stress(system: ase.Atoms) -> bool:
    """Whether there is a volume and a calculator that gives stress."""
    if not has_volume(system):
        return False
    try:
        system.get_stress()
    except PropertyNotImplementedError:
        return False
    return True


def _check_same(numbers: np.ndarray, saved: dict[str, object], atoms: ase.Atoms, config: MDConfig, path: Path) -> None:
    """CheckpointError when the restart file is of other atoms or of another kind of run."""
    if not np.array_equal(numbers, atoms.numbers):
        raise CheckpointError(
            "the restart file is of other atoms",
            where=str(path),
            wanted=atoms.get_chemical_formula(),
            got=ase.Atoms(numbers=numbers).get_chemical_formula(),
            remedy="give the structure the run was started from",
        )
    now = config.model_dump(mode="json")
    changed = [key for key in now if key not in FREE and now[key] != saved.get(key)]
    if changed:
        raise CheckpointError(
            "a run cannot be continued with other settings",
            where=str(path),
            wanted=", ".join(f"{key} = {saved.get(key)}" for key in changed),
            got=", ".join(f"{key} = {now[key]}" for key in changed),
            remedy="keep the settings, or start a new run from the last frame",
        )
