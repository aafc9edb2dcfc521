"""One part of ``run_all.py`` in a process of its own: ``parts.py check nemp S --device cuda --to said.jsonl ...``."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase
import clock
import torch
from ase import units
from ase.build import molecule
from boxes import silicon, water
from session import CUTOFF, Session
from torch import Tensor

from adatom.graph import Graph, collate
from adatom.neighbors import graph_from_atoms
from adatom.potential import Potential
from adatom.testing.untrained import untrained

ROOT = Path(__file__).resolve().parents[2]
SILICON, WATER = (2, 4, 8, 12, 23), (1, 2, 4, 8)  # cells along an edge: 64 ... 97,336 and 192 ... 98,304 atoms
LARGE = (10, 10, 25)  # cubic cells of silicon: 20,000 atoms
LOOSE = {torch.float32: 2e-4, torch.float64: 1e-9}  # of the largest entry: what another device may be off


def dropped(potential: Potential) -> str:
    """Why compiled code was given up, if it was."""
    return str(getattr(potential.runner, "dropped", ""))


# --- what is checked --------------------------------------------------------------------------------------------------


def graphs(session: Session) -> None:
    """Neighbour lists of all systems, once for all parts."""
    if session.device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(session.device)
        card = torch.cuda.get_device_name(session.device)
        memory = torch.cuda.get_device_properties(session.device).total_memory / 2**30
        session.say(card=card, capability=f"{major}.{minor}", GiB=round(memory, 1), cuda=torch.version.cuda)
    silicons, waters = (SILICON[:1], WATER[:1]) if session.quick else (SILICON, WATER)
    systems: list[tuple[str, Callable[[], ase.Atoms]]] = [("silicon", lambda n=n: silicon(n)) for n in silicons]
    systems += [("water", lambda n=n: water(n)) for n in waters]
    for name, build in systems:
        with session.trying(name):
            atoms = build()
            begin = time.perf_counter()
            graph = graph_from_atoms(atoms, CUTOFF)
            torch.save(vars(graph), session.scratch / f"graph-{name}-{len(atoms)}.pt")
            session.say(what="graph", system=name, atoms=len(atoms), edges=graph.edges.shape[1],
                        slots=graph.slots.shape[1], seconds=time.perf_counter() - begin)  # fmt: skip


def tests(session: Session) -> None:
    """The tests that want a card."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "default", "tests/nn/kernels"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines() or ["nothing"]
    session.say(what="tests", ok=done.returncode == 0, said=lines[-1], full=lines[-60:] if done.returncode else [])


def check(session: Session) -> None:
    """The device against a processor, and compiled code against eager code, both in float64; compiles on the way."""
    small = [silicon(1, 1, 2), molecule("CH3CH2OH"), ase.Atoms("O"), water(1, 2)]
    small[1].numbers[small[1].numbers == 6] = 8  # of the elements that are known
    batch = collate([graph_from_atoms(atoms, CUTOFF) for atoms in small])
    wanted = _said(untrained(session.architecture, size=session.size).double(), batch)
    for dtype in (torch.float64, torch.float32):
        with session.trying(f"eager {dtype}"):
            potential = session.potential("eager").train().requires_grad_(True)
            potential.network.to(dtype)
            found = _said(potential, batch.to(device=session.device))
            off = {k: float((found[k] - v).abs().max() / v.abs().max().clamp(min=1e-12)) for k, v in wanted.items()}
            worst = max(off, key=lambda name: off[name])
            session.say(what="check", of=session.of, which=f"eager {dtype} on {session.device.type}",
                        ok=off[worst] <= LOOSE[dtype], said=f"{worst} is off by {off[worst]:.1e}", off=off)  # fmt: skip
    if not session.potential("eager").network.compiles:
        return
    for training in (False,) if session.quick else (False, True):
        with session.trying(f"compiled, training {training}"):
            potential = session.potential("compiled", training)
            begin = time.perf_counter()
            for atoms in (silicon(2), water(1)):
                potential(session.graph(atoms))
            ok, took = not dropped(potential), time.perf_counter() - begin
            which = "compiled, training step" if training else "compiled, energy and forces"
            session.say(what="check", of=session.of, which=which, ok=ok, said=dropped(potential) or f"{took:.0f} s")


