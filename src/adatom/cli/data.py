"""``adatom data check | pack``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from adatom.cli.app import JsonFile, Overwrite, app, console, ready
from adatom.errors import ConfigError

data = typer.Typer(help="Look at data before training on them, and pack them for fast reading.", no_args_is_help=True)
app.add_typer(data, name="data")


@data.command()
def check(
    files: Annotated[list[Path], typer.Argument(help="structures to train on: anything that training reads")],
    valid: Annotated[list[Path] | None, typer.Option(help="structures to validate on (repeatable)")] = None,
    test: Annotated[list[Path] | None, typer.Option(help="structures to test on (repeatable)")] = None,
    energy: Annotated[
        str | None, typer.Option(help="name of the energy field, where it is not found by itself")
    ] = None,
    forces: Annotated[str | None, typer.Option(help="name of the forces field")] = None,
    stress: Annotated[str | None, typer.Option(help="name of the stress field")] = None,
    virial: Annotated[str | None, typer.Option(help="name of the virial field, used where there is no stress")] = None,
    charge: Annotated[str | None, typer.Option(help="name of the field of the total charge")] = None,
    spin: Annotated[str | None, typer.Option(help="name of the field of the multiplicity, 2S + 1")] = None,
    units: Annotated[
        list[str] | None, typer.Option(help="unit of a label: --units forces=Hartree/Bohr (repeatable)")
    ] = None,
    cutoff: Annotated[
        list[float] | None, typer.Option(help="Å, where neighbours are counted (repeatable); by default 4, 5 and 6")
    ] = None,
    sample: Annotated[int, typer.Option(min=100, help="structures that the costly checks look at")] = 20_000,
    html: Annotated[Path | None, typer.Option(help="write a page with all of it here")] = None,
    out: JsonFile = None,
    names: Annotated[bool, typer.Option("--names", help="name every structure that a finding speaks of")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="exit with 1 on warnings too")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Examine data: labels, units, signs, references, copies, leakage, contacts, charges. Exits with 1 on errors."""
    from adatom.data.doctor.examine import CUTOFFS
    from adatom.data.doctor.files import examine_files
    from adatom.data.doctor.show import show
    from adatom.data.labels import Keys
    from adatom.data.read import Units

    ready(*(path for path in (html, out) if path is not None), overwrite=overwrite)
    if cutoff and not all(0.5 <= c <= 20.0 for c in cutoff):
        raise ConfigError("a cutoff makes no sense", wanted="0.5 to 20 Å", got=", ".join(f"{c:g}" for c in cutoff))
    examination = examine_files(
        {"train": files, "valid": valid or [], "test": test or []},
        Keys(energy=energy, forces=forces, stress=stress, virial=virial, charge=charge, spin=spin),
        Units.parse(_units(units or []), where="--units"),
        tuple(sorted(set(cutoff))) if cutoff else CUTOFFS,
        sample,
    )
    show(examination, console, names)
    record = examination.to_dict()
    if out is not None:
        out.write_text(json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    if html is not None:
        from adatom.report.doctor import write_data_page

        write_data_page(record, html)
        console.print(f"page    {escape(str(html))}", soft_wrap=True)
    if examination.errors or (strict and examination.warnings):
        raise typer.Exit(1)


def _units(entries: list[str]) -> dict[str, str]:
    """``forces=Hartree/Bohr`` by label."""
    values: dict[str, str] = {}
    for entry in entries:
        label, equals, unit = entry.partition("=")
        if not equals:
            raise ConfigError("--units takes label=unit", got=entry, remedy="write --units forces=Hartree/Bohr")
        values[label.strip()] = unit.strip()
    return values
