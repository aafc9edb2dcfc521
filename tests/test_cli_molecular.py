"""The verbs for molecules, paths and pairs, on water and copper of the toy."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import ase.io
import pytest
from ase import Atoms
from ase.build import molecule

from adatom.cli import main
from adatom.model_file import save
from adatom.models import MODELS
from toy import Toy, toy_potential

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def adatom(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """The command in a folder with a model: exit code, output, errors."""
    monkeypatch.setitem(MODELS, "toy", Toy)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    save(toy_potential(bend=0.02), tmp_path / "toy.adatom")

    def run(verb: str, *arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["adatom", verb, "toy.adatom", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_vibrations_of_water_come_with_heat_and_modes(adatom: Run, tmp_path: Path) -> None:
    ase.io.write("water.xyz", molecule("H2O"))
    code, out, _ = adatom(
        "vibrations", "water.xyz", "--symmetry-number", 2, "--modes", "modes", "--json", "v.json", "--figure", "v.png"
    )
    record = json.loads((tmp_path / "v.json").read_text())
    assert code == 0
    assert (record["property"], record["formula"], record["model"]) == ("vibrations", "H2O", "toy.adatom")
    assert f"{record['frequency_per_cm'][-1]:,.1f}".replace(",", "\u202f") in out
    assert record["standard"]["symmetry_number"] == 2
    assert len(list((tmp_path / "modes").glob("*.xyz"))) == 3
    assert (tmp_path / "v.png").read_bytes()[:4] == b"\x89PNG"
    code, _, err = adatom("vibrations", "water.xyz", "--no-relax")
    assert code == 1
    assert "largest force" in err
    assert "'difference'" in adatom("vibrations", "water.xyz", "--hessian", "difference")[2]


def test_a_path_that_does_not_converge_ends_with_an_error(adatom: Run, tmp_path: Path) -> None:
    # an atom goes from one end of a row of three to the other, around the middle
    row = [[0, 0, 0], [2.45, 0, 0], [4.9, 0, 0], [1.2, 2.1, 0]]
    ase.io.write("a.xyz", Atoms("Cu4", row))
    ase.io.write("b.xyz", Atoms("Cu4", [*row[:3], [3.7, 2.1, 0]]))
    code, out, err = adatom("neb", "a.xyz", "b.xyz", "--images", 2, "--steps", 1, "--json", "n.json")
    record = json.loads((tmp_path / "n.json").read_text())
    assert code == 1
    assert not record["converged"]
    assert record["barrier_forward_eV"] is None
    assert "no barrier" in out
    assert "has not come to rest" in err
    assert len(ase.io.read("path.xyz", index=":")) == 4
    assert "nothing is overwritten" in adatom("neb", "a.xyz", "b.xyz")[2]


def test_dimers_ends_as_the_curves_are(adatom: Run, tmp_path: Path) -> None:
    code, out, _ = adatom("dimers", "--elements", "O,H", "--figure", "d.html", "--json", "d.json")
    record = json.loads((tmp_path / "d.json").read_text())
    assert code == 0
    assert record["sound"]
    assert [pair["pair"] for pair in record["pairs"]] == ["H-H", "H-O", "O-O"]
    assert "3 of 3" in out
    tables = [line for line in out.splitlines() if line.startswith(("┏", "┌"))]
    assert len(tables) == 4
    assert max(map(len, tables)) <= 80, "whole headers in a narrow window"
    assert "dimer-walls" in (tmp_path / "d.html").read_text()
    assert "less than " in adatom("dimers", "--contact", 9)[2]
    assert "where:  dimers, --elements" in adatom("dimers", "--elements", "Zz")[2]
    save(toy_potential(bend=-30.0), tmp_path / "toy.adatom")  # atoms that pull one another in
    code, out, _ = adatom("dimers", "--elements", "O")
    assert code == 1
    assert "not repulsive" in out
