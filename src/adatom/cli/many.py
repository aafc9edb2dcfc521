"""``adatom relax --all``: every structure of a file, many at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import ase.io
from rich.live import Live
from rich.markup import escape

from adatom.cli.app import console
from adatom.errors import ConfigError

if TYPE_CHECKING:  # at run time they come with the verb
    from adatom.sim.calculator import Calculator
    from adatom.sim.relax import RelaxConfig
    from adatom.sim.relax_many import RelaxManyStep


def relax_all(structures: Path, out: Path, calculator: Calculator, config: RelaxConfig, restart: bool) -> None:
    """Relax every structure of a file and write all of them, in their order, each with how it ended.

    What has ended stands in ``OUT.part.jsonl`` until all have: a run that was stopped goes on with ``restart``.
    SimulationError when some have not converged, after all are written.
    """
    from adatom.data.read import read
    from adatom.sim.relax_many import relax_many

    if config.symmetry or config.optimizer != "lbfgs":
        raise ConfigError(
            "many structures at once are relaxed by L-BFGS, their symmetry left to itself",
            where="--all",
            wanted="no --symmetry, no other --optimizer",
            got="--symmetry" if config.symmetry else f"--optimizer {config.optimizer}",
            remedy="leave it out, or relax these structures one by one",
        )
    given = [found.atoms for found in read(structures)[0]]
    record = out.with_name(f"{out.name}.part.jsonl")

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
        atoms.info |= {"converged": one.converged, "relax_steps": one.steps}
        frames.append(atoms)
    ase.io.write(out, frames)
    record.unlink(missing_ok=True)
    converged = sum(one.converged for one in done.results)
    console.print(
        f"{converged} of {len(frames)} converged   {done.structures_per_second:.2f} structures/s   {escape(str(out))}",
        soft_wrap=True,
    )
    done.require_converged()