def _said(potential: Potential, graph: Graph) -> dict[str, Tensor]:
    """Energies without references, forces, stresses, and the gradient of a sum of squares by every parameter."""
    potential.references.zero_()
    results = potential.train()(graph, stress=True)
    total = results.energy.square().sum() + results.forces.square().sum() + results.stress.nan_to_num().square().sum()
    named = [(name, p) for name, p in potential.named_parameters() if p.requires_grad]
    slopes = torch.autograd.grad(total, [p for _, p in named], allow_unused=True)
    found = {"energy": results.energy, "forces": results.forces, "stress": results.stress.nan_to_num()}
    every = [s.flatten().double() for s in slopes if s is not None]
    return {k: v.detach().double().cpu() for k, v in found.items()} | {"gradients": torch.cat(every).cpu()}


# --- what is measured -------------------------------------------------------------------------------------------------


def speed(session: Session) -> None:
    """Energy and forces at all sizes."""
    for code in session.codes():
        potential = session.potential(code)
        for name, graph in session.stored(4096 if session.architecture == "allscaip" else 10**9):
            with session.trying(f"{code}, {name}, {graph.numbers.shape[0]} atoms"):
                _tell(session, "speed", code, name, graph, potential, lambda p=potential, g=graph: p(g))
            if dropped(potential):
                break


def training(session: Session) -> None:
    """Steps with force loss and optimizer, on one box of water and on four."""
    box = next(graph for name, graph in session.stored() if name == "water")
    for code in session.codes():
        potential = session.potential(code, training=True)
        optimizer = torch.optim.AdamW(potential.parameters(), lr=1e-3, fused=session.device.type == "cuda")

        def step(graph: Graph, potential: Potential = potential, optimizer: Any = optimizer) -> None:
            optimizer.zero_grad(set_to_none=True)
            results = potential(graph)
            (results.forces.square().mean() + 1e-6 * results.energy.square().mean()).backward()
            optimizer.step()

        for boxes in (1, 4):
            graph = collate([box] * boxes)
            with session.trying(f"{code}, {boxes} boxes"):
                _tell(session, "training", code, "water", graph, potential, lambda g=graph, step=step: step(g))


def large(session: Session) -> None:
    """Conservative forces of 20,000 atoms on one card."""
    graph, potential = session.graph(silicon(2) if session.quick else silicon(*LARGE)), session.potential("eager")
    _tell(session, "large", "eager", "silicon", graph, potential, lambda: potential(graph))


def _tell(
    session: Session, what: str, code: str, system: str, graph: Graph, potential: Potential, call: Callable[[], Any]
) -> None:
    """Time and memory of a call."""
    call()  # compiles
    clock.reset_peak(session.device)
    took = clock.seconds(call, session.device, *((3, 0) if session.quick else (15, 3)))
    atoms = graph.numbers.shape[0]
    session.say(what=what, of=session.of, code=code if not dropped(potential) else "eager (dropped)", system=system,
                atoms=atoms, ms=1e3 * took, us_per_atom=1e6 * took / atoms, peak_MiB=clock.peak_mib(session.device),
                said=dropped(potential))  # fmt: skip


class Steps:
    """Velocity Verlet on a fixed neighbour list, all in tensors."""

    def __init__(self, potential: Potential, graph: Graph, atoms: ase.Atoms) -> None:
        self.potential, self.graph, self.dt = potential, graph, 0.5 * units.fs
        self.positions = graph.positions.clone()
        self.velocities = torch.zeros_like(self.positions)
        self.inverse = 1 / torch.as_tensor(atoms.get_masses(), device=self.positions.device).unsqueeze(1)
        self.forces = potential(graph).forces.detach().clone()

    def __call__(self) -> None:
        """One step, in place."""
        self.velocities += (0.5 * self.dt) * self.forces * self.inverse
        self.positions += self.dt * self.velocities
        self.forces.copy_(self.potential(self.graph.replace(positions=self.positions)).forces.detach())
        self.velocities += (0.5 * self.dt) * self.forces * self.inverse


