"""Molecular dynamics of many structures or replicas at once: NVE and NVT, one pass of TorchSim's batch for all of them.

Each structure has its own velocities, random numbers, files and restart, those of ``adatom.sim.md.run``: what it does
depends on no other. One that leaves physical ground stops, the others go on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import ase
import torch
from ase.calculators.calculator import BaseCalculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress
from torch import Tensor

from adatom.errors import CheckpointError, ConfigError, SimulationError
from adatom.graph import Results
from adatom.neighbors import check_cell
from adatom.potential import Potential
from adatom.sim.calculator import Calculator
from adatom.sim.engine import Engine
from adatom.sim.guard import Approach, Guard, wall_of
from adatom.sim.integrators import Kinetics, integrator, pressure
from adatom.sim.md import MDConfig, check_same, hottest
from adatom.sim.motion import Motion
from adatom.sim.record import Files, Recorder, State, Thermo, load_restart
from adatom.sim.skin import Origin
from adatom.sim.surface import Surface
from adatom.sim.torchsim import AtomsState, TorchSimModel, atoms_state, batch_room, to_constant_volume_bins
from adatom.units import EV_PER_A3_IN_GPA


@dataclass(frozen=True)
class Replica:
    """How one structure ended: final atoms with momenta and figures, thermo lines of this leg, files if there are any.

    ``ending`` is ``"finished"``, or says why it was stopped.
    """

    atoms: ase.Atoms
    number: int
    thermo: tuple[Thermo, ...]
    files: Files | None
    steps: int  # of the whole run
    ending: str
    nearest: Approach | None = None  # of this leg, where atoms came nearer than 0.85 of a trained minimum

    @property
    def finished(self) -> bool:
        """Whether it has made all of its steps."""
        return self.ending == "finished"


@dataclass(frozen=True)
class ManyMD:
    """Replicas in the order of the structures, and what they took."""

    replicas: tuple[Replica, ...]
    atom_steps: int  # of this leg
    seconds: float

    @property
    def us_per_atom_step(self) -> float:
        """Wall time in µs per atom and step; NaN when nothing was done."""
        return 1e6 * self.seconds / self.atom_steps if self.atom_steps else math.nan

    def require_finished(self) -> ManyMD:
        """These runs if all have made their steps, SimulationError with the first that were stopped otherwise."""
        stopped = [one for one in self.replicas if not one.finished]
        if not stopped:
            return self
        named = [f"{one.number} (step {one.steps}): {one.ending}" for one in stopped[:3]]
        raise SimulationError(
            f"{len(stopped)} of {len(self.replicas)} runs were stopped",
            where="structures " + "; ".join(named) + ("; ..." if len(stopped) > len(named) else ""),
            remedy="relax these structures first, take a shorter timestep or a lower temperature, or train on such",
        )


class ManyMDStep(NamedTuple):
    """How far all runs together are."""

    structure_steps: int  # those of earlier legs included
    of: int
    moving: int  # structures in the batch of the moment
    stopped: int
    temperature_K: float  # mean of that batch
    rate: float  # structure steps per second


def run_many(
    structures: Sequence[ase.Atoms],
    calculator: Calculator | Potential | str | Path,
    config: MDConfig | None = None,
    folder: str | Path | None = None,
    name: str | None = None,
    *,
    atoms_per_batch: int | None = None,
    restart: bool = False,
    overwrite: bool = False,
    progress: Callable[[ManyMDStep], None] | None = None,
) -> ManyMD:
    """Run molecular dynamics on copies of ``structures``.

    Parameters
    ----------
    structures
        Crystals, slabs and molecules may be mixed; for replicas of one, give it several times. Constraints are kept.
    calculator
        A model file, a potential, or a Calculator of this package, for its device and its code.
    config
        As for ``adatom.sim.md.run``; structure k has the seed ``config.seed + k``.
    folder, name
        Structure k leaves ``folder/name-k.jsonl``, ``.xyz`` and ``.restart.npz``; name is the ensemble by default.
    atoms_per_batch
        By default as many as are best evaluated together.
    restart
        Go on where each run stands: those that have made their steps are left as they are.
    overwrite
        Replace earlier runs of this name.
    progress
        Called whenever the structures of a batch are logged.

    Raises
    ------
    ConfigError
        NPT, for which the structures must be run one by one; no structure; a calculator of another package.
    CheckpointError
        There is none to continue, or it was another.
    """
    config = config or MDConfig()
    _check(structures, calculator, config)
    atoms = sum(len(one) for one in structures)
    before: str | None = None
    if isinstance(calculator, Calculator) and calculator.code != "auto":
        before = calculator.code
    files = _files(len(structures), folder, name or config.ensemble)
    begun = [one for one in files if one is not None and one.restart.exists()] if restart else []
    if begun:
        before = str(load_restart(begun[0]).config.get("compile", "off"))
    config = config.decided(atoms, before)
    model = TorchSimModel(calculator, compile=config.compile)
    for number, one in enumerate(structures):
        model.potential.check_atoms(one, where=f"structure {number}, {one.get_chemical_formula()}")
        check_cell(one, f"structure {number}")
    if restart and not begun:
        raise CheckpointError(
            "there is no run to continue",
            where=f"md, {folder}/{name or config.ensemble}-*.restart.npz",
            wanted="the folder and the name that the runs were started with",
            remedy="give them, or start without restart",
        )
    with ExitStack() as open_files:
        runs: list[_Replica] = []
        for number, one in enumerate(structures):
            own = config.model_copy(update={"seed": config.seed + number})
            runs.append(_Replica(one, number, own, model, files[number], restart, overwrite))
            open_files.callback(runs[-1].close)
        return _Batches(runs, model, config, atoms_per_batch, progress).run()


def _files(count: int, folder: str | Path | None, name: str) -> list[Files | None]:
    """Names of the files of each structure."""
    digits = len(str(max(count - 1, 1)))
    return [None if folder is None else Files.of(Path(folder), f"{name}-{k:0{digits}d}") for k in range(count)]


class _Given(Surface):
    """Energy and forces that were found for the whole batch, handed to the machinery of one run."""

    def __init__(self, motion: Motion) -> None:
        self._motion, self.device = motion, motion.phase.device
        self.found: Results | None = None

    def __call__(self, positions: Tensor, cell: object, stress: bool) -> Results:
        """What was found."""
        assert self.found is not None
        return self.found

    @property
    def origin(self) -> Origin:
        """Lists belong to the batch: one that goes on alone makes its own where it stands."""
        return Origin(self._motion.positions.cpu().numpy().copy(), self._motion.cell)

    def restore(self, origin: Origin) -> None:
        """Nothing to do."""


class _Replica:
    """State and files of one run."""

    def __init__(
        self,
        atoms: ase.Atoms,
        number: int,
        config: MDConfig,
        model: TorchSimModel,
        files: Files | None,
        restart: bool,
        overwrite: bool,
    ) -> None:
        self.system, self.number, self.config = atoms.copy(), number, config
        self.step, self.sizes, self.ending = 0, (0, 0), ""
        self.lines: list[Thermo] = []
        self.motion = Motion(self.system, model.device)
        self.kinetics = Kinetics(self.motion, config.acting)
        wall = wall_of(model.potential)
        self.guard = Guard(self.system, model.potential.card, config.min_distance_margin, wall, model.device)
        self.random = torch.Generator(model.device)
        self.random.manual_seed(config.seed)
        self.integrator = integrator(
            self.motion, config.acting, config.timestep_fs, config.temperature_K, config.thermostat_ps,
            self.kinetics.freedoms, self.random,
        )  # fmt: skip
        self.surface = _Given(self.motion)
        self.engine = Engine(self.motion, self.surface, self.integrator, self.random)
        self.fresh = True
        self.hottest_start, self.first_volume = 0.0, self.motion.volume
        if restart:
            self._resume(files)
        elif files is not None:
            files.remove() if overwrite else files.refuse_existing()
        if self.fresh:
            self._velocities()
            self.hottest_start = self.kinetics.temperature()
        self.limit = hottest(config, self.hottest_start, self.kinetics.freedoms)
        self.guard.warm(config.hottest_K(self.hottest_start))
        self.recorder = Recorder(files, self.sizes)
        self.kept = self.engine.keep()
        self.kept_step = self.step
        self.first = self.step
        self.told = not self.fresh  # whether the log has begun

    def _velocities(self) -> None:
        config = self.config
        if config.initial_temperature_K is not None:
            self.kinetics.draw(config.initial_temperature_K, self.random)
        elif not bool(self.motion.momenta.any()):
            self.kinetics.draw(config.temperature_K, self.random)
        elif config.acting == "bussi" and self.kinetics.conserving:
            self.kinetics.stop_drift()  # it would scale the drift along with the heat

    def _resume(self, files: Files | None) -> None:
        """Stand where an earlier leg stood; a run that has left no restart file yet begins."""
        if files is None or not files.restart.exists():
            return
        saved = load_restart(files)
        check_same(saved.numbers, saved.config, self.system, self.config, files.restart)
        state, motion = saved.state, self.motion
        motion.phase.copy_(torch.from_numpy(state.phase))
        motion.cell = state.cell
        self.engine.energy = torch.tensor([state.energy], dtype=torch.float64, device=motion.phase.device)
        self.random.set_state(torch.from_numpy(state.random))
        self.fresh, self.step, self.sizes = False, state.step, state.sizes
        self.hottest_start, self.first_volume = state.hottest_start, state.first_volume

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""
        return bool(self.ending) or (self.step >= self.config.steps and not self.fresh)

    def looks(self, step: int) -> bool:
        """Whether a line or a frame is due."""
        every = self.config.trajectory_every
        return step % self.config.log_every == 0 or step == self.config.steps or (every > 0 and step % every == 0)

    def before(self) -> None:
        """To where the next forces are needed: the start itself, the first time."""
        if self.fresh:
            return
        if self.config.final_temperature_K is not None:
            self.integrator.hold(self.config.target_K(self.step + 1))
        self.integrator.before()

    def after(self, found: Results) -> None:
        """From the new forces to the end of the step, its checks and its lines."""
        self.surface.found = found
        self.engine.evaluate()
        if self.fresh:
            header = {"atoms": len(self.system), "formula": self.system.get_chemical_formula()}
            about = header | self.config.model_dump(mode="json") | {"max_temperature_K": self.limit}
            self.recorder.line("start", about)
            self.told = True
            self.guard.check_numbers(0, float(self.engine.energy), self.motion.forces.cpu().numpy())
            self.fresh = False
        else:
            self.integrator.after()
            self.step += 1
        self._check()
        if self.looks(self.step):
            self._observe()
        self.kept, self.kept_step = self.engine.keep(), self.step
        every = self.config.restart_every
        if (every and self.step and self.step % every == 0) or self.done:
            self.save()

    def _check(self) -> None:
        """Figures that are numbers, a temperature below the limit, distances above theirs."""
        motion, (potential, kinetic) = self.motion, self.engine.figures()
        if not self.kinetics.at_most(kinetic + 0.0 * potential) <= self.limit:  # neither may be NaN
            self.guard.check_numbers(self.step, potential, motion.forces.cpu().numpy())
            heats = 0.5 * (motion.momenta.square() * motion.inverse).sum(1).cpu().numpy()
            self.guard.check_temperature(self.step, self.kinetics.temperature(), self.limit, heats)
        self.guard.check_distances(self.step, motion.positions, motion.cell)

    def _observe(self) -> None:
        """The line and the frame that are due."""
        config, motion, (potential, kinetic) = self.config, self.motion, self.engine.figures()
        stress, periodic = self.engine.stress, bool(self.engine.stress.isfinite().all()) and self.motion.periodic
        if self.step % config.log_every == 0 or self.step == config.steps:
            pressure_GPa = pressure(motion, stress) * EV_PER_A3_IN_GPA if periodic else math.nan
            time_ps = self.step * config.timestep_fs * 1e-3
            temperature = self.kinetics.temperature()
            self.lines.append(
                Thermo(
                    self.step, time_ps, temperature, potential, kinetic, potential + kinetic, pressure_GPa,
                    motion.volume,
                )
            )  # fmt: skip
            self.recorder.thermo(self.lines[-1])
        if config.trajectory_every > 0 and self.step % config.trajectory_every == 0:
            self.recorder.frame(self.frame(), self.step, self.step * config.timestep_fs * 1e-3)
        self.sizes = self.recorder.sizes

    def frame(self) -> ase.Atoms:
        """The atoms as they stand, with what is known of them."""
        self.motion.write(self.system)
        frame = self.system.copy()
        results = {"energy": float(self.engine.energy), "forces": self.motion.forces.cpu().numpy().copy()}
        if bool(self.engine.stress.isfinite().all()):
            results["stress"] = full_3x3_to_voigt_6_stress(self.engine.stress[0].cpu().numpy())
        frame.calc = SinglePointCalculator(frame, **results)
        return frame

    def stop(self, error: SimulationError) -> None:
        """Leave physical ground: what was written stays, and the log says why."""
        self.ending = " ".join(str(error).split())
        self.recorder.frame(self.frame(), self.step, self.step * self.config.timestep_fs * 1e-3)
        self.save()

    def save(self) -> None:
        """The restart file, of the end of the last whole step."""
        if self.fresh:
            return
        whole = self.kept
        state = State(
            step=self.kept_step,
            phase=whole.phase.cpu().numpy(),
            energy=float(whole.energy),
            cell=whole.cell,
            origin=whole.origin.positions,
            origin_cell=whole.origin.cell,
            random=whole.random.numpy(),
            hottest_start=self.hottest_start,
            first_volume=self.first_volume,
            sizes=self.sizes,
        )
        self.recorder.save(state, self.system.numbers, self.config.model_dump(mode="json"))

    def close(self) -> None:
        """The last line of the log, and where an interrupted run stands."""
        if self.told:
            if not self.done:
                self.save()
            reason = self.ending or ("finished" if self.step >= self.config.steps else "interrupted")
            nearest = {"nearest": asdict(self.guard.nearest)} if self.guard.nearest else {}
            self.recorder.line("end", {"reason": reason, "steps": self.step - self.first} | nearest)
        self.recorder.close()

    def result(self) -> Replica:
        """How it ended."""
        atoms = self.frame()
        files = self.recorder.files
        ending, nearest = self.ending or "finished", self.guard.nearest
        return Replica(atoms, self.number, tuple(self.lines), files, self.step, ending, nearest)


class _Batches:
    """All runs, batch after batch."""

    def __init__(
        self,
        runs: list[_Replica],
        model: TorchSimModel,
        config: MDConfig,
        budget: int | None,
        progress: Callable[[ManyMDStep], None] | None,
    ) -> None:
        self.runs, self.model, self.config, self.progress = runs, model, config, progress
        self.budget = budget or self._room()
        self.atom_steps, self.structure_steps, self.begin = 0, 0, time.perf_counter()

    def run(self) -> ManyMD:
        """Every run to its end."""
        for batch in self._packed():
            state = _state(batch, self.model)
            while batch:
                left = [one for one in batch if not one.done]
                if len(left) < len(batch):
                    batch = left
                    if not batch:
                        break
                    state = _state(batch, self.model)
                self._advance(batch, state)
        seconds = time.perf_counter() - self.begin
        return ManyMD(tuple(one.result() for one in self.runs), self.atom_steps, seconds)

    def _room(self) -> int:
        """How many atoms are best evaluated together."""
        return batch_room([one.system for one in self.runs], self.model.potential, self.model.device)

    def _packed(self) -> Iterator[list[_Replica]]:
        """Runs that go together: as many atoms as are best evaluated at once; one that is larger goes alone."""
        sizes = {one.number: float(len(one.system)) for one in self.runs if not one.done}
        if not sizes:
            return
        room = max(self.budget, max(sizes.values()))
        for numbers in to_constant_volume_bins(sizes, room):
            yield [self.runs[number] for number in sorted(numbers)]

    def _advance(self, batch: list[_Replica], state: AtomsState) -> None:
        """One step of each run of a batch."""
        for one in batch:
            one.before()
        state.positions = torch.cat([one.motion.positions for one in batch])
        looks = any(one.looks(one.step + (not one.fresh)) and one.motion.periodic for one in batch)
        self.model.compute_stress = looks
        found = self.model(state)
        stress = found["stress"] if looks else torch.full_like(state.cell, torch.nan)
        forces = found["forces"].split([len(one.system) for one in batch])
        for k, one in enumerate(batch):
            self.atom_steps += 0 if one.fresh else len(one.system)
            self.structure_steps += 0 if one.fresh else 1
            try:
                one.after(Results(found["energy"][k : k + 1], forces[k], stress[k : k + 1]))
            except CheckpointError:
                raise
            except SimulationError as error:  # of this one structure: the others go on
                one.stop(error)
        if self.progress is not None and batch[0].looks(batch[0].step):
            self._report(batch)

    def _report(self, batch: list[_Replica]) -> None:
        assert self.progress is not None
        seconds = max(time.perf_counter() - self.begin, 1e-9)
        heat = sum(one.kinetics.temperature() for one in batch) / len(batch)
        self.progress(
            ManyMDStep(
                sum(one.step for one in self.runs),
                len(self.runs) * self.config.steps,
                len(batch),
                sum(bool(one.ending) for one in self.runs),
                heat,
                self.structure_steps / seconds,
            )
        )


def _state(batch: list[_Replica], model: TorchSimModel) -> AtomsState:
    """The structures of a batch as one state, numbered as they were given."""
    free = []
    for one in batch:
        one.motion.write(one.system)
        free.append(one.system.copy())
        free[-1].set_constraint()  # kept by the motion of each run, not by the state
    state = atoms_state(free, model.device, model.dtype)
    state.number = torch.tensor([one.number for one in batch], device=model.device)
    return state


def _check(structures: Sequence[ase.Atoms], calculator: object, config: MDConfig) -> None:
    """What cannot be run, said before anything is computed."""
    if config.ensemble == "npt":
        raise ConfigError(
            "many structures at once run in fixed cells",
            where="md",
            wanted="ensemble nve or nvt",
            got="npt",
            remedy="run npt of one structure after the other, without --all: adatom.sim.md.run",
        )
    if not structures or any(len(atoms) == 0 for atoms in structures):
        raise ConfigError("there are no atoms to move", where="md", remedy="give structures, none of them empty")
    if isinstance(calculator, BaseCalculator) and not isinstance(calculator, Calculator):
        raise ConfigError(
            "many structures at once need a potential of this package",
            where="md",
            wanted="a model file, a Potential or an adatom.Calculator",
            got=type(calculator).__name__,
            remedy="run one after the other: adatom.sim.md.run",
        )
