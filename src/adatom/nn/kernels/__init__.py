"""Kernels for graphics cards, in Triton. Each has a twin in plain PyTorch beside its caller, who says when it is used.

``PRESENT`` is False where kernels cannot run: no CUDA build of torch, no Triton, or ``ADATOM_KERNELS=off`` in the
environment.
"""

from __future__ import annotations

import importlib.util
import os

import torch

PRESENT = (
    torch.version.cuda is not None
    and importlib.util.find_spec("triton") is not None
    and os.environ.get("ADATOM_KERNELS", "on") != "off"
)
