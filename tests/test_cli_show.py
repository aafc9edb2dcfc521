"""What the verbs share: whose figures a file holds, and JSON that every program reads."""

from __future__ import annotations

import json
import math
from pathlib import Path

import ase
from ase.build import bulk, molecule

from adatom.cli.show import signed, write


def test_a_molecule_keeps_all_of_its_atoms_in_the_formula_and_a_crystal_its_composition() -> None:
    assert signed(Path("m.adatom"), molecule("H2O2")) == {"model": "m.adatom", "formula": "H2O2"}
    assert signed(Path("m.adatom"), bulk("MgO", "rocksalt", a=4.2, cubic=True))["formula"] == "MgO"
    assert signed(Path("m.adatom"), ase.Atoms("Cu4", pbc=(True, True, False)))["formula"] == "Cu4"


def test_a_figure_that_is_no_number_is_null_in_json(tmp_path: Path) -> None:
    record = {"energy_eV": math.nan, "structures": [{"fmax": math.inf, "steps": 3}], "curve": (1.5, math.nan)}
    write(record, tmp_path / "out.json", None)

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    found = json.loads((tmp_path / "out.json").read_text(), parse_constant=refuse)
    assert found == {"energy_eV": None, "structures": [{"fmax": None, "steps": 3}], "curve": [1.5, None]}
