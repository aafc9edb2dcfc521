"""Molecular dynamics: NVE, NVT and NPT, with thermo log, trajectory, exact restart, and a stop when physics is left."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

import ase
import numpy as np
import torch
from ase import units
from ase.calculators.calculator import BaseCalculator, PropertyNotImplementedError
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from adatom.compile import Compiler, compiled
from adatom.config import Config, Switch
from adatom.errors import AdatomError, CheckpointError, ConfigError
from adatom.potential import Potential
from adatom.sim.calculator import Calculator, require_volume
from adatom.sim.engine import Engine, Whole
from adatom.sim.guard import Approach, Guard, card_of, potentials_of, wall_of
from adatom.sim.integrators import CellRescaling, Integrator, Kinetics, Thermostat, integrator, pressure
from adatom.sim.motion import Motion
from adatom.sim.record import Files, Recorder, Saved, State, Thermo, load_restart
from adatom.sim.relax import as_calculator
from adatom.sim.skin import Origin
from adatom.sim.surface import surface
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
    final_temperature_K: NonNegativeFloat | None = None  # a ramp: the target moves evenly to it over all steps
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
    min_distance_margin: NonNegativeFloat | None = None  # of the shortest trained distance; None: see adatom.sim.guard
    volume_bounds: tuple[PositiveFloat, PositiveFloat] = (0.5, 2.0)  # npt, in volumes at the start
    compile: Switch = "auto"  # auto: on in long runs

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.ensemble != "nve" and self.thermostat == "bussi" and self.temperature_K == 0.0:
            raise ValueError("the bussi thermostat cannot hold 0 K: take langevin")
        if self.ensemble == "nve" and self.final_temperature_K is not None:
            raise ValueError("without a thermostat nothing is heated: take nvt or npt with final_temperature_K")
        return self

    def decided(self, atoms: int, before: str | None = None) -> Self:
        """The same, with ``compile`` on or off: as ``before``, or as the length of the run says.

        Compiled code rounds otherwise than eager code: a run must be of one kind, whatever clocks say.
        """
        if self.compile != "auto":
            return self
        seconds = self.steps * max(EAGER_SECONDS, EAGER_SECONDS_PER_ATOM * atoms)
        return self.model_copy(update={"compile": before or ("on" if seconds > WORTH_COMPILING else "off")})

    def target_K(self, step: int) -> float:
        """The temperature that the thermostat holds at a step."""
        if self.final_temperature_K is None or self.steps == 0:
            return self.temperature_K
        return self.temperature_K + (self.final_temperature_K - self.temperature_K) * min(step / self.steps, 1.0)

    def hottest_K(self, start_K: float) -> float:
        """The highest temperature that is meant, by the thermostat or by a start at ``start_K``."""
        return max(self.temperature_K, self.final_temperature_K or 0.0, start_K)

    @property
    def acting(self) -> Thermostat:
        """The thermostat at work: none in nve."""
        return "none" if self.ensemble == "nve" else self.thermostat


WORTH_COMPILING = 60.0  # s of eager steps, roughly
EAGER_SECONDS, EAGER_SECONDS_PER_ATOM = 3e-3, 1.2e-4  # of one step, roughly
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
    nearest: Approach | None = None  # of this leg, where atoms came nearer than 0.85 of a trained minimum

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
    saved = None
    if restart:
        if files is None:
            raise ConfigError("a restart needs the folder of the run", where="md", remedy="give folder and name")
        saved = load_restart(files)
    chosen = calculator.code if isinstance(calculator, Calculator) and calculator.code != "auto" else None
    config = config.decided(len(atoms), chosen if saved is None else str(saved.config.get("compile", "off")))
    system = atoms.copy()
    system.calc = as_calculator(calculator)
    with _code_of(system.calc, config):
        return _run(system, config, files, saved, atoms, overwrite, progress)


def _run(
    system: ase.Atoms,
    config: MDConfig,
    files: Files | None,
    saved: Saved | None,
    atoms: ase.Atoms,
    overwrite: bool,
    progress: Progress | None,
) -> MDRun:
    simulation = _Simulation(system, config)
    sizes = (0, 0)
    if saved is not None and files is not None:
        check_same(saved.numbers, saved.config, atoms, config, files.restart)
        simulation.resume(saved.state)
        sizes = saved.state.sizes
    elif files is not None:
        files.remove() if overwrite else files.refuse_existing()
    recorder = Recorder(files, sizes)
    try:
        return simulation.run(recorder, progress)
    finally:
        recorder.close()


@contextmanager
def _code_of(calculator: BaseCalculator, config: MDConfig) -> Iterator[None]:
    """Compiled or eager code from the first step to the last; the calculator keeps what it had before and after."""
    if not isinstance(calculator, Calculator):
        yield
        return
    potential = calculator.potential
    before, patience = potential.runner, getattr(potential.runner, "patience", 0.0)
    if config.compile == "on" and isinstance(before, Compiler):
        before.patience = 0.0
    else:
        compiled(potential, config.compile)
    try:
        yield
    finally:
        if isinstance(before, Compiler):
            before.patience = patience
        potential.runner = before


class _Simulation:
    """State and machinery of one run."""

    def __init__(self, system: ase.Atoms, config: MDConfig) -> None:
        self.system, self.config = system, config
        self.step = 0
        source = surface(system)
        self.motion = Motion(system, source.device)
        self.random = torch.Generator(source.device)
        self.random.manual_seed(config.seed)
        self.kinetics = Kinetics(self.motion, config.acting)
        card, wall = card_of(system.calc), wall_of(*potentials_of(system.calc))
        self.guard = Guard(system, card, config.min_distance_margin, wall, source.device)
        self._velocities()
        self._start_as_hot_as(self.kinetics.temperature())
        self.integrator = self._integrator()
        self.engine = Engine(self.motion, source, self.integrator, self.random)
        self.gives_stress = self._begin()
        self.first_volume = self.motion.volume
        self.barostat = CellRescaling(
            config.pressure_GPa / EV_PER_A3_IN_GPA,
            config.temperature_K,
            config.barostat_ps * 1000.0 * units.fs,
            config.compressibility_per_GPa * EV_PER_A3_IN_GPA,
            self.random,
        )
        self.sizes = (0, 0)
        self.last: tuple[int, Whole, tuple[int, int]] | None = None  # step, state and sizes after the last whole step

    def _integrator(self) -> Integrator:
        config = self.config
        return integrator(
            self.motion,
            config.acting,
            config.timestep_fs,
            config.temperature_K,
            config.thermostat_ps,
            self.kinetics.freedoms,
            self.random,
        )

    def _velocities(self) -> None:
        config = self.config
        if config.initial_temperature_K is not None:
            self.kinetics.draw(config.initial_temperature_K, self.random)
        elif not bool(self.motion.momenta.any()):
            self.kinetics.draw(config.temperature_K, self.random)
        elif config.acting == "bussi" and self.kinetics.conserving:
            self.kinetics.stop_drift()  # it would scale the drift along with the heat

    def _start_as_hot_as(self, temperature: float) -> None:
        """How hot the run may get, and how near its atoms may come, after a start at this temperature."""
        self.hottest_start = temperature
        self.limit = hottest(self.config, temperature, self.kinetics.freedoms)
        self.guard.warm(self.config.hottest_K(temperature))

    def _begin(self) -> bool:
        """The first forces, and whether there is a stress with them."""
        stress = self.motion.periodic
        try:
            self.engine.evaluate(stress)
        except PropertyNotImplementedError:
            if self.config.ensemble == "npt":
                raise
            stress = False
            self.engine.evaluate()
        if stress and bool(self.engine.stress.isnan().all()) and bool(self.engine.energy.isfinite()):
            stress = False
            if self.config.ensemble == "npt":
                self.system.get_stress()  # says itself why there is none
        self.guard.check_numbers(0, float(self.engine.energy), self.motion.forces.cpu().numpy())
        self.guard.check_distances(0, self.motion.positions, self.motion.cell)
        return stress

    def resume(self, saved: State) -> None:
        """Stand where an earlier run stood."""
        whole = Whole(
            torch.from_numpy(saved.phase),
            torch.tensor([saved.energy], dtype=torch.float64, device=self.motion.phase.device),
            saved.cell,
            Origin(saved.origin, saved.origin_cell),
            torch.from_numpy(saved.random),
        )
        self.engine.restore(whole)
        self.step, self.sizes = saved.step, saved.sizes
        self._start_as_hot_as(saved.hottest_start)
        self.first_volume = saved.first_volume
        self.last = (saved.step, whole, saved.sizes)

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
                self._frame(recorder)
                self._save(recorder)
            raise
        except BaseException as error:
            reason = f"interrupted: {type(error).__name__} {error}".rstrip()
            self._save(recorder)
            raise
        else:
            self._save(recorder)
        finally:
            self.motion.write(self.system)
            seconds, nearest = time.perf_counter() - begin, self.guard.nearest
            done = MDRun(self.system, tuple(lines), recorder.files, self.step - first, seconds, nearest)
            figures = {"steps": done.steps, "seconds": done.seconds, "us_per_atom_step": done.us_per_atom_step}
            recorder.line("end", {"reason": reason} | figures | ({"nearest": asdict(nearest)} if nearest else {}))
        return done

    def _advance(self) -> None:
        """One step, and the checks of what came of it."""
        config = self.config
        if config.final_temperature_K is not None:
            self.integrator.hold(config.target_K(self.step + 1))
            self.barostat.hold(config.target_K(self.step + 1))
        rescale = config.ensemble == "npt" and (self.step + 1) % config.barostat_every == 0
        self.engine.step(stress=rescale or (self.gives_stress and self._looks(self.step + 1)))
        self.step += 1
        self._check()
        if rescale:
            self.barostat.apply(self.motion, self.engine.stress, config.barostat_every * config.timestep_fs * units.fs)
            self.guard.check_volume(self.step, self.motion.volume / self.first_volume, config.volume_bounds)
            self.engine.evaluate(stress=self._looks(self.step))

    def _check(self) -> None:
        """Figures that are numbers, a temperature below the limit, distances above theirs."""
        motion, (potential, kinetic) = self.motion, self.engine.figures()
        if not self.kinetics.at_most(kinetic + 0.0 * potential) <= self.limit:  # neither may be NaN
            self.guard.check_numbers(self.step, potential, motion.forces.cpu().numpy())
            heats = 0.5 * (motion.momenta.square() * motion.inverse).sum(1).cpu().numpy()
            self.guard.check_temperature(self.step, self.kinetics.temperature(), self.limit, heats)
        self.guard.check_distances(self.step, motion.positions, motion.cell)

    def _observe(self, recorder: Recorder, progress: Progress | None) -> list[Thermo]:
        """Log, frame and restart file where they are due."""
        config, lines = self.config, []
        if self._logs(self.step) or self.step == config.steps:
            lines.append(self._thermo())
            recorder.thermo(lines[0])
            if progress is not None:
                progress(self.step, lines[0])
        if self._frames(self.step):
            self._frame(recorder)
        if lines or self._frames(self.step):
            self.sizes = recorder.sizes
        self.last = (self.step, self.engine.keep(), self.sizes)
        if config.restart_every and self.step and self.step % config.restart_every == 0:
            self._save(recorder)
        return lines

    def _frame(self, recorder: Recorder) -> None:
        self.motion.write(self.system)
        frame = self.system.copy()
        results = {"energy": float(self.engine.energy), "forces": self.motion.forces.cpu().numpy().copy()}
        if bool(self.engine.stress.isfinite().all()):
            results["stress"] = full_3x3_to_voigt_6_stress(self.engine.stress[0].cpu().numpy())
        frame.calc = SinglePointCalculator(frame, **results)
        recorder.frame(frame, self.step, self._time_ps())

    def _save(self, recorder: Recorder) -> None:
        if self.last is None:
            return
        step, whole, sizes = self.last
        state = State(
            step=step,
            phase=whole.phase.cpu().numpy(),
            energy=float(whole.energy),
            cell=whole.cell,
            origin=whole.origin.positions,
            origin_cell=whole.origin.cell,
            random=whole.random.numpy(),
            hottest_start=self.hottest_start,
            first_volume=self.first_volume,
            sizes=sizes,
        )
        recorder.save(state, self.system.numbers, self.config.model_dump(mode="json"))

    def _logs(self, step: int) -> bool:
        return step % self.config.log_every == 0

    def _frames(self, step: int) -> bool:
        return self.config.trajectory_every > 0 and step % self.config.trajectory_every == 0

    def _looks(self, step: int) -> bool:
        return self._logs(step) or self._frames(step)

    def _time_ps(self) -> float:
        return self.step * self.config.timestep_fs * 1e-3

    def _thermo(self) -> Thermo:
        potential, kinetic = self.engine.figures()
        return Thermo(
            step=self.step,
            time_ps=self._time_ps(),
            temperature_K=self.kinetics.temperature(),
            potential_eV=potential,
            kinetic_eV=kinetic,
            total_eV=potential + kinetic,
            pressure_GPa=self._pressure() * EV_PER_A3_IN_GPA,
            volume_A3=self.motion.volume,
        )

    def _pressure(self) -> float:
        """Pressure in eV/Å^3; NaN where there is none."""
        if not self.gives_stress:
            return math.nan
        if not self._looks(self.step):
            # the last step of a leg that ends between two lines: the forces that move the atoms stay what they are
            stress = self.engine.surface(self.motion.positions, self.motion.cell, True).stress
            return pressure(self.motion, stress)
        return pressure(self.motion, self.engine.stress)

    def _header(self) -> dict[str, object]:
        about = {"atoms": len(self.system), "formula": self.system.get_chemical_formula()}
        return about | self.config.model_dump(mode="json") | {"max_temperature_K": self.limit}


def hottest(config: MDConfig, start: float, freedoms: int) -> float:
    """Temperature in K that only a runaway reaches: few atoms fluctuate widely, and a hot start is no runaway."""
    if config.max_temperature_K is not None:
        return config.max_temperature_K
    target = config.hottest_K(start)
    spread = math.sqrt(2.0 / max(freedoms, 1))
    return max(5.0 * target, target + 2000.0, target * (1.0 + 12.0 * spread))


def check_same(numbers: np.ndarray, saved: dict[str, object], atoms: ase.Atoms, config: MDConfig, path: Path) -> None:
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
    free = FREE if config.final_temperature_K is None else FREE - {"steps"}  # a ramp of other length is another ramp
    changed = [key for key in now if key not in free and now[key] != saved.get(key)]
    if changed:
        raise CheckpointError(
            "a run cannot be continued with other settings",
            where=str(path),
            wanted=", ".join(f"{key} = {saved.get(key)}" for key in changed),
            got=", ".join(f"{key} = {now[key]}" for key in changed),
            remedy="keep the settings, or start a new run from the last frame",
        )
