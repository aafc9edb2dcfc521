"""Runs that are killed at random moments and go on, against the same run left alone: a program of its own.

    python tests/train/killing.py --trials 50 --folder /tmp/kills --seed 0

It forks: the package is imported once, and each run is a child that SIGKILL ends without a word. Every trial draws a
kind of run, kills it between one and four times at random moments (while it reads, trains, validates, writes a
checkpoint), lets it go on with ``resume`` until it ends, and compares its weights and its log with those of the run
that nobody disturbed: to the last bit. Two processes are started as torchrun starts them, and killed together or one
alone.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import random
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import load_file

from adatom.train.config import TrainConfig
from adatom.train.run import resumable, train
from train.runs import configuration, slices

# some 160 steps of 4 ms: long enough to be hit in every phase, short enough for many trials
KINDS: dict[str, dict[str, Any]] = {
    "cosine": {"limits": {"epochs": 12}},
    "plateau": {
        "limits": {"epochs": 12},
        "optimizer": {"schedule": "plateau", "plateau_patience": 1, "warmup_steps": 4, "ema": 0.9},
        "keep": "best",
    },
    "stages": {"limits": {"epochs": 12}, "schedule": "direct-then-conservative"},
    "workers": {"limits": {"epochs": 12}, "workers": 2},
    "two": {"limits": {"epochs": 8}, "devices": 2},
    "two stages": {"limits": {"epochs": 8}, "devices": 2, "schedule": "direct-then-conservative"},
}
LOSSES = ("step", "epoch", "loss", "lr", "gradient_norm", "energy_rmse_meV_per_atom", "forces_rmse_meV_per_A", "stage")
PATIENCE = 120.0  # s for one session
NOTICED = 20.0  # s for a process to notice that the other has gone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS), help="of the runs, drawn in turn")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    data = slices(options.folder, 24, 2)
    draw, kinds, kills, alone = random.Random(options.seed), options.kinds.split(","), 0, {}
    for trial in range(options.trials):
        kind = kinds[trial % len(kinds)]
        values = configuration(data, checkpoint_minutes=5e-4, **KINDS[kind])
        if kind not in alone:
            start = time.monotonic()
            session(values, options.folder / f"alone {kind}", None, draw)
            alone[kind] = time.monotonic() - start
        folder = options.folder / f"trial {trial}"
        hit = disturbed(values, folder, alone[kind], draw)
        kills += hit
        compare(options.folder / f"alone {kind}" / "run", folder / "run", f"trial {trial}, {kind}, {hit} kills")
        shutil.rmtree(folder)
        print(f"trial {trial}: {kind}, killed {hit} times, equal to the last bit", flush=True)
    print(json.dumps({"trials": options.trials, "kills": kills}))


def disturbed(values: dict[str, Any], folder: Path, length: float, draw: random.Random) -> int:
    """A run that is killed up to four times; how often it was."""
    hit = 0
    for _ in range(draw.randint(1, 4)):
        hit += session(values, folder, draw.uniform(0.0, 0.9 * length), draw)
    while session(values, folder, None, draw):
        pass
    return hit


def session(
    values: dict[str, Any],
    folder: Path,
    after: float | None,
    draw: random.Random,
    until: Callable[[], bool] = lambda: False,
) -> bool:
    """Run, or go on, in child processes; whether they were killed, ``after`` some seconds or when ``until`` says so."""
    if (folder / "run" / "model.adatom").exists() and (folder / "run" / "report.html").exists():
        return False
    count = values.get("devices", 1)
    port, starts = free_port(), sessions(folder)
    children = [child(values, folder, rank, count, port) for rank in range(count)]
    end = time.monotonic() + (PATIENCE if after is None else after)
    running = set(children)
    while running and time.monotonic() < end and not until():
        for pid in list(running):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                running.discard(pid)
                if status:
                    sys.exit(f"{folder}: a process ended with status {status}:\n{(folder / 'error').read_text()}")
        time.sleep(0.002)
    if not running:
        return False
    if after is None and not until():
        sys.exit(f"{folder}: no end after {PATIENCE} s")
    victims = list(running)
    if count == 2 and draw.random() < 0.5:  # one alone: the other must notice, not wait for ever
        victims = [draw.choice(victims)]
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    await_all(running, folder, starts)
    return True


def await_all(running: set[int], folder: Path, starts: int) -> None:
    """Until all have ended, the one that lost its partner too.

    One that still waits for its partner to join is ended, as torchrun and srun would do; one that has begun must notice
    by itself.
    """
    end, left = time.monotonic() + NOTICED, set(running)
    while left:
        left -= {pid for pid in left if os.waitpid(pid, os.WNOHANG)[0]}
        if left and time.monotonic() > end:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            if sessions(folder) > starts:
                sys.exit(f"{folder}: a process did not notice for {NOTICED} s that the other had gone")
            return
        time.sleep(0.002)


def sessions(folder: Path) -> int:
    """How often training has begun."""
    log = folder / "run" / "log.jsonl"
    return log.read_text().count('"kind": "start"') if log.exists() else 0


def child(values: dict[str, Any], folder: Path, rank: int, count: int, port: int) -> int:
    """Fork one process of a run."""
    pid = os.fork()
    if pid:
        return pid
    try:
        if count > 1:
            places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "GROUP_RANK": 0}
            places |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "none"}
            os.environ.update({name: str(value) for name, value in places.items()})
        train(TrainConfig.parse(values), folder, resumable(folder / "run"), Console(file=io.StringIO(), width=120))
    except BaseException as error:  # a child never returns into the program that forked it
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "error").write_text(f"rank {rank}: {type(error).__name__}: {error}")
        os._exit(1)
    os._exit(0)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def compare(alone: Path, other: Path, what: str) -> None:
    """Exit with a message unless weights and losses are the same to the last bit."""
    theirs, ours = load_file(alone / "model.adatom"), load_file(other / "model.adatom")
    if theirs.keys() != ours.keys():
        sys.exit(f"{what}: other weights")
    different = [name for name, tensor in theirs.items() if not torch.equal(tensor, ours[name])]
    if different:
        sys.exit(f"{what}: weights differ: {', '.join(different[:5])}")
    if losses(alone) != losses(other):
        pairs = itertools.zip_longest(losses(alone), losses(other))
        sys.exit(f"{what}: the logs differ, first in {next(pair for pair in pairs if pair[0] != pair[1])}")


def losses(run: Path) -> list[dict[str, Any]]:
    """What the log says of steps and validations, times left out."""
    records = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [{k: r[k] for k in ("kind", *LOSSES) if k in r} for r in records if r["kind"] in ("step", "valid", "stage")]


if __name__ == "__main__":
    main()
