"""Where a part of ``run_all.py`` runs, what it is given, and where it says what it found."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ase
import torch

from adatom.compile import compiled
from adatom.graph import Graph
from adatom.neighbors import graph_from_atoms
from adatom.potential import Potential
from adatom.testing.untrained import untrained

CUTOFF = 5.0  # Å


class Session:
    """Where a part runs, and what it says."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.device = torch.device(options.device)
        self.quick: bool = options.quick
        self.to: Path = options.to
        self.scratch: Path = options.scratch
        self.architecture, self.size = (*options.of, "", "")[:2]

    @property
    def of(self) -> str:
        return f"{self.architecture} {self.size}"

    def say(self, **figures: Any) -> None:
        """One line of JSON."""
        with self.to.open("a") as file:
            file.write(json.dumps(figures) + "\n")

    @contextmanager
    def trying(self, where: str) -> Iterator[None]:
        """An error inside is written down, and the part goes on."""
        try:
            yield
        except Exception as error:
            self.say(what="error", where=where, error=f"{type(error).__name__}: {error}"[:2000])
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def potential(self, code: str, training: bool = False) -> Potential:
        """An untrained potential; ``code`` is eager or compiled."""
        potential = untrained(self.architecture, size=self.size).to(self.device)
        potential.train(training).requires_grad_(training)
        return compiled(potential, "on" if code == "compiled" else "off")

    def codes(self) -> tuple[str, ...]:
        """Ways to run this architecture; in little, compiled code is checked and not measured."""
        compiles = self.potential("eager").network.compiles and not self.quick
        return ("eager", "compiled") if compiles else ("eager",)

    def graph(self, atoms: ase.Atoms) -> Graph:
        return graph_from_atoms(atoms, CUTOFF).to(device=self.device)

    def stored(self, largest: int = 10**9) -> Iterator[tuple[str, Graph]]:
        """Graphs that the part ``graphs`` has made, the small ones first."""
        files = sorted(self.scratch.glob("graph-*.pt"), key=lambda path: int(path.stem.split("-")[2]))
        for path in files:
            if int(path.stem.split("-")[2]) <= largest:
                yield path.stem.split("-")[1], Graph(**torch.load(path, map_location=self.device))
