"""``adatom data check``: exit codes for scripts, a table, JSON, a page, and nothing overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from adatom.cli import app
from adatom.errors import ConfigError
from data.broken_files import BROKEN_SILICON, silicon, write

TRAIN = Path(__file__).parents[1] / "data" / "si_pbe_gpaw" / "train.xyz.xz"


def check(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["data", "check", *map(str, arguments)], env={"COLUMNS": "100"})


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("broken")
    names = {"units": "forces in Hartree/Bohr", "copies": "a structure twice with other labels"}
    return {
        short: write(BROKEN_SILICON[name].break_it(silicon()), folder / f"{short}.xyz") for short, name in names.items()
    }


def test_a_clean_file_exits_with_0_and_says_so() -> None:
    result = check(TRAIN)
    assert result.exit_code == 0, result.output
    assert "nothing speaks against these data" in result.output
    assert "REF_energy 263/263" in result.output


def test_errors_exit_with_1_and_tell_the_way_out_that_then_works(broken: dict[str, Path]) -> None:
    result = check(broken["units"])
    assert result.exit_code == 1
    assert "--units forces=Hartree/Bohr" in " ".join(result.output.split())
    assert check(broken["units"], "--units", "forces=Hartree/Bohr").exit_code == 0


def test_warnings_exit_with_1_only_where_strict(broken: dict[str, Path]) -> None:
    assert check(broken["copies"]).exit_code == 0
    assert check(broken["copies"], "--strict").exit_code == 1


def test_json_and_page_are_written_and_never_overwritten_unasked(tmp_path: Path) -> None:
    page, figures = tmp_path / "x.html", tmp_path / "x.json"
    assert check(TRAIN, "--html", page, "--json", figures, "--cutoff", "3", "--cutoff", "4.5").exit_code == 0
    record = json.loads(figures.read_text())
    assert [row["cutoff_A"] for row in record["parts"]["train"]["neighbours"]] == [3.0, 4.5]
    text = page.read_text()
    assert "Examination of a data set" in text
    assert "http-equiv" in text
    before = page.stat().st_mtime_ns
    again = check(TRAIN, "--html", page)
    assert isinstance(again.exception, ConfigError)
    assert page.stat().st_mtime_ns == before
    assert check(TRAIN, "--html", page, "--overwrite").exit_code == 0


def test_wrong_options_are_refused_with_the_nearest_right_one() -> None:
    wrong = check(TRAIN, "--units", "forces=Hartree/Bor").exception
    assert isinstance(wrong, ConfigError)
    assert "Hartree/Bohr" in str(wrong)
    assert isinstance(check(TRAIN, "--units", "forces").exception, ConfigError)
    assert isinstance(check(TRAIN, "--cutoff", "0.1").exception, ConfigError)


def test_a_key_that_no_frame_has_is_a_finding_with_the_nearest_one() -> None:
    result = check(TRAIN, "--energy", "REF_enery")
    assert result.exit_code == 1
    assert "did you mean 'REF_energy'?" in " ".join(result.output.split())


def test_a_missing_file_is_a_finding_and_exits_with_1(tmp_path: Path) -> None:
    result = check(TRAIN.with_name("trian.xyz.xz"))
    assert result.exit_code == 1
    assert "did you mean 'train.xyz.xz'?" in " ".join(result.output.split())
