"""How much memory a potential needs for a structure, known before it is evaluated."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from ase.build import bulk
from torch import Tensor

from adatom.elements import symbol
from adatom.errors import MemoryLimitError
from adatom.graph import Graph
from adatom.models.base import Model
from adatom.models.layered import Layered
from adatom.neighbors import graph_from_atoms

SMALL = 200_000  # slots: so little always fits, and is not looked at
TRANSIENT = 1.6  # peak over what differentiation keeps: temporaries, gradients, what the allocator holds
PER_SLOT_STREAMED = 32  # bytes: vector, element and presence of a neighbour
WIDER = 8  # rows of later layers beside those of the first, at most
PER_EDGE = 250  # bytes of the neighbour list of one edge: what stays, and sorting it


class Footprint(NamedTuple):
    """What differentiation keeps, bytes."""

    per_atom: float
    per_slot: float  # of one of the M neighbour slots of an atom

    def of(self, atoms: int, width: int) -> float:
        """Bytes at the peak for ``atoms`` atoms with ``width`` slots each, the graph itself among them."""
        return atoms * (TRANSIENT * (self.per_atom + width * self.per_slot) + width * PER_EDGE)


def footprint(network: Model, element: int, training: bool = False) -> Footprint:
    """Measured: what is kept while two small crystals, of few and of many neighbours, are differentiated.

    ``training`` counts the graph of the forces too, which is differentiated once more.
    """
    dtype = str(next(network.parameters()).dtype)
    key = (type(network).__name__, network.config.model_dump_json(), dtype, element, training)
    if key not in _KNOWN:
        sizes = []
        for share in (0.85, 0.42):  # spacing over cutoff of a simple cubic lattice: 6 and 56 neighbours
            cell = bulk(symbol(element), "sc", a=share * network.cutoff) * (4, 4, 4)
            graph = graph_from_atoms(cell, network.cutoff)
            sizes.append((graph.slots.shape[1], _kept(network, graph, training) / len(cell)))
        (few, low), (many, high) = sizes
        slope = max((high - low) / (many - few), 0.0)
        _KNOWN[key] = Footprint(max(low - few * slope, 0.0), slope)
    return _KNOWN[key]


_KNOWN: dict[tuple[str, str, str, int, bool], Footprint] = {}


def _kept(network: Model, graph: Graph, training: bool) -> int:
    """Bytes that autograd keeps for energy and forces."""
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    graph = graph.to(device=next(network.parameters()).device)
    positions = graph.positions.clone().requires_grad_()
    mode = network.training
    network.train(training)
    try:
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            energy = network(graph.replace(positions=positions)).energy.sum()
            if energy.requires_grad:
                torch.autograd.grad(energy, positions, create_graph=training, allow_unused=True)
    finally:
        network.train(mode)
    return sum(seen.values())


def available(device: torch.device) -> float:
    """Bytes that can still be had on a device: free memory, of a container where that is less."""
    if device.type == "cuda":
        idle, _ = torch.cuda.mem_get_info(device)
        return float(idle + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    free = _unused()
    limit, used = (_cgroup(name) for name in ("memory.max", "memory.current"))
    if limit is not None and used is not None:
        free = min(free, limit - used + _reclaimable())
    return max(free, 1.0)


def _unused() -> float:
    """Bytes of memory that the system could hand out; infinite where it does not say."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines() if ":" in line)
        return 1024.0 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        pass
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # no such call, or no such name
        return float("inf")


def _reclaimable() -> float:
    """Bytes of files that a container holds in memory and gives back when asked."""
    try:
        lines = (Path("/sys/fs/cgroup") / "memory.stat").read_text().splitlines()
        return float(dict(line.split(" ", 1) for line in lines).get("inactive_file", 0.0))
    except (OSError, ValueError):
        return 0.0


def _cgroup(name: str) -> float | None:
    try:
        return float((Path("/sys/fs/cgroup") / name).read_text())
    except (OSError, ValueError):  # none, or "max"
        return None


class Fit(NamedTuple):
    """Most atoms of one structure, or of one batch, that fit into some memory."""

    batch: int  # in training
    whole: int  # energy and forces, all atoms at once
    streamed: int | None  # the same in chunks; None where the network cannot be streamed


def fit(network: Model, element: int, neighbours: float, memory: float) -> Fit:
    """What fits into ``memory`` bytes when an atom has ``neighbours`` neighbours."""
    width = round(1.2 * neighbours) + 1  # the widest atom sets the number of slots

    def most(training: bool) -> int:
        return int(memory / footprint(network, element, training).of(1, width))

    layered = [part for part in network.children() if isinstance(part, Layered)]
    if not layered:
        return Fit(most(True), most(False), None)
    # rows and their slopes are all that is kept of a layer; no layer tells more than the widest one
    start = layered[0].start(torch.tensor([element], device=next(network.parameters()).device))
    rows = 2 * len(layered[0].layers) * sum(row.nbytes for row in start) * (WIDER if len(layered[0].layers) > 1 else 1)
    return Fit(most(True), most(False), int(memory / (width * (PER_EDGE + PER_SLOT_STREAMED) + rows)))


def share(network: Model, graph: Graph) -> float:
    """Part of the free memory that differentiating a graph whole would take; 0 for what always fits."""
    atoms, width = graph.slots.shape
    if atoms * width <= SMALL:
        return 0.0
    needed = footprint(network, int(graph.numbers[0]), network.training).of(atoms, width)
    return needed / available(graph.positions.device)


def require(network: Model, graph: Graph) -> None:
    """MemoryLimitError when a graph needs more memory than there is, before it is tried."""
    taken, (atoms, width) = share(network, graph), graph.slots.shape
    if taken > 1.0:
        free = available(graph.positions.device)
        raise MemoryLimitError(
            f"{atoms} atoms with up to {width} neighbours need more memory than there is",
            wanted=f"at most about {int(atoms / taken)} such atoms in {free / 2**30:.1f} GiB",
            got=f"{taken * free / 2**30:.1f} GiB needed",
            remedy="take smaller batches or a smaller system, a shorter cutoff, or a machine with more memory",
        )


def ran_out(error: Exception) -> bool:
    """Whether an error says that memory has run out, as torch does on every device."""
    if isinstance(error, (MemoryError, MemoryLimitError, torch.OutOfMemoryError)):
        return True
    return "allocate memory" in str(error) or "out of memory" in str(error)


@contextmanager
def guard(network: Model, graph: Graph) -> Iterator[None]:
    """MemoryLimitError with the number of neighbours where a graph turns out not to fit."""
    try:
        yield
    except RuntimeError as error:
        if "memory" not in str(error) or "illegal" in str(error):  # how torch says it on every device
            raise
        sizes = f"{graph.slots.shape[0]} atoms with up to {graph.slots.shape[1]} neighbours"
        raise MemoryLimitError(
            "the neighbours of these atoms do not fit into memory, and none is left out",
            got=f"{sizes} within {network.cutoff:g} Å",
            remedy="look for atoms on one spot, take smaller batches, or train with a shorter cutoff",
        ) from error
