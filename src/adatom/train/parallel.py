"""The processes of one run: how many there are, what they tell one another, and which part of a batch is whose.

Every process holds the whole network and the same weights. A batch of the plan is a batch of all processes together:
each takes a part of it, the gradients are summed, and every process does the same update. So the run is the same, to
rounding, whatever their number, and may go on with another. DDP's wrapper is not used: it averages over processes where
a sum over labels is meant, and would reduce each of the parts that a batch is cut into when memory is short.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from adatom.errors import ConfigError, TrainingError
from adatom.train.config import TrainConfig

T = TypeVar("T")


class Layout(NamedTuple):
    """Processes per node, and nodes."""

    devices: int
    nodes: int


def layout_of(config: TrainConfig, environment: Mapping[str, str] | None = None) -> Layout:
    """How many processes take part: as the launcher says (torchrun, srun), else as the configuration does.

    ConfigError where both speak and contradict each other, and where a launcher was meant and not used.
    """
    told = os.environ if environment is None else environment
    asked = Layout(config.devices, config.nodes)
    if "LOCAL_WORLD_SIZE" in told and "WORLD_SIZE" in told:
        local, whole = int(told["LOCAL_WORLD_SIZE"]), int(told["WORLD_SIZE"])
        return _agreed(asked, Layout(local, whole // local), "torchrun")
    tasks, nodes = int(told.get("SLURM_NTASKS", 1)), int(told.get("SLURM_NNODES", 1))
    if tasks > 1 and "SLURM_STEP_ID" not in told and "MASTER_ADDR" not in told:
        raise ConfigError(
            f"SLURM gave this job {tasks} tasks, and this process was not started by srun",
            wanted="srun adatom train ...",
            got="adatom train ... in the batch script itself",
            remedy="put srun before it, or ask SLURM for one task and give --devices",
        )
    if tasks > 1 and "SLURM_STEP_ID" in told:
        if tasks % nodes:
            raise ConfigError(
                "SLURM spread the tasks unevenly over the nodes",
                wanted="as many tasks on each node",
                got=f"{tasks} tasks on {nodes} nodes",
                remedy="set --ntasks-per-node",
            )
        return _agreed(asked, Layout(tasks // nodes, nodes), "srun")
    if config.nodes > 1 and "MASTER_ADDR" not in told:
        raise ConfigError(
            f"{config.nodes} nodes are asked for, and nothing says how to reach them",
            where="nodes",
            wanted="a launcher",
            got="one process of its own",
            remedy=f"torchrun --nnodes {config.nodes} --nproc-per-node {config.devices} ... $(which adatom) train ..., "
            "or srun adatom train ... (docs/training.md)",
        )
    return asked


def _agreed(asked: Layout, found: Layout, launcher: str) -> Layout:
    if asked not in (Layout(1, 1), found):
        raise ConfigError(
            f"{launcher} started other processes than the configuration asks for",
            where="devices, nodes",
            wanted=f"{asked.devices} processes on each of {asked.nodes} nodes",
            got=f"{found.devices} on each of {found.nodes}",
            remedy=f"leave devices and nodes out, or make them those of {launcher}",
        )
    return found


def accelerator_of(config: TrainConfig, devices: int) -> Literal["cuda", "cpu"]:
    """Where to compute; ConfigError when the machine does not have what is asked for.

    GPU means CUDA: graphs are float64, which Apple's MPS does not have.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if config.accelerator == "gpu" and gpus == 0:
        raise ConfigError(
            "this machine has no GPU that PyTorch can use",
            where="accelerator",
            wanted="a CUDA device",
            got="none",
            remedy="set accelerator to cpu or auto, or install PyTorch with CUDA",
        )
    accelerator: Literal["cuda", "cpu"] = "cpu" if config.accelerator == "cpu" or gpus == 0 else "cuda"
    most, kind = (gpus, "GPUs") if accelerator == "cuda" else (os.cpu_count() or 1, "CPU cores")
    if devices > most:
        raise ConfigError(
            "more processes are asked for than there are devices",
            where="devices",
            wanted=f"at most {most}, the {kind} of this machine",
            got=str(devices),
            remedy=f"set devices to {most} or less",
        )
    return accelerator


class Team:
    """All processes of a run, as one of them sees them."""

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric
        self.rank, self.size = fabric.global_rank, fabric.world_size
        self.device: torch.device = fabric.device
        self.first: bool = fabric.is_global_zero  # who writes and speaks

    @classmethod
    def launch(cls, config: TrainConfig) -> Team:
        """Start or join the processes of a run."""
        layout = layout_of(config)
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # what it tells is told by the log of the run
        fabric = Fabric(
            accelerator=accelerator_of(config, layout.devices),
            devices=layout.devices,
            num_nodes=layout.nodes,
            strategy="auto" if layout == (1, 1) else "ddp",
        )
        fabric.launch()
        return cls(fabric)

    def gather(self, values: Sequence[float]) -> Tensor:
        """A row of numbers of every process, (processes, len(values)) float64."""
        row = torch.tensor(values, dtype=torch.float64, device=self.device)
        if self.size == 1:
            return row.unsqueeze(0)
        rows = [torch.empty_like(row) for _ in range(self.size)]
        with _together():
            torch.distributed.all_gather(rows, row)
        return torch.stack(rows)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place; the same bits in each of them."""
        if self.size > 1:
            with _together():
                torch.distributed.all_reduce(values)
        return values

    def wait(self) -> None:
        """Until all are here."""
        with _together():
            self.fabric.barrier()


@contextmanager
def _together() -> Iterator[None]:
    """TrainingError where another process has gone: the reason stands in what that one said."""
    try:
        yield
    except RuntimeError as error:
        raise TrainingError(
            "another process of this run has ended",
            got=str(error).splitlines()[0],
            remedy="see what it said; then go on with --resume",
        ) from error


def divide(members: Sequence[T], sizes: Sequence[float] | np.ndarray, parts: int) -> list[list[T]]:
    """Members in ``parts`` lists of about equal sums of sizes: the largest first, each to whoever has least.

    The order within a part is that of the members; a part is empty where there are fewer members than parts.
    """
    if parts == 1:
        return [list(members)]
    loads, chosen = np.zeros(parts), [0] * len(members)
    for k in np.argsort(-np.asarray(sizes, dtype=np.float64), kind="stable"):
        chosen[k] = int(loads.argmin())
        loads[chosen[k]] += sizes[k]
    return [[m for m, c in zip(members, chosen, strict=True) if c == part] for part in range(parts)]
