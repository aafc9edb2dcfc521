"""Checkpoints: everything a run needs to go on, in one safetensors file, replaced as a whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as pack_tensors
from torch import Tensor, nn

from adatom.errors import CheckpointError

CHECKPOINT = "checkpoint.safetensors"
BEFORE = "checkpoint.before.safetensors"  # the one before it
# what may change when a run goes on: where and for how long it computes, not what; the name is that of the folder
FREE = {
    *("name", "limits", "devices", "nodes", "accelerator", "threads", "workers", "max_time", "detect", "loggers"),
    *("checkpoint_minutes", "patience", "validate_every"),
}
FORMAT = "2"  # of these files
LISTED = 12  # differences in a message


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

    What may change is where and for how long it computes: entries of ``FREE``.

    Parameters
    ----------
    saved, asked
        Nested plain values: the resolved configuration, fingerprints in place of the data files.

    Raises
    ------
    CheckpointError
        Lists the entries that differ.
    """
    before, now = _flat(saved), _flat(asked)
    entries = [*now, *(name for name in before if name not in now)]
    compared = [name for name in entries if name.split(".")[0] not in FREE]
    differ = [name for name in compared if not (name in before and name in now and before[name] == now[name])]
    if differ:
        told = differ[:LISTED]
        more = f"; and {len(differ) - LISTED} more" if len(differ) > LISTED else ""
        raise CheckpointError(
            f"this run was begun with another {', '.join(told)}, and would no longer be one run",
            where=str(where),
            wanted="; ".join(f"{name} = {before.get(name, 'nothing')}" for name in told) + more,
            got="; ".join(f"{name} = {now.get(name, 'nothing')}" for name in told) + more,
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
    """Write atomically, with a checksum; the checkpoint that was there stays beside it as ``BEFORE``.

    CheckpointError when the disk is full or not writable, the previous checkpoint still in place.
    """
    state = json.dumps(checkpoint.state)
    metadata = {"format": FORMAT, "state": state, "sha256": _digest(checkpoint.tensors, state)}
    data = pack_tensors(checkpoint.tensors, metadata)
    part, second = (path.with_name(f".{name}.{os.getpid()}.part") for name in (path.name, BEFORE))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:  # whole and on the disk before any name changes
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            second.unlink(missing_ok=True)
            _second_name(path, second)
            second.replace(path.with_name(BEFORE))
            second.unlink(missing_ok=True)  # where both are one file already, a system leaves both names
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        kept = f"{path} from before is whole" if path.exists() else "nothing was written"
        raise CheckpointError(
            "the checkpoint could not be written",
            where=str(path),
            got=f"{error.strerror or error}; {kept}",
            remedy="free disk space or choose another folder, then continue with --resume",
        ) from error


def _second_name(path: Path, second: Path) -> None:
    try:
        os.link(path, second)
    except OSError:  # not every file system has links
        shutil.copyfile(path, second)


def last(run: Path) -> tuple[Path, Checkpoint, str]:
    """The last whole checkpoint of a run folder, its path, and what is to be said of it.

    CheckpointError when none is whole.
    """
    try:
        return run / CHECKPOINT, read(run / CHECKPOINT), ""
    except CheckpointError as error:
        if not (run / BEFORE).exists():
            raise
        remark = f"{CHECKPOINT} is damaged ({error.got}): going on from the one before it"
        return run / BEFORE, read(run / BEFORE), remark


def reinstate(run: Path) -> None:
    """Put the checkpoint before a damaged one in its place: nothing is ever kept of the damaged one."""
    second = run / f".{CHECKPOINT}.{os.getpid()}.part"
    second.unlink(missing_ok=True)
    _second_name(run / BEFORE, second)
    second.replace(run / CHECKPOINT)


def sweep(run: Path) -> None:
    """Remove what is left of files that a run was writing when it was killed."""
    for part in run.glob(".*.part"):
        part.unlink(missing_ok=True)


def _digest(tensors: dict[str, Tensor], state: str) -> str:
    digest = hashlib.sha256(state.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read(path: Path) -> Checkpoint:
    """Read a checkpoint; CheckpointError when there is none or it is damaged."""
    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
            metadata = file.metadata()
        if metadata.get("format") != FORMAT:
            raise ValueError("it was written by another version of adatom")
        if _digest(tensors, metadata["state"]) != metadata["sha256"]:
            raise ValueError("its content does not match its checksum")
        return Checkpoint(tensors, json.loads(metadata["state"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            "there is no usable checkpoint here",
            where=str(path),
            got=str(error),
            remedy="start the run without --resume, in a folder of its own",
        ) from error
