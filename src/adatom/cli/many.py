"""``adatom relax --all`` and ``adatom md --all``: every structure of a file, many at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import ase
import ase.io
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from adatom.cli.app import console
from adatom.cli.show import say_nearest, write
from adatom.errors import ConfigError

if TYPE_CHECKING:  # at run time they come with the verb
    from adatom.sim.calculator import Calculator
    from adatom.sim.md import MDConfig
    from adatom.sim.md_many import ManyMDStep
    from adatom.sim.relax import RelaxConfig
    from adatom.sim.relax_many import RelaxManyStep


def relax_all(
    given: list[ase.Atoms],
    out: Path,
    calculator: Calculator,
    config: RelaxConfig,
    about: dict[str, Any],
    json_file: Path | None = None,
    figure: Path | None = None,
    restart: bool = False,
) -> None:
    """Relax structures and write all of them, in their order, each with how it ended.

    What has ended stands in ``OUT.part.jsonl`` until all have: a run that was stopped goes on with ``restart``.
    ``about`` goes into the JSON file. SimulationError when some have not converged, after all are written.
    """
    from adatom.sim.relax_many import relax_many

    if config.symmetry or config.optimizer != "lbfgs":
        raise ConfigError(
            "many structures at once are relaxed by L-BFGS, their symmetry left to itself",
            where="--all",
            wanted="no --symmetry, no other --optimizer",
            got="--symmetry" if config.symmetry else f"--optimizer {config.optimizer}",
            remedy="leave it out, or relax these structures one by one",
        )
    if figure is not None:
        raise ConfigError(
            "the way of a relaxation is drawn for one structure",
            where="--figure",
            got="--all",
            remedy="leave --figure out, --json has the figures of all; or relax that structure without --all",
        )
    record = part_of(out)

    def line(step: RelaxManyStep) -> str:
        return (
            f"{step.ended} of {step.structures} ended, {step.converged} converged   {step.rate:.2f} structures/s   "
            f"{step.moving} in hand, largest force {step.fmax:.3f} eV/Å"
        )

    try:
        with Live(console=console, refresh_per_second=4, transient=True) as live:
            done = relax_many(
                given, calculator, fmax=config.fmax, steps=config.steps, cell=config.cell,
                pressure_GPa=config.pressure_GPa, record=record, restart=restart,
                progress=lambda step: live.update(line(step)),
            )  # fmt: skip
    except KeyboardInterrupt:
        console.print(f"stopped; what has ended is kept in {escape(str(record))}: go on with --restart", soft_wrap=True)
        raise
    frames = []
    for one in done.results:
        atoms = one.atoms.copy()
        atoms.calc = one.atoms.calc
        atoms.info |= {"converged": one.converged, "relax_steps": one.steps, "ending": one.ending}
        frames.append(atoms)
    ase.io.write(out, frames)
    record.unlink(missing_ok=True)
    write(about | done.to_record(), json_file, None)
    converged = sum(one.converged for one in done.results)
    console.print(
        f"{converged} of {len(frames)} converged   {done.structures_per_second:.2f} structures/s   {escape(str(out))}",
        soft_wrap=True,
    )
    done.require_converged()


def part_of(out: Path) -> Path:
    """Where results wait for the last of them."""
    return out.with_name(f"{out.name}.part.jsonl")


def check_unfinished(out: Path) -> None:
    """ConfigError where all structures have ended and stand in ``out``: there is nothing to go on with."""
    if out.exists() and not part_of(out).exists():
        raise ConfigError(
            "this run is finished: there is nothing to go on with",
            where=str(out),
            wanted=f"{part_of(out)}, which a run that was stopped leaves",
            got="no such file, and all results",
            remedy="use the results; to relax anew give another name, or --overwrite without --restart",
        )


def md_all(
    given: list[ase.Atoms],
    calculator: Calculator,
    config: MDConfig,
    folder: Path,
    name: str | None,
    restart: bool,
    overwrite: bool,
) -> None:
    """Run dynamics of structures, each with files of its own. SimulationError when some were stopped."""
    from adatom.sim.md_many import run_many

    bar = Progress(
        TextColumn("MD of {task.fields[structures]}"), BarColumn(), TextColumn("{task.percentage:.0f} %"),
        TimeRemainingColumn(), TextColumn("{task.fields[thermo]}"), console=console,
    )  # fmt: skip
    task = bar.add_task("MD", total=len(given) * config.steps, structures=len(given), thermo="")

    def show(step: ManyMDStep) -> None:
        stopped = f"   {step.stopped} stopped" if step.stopped else ""
        text = f"{step.temperature_K:.0f} K   {step.rate:.0f} steps of structures/s{stopped}"
        bar.update(task, completed=step.structure_steps, thermo=text)

    try:
        with bar:
            done = run_many(
                given, calculator, config, folder, name, restart=restart, overwrite=overwrite, progress=show
            )  # fmt: skip
    except KeyboardInterrupt:
        console.print("stopped; each run stands at a step of its own: go on with --restart")
        raise
    finished = sum(one.finished for one in done.replicas)
    console.print(f"{finished} of {len(given)} finished, {done.us_per_atom_step:.1f} µs per atom and step")
    outside = [one.nearest for one in done.replicas if one.nearest is not None]
    if outside:
        worst = min(outside, key=lambda one: one.distance_A / one.trained_A)
        say_nearest(worst, f"in {len(outside)} of them atoms left the data: ")
    first, last = done.replicas[0].files, done.replicas[-1].files
    if first is not None and last is not None:
        console.print(f"logs          {first.log} ... {last.log.name}", soft_wrap=True)
        console.print(f"trajectories  {first.trajectory} ... {last.trajectory.name}", soft_wrap=True)
    done.require_finished()
