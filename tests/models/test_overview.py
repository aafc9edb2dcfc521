"""The table of architectures is read off the code, on the command line and in the documentation alike."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from adatom.config import Config
from adatom.errors import AdatomError
from adatom.models import MODELS, forms, read_model, sizes
from adatom.models.overview import HEADINGS, Entry, entry_cells, markdown, overview
from adatom.train.config import TrainConfig
from test_cli import call

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"


@pytest.fixture(scope="module")
def entries() -> dict[tuple[str, str], Entry]:
    return {(entry.architecture, entry.form): entry for entry in overview()}


def test_every_form_of_every_architecture_is_there(entries: dict[tuple[str, str], Entry]) -> None:
    assert set(entries) == {(architecture, form) for architecture in MODELS for form in forms(architecture)}
    for entry in entries.values():
        assert set(entry.parameters) == set(sizes(entry.architecture))
        assert entry.about, "in a line, what it is good for"


def test_parameters_are_those_of_the_network(entries: dict[tuple[str, str], Entry]) -> None:
    torch.manual_seed(0)
    network = MODELS["mlanet"](read_model({"size": "S"}))
    assert entries["mlanet", "default"].parameters["S"] == sum(p.numel() for p in network.parameters())
    for entry in entries.values():
        counts = list(entry.parameters.values())
        assert counts == sorted(set(counts)), "a larger size has more"


def test_claims_forces_and_charges_are_those_of_the_code(entries: dict[tuple[str, str], Entry]) -> None:
    sound, published = entries["mlanet", "default"], entries["mlanet", "paper"]
    assert (sound.derivatives, sound.sees) == (("gradient", "direct"), ())
    assert (published.derivatives, published.sees) == (("direct",), ("charge",))
    assert (sound.claims.conservative, published.claims.conservative) == (True, False)
    cells = dict(zip(HEADINGS, entry_cells(published), strict=True))
    assert (cells["extensive"], cells["forces"], cells["sees"]) == ("no", "direct", "charge")
    assert re.fullmatch(r"S \d+k, M [\d.]+M, L [\d.]+M", cells["parameters"])


def test_the_documentation_shows_the_same_table() -> None:
    shown = re.search(r"<!-- table -->\n(.*?)<!-- end of table -->", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert shown is not None
    assert shown[1] == markdown(), "paste what `adatom models --markdown` prints into docs/architectures.md"


def test_the_settings_in_the_documentation_are_read() -> None:
    import yaml

    for text in re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        assert isinstance(TrainConfig.parse({"data": {"train": ["a"]}, **yaml.safe_load(text)}), Config)


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert call("models", "--markdown") == 0
    assert capsys.readouterr().out == markdown()
    assert call("models") == 0
    out = capsys.readouterr().out
    for said in ("mlanet", "paper", "O(3)", "extensive", "gradient", "direct", "not for dynamics"):
        assert said in out


def test_an_untrained_network_is_verified_by_its_word(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def record(potential, structures, seed):
        asked.append((potential.network.config, potential.elements, structures, seed))
        raise AdatomError("asked")

    monkeypatch.setattr("adatom.testing.verify", record)
    assert call("verify", "--architecture", "mlanet", "--form", "paper", "--size", "M", "--seed", 3) == 1
    assert call("verify", "--architecture", "mlanet") == 1
    (config, elements, structures, seed), (default, *_) = asked
    assert (config.form, config.size, config.derivatives) == ("paper", "M", "direct")
    assert (elements, structures, seed) == ([1, 8, 14], None, 3)
    assert (default.form, default.size) == ("default", "S")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--architecture", "mlnet"), "did you mean 'mlanet'?"),
        (("--architecture", "mlanet", "--form", "papr"), "did you mean 'paper'?"),
        (("--architecture", "mlanet", "--size", "XL"), "did you mean 'L'?"),
        ((), "verify takes a model file, or an architecture"),
        (("a.adatom", "--architecture", "mlanet"), "verify takes a model file, or an architecture"),
        (("a.adatom", "--form", "paper"), "verify takes a model file, or an architecture"),
    ],
)
def test_a_wrong_word_is_answered(arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("verify", *arguments) == 1
    assert said in capsys.readouterr().err
