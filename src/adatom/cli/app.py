"""The command itself: what its verbs share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import ase
import typer
import yaml
from rich.console import Console

from adatom.errors import ConfigError

if TYPE_CHECKING:  # at run time they come with the verb: the command is light
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
JsonFile = Annotated[Path | None, typer.Option("--json", help="write the numbers here")]
StructureFile = Annotated[Path, typer.Argument(help="anything ASE reads; the last frame is taken")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")]
Source = Annotated[str | None, typer.Option(help="level of theory, where the model knows several")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace files that exist")]


@contextmanager
def on_interrupt(hint: str) -> Iterator[None]:
    """Inside the block Ctrl-C says how to go on, and ends the command as it always does."""
    try:
        yield
    except KeyboardInterrupt:
        console.print(f"stopped; {hint}", markup=False, soft_wrap=True)
        raise


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"adatom {version('adatom')}")
        raise typer.Exit


@app.callback()
def _command(
    _version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="say the version, and end")
    ] = False,
) -> None:
    """What stands before every verb."""


def last_structure(path: Path, potential: Potential) -> ase.Atoms:
    """Last structure of a file, checked; UnknownElementError or ChargeError names the file."""
    atoms = last_frame(path)
    potential.check_atoms(atoms, where=str(path))
    return atoms


def every_structure(path: Path) -> list[ase.Atoms]:
    """All structures of a file."""
    from adatom.data.read import read

    return [frame.atoms for frame in read(path)[0]]


def last_frame(path: Path) -> ase.Atoms:
    """Last structure of a file."""
    from adatom.data.read import read

    return read(path)[0][-1].atoms


def ready(*paths: Path, overwrite: bool) -> None:
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


def override(values: dict[str, Any], entry: str) -> None:
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
