"""``adatom relax | md``."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import ase.io
import typer
from ase.io.formats import UnknownFileTypeError, filetype, ioformats
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from adatom.cli.app import (
    Device,
    JsonFile,
    ModelFile,
    Overwrite,
    Source,
    StructureFile,
    app,
    console,
    every_structure,
    last_structure,
    on_interrupt,
    ready,
)  # fmt: skip
from adatom.cli.many import check_unfinished, md_all, part_of, relax_all
from adatom.cli.show import FigureFile, prepare, say_nearest, signed, write
from adatom.errors import ConfigError


@app.command()
def relax(
    model: ModelFile,
    structure: StructureFile,
    out: Annotated[Path, typer.Option("--out", "-o", help="relaxed structure")] = Path("relaxed.xyz"),
    cell: Annotated[bool, typer.Option("--cell", help="relax the cell as well")] = False,
    symmetry: Annotated[bool, typer.Option("--symmetry", help="keep the space group, that of the cell too")] = False,
    fmax: Annotated[float, typer.Option(help="largest force left, eV/Å")] = 0.01,
    steps: int = 500,
    pressure: Annotated[float, typer.Option(help="GPa")] = 0.0,
    optimizer: Annotated[str, typer.Option(help="lbfgs or fire")] = "lbfgs",
    all_: Annotated[bool, typer.Option("--all", help="every structure of the file, many at once (TorchSim)")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="with --all: go on with a run that was stopped")] = False,
    json_file: JsonFile = None,
    figure: FigureFile = None,
    device: Device = "cpu",
    source: Source = None,
    overwrite: Overwrite = False,
) -> None:
    """Relax positions, and the cell with --cell; atoms fixed in the file stay fixed.

    The last structure of the file, or all of them with --all. Exit code 1 when one does not converge.
    """
    from adatom.sim.calculator import Calculator
    from adatom.sim.relax import RelaxConfig, RelaxStep
    from adatom.sim.relax import relax as run_relaxation

    if all_ and restart and not overwrite:
        check_unfinished(out)
    ready(out, overwrite=overwrite)
    check_format(out)
    prepare(json_file, figure, overwrite)
    settings = RelaxConfig.parse({"optimizer": optimizer}, where="relax")  # names the optimizers there are
    calculator = Calculator(model, device, source=source)
    if all_:
        asked = {"fmax": fmax, "steps": steps, "cell": cell, "symmetry": symmetry, "pressure_GPa": pressure}
        wanted = RelaxConfig.parse(asked | {"optimizer": optimizer}, "relax")
        if overwrite and not restart:
            part_of(out).unlink(missing_ok=True)
        about = {"model": str(model), "structures_file": str(structure)}
        relax_all(every_structure(structure), out, calculator, wanted, about, json_file, figure, restart)
        return
    if restart:
        raise ConfigError("one relaxation is not gone on with", where="--restart", remedy="give --all, or leave it out")
    atoms = last_structure(structure, calculator.potential)

    def line(step: RelaxStep) -> str:
        return (
            f"step {step.step:d}   energy {step.energy:.6f} eV   "
            f"largest force {step.fmax:.4f} eV/Å   stress {step.smax_GPa:.3f} GPa"
        )

    with Live(console=console, refresh_per_second=8, transient=True) as live:
        result = run_relaxation(
            atoms, calculator, fmax=fmax, steps=steps, cell=cell, symmetry=symmetry,
            optimizer=settings.optimizer, pressure_GPa=pressure, progress=lambda step: live.update(line(step)),
        )  # fmt: skip
    console.print(line(result.history[-1]))
    result.atoms.info |= {"converged": result.converged, "relax_steps": result.steps, "ending": result.ending}
    ase.io.write(out, result.atoms)
    before, after = result.space_group_before, result.space_group_after
    if after is not None:
        console.print(f"space group {after}" + ("" if before == after else f", {before or 'none'} before"))
    write(signed(model, atoms) | result.to_record(), json_file, figure)
    console.print(f"{'converged' if result.converged else '[red]not converged[/]'} after {result.steps} steps   {out}")
    result.require_converged()


Margin = Annotated[
    float | None,
    typer.Option(help="stop nearer than this times the shortest distance in training; 0.85, less for hot atoms"),
]


@app.command()
def md(
    model: ModelFile,
    structure: StructureFile,
    ensemble: Annotated[str, typer.Option(help="nve, nvt or npt")] = "nvt",
    temperature: Annotated[
        float,
        typer.Option(
            help="K, held in nvt and npt; in nve that of the first velocities alone: "
            "from a crystal at rest the run settles near half of it"
        ),
    ] = 300.0,
    to_temperature: Annotated[
        float | None,
        typer.Option(help="K, nvt and npt: heat or cool evenly from --temperature to this over all steps"),
    ] = None,
    initial_temperature: Annotated[
        float | None,
        typer.Option(
            help="K, new velocities at this temperature; by default those of the file are kept, "
            "and drawn at --temperature where it has none"
        ),
    ] = None,
    pressure: Annotated[float, typer.Option(help="GPa, npt only")] = 0.0,
    thermostat: Annotated[str, typer.Option(help="langevin, or bussi: hardly disturbs dynamics")] = "langevin",
    thermostat_ps: Annotated[float, typer.Option(help="ps, how slowly it acts")] = 0.1,
    margin: Margin = None,
    timestep: Annotated[float, typer.Option(help="fs")] = 1.0,
    steps: Annotated[int, typer.Option(help="of the whole run, those before a restart included")] = 1000,
    supercell: Annotated[tuple[int, int, int], typer.Option(help="repeat the cell along each axis")] = (1, 1, 1),
    folder: Annotated[Path, typer.Option(help="receives log, trajectory and restart file")] = Path("md"),
    name: Annotated[str | None, typer.Option(help="of the files; the ensemble by default")] = None,
    all_: Annotated[bool, typer.Option("--all", help="every structure of the file, many at once (TorchSim)")] = False,
    replicas: Annotated[int, typer.Option(min=1, help="of each structure, with seeds of their own, at once")] = 1,
    restart: Annotated[bool, typer.Option("--restart", help="go on with an earlier run of this name")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an earlier run of this name")] = False,
    log_every: int = 10,
    trajectory_every: int = 100,
    seed: int = 0,
    compile_: Annotated[str, typer.Option("--compile", help="auto (in long runs), on or off")] = "auto",
    device: Device = "cpu",
    source: Source = None,
) -> None:
    """Run molecular dynamics; stops with a reason when the run leaves physical ground.

    With --all or --replicas, of many structures at once (nve, nvt), each with files of its own: NAME-0.xyz, ...
    """
    from adatom.properties.crystal import check_repeats
    from adatom.sim.calculator import Calculator
    from adatom.sim.md import MDConfig, run

    _check_pressure(pressure, ensemble)
    check_repeats(supercell, "--supercell")
    config = MDConfig.parse(
        {
            "ensemble": ensemble, "temperature_K": temperature, "pressure_GPa": pressure, "timestep_fs": timestep,
            "steps": steps, "log_every": log_every, "trajectory_every": trajectory_every, "seed": seed,
            "final_temperature_K": to_temperature, "initial_temperature_K": initial_temperature, "compile": compile_,
            "thermostat": thermostat, "thermostat_ps": thermostat_ps, "min_distance_margin": margin,
        },
        where="md",
    )  # fmt: skip
    calculator = Calculator(model, device, source=source)
    if all_ or replicas > 1:
        given = every_structure(structure) if all_ else [last_structure(structure, calculator.potential)]
        copies = [atoms.repeat(supercell) for atoms in given for _ in range(replicas)]
        md_all(copies, calculator, config, folder, name, restart, overwrite)
        return
    atoms = last_structure(structure, calculator.potential).repeat(supercell)
    if not restart and config.decided(len(atoms)).compile == "on":
        console.print("compiling first: half a minute to a minute and a half, less where it was done before")
    with on_interrupt("go on with --restart"), MDProgress(config.steps, console) as bar:
        result = run(
            atoms, calculator, config, folder, name,
            restart=restart, overwrite=overwrite, progress=bar.show,
        )  # fmt: skip
    console.print(f"{result.steps} steps, {result.us_per_atom_step:.1f} µs per atom and step")
    if result.nearest is not None:
        say_nearest(result.nearest)
    if result.files is not None:
        console.print(f"log         {result.files.log}\ntrajectory  {result.files.trajectory}")


class MDProgress(AbstractContextManager["MDProgress"]):
    """Progress bar of a molecular dynamics run."""

    def __init__(self, steps: int, target: Console, title: str = "MD") -> None:
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[thermo]}"), console=target,
        )  # fmt: skip
        self.task = self.bar.add_task(title, total=steps, thermo="", visible=False)  # until there is something to show

    def __enter__(self) -> MDProgress:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def show(self, step: int, thermo: Any) -> None:
        """Called by the run whenever a line is logged."""
        text = f"{thermo.temperature_K:.0f} K   {thermo.potential_eV:.3f} eV"
        self.bar.update(self.task, completed=step, thermo=text, visible=True)


def _check_pressure(pressure: float, ensemble: str) -> None:
    """ConfigError for a pressure that no ensemble would hold."""
    if pressure != 0.0 and ensemble != "npt":
        raise ConfigError(
            "a pressure is held by npt alone",
            where="--pressure",
            wanted="--ensemble npt",
            got=f"--ensemble {ensemble}",
            remedy="choose npt, or leave --pressure out",
        )


def check_format(path: Path) -> None:
    """ConfigError unless ASE writes structures under a name like this."""
    try:
        kind = filetype(str(path), read=False)
        writes = ioformats[kind].can_write
    except (UnknownFileTypeError, KeyError):
        kind, writes = path.suffix or "a name without a suffix", False
    if not writes:
        raise ConfigError(
            "no structure can be written in this format",
            where=str(path),
            wanted="a suffix that ASE writes: .xyz, .traj, .cif, ...",
            got=kind,
            remedy="give such a name with --out",
        )
