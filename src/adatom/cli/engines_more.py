"""``adatom ipi | pimd``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from adatom.cli.app import (
    Device,
    JsonFile,
    ModelFile,
    Overwrite,
    Source,
    StructureFile,
    app,
    console,
    last_structure,
    on_interrupt,
    ready,
)
from adatom.cli.show import signed, write
from adatom.errors import ConfigError

if TYPE_CHECKING:
    from adatom.sim.pimd import PathIntegralRun


@app.command()
def ipi(
    model: ModelFile,
    structure: StructureFile,
    name: Annotated[str | None, typer.Option("--socket", help="<address> of an <ffsocket mode='unix'>")] = None,
    host: Annotated[str | None, typer.Option("--address", help="<address> of an <ffsocket mode='inet'>")] = None,
    port: Annotated[int, typer.Option(help="with --address")] = 31415,
    prefix: Annotated[str, typer.Option(help="of socket files, what i-pi -S says")] = "/tmp/ipi_",
    patience: Annotated[float, typer.Option(help="seconds to wait for i-PI to listen")] = 60.0,
    device: Device = "cpu",
    source: Source = None,
) -> None:
    """Give forces to an i-PI server that runs elsewhere, until it says goodbye.

    The structure names the atoms in the order of i-PI.
    """
    from adatom.sim.calculator import Calculator
    from adatom.sim.ipi import Server, serve

    if (name is None) == (host is None):
        raise ConfigError(
            "where does i-PI listen?",
            wanted="either --socket NAME, or --address HOST --port N",
            got="neither" if name is None else "both",
            remedy="say what stands in <ffsocket> of input.xml",
        )
    server = Server(name, host or "localhost", port, prefix)
    calculator = Calculator(model, device, source=source)
    atoms = last_structure(structure, calculator.potential)
    hint = on_interrupt("run it again: an i-PI that still waits goes on with it")
    with hint, Live(f"waiting for i-PI at {server}", console=console, refresh_per_second=4, transient=True) as live:
        count = serve(
            calculator, atoms, server, patience=patience,
            progress=lambda count: live.update(f"{server}   {count} geometries"),
        )  # fmt: skip
    console.print(f"i-PI said goodbye after {count} geometries")


@app.command()
def pimd(
    model: ModelFile,
    structure: StructureFile,
    beads: Annotated[int, typer.Option(help="of each nucleus; 1 is classical")] = 8,
    temperature: Annotated[float, typer.Option(help="K")] = 300.0,
    timestep: Annotated[float, typer.Option(help="fs")] = 0.5,
    steps: Annotated[int, typer.Option(help="of the whole run, those before a restart included")] = 1000,
    thermostat: Annotated[str, typer.Option(help="pile_l or pile_g")] = "pile_l",
    folder: Annotated[Path, typer.Option(help="receives the files of i-PI")] = Path("pimd"),
    restart: Annotated[bool, typer.Option("--restart", help="go on with the run in this folder")] = False,
    overwrite: Overwrite = False,
    log_every: int = 10,
    trajectory_every: int = 100,
    equilibration: Annotated[float, typer.Option(help="share of the run that is left out of the means")] = 0.2,
    seed: int = 1,
    json_file: JsonFile = None,
    device: Device = "cpu",
    source: Source = None,
) -> None:
    """Run path-integral molecular dynamics: i-PI is started, its beads are evaluated as batches.

    Ctrl-C ends the run after its step with exit code 130; --restart goes on.
    """
    from adatom.sim.calculator import Calculator
    from adatom.sim.pimd import PathIntegralConfig, path_integral

    ready(*([json_file] if json_file else ()), overwrite=overwrite or restart)
    if not 0.0 <= equilibration < 1.0:
        raise ConfigError(
            "the equilibration is a share of the run", wanted="0 or more, below 1", got=f"{equilibration:g}"
        )
    config = PathIntegralConfig.parse(
        {
            "beads": beads, "temperature_K": temperature, "timestep_fs": timestep, "steps": steps, "seed": seed,
            "thermostat": thermostat, "log_every": log_every, "trajectory_every": trajectory_every,
        },
        where="pimd",
    )  # fmt: skip
    calculator = Calculator(model, device, source=source)
    atoms = last_structure(structure, calculator.potential)
    bar = Progress(
        TextColumn("path integral"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
    )
    task = bar.add_task("", total=steps)
    with bar:
        result = path_integral(
            atoms, calculator, config, folder, restart=restart, overwrite=overwrite,
            progress=lambda step: bar.update(task, completed=step),
        )  # fmt: skip
    record = _pimd_record(result, config.temperature_K, equilibration)
    console.print(_pimd_table(record))
    if not result.finished:
        console.print("[yellow]stopped by Ctrl-C[/]; adatom pimd ... --restart goes on")
    console.print(f"{result.evaluations} geometries in {result.seconds:.1f} s   {folder / 'pimd.out'}")
    write(signed(model, atoms) | record, json_file, None)
    if not result.finished:
        raise typer.Exit(130)


def _pimd_record(result: PathIntegralRun, temperature_K: float, equilibration: float) -> dict[str, Any]:
    """Kinetic energies per atom in meV with their errors, each beside 3/2 kT."""
    from adatom.properties.observables import average
    from adatom.units import BOLTZMANN

    first = int(equilibration * len(result.time_ps))
    interval = float(result.time_ps[1] - result.time_ps[0]) if len(result.time_ps) > 1 else 0.0
    kinetic = {}
    for element, series in result.kinetic_by_element_eV.items():
        per_atom = 1e3 * series[first:] / result.counts[element]
        kinetic[element] = (
            average(per_atom, interval).to_record() if len(per_atom) >= 8 else {"value": float(per_atom.mean())}
        )
    return {
        "time_ps": float(result.time_ps[-1]),
        "temperature_K": float(result.temperature_K[first:].mean()),
        "potential_eV": float(result.potential_eV[first:].mean()),
        "conserved_range_eV": float(result.conserved_eV[first:].max() - result.conserved_eV[first:].min()),
        "classical_kinetic_meV_per_atom": 1.5e3 * BOLTZMANN * temperature_K,
        "kinetic_meV_per_atom": kinetic,
    }


def _pimd_table(record: dict[str, Any]) -> Table:
    table = Table(title="quantum kinetic energy, meV per atom (centroid virial)")
    for column in ("element", "mean", "error", "classical 3/2 kT"):
        table.add_column(column, justify="left" if column == "element" else "right")
    for element, figures in record["kinetic_meV_per_atom"].items():
        error = figures.get("error")
        note = "too few values" if error is None else f"{error:.1f}" + ("" if figures["sufficient"] else " (too short)")
        table.add_row(element, f"{figures['value']:.1f}", note, f"{record['classical_kinetic_meV_per_atom']:.1f}")
    return table
