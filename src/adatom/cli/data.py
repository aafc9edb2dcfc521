"""``adatom data check | pack``."""

from __future__ import annotations

import typer

from adatom.cli.app import app

data = typer.Typer(help="Look at data before training on them, and pack them for fast reading.", no_args_is_help=True)
app.add_typer(data, name="data")
