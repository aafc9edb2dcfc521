"""``adatom vibrations | neb | dimers``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

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
    ready,
)  # fmt: skip
from adatom.cli.show import FigureFile, prepare, show, signed

EndFile = Annotated[Path, typer.Argument(help="the other end, its atoms in the same order; the last frame is taken")]
SHOWN_K = np.arange(100.0, 1001.0, 50.0)  # temperatures of the curves on a page


@app.command()
def vibrations(
    model: ModelFile,
    structure: StructureFile,
    relax: Annotated[
        bool, typer.Option(help="bring the atoms to rest first; --no-relax for a transition state")
    ] = True,
    fmax: Annotated[float, typer.Option(help="largest force that counts as rest, eV/Å")] = 0.01,
    hessian: Annotated[str, typer.Option(help="differences (of forces) or autograd")] = "differences",
    displacement: Annotated[float, typer.Option(help="of differences, Å")] = 0.01,
    temperature: Annotated[float, typer.Option(help="K, of the thermochemistry of a molecule")] = 298.15,
    pressure: Annotated[float, typer.Option(help="bar")] = 1.0,
    symmetry_number: Annotated[
        int | None, typer.Option(help="rotations that carry the molecule into itself, water 2; by default counted")
    ] = None,
    multiplicity: Annotated[
        int | None, typer.Option(help="of the spin, for the entropy; by default as the file says, or 1")
    ] = None,
    modes: Annotated[Path | None, typer.Option(help="write a swing of every mode into this folder")] = None,
    json_file: JsonFile = None,
    figure: FigureFile = None,
    device: Device = "cpu",
    source: Source = None,
    overwrite: Overwrite = False,
) -> None:
    """Normal modes, zero-point energy and, of a free molecule, ideal-gas thermochemistry.

    Atoms fixed in the file stay fixed: a molecule on a surface.
    """
    from adatom.properties.thermochemistry import temperatures
    from adatom.properties.vibrations import VibrationsConfig
    from adatom.properties.vibrations import vibrations as run_vibrations
    from adatom.sim.calculator import Calculator

    prepare(json_file, figure, overwrite)
    if modes is not None:
        ready(modes / "mode_001.xyz", overwrite=overwrite)
    settings = VibrationsConfig.parse({"hessian": hessian}, where="vibrations")  # names the ways there are
    calculator = Calculator(model, device, source=source)
    atoms = last_structure(structure, calculator.potential)
    with console.status("") as status:
        result = run_vibrations(
            atoms, calculator, hessian=settings.hessian, displacement_A=displacement, relax_first=relax, fmax=fmax,
            progress=status.update,
        )  # fmt: skip
    record = signed(model, atoms) | result.to_record()
    if result.shape in ("atom", "line", "body") and not result.imaginary:
        first, *others = temperatures(
            result, [temperature, *SHOWN_K], pressure_bar=pressure, symmetry_number=symmetry_number,
            multiplicity=multiplicity,
        )  # fmt: skip
        record |= {"standard": first.to_record(), "thermochemistry": [one.to_record() for one in others]}
    show(record, json_file, figure)
    if modes is not None:
        console.print(f"modes       {len(result.write_modes(modes))} files in {modes}")


@app.command()
def neb(
    model: ModelFile,
    first: StructureFile,
    last: EndFile,
    images: Annotated[int, typer.Option(help="between the ends")] = 7,
    climb: Annotated[bool, typer.Option(help="let the highest image climb to the saddle")] = True,
    interpolation: Annotated[str, typer.Option(help="idpp or linear")] = "idpp",
    fmax: Annotated[float, typer.Option(help="largest pull left on an atom of an image, eV/Å")] = 0.05,
    steps: int = 500,
    relax: Annotated[bool, typer.Option(help="bring both ends to rest first")] = True,
    any_order: Annotated[bool, typer.Option("--any-order", help="atoms of a kind do change places")] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="the images")] = Path("path.xyz"),
    json_file: JsonFile = None,
    figure: FigureFile = None,
    device: Device = "cpu",
    source: Source = None,
    overwrite: Overwrite = False,
) -> None:
    """Path of least energy between two minima, and its barriers.

    Exit code 1 when the band does not come to rest: its height is no barrier then.
    """
    from adatom.cli.running import check_format
    from adatom.properties.neb import BandStep, NEBConfig
    from adatom.properties.neb import neb as run_neb
    from adatom.sim.calculator import Calculator

    ready(out, overwrite=overwrite)
    check_format(out)
    prepare(json_file, figure, overwrite)
    settings = NEBConfig.parse({"interpolation": interpolation}, where="neb")
    calculator = Calculator(model, device, source=source)
    start, end = (last_structure(path, calculator.potential) for path in (first, last))
    with console.status("ends") as status:

        def line(step: BandStep) -> None:
            status.update(f"step {step.step}   highest {step.height_eV:.3f} eV   largest pull {step.fmax:.3f} eV/Å")

        path = run_neb(
            start, end, calculator, images=images, climb=climb, interpolation=settings.interpolation, fmax=fmax,
            steps=steps, relax_ends=relax, any_order=any_order, progress=line,
        )  # fmt: skip
    path.write(out)
    show(signed(model, start) | path.to_record(), json_file, figure)
    console.print(f"images      {out}")
    path.require_converged()


@app.command()
def dimers(
    model: ModelFile,
    elements: Annotated[str | None, typer.Option(help="as in H,O; by default all that the model knows")] = None,
    contact: Annotated[float, typer.Option(help="Å, where the curves begin")] = 0.2,
    json_file: JsonFile = None,
    figure: FigureFile = None,
    device: Device = "cpu",
    source: Source = None,
    overwrite: Overwrite = False,
) -> None:
    """Curves of two atoms from contact to the cutoff, for every pair of elements: wells, holes, smoothness.

    Exit code 1 when a curve has a hole, is attractive where it should repel, or does not fall all the way to its well.
    """
    from adatom.properties.dimers import dimers as run_dimers
    from adatom.sim.calculator import Calculator

    prepare(json_file, figure, overwrite)
    calculator = Calculator(model, device, source=source)
    names = None if elements is None else [name.strip() for name in elements.split(",")]
    with console.status("") as status:
        result = run_dimers(calculator, elements=names, contact_A=contact, progress=status.update)
    formula = "-".join(sorted({name for curve in result.curves for name in curve.elements}))
    show({"model": str(model), "formula": formula} | result.to_record(), json_file, figure)
    if not result.sound:
        raise typer.Exit(1)
