"""The verbs for properties of crystals, on copper of the toy."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import ase.io
import pytest
from ase.build import bulk

from adatom.cli import main
from adatom.model_file import save
from adatom.models import MODELS
from toy import Toy, toy_potential

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def adatom(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """The command in a folder with a model and copper: exit code, output, errors."""
    monkeypatch.setitem(MODELS, "toy", Toy)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    save(toy_potential(4.0), tmp_path / "toy.adatom")
    ase.io.write(tmp_path / "copper.cif", bulk("Cu", a=3.48))

    def run(verb: str, *arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["adatom", verb, "toy.adatom", "copper.cif", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_elastic_prints_a_table_and_writes_record_and_figure(adatom: Run, tmp_path: Path) -> None:
    code, out, _ = adatom("elastic", "--json", "e.json", "--figure", "e.png")
    record = json.loads((tmp_path / "e.json").read_text())
    assert code == 0
    assert f"{record['constants_GPa']['C44']:.1f}" in out
    assert (record["property"], record["model"], record["formula"]) == ("elastic", "toy.adatom", "Cu")
    assert (tmp_path / "e.png").read_bytes()[:4] == b"\x89PNG"
    assert adatom("elastic", "--json", "e.json")[0] == 1  # nothing is overwritten
    assert adatom("elastic", "--figure", "e.bmp")[0] == 1


def test_phonons_says_which_supercell_it_took(adatom: Run, tmp_path: Path) -> None:
    code, out, _ = adatom("phonons", "--length", 8, "--to", 400, "--figure", "p.html")
    assert code == 0
    assert "supercell of 3 × 3 × 3 conventional cells, 108 atoms" in out
    assert "Imaginary modes" in out
    assert "Phonon bands" in (tmp_path / "p.html").read_text(encoding="utf-8")
    code, _, err = adatom("phonons", "--repeats", 1, 1, 1)
    assert code == 1
    assert "too small" in err


def test_expansion_of_few_small_supercells(adatom: Run) -> None:
    code, out, _ = adatom("expansion", "--points", 5, "--repeats", 2, 2, 2, "--to", 300)
    assert code == 0
    assert "Grüneisen" in out
    assert "less than twice the cutoff" in out


def test_vacancy_and_surface_end_with_code_1_where_atoms_come_to_no_rest(adatom: Run) -> None:
    code, out, _ = adatom("vacancy", "--length", 8)
    assert code == 0
    assert "Vacancy of Cu" in out
    assert adatom("vacancy", "--length", 8, "--steps", 3, "--fmax", 1e-5)[0] == 1
    code, out, _ = adatom("surface", "--miller", "111", "--miller", "1,0,0", "--thickness", 8)
    assert code == 0
    assert "γ (1 1 1)" in out
    assert "γ (1 0 0)" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("surface", "--miller", "11"), "this is no plane"),
        (("surface", "--miller", "1a1"), "this is no plane"),
        (("surface", "--miller", "000"), "say --miller 111"),
        (("surface", "--vacuum", "2"), "give --vacuum 12"),
        (("vacancy", "--mu", "Cu"), "no chemical potential"),
        (("vacancy", "--mu", "Si=-160"), "of Si, which this crystal does not have"),
        (("elastic", "--points", "3"), "points"),
        (("phonons", "--repeats", "-1", "1", "1"), "1 where the cell is to stay"),
        (("vacancy", "--repeats", "1", "0", "1"), "1 where the cell is to stay"),
        (("expansion", "--repeats", "-1", "1", "1"), "1 where the cell is to stay"),
    ],
)
def test_what_makes_no_sense_is_named(adatom: Run, words: tuple[str, ...], said: str) -> None:
    code, _, err = adatom(*words)
    assert code == 1
    assert said in err


def test_relax_keeps_the_symmetry_and_says_the_space_group(adatom: Run, tmp_path: Path) -> None:
    code, out, _ = adatom("relax", "--cell", "--symmetry", "--json", "r.json", "--figure", "r.svg", "-o", "end.xyz")
    assert code == 0
    assert "space group Fm-3m (225)" in out
    record = json.loads((tmp_path / "r.json").read_text())
    assert record["settings"]["symmetry"]
    assert record["history"]["energy_eV"][-1] == pytest.approx(record["energy_eV"])
    assert (tmp_path / "r.svg").exists()


def test_a_run_that_is_stopped_says_how_to_go_on(adatom: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: object, step: int, thermo: object) -> None:
        if step == 2:
            raise KeyboardInterrupt

    arguments = ("md", "--supercell", 3, 3, 3, "--steps", 4, "--log-every", 1)
    with monkeypatch.context() as patch:
        patch.setattr("adatom.cli.running.MDProgress.show", interrupt)
        code, out, _ = adatom(*arguments)
    assert code == 130
    assert "go on with --restart" in out
    code, out, error = adatom(*arguments)
    assert code == 1
    assert "exists" in error
    assert "MD" not in out, "no bar of a run that has not begun"
    code, out, _ = adatom(*arguments, "--restart")
    assert code == 0
    assert "4/4" in out


@pytest.mark.parametrize(
    ("words", "computes", "said"),
    [
        (("properties", "--all"), "card.property_card", "it goes on"),
        (("expansion",), "expansion.expansion", "nothing is kept"),
    ],
)
def test_a_property_that_is_stopped_says_what_is_kept(
    adatom: Run, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], computes: str, said: str
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"adatom.properties.{computes}", interrupt)
    code, out, _ = adatom(*words)
    assert code == 130
    assert said in out
