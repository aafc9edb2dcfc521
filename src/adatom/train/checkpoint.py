"""Checkpoints: everything a run needs to go on, in one safetensors file, replaced as a whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as pack_tensors
from torch import Tensor, nn

from adatom.errors import CheckpointError
from adatom.model_file import write_atomically

CHECKPOINT = "checkpoint.safetensors"
# what may change when a run goes on: where and for how long it computes, not what; the name is that of the folder
FREE = {"name", "limits", "devices", "accelerator", "threads", "checkpoint_minutes", "patience", "validate_every"}


class Checkpoint(NamedTuple):
    """Tensors by name, and plain JSON values."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]


def gather(
    network: nn.Module, averages: dict[str, list[Tensor]], optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> Checkpoint:
    """Collect weights, running averages and optimiser moments."""
    tensors = {f"network.{name}": t for name, t in network.state_dict().items()}
    for name, values in averages.items():
        tensors |= {f"{name}.{index}": t for index, t in enumerate(values)}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in moments.items()}
    return Checkpoint({name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}, state)


def scatter(
    checkpoint: Checkpoint,
    network: nn.Module,
    averages: dict[str, list[Tensor]],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Put a checkpoint back where ``gather`` took it from; CheckpointError when it is of another network."""
    try:
        _scatter(checkpoint.tensors, network, averages, optimizer)
    except (KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            "the checkpoint belongs to another run",
            wanted="the same model and optimiser as when it was written",
            got=str(error).splitlines()[0],
            remedy="continue with the config.yaml of the run folder, or start a run of another name without --resume",
        ) from error


def _scatter(
    tensors: dict[str, Tensor],
    network: nn.Module,
    averages: dict[str, list[Tensor]],
    optimizer: torch.optim.Optimizer,
) -> None:
    network.load_state_dict({k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")})
    for name, values in averages.items():
        for place, value in enumerate(values):
            value.copy_(tensors[f"{name}.{place}"])
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, moment = key.split(".")
            moments.setdefault(int(index), {})[moment] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})


def same_run(saved: dict[str, Any], asked: dict[str, Any], where: Path) -> None:
    """Refuse to go on with other data or other settings than those the checkpoint was written with.

    Parameters
    ----------
    saved, asked
        Nested plain values: the resolved configuration, fingerprints in place of the data files. Entries of ``FREE``
        are not compared.

    Raises
    ------
    CheckpointError
        Names the first entry that differs.
    """
    before, now = _flat(saved), _flat(asked)
    for entry in [*now, *(name for name in before if name not in now)]:
        if entry.split(".")[0] in FREE or (entry in before and entry in now and before[entry] == now[entry]):
            continue
        raise CheckpointError(
            f"this run was begun with another {entry}, and would no longer be one run",
            where=str(where),
            wanted=f"{entry} = {before.get(entry, 'nothing')}",
            got=f"{entry} = {now.get(entry, 'nothing')}",
            remedy="continue with the config.yaml of the run folder and the same data, or start a run of another name",
        )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested entries under dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """Inside the block ``path`` is written; CheckpointError when the disk is full or not writable."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            "a file of the run could not be written",
            where=str(path),
            got=error.strerror or str(error),
            remedy="free disk space or choose another folder, then continue with --resume",
        ) from error


def write(checkpoint: Checkpoint, path: Path) -> None:
    """Write atomically.

    CheckpointError when the disk is full or not writable, the previous checkpoint still in place.
    """
    try:
        write_atomically(path, pack_tensors(checkpoint.tensors, {"state": json.dumps(checkpoint.state)}))
    except OSError as error:
        kept = f"{path} from before is whole" if path.exists() else "nothing was written"
        raise CheckpointError(
            "the checkpoint could not be written",
            where=str(path),
            got=f"{error.strerror or error}; {kept}",
            remedy="free disk space or choose another folder, then continue with --resume",
        ) from error


def read(path: Path) -> Checkpoint:
    """Read a checkpoint; CheckpointError when there is none or it is damaged."""
    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
            return Checkpoint(tensors, json.loads(file.metadata()["state"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            "there is no usable checkpoint here",
            where=str(path),
            got=str(error),
            remedy="start the run without --resume, in a folder of its own",
        ) from error
