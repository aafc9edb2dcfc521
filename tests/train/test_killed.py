"""A run that was killed at any moment and goes on ends as the one that nobody disturbed, to the last bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def kill(trials: int, folder: Path, kinds: str, seed: int = 0) -> dict[str, int]:
    command = [sys.executable, TESTS / "train" / "killing.py", "--trials", str(trials), "--folder", folder]
    places = [str(TESTS), str(TESTS.parent / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(places)}
    done = subprocess.run(
        [*command, "--kinds", kinds, "--seed", str(seed)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_a_run_that_is_killed_three_times_over_ends_as_if_nobody_had(tmp_path: Path) -> None:
    assert kill(3, tmp_path, "plateau,stages,two")["kills"] >= 3


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_fifty_killed_runs_of_every_kind_end_as_if_nobody_had(tmp_path: Path) -> None:
    assert kill(54, tmp_path, "cosine,plateau,stages,workers,two,two stages", seed=1)["kills"] >= 54
