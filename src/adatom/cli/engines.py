"""``adatom lammps | export``: engines of others, driven by a potential of ours."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bars

from adatom.cli.app import Device, ModelFile, Overwrite, Source, app, console, ready
from adatom.elements import symbols
from adatom.errors import ConfigError

if TYPE_CHECKING:  # at run time it comes with the verb: the command is light
    from adatom.sim.lammps.drive import Progress


@app.command()
def lammps(
    script: Annotated[Path, typer.Argument(help="an input script of LAMMPS, in metal units")],
    model: ModelFile,
    elements: Annotated[
        str | None,
        typer.Option(help="of the types, in their order: Si,O; by default as pair_coeff or the masses say"),
    ] = None,
    log: Annotated[Path, typer.Option(help="log file of LAMMPS")] = Path("log.lammps"),
    quiet: Annotated[bool, typer.Option("--quiet", help="show the progress line, and not what LAMMPS prints")] = False,
    var: Annotated[list[str] | None, typer.Option(help="name=value: a variable of the script; again for more")] = None,
    charge: Annotated[float | None, typer.Option(help="total charge, e, for models that ask for it")] = None,
    multiplicity: Annotated[float | None, typer.Option(help="spin multiplicity, likewise")] = None,
    compile_: Annotated[str, typer.Option("--compile", help="auto (in long runs), on or off")] = "auto",
    device: Device = "cpu",
    source: Source = None,
) -> None:
    """Run an input script of LAMMPS; on several cores: mpirun -n 4 adatom lammps in.lmp model.adatom.

    In the script 'pair_style adatom' and 'pair_coeff * * Si O' stand for the potential. Ctrl-C leaves a restart file.
    """
    from adatom.compile import Mode
    from adatom.sim.lammps.drive import Interrupted, run
    from adatom.sim.lammps.library import communicator

    modes: dict[str, Mode] = {"auto": "auto", "on": "on", "off": "off"}
    if compile_ not in modes:
        raise ConfigError("no such way of compiling", where="--compile", wanted="auto, on or off", got=compile_)
    names = () if elements is None else tuple(name.strip() for name in elements.split(","))
    speaks = communicator().rank == 0
    try:
        with TemporaryDirectory() as folder, Watch(Path(folder) / "screen", console, quiet, speaks) as watch:
            result = run(
                script, model, elements=names, log=log, screen=watch.screen, variables=_variables(var or []),
                charge=charge, multiplicity=multiplicity, device=device, source=source, compile=modes[compile_],
                progress=watch.show, say=console.print,
            )  # fmt: skip
    except Interrupted as stop:
        if speaks:
            hint = f"to go on, begin a script with: read_restart {stop.restart}"
            console.print(f"stopped at step {stop.step}; {hint}", soft_wrap=True)
        raise typer.Exit(130) from None
    if not result.evaluations:
        raise ConfigError(
            "the script ended without asking the model for anything",
            where=str(script),
            wanted="a box with atoms, and a line such as 'run 1000' or 'minimize 0 0.01 500 5000'",
            got=f"{result.atoms} atoms, 0 evaluations",
            remedy="add one, or look whether a 'jump', an 'if' or 'quit' passes it over",
        )
    if speaks:
        per_step = 1e6 * result.seconds / (result.evaluations * max(result.atoms, 1))
        processes = f"{result.processes} processes ({result.evaluated})" if result.processes > 1 else "1 process"
        console.print(
            f"step {result.step}   {result.atoms} atoms, {result.evaluations} evaluations, "
            f"{per_step:.1f} µs per atom and step, {processes}   log {log}",
            soft_wrap=True,
        )


@app.command()
def export(
    model: ModelFile,
    to: Annotated[str, typer.Option(help="mliap: for a LAMMPS compiled with ML-IAP, Python and Kokkos")],
    out: Annotated[Path, typer.Option("--out", "-o", help="a pickle: read such files from people you trust only")],
    source: Source = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a model in a form that other programs read."""
    from adatom import model_file
    from adatom.sim.lammps.mliap import export as write

    if to != "mliap":
        raise ConfigError("no such form", where="--to", wanted="mliap", got=to)
    ready(out, overwrite=overwrite)
    potential = model_file.load(model, source=source)
    write(potential, out)
    names = " ".join(symbols(potential.elements))
    console.print(f"pair_style mliap unified {out} 0\npair_coeff * * {names}", soft_wrap=True)
    console.print(
        "name an element for each type; adatom must be installed in the Python of that LAMMPS, which is started"
    )
    console.print("with Kokkos: lmp -k on -sf kk -pk kokkos newton on neigh half -in in.lmp")


def _variables(entries: list[str]) -> dict[str, str]:
    """Variables of the script from ``name=value``."""
    found = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not equals or not name:
            raise ConfigError("--var takes name=value", got=entry, remedy="write for example --var T=300")
        found[name] = value
    return found


class Watch(AbstractContextManager["Watch"]):
    """What a run looks like: LAMMPS's own words from a file that it writes them to, and a progress line below."""

    def __init__(self, screen: Path, target: Console, quiet: bool, speaks: bool) -> None:
        self.screen, self.console, self.quiet, self.speaks = screen, target, quiet, speaks
        self.bars = Bars(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[state]}"),
            console=target, transient=True, disable=not speaks,
        )  # fmt: skip
        self.task = self.bars.add_task("LAMMPS", total=None, state="", visible=False)
        self._told = 0  # bytes of the file

    def __enter__(self) -> Watch:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.tell(whole=False)
        self.bars.stop()

    def show(self, progress: Progress) -> None:
        """Called by the run about twice a second."""
        self.tell()
        speed = "" if math.isnan(progress.ns_per_day) else f"{progress.ns_per_day:.3g} ns/day   "
        self.bars.update(
            self.task, description=progress.command, completed=progress.step, total=progress.steps or None,
            state=f"{speed}{progress.energy:.3f} eV", visible=True,
        )  # fmt: skip

    def tell(self, whole: bool = True) -> None:
        """Print what LAMMPS has said since; ``whole`` lines alone, for it may be in the middle of one."""
        if self.quiet or not self.speaks or not self.screen.exists():
            return
        with self.screen.open("rb") as file:
            file.seek(self._told)
            said = file.read()
        said = said[: said.rfind(b"\n") + 1] if whole else said
        self._told += len(said)
        if said:
            self.console.print(
                said.decode(errors="replace").rstrip("\n"), markup=False, highlight=False, soft_wrap=True
            )
