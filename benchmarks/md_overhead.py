"""What a step of molecular dynamics costs beside the model: integration, thermostat, neighbour list, checks, logging.

    OMP_NUM_THREADS=1 python benchmarks/md_overhead.py
    OMP_NUM_THREADS=1 python benchmarks/md_overhead.py --compile off --model RUN/model.adatom

CPU time of one thread, minimum of ``--repeats`` blocks, in turns: the model alone (energy and forces of one graph),
and whole runs of ``adatom md`` with their files (a log line every 10 steps, a frame every 100). What a step costs
beside the model is what the run spends outside of it, from the first line of its log to the last: a clock around the
model inside the run makes this exact on a machine whose speed wanders. The pressure of a line is work of the model.
Systems: ethanol (9 atoms, open) and water (192 atoms, periodic), 0.5 fs, 300 K. Without ``--model`` the
network is untrained: it is evaluated at every step, and the atoms are moved by springs to where they stood, soft enough
that neighbour lists wear out as they do in a liquid. Results go to ``benchmarks/results/md_overhead.json``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import ase
import numpy as np
import torch
from ase.build import molecule

from adatom.graph import Graph, Results
from adatom.models import read_model
from adatom.models.base import Facts
from adatom.models.nemp import NEMP
from adatom.potential import Potential
from adatom.sim.calculator import Calculator
from adatom.sim.md import MDConfig, run
from adatom.sim.skin import SkinList

RESULTS = Path(__file__).resolve().parent / "results" / "md_overhead.json"
ENSEMBLES = {"nve": ("nve", "langevin"), "langevin": ("nvt", "langevin"), "bussi": ("nvt", "bussi")}
STEPS = {"ethanol": 200, "water": 100}  # of a run: a frame at least
SPRING = 4.0  # eV/Å^2: hydrogen of 300 K is 0.1 Å off on average, as in a molecule
REFERENCES = {1: -13.6, 6: -1030.0, 8: -432.0}  # eV


def ethanol() -> ase.Atoms:
    return molecule("CH3CH2OH")


def water() -> ase.Atoms:
    """64 molecules turned at random on a lattice, at the density of the liquid."""
    rng, one, side = np.random.default_rng(0), molecule("H2O"), (64 * 29.9) ** (1 / 3)
    molecules = []
    for place in itertools.product(range(4), repeat=3):
        turned = one.copy()
        turned.positions = one.positions @ np.linalg.qr(rng.normal(size=(3, 3)))[0] + np.array(place) * side / 4
        molecules.append(turned)
    box = ase.Atoms([a.symbol for m in molecules for a in m], np.concatenate([m.positions for m in molecules]))
    box.set_cell(np.eye(3) * side)
    box.pbc = True
    return box


SYSTEMS = {"ethanol": ethanol, "water": water}


def untrained() -> Potential:
    """NEMP S with weights that nobody chose."""
    config = read_model({"architecture": "nemp"}).completed(Facts(tuple(REFERENCES), 50.0))
    torch.manual_seed(0)
    close = {f"{a}-{b}": 0.4 for a, b in itertools.combinations_with_replacement("HCO", 2)}
    return Potential(NEMP(config), REFERENCES, card={"min_distance_A": close}).eval()


class Watched:
    """The potential of a calculator with a clock around it. On springs, those move the atoms while it computes."""

    def __init__(self, calculator: Calculator, home: ase.Atoms | None) -> None:
        self._network, self.spent = calculator.potential.forward, 0.0  # s
        self._home = None if home is None else torch.tensor(home.positions)
        calculator.potential.forward = self.forward  # type: ignore[method-assign]

    def forward(self, graph: Graph, forces: bool = True, stress: bool = False) -> Results:
        start = time.process_time()
        found = self._network(graph, forces, stress)
        if self._home is not None:
            away = graph.positions - self._home
            energy = found.energy * 0.0 + away.square().sum() * SPRING / 2
            found = found._replace(energy=energy, forces=away * -SPRING)
        self.spent += time.process_time() - start
        return found


def measure(name: str, calculator: Calculator, watched: Watched, repeats: int, folder: Path) -> list[dict[str, Any]]:
    """Model alone and whole steps of each ensemble, in turns."""
    atoms, steps, potential = SYSTEMS[name](), STEPS[name], calculator.potential
    graph = SkinList(potential.cutoff, calculator.neighbors.skin, loose=potential.network.claims.smooth).graph(atoms)

    def alone() -> float:
        """ms of the model for one geometry."""
        watched.spent = 0.0
        for _ in range(steps):
            potential(graph, forces=True)
        return 1e3 * watched.spent / steps

    def beside(ensemble: str, length: int) -> float:
        """ms of a step outside of the model."""
        word, thermostat = ENSEMBLES[ensemble]
        code = "off" if potential.runner is None else "on"
        config = MDConfig(ensemble=word, thermostat=thermostat, timestep_fs=0.5, steps=length, compile=code)
        marks: list[float] = []
        run(
            atoms, calculator, config, folder, overwrite=True,
            progress=lambda step, thermo: marks.append(time.process_time() - watched.spent),
        )  # fmt: skip
        return 1e3 * (marks[-1] - marks[0]) / length

    alone(), beside("nve", 2)  # whatever is compiled is compiled here
    model: list[float] = []
    rest: dict[str, list[float]] = {ensemble: [] for ensemble in ENSEMBLES}
    for _ in range(repeats):
        model.append(alone())
        for ensemble, times in rest.items():
            times.append(beside(ensemble, steps))
    return [
        {
            "system": name, "atoms": len(atoms), "edges": graph.edges.shape[1], "ensemble": ensemble, "steps": steps,
            "model_ms": min(model), "beside_ms": min(times), "ratio": 1.0 + min(times) / min(model),
        }
        for ensemble, times in rest.items()
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model file for H, C and O, which then moves the atoms")
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--compile", choices=["on", "off"], default="on")
    parser.add_argument("--to", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    load, records = os.getloadavg()[0], []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.systems:
            calculator = Calculator(options.model or untrained(), compile=options.compile)
            watched = Watched(calculator, SYSTEMS[name]() if options.model is None else None)
            for record in measure(name, calculator, watched, options.repeats, Path(folder)):
                records.append(record)
                print(
                    f"{name:8} {record['ensemble']:9} model {record['model_ms']:7.3f} ms, beside it "
                    f"{1e3 * record['beside_ms']:4.0f} µs: {record['ratio']:.3f}",
                    flush=True,
                )
    header = {
        "date": time.strftime("%Y-%m-%d"), "torch": torch.__version__, "machine": platform.machine(), "threads": 1,
        "load_at_the_start": load, "repeats": options.repeats, "compile": options.compile,
        "network": str(options.model or "NEMP S, untrained"),
    }  # fmt: skip
    options.to.write_text(json.dumps(header | {"results": records}, indent=1) + "\n")


if __name__ == "__main__":
    main()
