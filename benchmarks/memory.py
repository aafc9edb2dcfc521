"""Memory of conservative forces against the number of atoms: AllScAIP here, and the authors' own where it is installed.

    OMP_NUM_THREADS=1 python benchmarks/memory.py            (in the environment of `make against-fairchem`)

Every figure is the peak resident set of a process of its own that computes energy and forces of a rattled crystal of
N atoms, periodic or (``--open``) cut out of one (``forces``), or differentiates them once more for the weights as
training does (``training``), above that of the same process after a small system. Float32, one thread. Both published
networks are NeNo with the same width, layers and heads. The exponent is the slope of log memory against log N, over all
N and over the last two. Results go to ``benchmarks/results/memory.json``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase
import numpy as np
import torch
from ase.build import bulk

RESULTS = Path(__file__).resolve().parent / "results" / "memory.json"
WIDTH, LAYERS, HEADS = 128, 2, 2
ATOMS = (216, 512, 1000, 1728, 4096)
MODES = ("forces", "training")
Step = Callable[[ase.Atoms], float]


def crystal(atoms: int, periodic: bool) -> ase.Atoms:
    """Rattled silicon: a supercell of ``atoms`` atoms, or the innermost ``atoms`` of a piece."""
    cells = int(np.ceil((atoms / 8) ** (1 / 3) - 1e-9)) + (0 if periodic else 1)
    piece = bulk("Si", cubic=True) * cells
    if not periodic:
        piece.pbc = False
        order = np.argsort(np.linalg.norm(piece.positions - piece.positions.mean(0), axis=1), kind="stable")
        piece = piece[order[:atoms]]
    piece.rattle(0.1, seed=0)
    piece.wrap()
    return piece


def ours(form: str, training: bool) -> Step:
    """A step of our network in one of its forms."""
    from adatom.models.allscaip import AllScAIP, AllScAIPConfig
    from adatom.neighbors import graph_from_atoms
    from adatom.potential import Potential

    values = {"form": form, "components": "NeNo"}
    if form == "paper":
        values |= {"channels": WIDTH, "layers": LAYERS, "heads": HEADS}
    potential = Potential(AllScAIP(AllScAIPConfig.parse(values)), {14: 0.0}).train(training)

    def step(atoms: ase.Atoms) -> float:
        result = potential(graph_from_atoms(atoms, potential.cutoff))
        if training:
            (result.forces.square().sum() + result.energy.sum()).backward()
        return float(result.forces.detach().abs().max())

    return step


def theirs(training: bool) -> Step:
    """A step of the authors' network."""
    from fairchem.core.datasets.atomic_data import AtomicData, atomicdata_list_to_batch
    from fairchem.core.models.allscaip import AllScAIP as code  # noqa: N813 (a module)

    backbone = code.AllScAIPBackbone(
        regress_forces=True, direct_forces=False, hidden_size=WIDTH, num_layers=LAYERS, use_compile=False,
        use_padding=False, use_node_path=True, max_num_elements=119, max_atoms=5000, max_batch_size=8, max_radius=6.0,
        knn_k=30, atten_name="math", atten_num_heads=HEADS, use_freq_mask=False, use_sincx_mask=False,
    ).train(training)  # fmt: skip
    head = code.AllScAIPGradientEnergyForceStressHead(backbone, wrap_property=False).train(training)

    def step(atoms: ase.Atoms) -> float:
        atoms = atoms.copy()
        atoms.info |= {"charge": 0, "spin": 1}
        if not atoms.pbc.any():
            atoms.set_cell(np.eye(3) * 300.0)
        data = AtomicData.from_ase(atoms, r_edges=False, r_data_keys=["charge", "spin"], task_name="omol")
        data = atomicdata_list_to_batch([data])
        found = head(data, backbone(data))
        if training:
            (found["forces"].square().sum() + found["energy"].sum()).backward()
        return float(found["forces"].detach().abs().max())

    return step


SYSTEMS: dict[str, Callable[[bool], Step]] = {
    "adatom, default form S": lambda training: ours("default", training),
    "adatom, published form": lambda training: ours("paper", training),
    "fairchem-core": theirs,
}


def peak() -> float:
    """Largest resident set of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(system: str, atoms: int, mode: str, periodic: bool) -> dict[str, Any]:
    """Peak above that of a small system, in a process that does nothing else."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    step = SYSTEMS[system](mode == "training")
    step(crystal(8 if periodic else 30, periodic))
    before, begin = peak(), time.process_time()
    force = step(crystal(atoms, periodic))
    return {"atoms": atoms, "MiB": peak() - before, "cpu_s": time.process_time() - begin, "largest_force": force}


def exponent(rows: list[dict[str, Any]]) -> float:
    """Slope of log memory against log N."""
    x, y = (np.log([row[key] for row in rows]) for key in ("atoms", "MiB"))
    return float(np.polyfit(x, y, 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoms", type=int, nargs="+", default=list(ATOMS))
    parser.add_argument("--mode", choices=MODES, nargs="+", default=list(MODES))
    parser.add_argument("--open", action="store_true", help="pieces of a crystal instead of cells")
    parser.add_argument("--most", type=int, default=10**9, help="largest number of atoms for fairchem-core")
    parser.add_argument("--one", nargs=3, metavar=("SYSTEM", "ATOMS", "MODE"), help="measure in this process")
    parser.add_argument("--to", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.one:
        system, atoms, mode = options.one
        print(json.dumps(measure(system, int(atoms), mode, not options.open)))
        return
    installed = [name for name in SYSTEMS if name != "fairchem-core" or importlib.util.find_spec("fairchem")]
    records = []
    for mode in options.mode:
        for system in installed:
            rows = []
            for atoms in (n for n in options.atoms if system != "fairchem-core" or n <= options.most):
                command = [sys.executable, __file__, "--one", system, str(atoms), mode]
                command += ["--open"] if options.open else []
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:  # out of memory, mostly: what was measured stands
                    print(f"{system}, {mode}, {atoms} atoms: failed", done.stderr[-300:], file=sys.stderr)
                    break
                rows.append(json.loads(done.stdout.strip().splitlines()[-1]))
                print(system, mode, rows[-1], flush=True)
            slopes = {"exponent": exponent(rows), "exponent_of_the_last_two": exponent(rows[-2:])}
            records.append({"system": system, "mode": mode} | slopes | {"rows": rows})
            print(
                f"{system}, {mode}: exponent {slopes['exponent']:.2f}, at the end {exponent(rows[-2:]):.2f}", flush=True
            )
    settings = {"width": WIDTH, "layers": LAYERS, "heads": HEADS, "components": "NeNo", "dtype": "float32"}
    settings["structures"] = "pieces of a crystal" if options.open else "periodic cells"
    header = {"date": time.strftime("%Y-%m-%d"), "torch": torch.__version__, "machine": platform.machine()}
    if "fairchem-core" in installed:
        header["fairchem-core"] = importlib.metadata.version("fairchem-core")
    options.to.write_text(json.dumps(header | {"published": settings, "results": records}, indent=1) + "\n")


if __name__ == "__main__":
    main()
