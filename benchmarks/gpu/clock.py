"""Times and memory: device events and medians on a card, wall time elsewhere."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

SOON = 1.0  # s; what takes longer is done three times only


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(call: Callable[[], Any], device: torch.device, rounds: int = 15, warmup: int = 3) -> float:
    """Median time of a call in seconds."""
    begin = time.perf_counter()
    call()
    synchronize(device)
    if time.perf_counter() - begin > SOON:
        rounds, warmup = 3, 1
    for _ in range(warmup):
        call()
    return statistics.median(_once(call, device) for _ in range(rounds))


def seconds_each(calls: dict[str, Callable[[], Any]], device: torch.device, rounds: int = 15) -> dict[str, float]:
    """Median times of several calls, taken in turns."""
    for call in calls.values():
        for _ in range(3):
            call()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            taken[name].append(_once(call, device))
    return {name: statistics.median(values) for name, values in taken.items()}


def _once(call: Callable[[], Any], device: torch.device) -> float:
    if device.type != "cuda":
        begin = time.perf_counter()
        call()
        return time.perf_counter() - begin
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize(device)
    start.record()
    call()
    end.record()
    torch.cuda.synchronize(device)
    return float(start.elapsed_time(end)) / 1e3


def reset_peak(device: torch.device) -> None:
    """Forget the peak so far, where it can be forgotten."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_mib(device: torch.device) -> float:
    """Most memory since then: of tensors on a card, of the process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
