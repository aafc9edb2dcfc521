"""``adatom elastic | phonons | expansion | vacancy | surface``."""

from __future__ import annotations

import re
from typing import Annotated

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
    on_interrupt,
)  # fmt: skip
from adatom.cli.show import FigureFile, prepare, show, signed
from adatom.errors import ConfigError

Length = Annotated[
    float | None, typer.Option(help="Å between an atom and its images; by default 12, or twice the cutoff")
]
Repeats = Annotated[
    tuple[int, int, int] | None, typer.Option(help="supercell: repeats of the conventional cell, instead of --length")
]
Displacement = Annotated[float, typer.Option(help="Å")]
Hottest = Annotated[float, typer.Option("--to", help="K")]


@app.command()
def elastic(
    model: ModelFile,
    structure: StructureFile,
    strain: Annotated[float, typer.Option(help="the largest, 0.005 is half a percent")] = 0.005,
    points: Annotated[int, typer.Option(help="strains of each kind, an even number")] = 4,
    fmax: Annotated[float, typer.Option(help="largest force left at rest, eV/Å")] = 0.001,
    json_file: JsonFile = None,
    figure: FigureFile = None,
    device: Device = "cpu",
    source: Source = None,
    overwrite: Overwrite = False,
) -> None:
    """Elastic tensor of a crystal: constants, stability, moduli, sound, Debye temperature."""
    from adatom.properties.elastic import elastic as run_elastic
    from adatom.sim.calculator import Calculator

    prepare(json_file, figure, overwrite)
    calculator = Calculator(model, device, source=source)
    atoms = last_structure(structure, calculator.potential)
    with console.status("") as status:
        result = run_elastic(atoms, calculator, strain=strain, points=points, fmax=fmax, progress=status.update)
    show(signed(model, atoms) | result.to_record(), json_file, figure)


@app.command()
def phonons(
    model: ModelFile,
    structure: StructureFile,
    length: Length = None,
    repeats: Repeats = None,
    displacement: Displacement = 0.01,
    to: Hottest = 1000.0,
    fmax: Annotated[float, typer.Option(help="largest force left at rest, eV/Å")] = 0.001,
    json_file: JsonFile = None,
    figure: FigureFile = None,
    device: Device = "cpu",
    source: Source = None,
    overwrite: Overwrite = False,
) -> None:
    """Phonons of a crystal: bands, density of states, thermal properties, imaginary modes."""
    from adatom.properties.phonons import phonons as run_phonons
    from adatom.sim.calculator import Calculator

    prepare(json_file, figure, overwrite)
    calculator = Calculator(model, device, source=source)
    atoms = last_structure(structure, calculator.potential)
    with console.status("") as status:
        result = run_phonons(
            atoms, calculator, length_A=length, repeats=repeats, displacement_A=displacement, temperature_max_K=to,
            fmax=fmax, progress=status.update,
        )  # fmt: skip
    show(signed(model, atoms) | result.to_record(), json_file, figure)


@app.command()
def expansion(
    model: ModelFile,
    structure: StructureFile,
    points: Annotated[int, typer.Option(help="volumes")] = 9,
    compress: Annotated[float, typer.Option(help="smallest volume: (1 - compress) times that at rest")] = 0.04,
    stretch: Annotated[float, typer.Option(help="largest volume: (1 + stretch) times that at rest")] = 0.08,
    to: Hottest = 1000.0,
    length: Length = None,
    repeats: Repeats = None,
    displacement: Displacement = 0.01,
    json_file: JsonFile = None,
    figure: FigureFile = None,
    device: Device = "cpu",
    source: Source = None,
    overwrite: Overwrite = False,
) -> None:
    """Thermal expansion of a crystal in the quasi-harmonic approximation: V, alpha, B, C_p of temperature."""
    from adatom.properties.expansion import expansion as run_expansion
    from adatom.sim.calculator import Calculator

    prepare(json_file, figure, overwrite)
    calculator = Calculator(model, device, source=source)
    atoms = last_structure(structure, calculator.potential)
    anew = "nothing is kept of it: run it again from the start, with fewer --points or --repeats if it takes too long"
    with on_interrupt(anew), console.status("") as status:
        result = run_expansion(
            atoms, calculator, points=points, compress=compress, stretch=stretch, temperature_max_K=to, length_A=length,
            repeats=repeats, displacement_A=displacement, progress=status.update,
        )  # fmt: skip
    show(signed(model, atoms) | result.to_record(), json_file, figure)


