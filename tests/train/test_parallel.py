"""Several processes are one run: the same batches, the same sums, whoever takes which part."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from adatom.errors import ConfigError
from adatom.train.config import TrainConfig
from adatom.train.parallel import Layout, divide, layout_of
from train.runs import configuration

TESTS = Path(__file__).parents[1]
DATA = {"train": ["train.xyz"]}


def shared(folder: Path, cases: str) -> dict[str, float]:
    command = [sys.executable, TESTS / "train" / "sharing.py", "--folder", folder, "--cases", cases]
    places = [str(TESTS), str(TESTS.parent / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(places)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_two_processes_lose_and_learn_as_one_and_hand_over_to_each_other(tmp_path: Path) -> None:
    found = shared(tmp_path, "two,plateau")
    assert set(found) == {"two", "from 2 to 1", "from 1 to 2", "plateau"}
    assert max(found.values()) < 1e-10, found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_other_kinds_of_runs_are_the_same_too(tmp_path: Path) -> None:
    found = shared(tmp_path, "three,stages,one large batch")
    assert max(found.values()) < 1e-10, found


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_a_batch_is_parted_whole_evenly_and_in_its_order(parts: int) -> None:
    random = np.random.default_rng(parts)
    for size in (0, 1, 2, 40):
        members, sizes = random.permutation(size).tolist(), random.integers(1, 200, size)
        found = divide(members, sizes, parts)
        assert len(found) == parts
        assert Counter(k for part in found for k in part) == Counter(members)
        assert all(part == [k for k in members if k in part] for part in found)
        loads = [sum(int(sizes[members.index(k)]) for k in part) for part in found]
        if size > 0:  # greedy: nobody is ahead of another by more than one member
            assert max(loads) - min(loads) <= sizes.max()


def layout(environment: dict[str, str], **asked: int) -> Layout:
    return layout_of(TrainConfig.parse(configuration(DATA, **asked)), environment)


def test_the_launcher_says_how_many_processes_there_are() -> None:
    assert layout({}) == (1, 1)
    assert layout({}, devices=2) == (2, 1)
    torchrun = {"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
    assert layout(torchrun) == (4, 2)
    assert layout(torchrun, devices=4, nodes=2) == (4, 2)
    srun = {"SLURM_NTASKS": "6", "SLURM_NNODES": "2", "SLURM_STEP_ID": "0"}
    assert layout(srun) == (3, 2)
    assert layout({"SLURM_NTASKS": "1", "SLURM_NNODES": "1"}, devices=2) == (2, 1), "one task that starts its own"


@pytest.mark.parametrize(
    ("environment", "asked", "said"),
    [
        ({"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}, {"devices": 4}, "torchrun started other processes"),
        ({"SLURM_NTASKS": "4", "SLURM_NNODES": "1"}, {}, "not started by srun"),
        ({"SLURM_NTASKS": "4", "SLURM_NNODES": "1", "SLURM_STEP_ID": "0"}, {"devices": 2}, "srun started other"),
        ({"SLURM_NTASKS": "5", "SLURM_NNODES": "2", "SLURM_STEP_ID": "0"}, {}, "unevenly"),
        ({}, {"nodes": 2}, "how to reach them"),
    ],
)
def test_a_launcher_that_was_not_used_or_says_otherwise_is_named(
    environment: dict[str, str], asked: dict[str, int], said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        layout(environment, **asked)
    assert caught.value.remedy
