"""Two machines, played by two agents of torchrun on this one: they take the steps that one process takes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from train.killing import free_port
from train.runs import configuration, log, run, slices
from train.sharing import LONG, difference

SECONDS = 500.0  # for a run of eight epochs of four steps on a busy machine, most of it imports


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs gloo")
def test_two_agents_of_torchrun_lose_and_learn_as_one_process(tmp_path: Path) -> None:
    values = configuration(slices(tmp_path, 11, 2), **LONG)
    one = run(values, tmp_path / "one")
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(values))
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}", "--rdzv-id", "nodes"]
    agent = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", *meeting]
    verb = ["--no-python", sys.executable, "-c", "from adatom.cli import main; main()", "train"]
    command = [*agent, *verb, str(config), "--folder", str(tmp_path / "two")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    agents = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    try:
        said = [process.communicate(timeout=SECONDS)[0] for process in agents]
    finally:
        for process in agents:
            process.kill()
    assert [process.returncode for process in agents] == [0, 0], "\n".join(said)
    two = tmp_path / "two" / "run"
    assert [start["processes"] for start in log(two, "start")] == [2]
    assert difference(one, two) < 1e-10
    assert sum("Errors" in text for text in said) == 1, "one process speaks"
