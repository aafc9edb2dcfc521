"""The architectures of this package for ``speed.py``: every size, form and code, as ``nemp-S-default-eager``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from itertools import product

import ase
import torch
from speed_worker import Call, System, largest, serve

from adatom.graph import Graph
from adatom.models import MODELS, read_model
from adatom.models.base import Facts
from adatom.neighbors import graph_from_atoms
from adatom.potential import Potential
from adatom.priors.zbl import ZBL
from adatom.testing.speed import code_of, step, with_code

CODE = {"eager": "off", "compiled": "on"}
NAMES = ["-".join(words) for words in product(MODELS, "SML", ("default", "paper"), CODE)]


class Ours(System):
    """A network with random weights and the repulsion that recipes add."""

    packages = ("adatom", "torch")

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.architecture, self.size, self.form, self.code = name.split("-")
        self.device = torch.device(options.device)
        self.known: dict[tuple[int, ...], Potential] = {}

    def potential(self, elements: tuple[int, ...], graph: Graph) -> Potential:
        """One for each set of elements, in float32; 5 Å."""
        if elements not in self.known:
            torch.manual_seed(0)
            mean = graph.edges.shape[1] / graph.numbers.shape[0]
            values = {"architecture": self.architecture, "size": self.size, "form": self.form, "cutoff": 5.0}
            config = read_model(values).completed(Facts(elements, mean))
            network = MODELS[self.architecture](config)
            plain = Potential(network, dict.fromkeys(elements, 0.0), 1.0, (ZBL(),), config.derivatives)
            self.known[elements] = with_code(plain.to(self.device), CODE[self.code])
        return self.known[elements]

    def prepare(self, atoms: ase.Atoms, elements: list[int], task: str) -> Call:
        graph = graph_from_atoms(atoms, 5.0).to(self.device)
        potential = self.potential(tuple(elements), graph)
        call = step(potential, graph, task)  # type: ignore[arg-type]

        def checked() -> float:
            force = largest(call().forces)
            if code_of(potential) != self.code:  # eager code must not pass for compiled
                why = getattr(getattr(potential, "runner", None), "dropped", "")
                raise RuntimeError(f"{code_of(potential)} code ran. {why}")
            return force

        return checked

    def clock(self, call: Call) -> tuple[float, float]:
        if self.device.type != "cuda":
            return super().clock(call)
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        force = call()
        end.record()
        torch.cuda.synchronize()
        return 1e-3 * begin.elapsed_time(end), force

    def peak(self) -> float:
        return torch.cuda.max_memory_allocated() / 1024.0**2 if self.device.type == "cuda" else super().peak()

    def held(self) -> float:
        return torch.cuda.memory_allocated() / 1024.0**2 if self.device.type == "cuda" else super().held()

    def reset_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        else:
            super().reset_peak()


if __name__ == "__main__":
    torch.set_num_threads(1)
    systems: dict[str, Callable[[argparse.Namespace], System]] = {name: partial(Ours, name) for name in NAMES}
    serve(systems)