def dynamics(session: Session) -> None:
    """Steps of about a hundred atoms: alone, captured as one graph, and through ``adatom.sim``."""
    atoms = water(1)[:99]
    atoms.cell, atoms.pbc = None, False
    graph, count = session.graph(atoms), 5 if session.quick else 100
    ends: dict[str, Tensor] = {}
    codes = session.codes()[:1] if session.quick else session.codes()
    for code in codes:
        with session.trying(code):
            steps = Steps(session.potential(code), graph, atoms)
            for _ in range(2 if session.quick else 20):
                steps()
            ends[code] = steps.positions.clone()
            took = clock.seconds(lambda steps=steps: [steps() for _ in range(count)], session.device, 3, 0) / count
            _tell_steps(session, atoms, code, took, steps.potential, ends)
    for code in codes if session.device.type == "cuda" else ():
        with session.trying(f"{code}, captured"):
            name = f"{code}, one captured graph"
            steps = Steps(session.potential(code), graph, atoms)
            replay = _captured(steps, session.device)
            for _ in range(20):
                replay()
            ends[name] = steps.positions.clone()
            took = clock.seconds(lambda replay=replay: [replay() for _ in range(count)], session.device, 5, 1) / count
            _tell_steps(session, atoms, name, took, steps.potential, ends)
    with session.trying("adatom.sim.md"):
        from adatom.sim import md

        config = md.MDConfig.parse({"ensemble": "nve", "steps": 10 if session.quick else 300, "timestep_fs": 0.5,
                                 "temperature_K": 300.0})  # fmt: skip
        potential = session.potential(codes[-1])
        potential(graph)
        done = md.run(atoms, potential, config)
        _tell_steps(session, atoms, f"adatom md, {codes[-1]}", 1e-6 * done.us_per_atom_step * len(atoms), potential, {})


def _captured(steps: Steps, device: torch.device) -> Callable[[], None]:
    """A step as one CUDA graph, the state where it was."""
    kept = [t.clone() for t in (steps.positions, steps.velocities, steps.forces)]
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):
            steps()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        steps()
    for now, before in zip((steps.positions, steps.velocities, steps.forces), kept, strict=True):
        now.copy_(before)
    return graph.replay


def _tell_steps(
    session: Session, atoms: ase.Atoms, code: str, took: float, potential: Potential, ends: dict[str, Tensor]
) -> None:
    off = float((ends[code] - ends["eager"]).abs().max()) if code in ends and "eager" in ends else None
    session.say(what="dynamics", of=session.of, atoms=len(atoms), code=code, us_per_step=1e6 * took,
                off_after_20_steps=off, said=dropped(potential))  # fmt: skip


def profile(session: Session) -> None:
    """Where the time of one evaluation goes, kernel by kernel."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    graph = max((g for name, g in session.stored(13_000) if name == "water"), key=lambda g: g.numbers.shape[0])
    for code in session.codes():
        with session.trying(code):
            potential = session.potential(code)
            for _ in range(3):
                potential(graph)
            with profiler(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
                for _ in range(5):
                    potential(graph)
                clock.synchronize(session.device)
            events = [e for e in seen.key_averages() if e.self_device_time_total > 0]
            events.sort(key=lambda e: -e.self_device_time_total)
            rows = [
                {"kernel": e.key[:120], "us": e.self_device_time_total / 5, "calls": e.count / 5} for e in events[:25]
            ]
            session.say(what="profile", of=session.of, code=code, atoms=graph.numbers.shape[0], rows=rows,
                        us=sum(e.self_device_time_total for e in events) / 5)  # fmt: skip


def kernels(session: Session) -> None:
    """Every kernel against its twin."""
    import kernel_parts

    kernel_parts.all_kernels(session)


def tuning(session: Session) -> None:
    """Kernels by the way they are launched."""
    import kernel_parts

    kernel_parts.tuning(session)


PARTS: dict[str, Callable[[Session], None]] = {
    function.__name__: function
    for function in (graphs, tests, check, speed, training, large, dynamics, profile, kernels, tuning)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=sorted(PARTS))
    parser.add_argument("of", nargs="*")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    options = parser.parse_args()
    if options.device == "cpu":
        torch.set_num_threads(1)
    session = Session(options)
    with session.trying(options.part):
        PARTS[options.part](session)


if __name__ == "__main__":
    main()
