"""Two processes of LAMMPS under mpirun say what one says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lammps_ranks

Said = Mapping[str, Mapping[str, Any]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What two processes wrote, and one."""
    two, one = tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("one")
    command = [
        str(Path(sys.executable).with_name("mpirun")),
        "-n",
        "2",
        sys.executable,
        lammps_ranks.__file__,
        str(two),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    lammps_ranks.all_cases(one)
    return two, one


@pytest.mark.parametrize(
    ("case", "way"),
    [("tilted", "domains"), ("layers", "domains"), ("empty", "domains"), ("lone", "domains"), ("whole", "gathered")],
)
def test_two_processes_say_what_one_says(folders: tuple[Path, Path], case: str, way: str) -> None:
    two, one = (dict(np.load(folder / f"{case}.npz")) for folder in folders)
    assert (int(two["processes"]), str(two["way"])) == (2, way)
    assert (int(one["processes"]), str(one["way"])) == (1, "whole")
    assert np.abs(two["f"] - one["f"]).max() < 1e-9
    names = [name for name in one if name.startswith("thermo ")]
    assert {"thermo PotEng", "thermo Pxy" if case != "empty" else "thermo Pxx"} <= set(names)
    for name in names:
        assert float(two[name]) == pytest.approx(float(one[name]), rel=1e-8, abs=1e-6), name
    assert (int(two["least"]) == 0) == (case == "empty")


def test_atoms_have_changed_hands(folders: tuple[Path, Path]) -> None:
    found = np.load(folders[0] / "tilted.npz")
    start = lammps_ranks.tilted()
    away = (found["x"] - start.get_positions()) @ np.linalg.inv(start.cell.array)
    assert np.abs(away - np.round(away)).max() * 9.2 > 1.0  # Å: wherever the border is, some have crossed it
    log = (folders[0] / "tilted.log").read_text()
    assert "2 by 1 by 1 MPI processor grid" in log or "1 by 1 by 2" in log or "1 by 2 by 1" in log


def test_what_one_process_finds_stops_both(folders: tuple[Path, Path]) -> None:
    for rank in (0, 1):
        assert "SimulationError: the potential gave no number" in (folders[0] / f"broken.{rank}").read_text()
