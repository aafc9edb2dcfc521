"""An input script of LAMMPS, read statement by statement: loops and branches are ours, all else is LAMMPS's.

LAMMPS reads a script from a file, and then nobody can come between two lines, or say on which line it stopped. So
lines are read here and given to LAMMPS one by one. ``include``, ``jump``, ``label``, ``next``, ``if`` and ``quit``
steer the reading and are done here; the conditions of ``if`` are judged by LAMMPS.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import NamedTuple

from adatom.errors import ConfigError

BRANCH = "adatom_branch"  # a variable of LAMMPS: which part of an if is to be done
DEPTH = 20  # files that include one another


class Statement(NamedTuple):
    """One command, its lines joined."""

    text: str
    line: int  # in the file, from 1
    file: Path

    @property
    def where(self) -> str:
        """File and line, for errors."""
        return f"{self.file}, line {self.line}"


class Host(ABC):
    """Who does what a script says."""

    @abstractmethod
    def do(self, statement: Statement) -> None:
        """One command that does not steer the reading."""

    @abstractmethod
    def expand(self, statement: Statement) -> str:
        """The text of a command, variables filled in."""

    @abstractmethod
    def ask(self, statement: Statement, name: str) -> str:
        """Do a command and say what a variable holds then."""

    @abstractmethod
    def has_variable(self, name: str) -> bool:
        """Whether a variable is defined."""


class _QuitError(Exception):
    """The script says that it is done."""


class Reader:
    """Goes through a script and has ``host`` do it.

    Raises
    ------
    ConfigError
        A file or a label that is not there, an ``if`` that is none, a ``quit`` with an exit code.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self._skip = False  # the next jump, for a variable has run out

    def run(self, path: Path) -> None:
        """From the first line of ``path`` to the last, or to ``quit``."""
        try:
            self._file(path, None, 0)
        except _QuitError:
            return

    def _file(self, path: Path, called: Statement | None, depth: int) -> None:
        """All of a file, and of those that it jumps to."""
        if depth > DEPTH:
            raise ConfigError(
                f"{DEPTH} files include one another",
                where=None if called is None else called.where,
                remedy="look for a file that includes itself",
            )
        statements, place = statements_of(path, called), 0
        while place < len(statements):
            goal = self._step(statements[place], depth)
            place += 1
            if goal is not None:
                source, name, label = goal
                if name != "SELF":
                    path = Path(name)
                    statements = statements_of(path, source)
                place = 0 if label is None else _after_label(statements, label, source)

    def _step(self, statement: Statement, depth: int) -> tuple[Statement, str, str | None] | None:
        """Do one statement; the file and label to jump to, where it says so."""
        match words_of(statement.text)[:1]:
            case ["label"]:
                return None
            case ["include"]:
                self._file(Path(self._arguments(statement, 1, 1)[0]), statement, depth + 1)
            case ["jump"]:
                name, *label = self._arguments(statement, 1, 2)
                if not self._skip:
                    return statement, name, label[0] if label else None
                self._skip = False
            case ["next"]:
                self.host.do(statement)
                self._skip |= not self.host.has_variable(self._arguments(statement, 1, 99)[0])
            case ["if"]:
                for inner in self._chosen(statement):
                    goal = self._step(statement._replace(text=inner), depth)
                    if goal is not None:  # what else the branch holds is left, as LAMMPS does
                        return goal
            case ["quit"]:
                self._quit(statement)
            case _:
                self.host.do(statement)
        return None

    def _arguments(self, statement: Statement, least: int, most: int) -> list[str]:
        """The words after the first, bare and variables filled in."""
        words = [bare(word) for word in words_of(self.host.expand(statement))[1:]]
        if not least <= len(words) <= most:
            raise ConfigError(
                f"this command takes {least} words" + (f" to {most}" if most > least else ""),
                where=statement.where,
                got=statement.text,
                remedy="see the page of this command in the LAMMPS manual",
            )
        return words

    def _chosen(self, statement: Statement) -> list[str]:
        """The commands of the branch of an ``if`` that holds."""
        conditions, branches = _branches(statement)
        parts = [f'variable {BRANCH} string "{number}"' for number in range(len(branches))]
        question = f"if {conditions[0]} then '{parts[0]}'"
        for condition, part in zip(conditions[1:], parts[1:], strict=False):
            question += f" elif {condition} '{part}'"
        nothing = f'variable {BRANCH} string "{len(branches)}"'
        question += f" else '{parts[-1] if len(branches) > len(conditions) else nothing}'"
        chosen = int(self.host.ask(statement._replace(text=question), BRANCH))
        return branches[chosen] if chosen < len(branches) else []

    def _quit(self, statement: Statement) -> None:
        status = self._arguments(statement, 0, 1)
        if status and status[0] != "0":
            raise ConfigError(
                "the script ended itself with an exit code",
                where=statement.where,
                wanted="quit, or quit 0",
                got=f"quit {status[0]}",
            )
        raise _QuitError


