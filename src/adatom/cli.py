"""The command line: ``adatom train | evaluate | verify | bench | models | info | relax | md | eos | report``."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import ase.io
import typer
import yaml
from ase.io.formats import UnknownFileTypeError, filetype, ioformats
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from adatom.errors import AdatomError, ConfigError, LabelError

if TYPE_CHECKING:  # at run time they come with the verb: the command is light
    from adatom.data.read import Structure
    from adatom.potential import Potential

app = typer.Typer(
    help="Train, check and run machine-learned interatomic potentials.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
console = Console()

_MODEL = typer.Argument(help="a model file, as adatom train leaves it: runs/NAME/model.adatom")
ModelFile = Annotated[Path, _MODEL]
MaybeModel = Annotated[Path | None, _MODEL]
Architecture = Annotated[
    str | None, typer.Option(help="instead of a model file: an untrained network, see adatom models")
]
Form = Annotated[str | None, typer.Option(help="of the architecture; by default its first")]
Size = Annotated[str | None, typer.Option(help="of the architecture; by default S")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="write the figures here")]
StructureFile = Annotated[Path, typer.Argument(help="anything ASE reads; the last frame is taken")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace files that exist")]


def main() -> None:
    """Entry point: errors of ours are printed in full and end with exit code 1."""
    try:
        app(standalone_mode=True)
    except AdatomError as error:
        Console(stderr=True).print(
            f"[bold red]error[/] [dim]({type(error).__name__})[/] {escape(str(error))}", soft_wrap=True
        )
        raise SystemExit(1) from None
    except OSError as error:  # no permission, a full disk: the system's own words name the file
        Console(stderr=True).print(f"[bold red]error[/] {escape(str(error))}", soft_wrap=True)
        raise SystemExit(1) from None


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="YAML file, see configs/")],
    folder: Annotated[Path, typer.Option(help="where run folders are made")] = Path("runs"),
    resume: Annotated[bool, typer.Option("--resume", help="go on from the last checkpoint of this run")] = False,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="override one entry: --set limits.minutes=5 (repeatable)")
    ] = None,
) -> None:
    """Train a potential."""
    from adatom.config import read_yaml
    from adatom.train.config import TrainConfig
    from adatom.train.loop import Stopped
    from adatom.train.run import train as run_training

    values = read_yaml(config)
    for entry in change or ():
        _override(values, entry)
    try:
        run_training(TrainConfig.parse(values, where=str(config)), folder, resume, console)
    except Stopped:
        raise typer.Exit(130) from None  # as shells say of Ctrl-C


@app.command()
def evaluate(
    model: ModelFile,
    files: Annotated[list[Path], typer.Argument(help="labelled structures")],
    energy: Annotated[
        str | None, typer.Option(help="name of the energy field, where it is not found by itself")
    ] = None,
    forces: Annotated[str | None, typer.Option(help="name of the forces field")] = None,
    stress: Annotated[str | None, typer.Option(help="name of the stress field")] = None,
    out: Annotated[Path | None, typer.Option(help="folder for predictions.npz and metrics.json")] = None,
    device: Device = "cpu",
    batch: Annotated[int, typer.Option(help="atoms in a batch")] = 256,
    overwrite: Overwrite = False,
) -> None:
    """Errors of a potential on labelled structures."""
    from adatom import model_file
    from adatom.data.dataset import Budget, Dataset
    from adatom.data.labels import Keys
    from adatom.data.read import found_table, read
    from adatom.train.evaluate import errors_table, predict

    written = () if out is None else (out / "predictions.npz", out / "metrics.json")
    _ready(*written, overwrite=overwrite)
    potential = model_file.load(model, device)
    structures, found = read(files, Keys(energy=energy, forces=forces, stress=stress))
    console.print(found_table(found))
    _require_any_label(structures, files)
    predictions = predict(potential, Dataset(structures, potential.cutoff), Budget(atoms=batch), device)
    errors = {key: None if math.isnan(value) else value for key, value in predictions.errors().items()}
    console.print(errors_table({"test": errors}))
    if written:
        predictions.save(written[0])
        written[1].write_text(json.dumps({"test": errors}, indent=1), encoding="utf-8")


@app.command()
def verify(
    model: MaybeModel = None,
    structures: Annotated[
        list[Path] | None, typer.Argument(help="your own systems, tested besides generated ones")
    ] = None,
    architecture: Architecture = None,
    form: Form = None,
    size: Size = None,
    json_file: JsonFile = None,
    seed: int = 0,
    overwrite: Overwrite = False,
) -> None:
    """Hold a potential to its claims: symmetries, derivatives, extensivity, smoothness, drift.

    Exit code 1 when one fails.
    """
    from adatom.testing import verify as run_checks
    from adatom.testing.table import verification_table
    from adatom.testing.untrained import file_or_untrained

    _ready(*([json_file] if json_file else ()), overwrite=overwrite)
    potential = file_or_untrained("verify", model, architecture, {"form": form, "size": size}, seed=seed)
    systems = [_structure(path, potential) for path in structures or ()]
    for system in systems:
        system.set_constraint()  # the claims are on all atoms
    with console.status("verifying"):
        result = run_checks(potential, systems or None, seed=seed)
    if json_file is not None:
        result.to_json(json_file)
    console.print(verification_table(result))
    if not result.passed:
        raise typer.Exit(1)


@app.command()
def bench(
    model: MaybeModel = None,
    architecture: Architecture = None,
    form: Form = None,
    size: Size = None,
    structure: Annotated[Path | None, typer.Option(help="measured on this, its last frame; else on a crystal")] = None,
    atoms: Annotated[str | None, typer.Option(help="64,512,...: the structure repeated to these numbers")] = None,
    task: Annotated[str, typer.Option(help="forces, stress, training, or several: forces,training")] = "forces",
    code: Annotated[str, typer.Option("--compile", help="auto, on or off")] = "auto",
    json_file: JsonFile = None,
    device: Device = "cpu",
    overwrite: Overwrite = False,
) -> None:
    """What a potential costs: µs/atom, ms a step, ns/day and memory against the number of atoms."""
    from adatom.testing import speed
    from adatom.testing.table import speed_table
    from adatom.testing.untrained import file_or_untrained

    _ready(*([json_file] if json_file else ()), overwrite=overwrite)
    held = _frame(structure) if structure else None
    elements = {"elements": sorted(set(held.numbers.tolist()))} if held is not None and architecture else {}
    potential = file_or_untrained("bench", model, architecture, {"form": form, "size": size}, **elements)
    with console.status("measuring") as status:
        speeds = speed.sweep(
            potential, held, speed.read_sizes(atoms), speed.read_tasks(task), code=code, device=device,
            progress=status.update,
        )  # fmt: skip
    title = str(model) if model else f"{architecture}, untrained"
    console.print(speed_table(title, speeds))
    if json_file is not None:
        json_file.write_text(json.dumps([s.to_record() for s in speeds], indent=1), encoding="utf-8")


@app.command()
def models(
    markdown: Annotated[bool, typer.Option("--markdown", help="as in docs/architectures.md")] = False,
) -> None:
    """The architectures to choose from: what each promises, its sizes and what it is good for."""
    from adatom.models.overview import HEADINGS, entry_cells, overview
    from adatom.models.overview import markdown as as_markdown

    if markdown:
        print(as_markdown(), end="")
        return
    entries = overview()
    # a column for each form: six of them stand in a window of 80 characters, eleven properties do not
    table = Table(title="architectures", title_justify="left", pad_edge=False)
    table.add_column("")
    for entry in entries:
        table.add_column(f"{entry.architecture}\n{entry.form}")
    columns = [entry_cells(entry) for entry in entries]
    for row, heading in enumerate(HEADINGS[2:-1], start=2):
        table.add_row(heading, *(escape(column[row].replace(", ", "\n")) for column in columns))
    console.print(table)
    for entry in entries:
        console.print(f"[bold]{entry.architecture} {entry.form}[/bold]: {escape(entry.about)}")


@app.command()
def info(
    model: ModelFile, as_json: Annotated[bool, typer.Option("--json", help="the whole card as JSON")] = False
) -> None:
    """What a model file says of itself."""
    from adatom.model_file import info as read_card

    card = read_card(model)
    if as_json:
        print(json.dumps(card, indent=1, ensure_ascii=False))
        return
    table = Table(title=str(model), show_header=False, box=None, title_justify="left")
    for key, value in card.items():
        text = yaml.safe_dump(value, allow_unicode=True, sort_keys=False).removesuffix("...\n").rstrip()
        table.add_row(key, escape(text))
    table.add_row("fits here", _fitting(model))
    console.print(table)


def _fitting(model: Path) -> str:
    """How many atoms fit into the memory of this machine."""
    import torch

    from adatom.memory import available, fit
    from adatom.model_file import load

    potential = load(model)
    free, neighbours = available(torch.device("cpu")), potential.network.config.mean_neighbours or 30.0
    most = fit(potential.network, potential.elements[0], neighbours, free)
    streamed = "" if most.streamed is None else f"about {most.streamed:,} streamed, "
    return (
        f"in {free / 2**30:.1f} GiB: {streamed}{most.whole:,} differentiated whole, {most.batch:,} in a training batch"
    )


@app.command()
def relax(
    model: ModelFile,
    structure: StructureFile,
    out: Annotated[Path, typer.Option("--out", "-o", help="relaxed structure")] = Path("relaxed.xyz"),
    cell: Annotated[bool, typer.Option("--cell", help="relax the cell as well")] = False,
    fmax: Annotated[float, typer.Option(help="largest force left, eV/Å")] = 0.01,
    steps: int = 500,
    pressure: Annotated[float, typer.Option(help="GPa")] = 0.0,
    optimizer: Annotated[str, typer.Option(help="lbfgs or fire")] = "lbfgs",
    device: Device = "cpu",
    overwrite: Overwrite = False,
) -> None:
    """Relax positions, and the cell with --cell; atoms fixed in the file stay fixed.

    Exit code 1 when it does not converge.
    """
    from adatom.sim.calculator import Calculator
    from adatom.sim.relax import RelaxConfig, RelaxStep
    from adatom.sim.relax import relax as run_relaxation

    _ready(out, overwrite=overwrite)
    _check_format(out)
    settings = RelaxConfig.parse({"optimizer": optimizer}, where="relax")  # names the optimizers there are
    calculator = Calculator(model, device)
    atoms = _structure(structure, calculator.potential)

    def line(step: RelaxStep) -> str:
        return (
            f"step {step.step:d}   energy {step.energy:.6f} eV   "
            f"largest force {step.fmax:.4f} eV/Å   stress {step.smax_GPa:.3f} GPa"
        )

    with Live(console=console, refresh_per_second=8, transient=True) as live:
        result = run_relaxation(
            atoms, calculator, fmax=fmax, steps=steps, cell=cell, optimizer=settings.optimizer,
            pressure_GPa=pressure, progress=lambda step: live.update(line(step)),
        )  # fmt: skip
    console.print(line(result.history[-1]))
    ase.io.write(out, result.atoms)
    console.print(f"{'converged' if result.converged else '[red]not converged[/]'} after {result.steps} steps   {out}")
    result.require_converged()


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
    initial_temperature: Annotated[
        float | None,
        typer.Option(
            help="K, new velocities at this temperature; by default those of the file are kept, "
            "and drawn at --temperature where it has none"
        ),
    ] = None,
    pressure: Annotated[float, typer.Option(help="GPa, npt only")] = 0.0,
    timestep: Annotated[float, typer.Option(help="fs")] = 1.0,
    steps: Annotated[int, typer.Option(help="of the whole run, those before a restart included")] = 1000,
    supercell: Annotated[tuple[int, int, int], typer.Option(help="repeat the cell along each axis")] = (1, 1, 1),
    folder: Annotated[Path, typer.Option(help="receives log, trajectory and restart file")] = Path("md"),
    name: Annotated[str | None, typer.Option(help="of the files; the ensemble by default")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="go on with an earlier run of this name")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an earlier run of this name")] = False,
    log_every: int = 10,
    trajectory_every: int = 100,
    seed: int = 0,
    compile_: Annotated[str, typer.Option("--compile", help="auto (in long runs), on or off")] = "auto",
    device: Device = "cpu",
) -> None:
    """Run molecular dynamics; stops with a reason when the run leaves physical ground."""
    from adatom.sim.calculator import Calculator
    from adatom.sim.md import MDConfig, run

    config = MDConfig.parse(
        {
            "ensemble": ensemble, "temperature_K": temperature, "pressure_GPa": pressure, "timestep_fs": timestep,
            "steps": steps, "log_every": log_every, "trajectory_every": trajectory_every, "seed": seed,
            "initial_temperature_K": initial_temperature, "compile": compile_,
        },
        where="md",
    )  # fmt: skip
    calculator = Calculator(model, device)
    atoms = _structure(structure, calculator.potential).repeat(supercell)
    if not restart and config.decided(len(atoms)).compile == "on":
        console.print("compiling first: half a minute to a minute and a half, less where it was done before")
    with MDProgress(config.steps, console) as bar:
        result = run(
            atoms, calculator, config, folder, name,
            restart=restart, overwrite=overwrite, progress=bar.show,
        )  # fmt: skip
    console.print(f"{result.steps} steps, {result.us_per_atom_step:.1f} µs per atom and step")
    if result.files is not None:
        console.print(f"log         {result.files.log}\ntrajectory  {result.files.trajectory}")


@app.command()
def eos(
    model: ModelFile,
    structure: StructureFile,
    span: Annotated[float, typer.Option(help="volumes from (1 - span) to (1 + span) times that of the file")] = 0.08,
    points: int = 11,
    json_file: Annotated[Path | None, typer.Option("--json", help="write curve and fit here")] = None,
    device: Device = "cpu",
    overwrite: Overwrite = False,
) -> None:
    """Energy-volume curve: equilibrium volume, bulk modulus and its pressure derivative."""
    from adatom.properties.eos import energy_volume
    from adatom.sim.calculator import Calculator

    _ready(*([json_file] if json_file else ()), overwrite=overwrite)
    calculator = Calculator(model, device)
    curve = energy_volume(_structure(structure, calculator.potential), calculator, span=span, points=points)
    table = Table(title="Birch-Murnaghan fit", show_header=False)
    for key, value in curve.fit.to_record().items():
        if isinstance(value, float):
            table.add_row(key, f"{value:.5g}")
    console.print(table)
    if json_file is not None:
        json_file.write_text(json.dumps(curve.to_record(), indent=1), encoding="utf-8")


@app.command()
def report(run: Annotated[Path, typer.Argument(help="a run folder")]) -> None:
    """Write report.html into a run folder."""
    from adatom.report import write_report

    console.print(str(write_report(run)))


class MDProgress(AbstractContextManager["MDProgress"]):
    """Progress bar of a molecular dynamics run."""

    def __init__(self, steps: int, target: Console, title: str = "MD") -> None:
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[thermo]}"), console=target,
        )  # fmt: skip
        self.task = self.bar.add_task(title, total=steps, thermo="")

    def __enter__(self) -> MDProgress:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def show(self, step: int, thermo: Any) -> None:
        """Called by the run whenever a line is logged."""
        text = f"{thermo.temperature_K:.0f} K   {thermo.potential_eV:.3f} eV"
        self.bar.update(self.task, completed=step, thermo=text)


def _structure(path: Path, potential: Potential) -> ase.Atoms:
    """Last structure of a file, checked; UnknownElementError or ChargeError names the file."""
    atoms = _frame(path)
    potential.check_atoms(atoms, where=str(path))
    return atoms


def _frame(path: Path) -> ase.Atoms:
    """Last structure of a file."""
    from adatom.data.read import read

    return read(path)[0][-1].atoms


def _require_any_label(structures: Sequence[Structure], files: Sequence[Path]) -> None:
    """LabelError when there is nothing to compare with; the zero forces on free atoms are no labels of the file."""
    import numpy as np

    for s in structures:
        if np.isfinite(s.energy) or np.isfinite(s.stress).any() or (not s.isolated and np.isfinite(s.forces).any()):
            return
    raise LabelError(
        "none of these structures has a label",
        where=", ".join(map(str, files)),
        wanted="energy, forces or stress of one structure at least",
        got=f"fields {', '.join(sorted({name for s in structures for name in s.fields})) or 'none at all'}",
        remedy="name the fields with --energy, --forces and --stress, or give labelled structures",
    )


def _ready(*paths: Path, overwrite: bool) -> None:
    """Make sure before any work that these files can be written: ConfigError for one that exists, or has no folder."""
    for path in paths:
        if path.is_dir() or (path.exists() and not overwrite):
            raise ConfigError(
                "this is a folder" if path.is_dir() else "this file exists, and nothing is overwritten",
                where=str(path),
                wanted="the name of a file to write",
                remedy="give another name" + ("" if path.is_dir() else ", or --overwrite"),
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            got = None if os.access(path.parent, os.W_OK) else "a folder that is not yours to write to"
        except OSError as error:
            got = str(error)
        if got is not None:
            raise ConfigError(
                "this file cannot be written", where=str(path), got=got, remedy="give a name in a folder of yours"
            )


def _check_format(path: Path) -> None:
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


def _override(values: dict[str, Any], entry: str) -> None:
    """Set one entry of nested plain values from ``a.b.c=value``, the value read as YAML."""
    path, equals, text = entry.partition("=")
    if not equals:
        raise ConfigError("--set takes key=value", got=entry, remedy="write for example --set limits.minutes=5")
    *parents, last = path.split(".")
    for name in parents:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise ConfigError(f"'{name}' holds a value, not further entries", got=entry, remedy="correct the path")
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            "the value after = is no YAML", got=entry, remedy="close brackets and quotes: --set 'data.train=[a.xyz]'"
        ) from error
