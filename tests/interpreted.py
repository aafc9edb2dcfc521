"""Where tests of kernels run: on a card where there is one, interpreted in a process of their own elsewhere.

Triton decides when it is imported whether kernels are interpreted.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
CARD = torch.cuda.is_available()
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
TRITON = importlib.util.find_spec("triton") is not None
DEVICE = "cuda" if CARD and not INTERPRETED else "cpu"

QUIET = pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")  # Triton 3.9 speaks of 3.10
needs_triton = pytest.mark.skipif(not TRITON, reason="triton is not installed")
runs_kernels = pytest.mark.skipif(
    not (TRITON and (CARD or INTERPRETED)), reason="triton is not installed" if not TRITON else "in its own process"
)
in_a_process_of_their_own = pytest.mark.skipif(
    not TRITON or CARD or INTERPRETED, reason="they run on the card" if CARD else "triton is not installed, or at work"
)


def run_interpreted(file: str) -> None:
    """The tests of a file once more, kernels interpreted."""
    command = [sys.executable, "-m", "pytest", "-q", "-W", "default", "-p", "no:cacheprovider", file]
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
