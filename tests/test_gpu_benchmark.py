"""The script for whoever has a card, in little on a processor: it ends, writes what it found, survives failures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "gpu" / "run_all.sh"


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a card the script runs as it is meant to")
def test_a_part_that_fails_is_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    to = tmp_path / "gpu.json"
    command = ["sh", str(SCRIPT), "--device", "cpu", "--quick", "--only", "tuning,large,dynamics", "--to", str(to)]
    environment = os.environ | {"PYTHON": sys.executable, "ADATOM_KERNELS": "off"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(to.read_text())
    assert record["torch"] == torch.__version__
    found = {entry["part"]: entry for entry in record["results"]}
    assert found["large allscaip S"]["us_per_atom"] > 0
    assert found["dynamics nemp S"]["us_per_step"] > 0
    assert [p["part"] for p in record["parts"]] == ["graphs", "dynamics nemp S", "large allscaip S"]
    assert "allscaip S" in done.stdout.splitlines()[-2]  # the table comes last


def test_a_part_that_is_slow_or_broken_is_stopped_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import argparse
    import time

    import run_all

    options = argparse.Namespace(began=time.time(), seconds=60.0, device="nowhere", quick=True, to=tmp_path / "x.json")
    run = run_all.Run(options, tmp_path)
    run.alone([run_all.Part("speed nemp S", 60), run_all.Part("speed nemp S", 0.1)])
    broken, slow = run.parts
    assert "exit status" in broken["error"]
    assert "stopped after" in slow["error"]
    assert json.loads((tmp_path / "x.json").read_text())["parts"] == run.parts
    monkeypatch.delitem(sys.modules, "run_all")
