"""The command line: one file for each group of verbs."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from typer.models import CommandInfo

from adatom.cli import (
    crystal,
    data,
    engines,
    engines_more,
    finetuning,
    liquid,
    models,
    molecular,
    packing,
    properties,
    running,
    training,
)
from adatom.cli.app import app
from adatom.cli.running import MDProgress
from adatom.errors import AdatomError

__all__ = [
    "MDProgress",
    "app",
    "crystal",
    "data",
    "engines",
    "engines_more",
    "finetuning",
    "liquid",
    "main",
    "models",
    "molecular",
    "packing",
    "properties",
    "running",
    "training",
]

# as help lists them: from data to a model, what a model can do, what it says of a material
ORDER = (
    "train", "finetune", "evaluate", "verify", "report", "models", "info", "bench",
    "relax", "md", "lammps", "export", "ipi", "pimd", "analyse", "liquid",
    "properties", "eos", "elastic", "phonons", "expansion", "vacancy", "surface", "vibrations", "neb", "dimers",
)  # fmt: skip


def _place(command: CommandInfo) -> int:
    name = command.name or getattr(command.callback, "__name__", "")
    return ORDER.index(name) if name in ORDER else len(ORDER)


app.registered_commands.sort(key=_place)


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
