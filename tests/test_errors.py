"""Errors say where, what was wanted, what came, and the way out."""

from __future__ import annotations

import ast
import pickle
from pathlib import Path

import pytest

from adatom import errors
from adatom.errors import AdatomError, ConfigError, DataError, LabelError, LeakError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, AdatomError)]
PACKAGE = Path(errors.__file__).parent


def test_the_message_holds_every_part_on_its_own_line() -> None:
    error = LabelError(
        "a label is missing",
        where="a.xyz, frame 3, field 'forces'",
        wanted="(8, 3) eV/Å",
        got="nothing",
        remedy="name the key",
    )
    assert str(error).splitlines() == [
        "a label is missing",
        "  where:  a.xyz, frame 3, field 'forces'",
        "  wanted: (8, 3) eV/Å",
        "  got:    nothing",
        "  remedy: name the key",
    ]
    assert (error.problem, error.where, error.remedy) == (
        "a label is missing",
        "a.xyz, frame 3, field 'forces'",
        "name the key",
    )


def test_parts_that_are_not_known_leave_no_line() -> None:
    assert str(ConfigError("wrong", remedy="mend it")) == "wrong\n  remedy: mend it"


def test_every_error_can_be_caught_as_one_kind() -> None:
    assert len(KINDS) > 8
    for kind in KINDS:
        assert kind.__doc__
        with pytest.raises(AdatomError, match="x"):
            raise kind("x")
    assert issubclass(LabelError, DataError)
    assert issubclass(LeakError, DataError)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_survives_the_way_out_of_a_worker(kind: type[AdatomError]) -> None:
    error = kind("problem", where="here", remedy="go")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert str(back) == str(error)
    assert back.remedy == "go"


def raised(path: Path) -> list[tuple[int, str, set[str]]]:
    """Line, name and keywords of every `raise Name(...)` of a file."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
            found.append((node.lineno, node.exc.func.id, {k.arg or "" for k in node.exc.keywords}))
    return found


def test_every_typed_error_of_the_package_offers_a_way_out() -> None:
    names = {kind.__name__ for kind in KINDS}
    mute = [
        f"{path.relative_to(PACKAGE)}:{line} {name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, name, parts in raised(path)
        if name in names and not parts & {"remedy", "wanted"}
    ]
    assert mute == []