def statements_of(path: Path, called: Statement | None = None) -> list[Statement]:
    """The commands of a file; ConfigError where it cannot be read, naming the line that asked for it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "this input script cannot be read",
            where=str(path) if called is None else called.where,
            got=f"{path}: {error.strerror if isinstance(error, OSError) else 'not a text file'}",
            remedy="give the name of a text file with LAMMPS commands",
        ) from error
    found: list[Statement] = []
    lines = enumerate(text.splitlines(), start=1)
    for number, line in lines:
        whole = line
        while True:
            if whole.count('"""') % 2:
                joint = "\n"  # within triple quotes lines stay lines
            elif whole.rstrip().endswith("&"):
                whole, joint = whole.rstrip()[:-1], " "
            else:
                break
            following = next(lines, None)
            if following is None:
                break
            whole += joint + following[1]
        if bare_text := uncommented(whole).strip():
            found.append(Statement(bare_text, number, path))
    return found


_WORD = re.compile(r'"""(?:.|\n)*?"""|"[^"]*"|\'[^\']*\'|[^\s]+')


def words_of(text: str) -> list[str]:
    """Words of a command, those in quotes with their quotes."""
    return _WORD.findall(text)


def bare(word: str) -> str:
    """A word without its quotes."""
    for quote in ('"""', '"', "'"):
        if len(word) >= 2 * len(quote) and word.startswith(quote) and word.endswith(quote):
            return word[len(quote) : -len(quote)]
    return word


def uncommented(text: str) -> str:
    """A command without what follows # outside of quotes."""
    quote, place = "", 0
    while place < len(text):
        here = next((q for q in ('"""', '"', "'") if text.startswith(q, place)), "")
        if here and here == quote:
            quote = ""
        elif here and not quote:
            quote = here
        elif text[place] == "#" and not quote:
            return text[:place]
        else:
            here = ""
        place += len(here) or 1
    return text


def _branches(statement: Statement) -> tuple[list[str], list[list[str]]]:
    """Conditions as they are written, and the commands of each branch; one branch more is that of ``else``."""
    words = words_of(statement.text)[1:]
    if len(words) < 3 or words[1] != "then":
        raise _no_if(statement)
    conditions = [words[0]]
    branches: list[list[str]] = [[]]
    rest = iter(words[2:])
    for word in rest:
        if word == "elif":
            conditions.append(next(rest, ""))
            branches.append([])
        elif word == "else":
            branches.append([])
        else:
            branches[-1].append(bare(word))
    if not all(branches) or len(branches) > len(conditions) + 1 or "" in conditions:
        raise _no_if(statement)
    return conditions, branches


def _no_if(statement: Statement) -> ConfigError:
    return ConfigError(
        "this if cannot be read",
        where=statement.where,
        wanted='if "condition" then "command" ... elif "condition" "command" ... else "command" ...',
        got=statement.text,
        remedy="put conditions and commands in quotes",
    )


def _after_label(statements: list[Statement], label: str, asked: Statement) -> int:
    """Where a label stands; ConfigError when there is none."""
    for place, statement in enumerate(statements):
        if words_of(statement.text)[:2] == ["label", label]:
            return place + 1
    raise ConfigError(
        "the label to jump to is not in this script",
        where=asked.where,
        wanted=f"a line 'label {label}' in {statements[0].file if statements else 'the file'}",
        got=asked.text,
    )
