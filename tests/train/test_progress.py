"""What is shown while a run goes on: all of it in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from adatom.train.progress import Progress

STEP = {"kind": "step", "step": 70, "epoch": 3, "lr": 5e-3, "loss": 0.1234, "structures_per_s": 321.4, "seconds": 20.0}
VALID = {
    "kind": "valid", "step": 70, "epoch": 3, "seconds": 21.0, "loss": 0.4567,
    "energy_rmse_meV_per_atom": 12.34, "forces_rmse_meV_per_A": 98.76, "forces_mae_meV_per_A": 54.32,
    "stress_rmse_GPa": float("nan"),
}  # fmt: skip


def shown(terminal: bool, every_seconds: float = 0.0, records: int = 1) -> str:
    file = io.StringIO()
    console = Console(file=file, width=140, force_terminal=terminal, color_system=None)
    with Progress("a run", console, every_seconds) as display:
        display.started = time.monotonic() - 60.0
        for _ in range(records):
            display.step(STEP, 0.25)
            display.valid(VALID)
    return file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_errors_and_the_time_left_are_shown(terminal: bool) -> None:
    text = shown(terminal)
    for said in ("a run", "0.4567", "E rmse", "meV/atom", "12.3", "F rmse", "meV/Å", "98.8", "54.3", "3:00 left"):
        assert said in text, said


def test_a_terminal_shows_training_too() -> None:
    text = shown(True)
    for said in ("step 70", "training loss 0.1234", "321 structures/s", "lr 5.0e-03"):
        assert said in text, said


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_not_known_is_left_out(terminal: bool) -> None:
    assert "nan" not in shown(terminal)
    assert "stress rmse" not in shown(terminal)


def test_a_log_file_gets_a_line_now_and_then() -> None:
    assert shown(False, every_seconds=0.0, records=5).count("98.8") == 5
    assert shown(False, every_seconds=100.0, records=5).count("98.8") == 0


def test_a_terminal_keeps_to_the_last_validations() -> None:
    last = shown(True, records=30).split("a run")[-1]
    assert 1 <= last.count("98.8") <= 10


def test_a_run_without_validation_shows_its_steps() -> None:
    file = io.StringIO()
    with Progress("a run", Console(file=file, width=140, force_terminal=True, color_system=None)) as display:
        display.step(STEP, 0.001)
    assert "step 70" in file.getvalue()
    assert " left" not in file.getvalue(), "too early to tell"
