"""Property cards: what applies is computed, what cannot be is named, what is there is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ase
import pytest
from ase.build import bulk, molecule
from ase.calculators.lj import LennardJones

from adatom.errors import ConfigError, SimulationError, UnknownElementError
from adatom.properties import card
from adatom.properties.card import PROPERTIES, Property, fingerprint, kind_of, property_card
from adatom.report.properties import KINDS
from adatom.sim.calculator import Calculator
from adatom.sim.committee import Committee
from toy import toy_potential


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three properties that cost little, one of which fails; returns what was computed."""
    done: list[str] = []

    def compute(name: str) -> Any:
        def run(atoms: ase.Atoms, engine: Any) -> dict[str, Any]:
            done.append(name)
            if name == "phonons":
                raise SimulationError("the lattice is unstable", remedy="relax it")
            return {"property": "left_out", "reasons": {name: f"{len(atoms)} atoms"}}

        return run

    crystal = frozenset({"crystal"})
    names = ("eos", "phonons", "elastic")
    monkeypatch.setattr(card, "PROPERTIES", tuple(Property(name, crystal, compute(name)) for name in names))
    return done


def test_a_card_says_what_it_could_not_say_and_goes_on(tmp_path: Path, quick: list[str]) -> None:
    told: list[tuple[str, str]] = []
    found = property_card(bulk("Cu"), toy_potential(), tmp_path, progress=lambda *words: told.append(words))
    assert quick == ["eos", "phonons", "elastic"]
    assert found.computed == ("eos", "elastic")
    assert found.left_out["phonons"].startswith("the lattice is unstable")
    assert ("elastic", "done") in told
    page = found.page.read_text()
    assert "Not computed" in page
    assert "the lattice is unstable" in page
    assert json.loads((tmp_path / "eos.json").read_text())["formula"] == "Cu"


def test_what_is_there_is_kept_and_another_model_is_refused(tmp_path: Path, quick: list[str]) -> None:
    property_card(bulk("Cu"), toy_potential(), tmp_path)
    quick.clear()
    again = property_card(bulk("Cu"), toy_potential(), tmp_path)
    assert again.kept == ("eos", "elastic")
    assert quick == ["phonons"]  # tried again
    with pytest.raises(ConfigError, match="another model or another structure"):
        property_card(bulk("Cu"), toy_potential(bend=0.2), tmp_path)
    with pytest.raises(ConfigError, match="--overwrite"):
        property_card(bulk("Cu", cubic=True), toy_potential(), tmp_path)
    (tmp_path / "notes.json").write_text("[1]")
    with pytest.raises(ConfigError, match=r"notes\.json"):
        property_card(bulk("Cu"), toy_potential(), tmp_path)
    quick.clear()
    property_card(bulk("Cu"), toy_potential(bend=0.2), tmp_path, overwrite=True)
    assert quick == ["eos", "phonons", "elastic"]
    assert (tmp_path / "notes.json").read_text() == "[1]"  # not ours: left as it is


def test_periodicity_says_what_can_be_said(tmp_path: Path) -> None:
    slab = bulk("Cu")
    slab.pbc = (True, True, False)
    assert [kind_of(a) for a in (bulk("Cu"), molecule("H2O"), slab)] == ["crystal", "molecule", "slab"]
    with pytest.raises(ConfigError, match=r"none of these can be said of a molecule(.|\n)*vibrations, dimers"):
        property_card(molecule("H2O"), toy_potential(), tmp_path, ["eos", "elastic"])
    with pytest.raises(ConfigError, match="did you mean 'phonons'"):
        property_card(bulk("Cu"), toy_potential(), tmp_path, ["phonon"])
    with pytest.raises(UnknownElementError):
        property_card(bulk("Au"), toy_potential(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_fingerprint_tells_models_and_structures_apart() -> None:
    one, copper = Calculator(toy_potential()), bulk("Cu")
    charged = copper.copy()
    charged.info["total_charge"] = 1
    moved = copper.copy()
    moved.positions[0, 0] += 1e-4
    prints = [fingerprint(copper, one), fingerprint(copper, Calculator(toy_potential(bend=0.2)))]
    prints += [fingerprint(atoms, one) for atoms in (charged, moved, bulk("Cu", cubic=True))]
    assert len(set(prints)) == 5
    assert fingerprint(bulk("Cu"), Calculator(toy_potential())) == prints[0]
    heavy = copper.copy()
    heavy.set_masses([65.0])
    committees = [Committee([toy_potential(), toy_potential(bend=bend)]) for bend in (0.2, 0.3)]
    others = [fingerprint(copper, one) for one in (*committees, LennardJones(epsilon=1.0), LennardJones(epsilon=2.0))]
    assert len({*prints, fingerprint(heavy, one), *others}) == 10


def test_a_molecule_gets_its_vibrations_and_dimers(tmp_path: Path) -> None:
    found = property_card(molecule("H2O"), toy_potential(), tmp_path)
    assert set(found.computed) == {"vibrations", "dimers"}
    assert not found.left_out
    text = found.page.read_text()
    for name in ("relaxation", "vibrations", "dimers"):
        assert f'id="{name}' in text


def test_every_property_of_a_card_has_its_section() -> None:
    assert {entry.name for entry in PROPERTIES} | {"relaxation", "left_out"} <= set(KINDS)
