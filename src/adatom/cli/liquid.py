"""``adatom analyse | liquid``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

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
)  # fmt: skip
from adatom.cli.running import MDProgress
from adatom.cli.show import FigureFile, prepare, show


@app.command()
def analyse(
    trajectory: Annotated[Path, typer.Argument(help="anything ASE reads: NAME.xyz of adatom md, .traj, ...")],
    reference: Annotated[
        list[Path] | None, typer.Option(help="frames whose g(r) is laid beside; may be given several times")
    ] = None,
    skip: Annotated[float, typer.Option(help="ps left out at the start")] = 0.0,
    interval: Annotated[
        float | None, typer.Option(help="fs between frames, where they do not say themselves when they were")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="pairs, structure, diffusion or velocities; may be given several times; by default all"),
    ] = None,
    r_max: Annotated[float, typer.Option(help="of g(r), Å")] = 8.0,
    q_max: Annotated[float, typer.Option(help="of S(q), 1/Å")] = 12.0,
    frames: Annotated[int, typer.Option(help="for g(r) and S(q), evenly spaced")] = 200,
    fit: Annotated[
        tuple[float, float] | None,
        typer.Option(help="window of the fit of D, ps; by default where atoms diffuse"),
    ] = None,
    blocks: Annotated[int, typer.Option(help="of the trajectory, for the error of D")] = 5,
    viscosity: Annotated[
        float | None, typer.Option(help="mPa s: corrects D for the size of a cubic box, with --temperature")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="K, for --viscosity")] = None,
    lag: Annotated[float | None, typer.Option(help="ps of velocity correlation: longer is finer and noisier")] = None,
    json_file: JsonFile = None,
    figure: FigureFile = None,
    overwrite: Overwrite = False,
) -> None:
    """What a trajectory shows: g(r), S(q), diffusion with errors, vibrations."""
    from adatom.properties.analysis import AnalysisConfig
    from adatom.properties.analysis import analyse as run_analysis
    from adatom.properties.trajectory import read_frames_of

    prepare(json_file, figure, overwrite)
    config = AnalysisConfig.parse(
        {
            "parts": only or None, "skip_ps": skip, "r_max": r_max, "structure_frames": frames,
            "structure": {"q_max": q_max}, "velocities": {"lag_ps": lag},
            "diffusion": {
                "fit_ps": fit, "blocks": blocks, "viscosity_mPas": viscosity, "temperature_K": temperature,
            },
        },
        where="analyse",
    )  # fmt: skip
    with console.status("reading") as status:
        found = read_frames_of(trajectory, config.skip_ps, interval)
        beside = [atoms for path in reference or () for atoms in read_frames_of(path)]
        result = run_analysis(found, config, reference=beside, progress=lambda part: status.update(part))
    show({"trajectory": str(trajectory), "skip_ps": skip} | result.to_record(), json_file, figure)


@app.command()
def liquid(
    model: ModelFile,
    structure: StructureFile,
    temperature: Annotated[float, typer.Option(help="K")] = 300.0,
    pressure: Annotated[float, typer.Option(help="GPa; one bar is 0.0001")] = 1e-4,
    timestep: Annotated[float, typer.Option(help="fs")] = 0.5,
    equilibration: Annotated[float, typer.Option(help="ps left out of all means")] = 10.0,
    production: Annotated[float, typer.Option(help="ps; may be more when the run is continued")] = 40.0,
    gas: Annotated[
        str, typer.Option(help="dynamics of one molecule, harmonic (at rest, and kT/2 for each vibration), or none")
    ] = "dynamics",
    gas_time: Annotated[float, typer.Option(help="ps of the molecule in the gas")] = 20.0,
    folder: Annotated[Path, typer.Option(help="receives logs, trajectories and restart files")] = Path("liquid"),
    restart: Annotated[bool, typer.Option("--restart", help="go on with an earlier run in this folder")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace runs and files that exist")] = False,
    json_file: JsonFile = None,
    figure: FigureFile = None,
    seed: int = 0,
    compile_: Annotated[str, typer.Option("--compile", help="auto (in long runs), on or off")] = "auto",
    device: Device = "cpu",
    source: Source = None,
) -> None:
    """Density of a liquid at constant pressure, and its heat of vaporisation."""
    from adatom.properties.liquid import LiquidConfig
    from adatom.properties.liquid import liquid as run_liquid
    from adatom.sim.calculator import Calculator

    prepare(json_file, figure, overwrite or restart)
    config = LiquidConfig.parse(
        {
            "temperature_K": temperature, "pressure_GPa": pressure, "timestep_fs": timestep, "seed": seed,
            "equilibration_ps": equilibration, "production_ps": production, "gas": gas, "gas_ps": gas_time,
            "compile": compile_,
        },
        where="liquid",
    )  # fmt: skip
    calculator = Calculator(model, device, source=source)
    atoms = last_structure(structure, calculator.potential)
    try:
        with _Stages() as stages:
            result = run_liquid(
                atoms, calculator, folder, config, restart=restart, overwrite=overwrite, progress=stages.show
            )
    except KeyboardInterrupt:
        console.print(f"stopped; {escape(str(folder))} holds all of it: go on with the same command and --restart")
        raise typer.Exit(130) from None
    record = {"model": str(model)} | result.to_record()
    show(record, json_file, figure)
    console.print(f"runs        {escape(str(folder))}")


class _Stages:
    """One progress bar after the other."""

    def __init__(self) -> None:
        self.bar: MDProgress | None = None
        self.stage = ""

    def __enter__(self) -> _Stages:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.__exit__()

    def show(self, stage: str, step: int, steps: int, thermo: Any) -> None:
        """Called by the runs whenever a line is logged."""
        if self.bar is None or stage != self.stage:
            self.__exit__()
            self.bar, self.stage = MDProgress(steps, console, stage).__enter__(), stage
        self.bar.show(step, thermo)