@app.command()
def vacancy(
    model: ModelFile,
    structure: StructureFile,
    mu: Annotated[
        list[str] | None,
        typer.Option(help="chemical potential, ELEMENT=eV, of every element of a compound; may be given several times"),
    ] = None,
    length: Length = None,
    repeats: Repeats = None,
    fmax: Annotated[float, typer.Option(help="largest force left, eV/Å")] = 0.01,
    steps: int = 500,
    seed: Annotated[int, typer.Option(help="of the small random moves that atoms start with")] = 0,
    json_file: JsonFile = None,
    figure: FigureFile = None,
    device: Device = "cpu",
    source: Source = None,
    overwrite: Overwrite = False,
) -> None:
    """Formation energy of a vacancy on every kind of site of a crystal.

    Exit code 1 when the atoms around one do not come to rest.
    """
    from adatom.properties.defects import vacancies
    from adatom.sim.calculator import Calculator

    prepare(json_file, figure, overwrite)
    potentials = _potentials(mu)
    calculator = Calculator(model, device, source=source)
    atoms = last_structure(structure, calculator.potential)
    with console.status("") as status:
        result = vacancies(
            atoms, calculator, length_A=length, repeats=repeats, potentials=potentials, fmax=fmax, steps=steps,
            seed=seed, progress=status.update,
        )  # fmt: skip
    show(signed(model, atoms) | result.to_record(), json_file, figure)
    if not all(site.converged for site in result.sites):
        raise typer.Exit(1)


@app.command()
def surface(
    model: ModelFile,
    structure: StructureFile,
    miller: Annotated[
        list[str] | None,
        typer.Option(help="a plane of the conventional cell, as 111 or 1,-1,0; may be given several times"),
    ] = None,
    max_index: Annotated[int, typer.Option(help="without --miller: every distinct plane up to this index")] = 1,
    thickness: Annotated[float | None, typer.Option(help="of the slabs, Å; by default 12, or twice the cutoff")] = None,
    vacuum: Annotated[float, typer.Option(help="between a slab and its image, Å")] = 15.0,
    fmax: Annotated[float, typer.Option(help="largest force left, eV/Å")] = 0.01,
    steps: int = 500,
    json_file: JsonFile = None,
    figure: FigureFile = None,
    device: Device = "cpu",
    source: Source = None,
    overwrite: Overwrite = False,
) -> None:
    """Surface energies of a crystal by plane and place of the cut, unrelaxed and relaxed.

    Exit code 1 when a slab does not come to rest.
    """
    from adatom.properties.surfaces import surfaces
    from adatom.sim.calculator import Calculator

    prepare(json_file, figure, overwrite)
    planes = [_plane(text) for text in miller] if miller else None
    calculator = Calculator(model, device, source=source)
    atoms = last_structure(structure, calculator.potential)
    with console.status("") as status:
        result = surfaces(
            atoms, calculator, indices=planes, max_index=max_index, thickness_A=thickness, vacuum_A=vacuum, fmax=fmax,
            steps=steps, progress=status.update,
        )  # fmt: skip
    show(signed(model, atoms) | result.to_record(), json_file, figure)
    if not all(cut.converged for cut in result.cuts):
        raise typer.Exit(1)


def _plane(text: str) -> tuple[int, int, int]:
    """Three indices, as in 111 or 1,-1,0."""
    parts = re.findall(r"-?\d+", text) if re.search(r"[ ,]", text) else re.findall(r"-?\d", text)
    if len(parts) != 3 or re.fullmatch(r"[-\d, ]+", text) is None:
        raise ConfigError("this is no plane", where="--miller", wanted="three indices, as 111 or 1,-1,0", got=text)
    h, k, m = (int(part) for part in parts)
    return h, k, m


def _potentials(entries: list[str] | None) -> dict[str, float] | None:
    """Chemical potentials by element, from ELEMENT=eV."""
    if not entries:
        return None
    found: dict[str, float] = {}
    for entry in entries:
        element, _, value = entry.partition("=")
        try:
            found[element.strip()] = float(value)
        except ValueError as error:
            raise ConfigError(
                "this is no chemical potential", where="--mu", wanted="ELEMENT=eV, as Si=-163.2", got=entry
            ) from error
    return found
