"""Do trained models hold in molecular dynamics? Bonds of a hot molecule, energy without a thermostat, g(r) of water.

    python benchmarks/stability.py ethanol RUN/model.adatom --data DIR --name mlanet
    python benchmarks/stability.py water RUN/model.adatom --data DIR --name mlanet

Ethanol: five replicas, 500 K, 0.5 fs, 100 ps of Langevin dynamics; a run has failed when a bond is more than 0.5 Å off
its mean in the training data (Fu et al., arXiv:2210.07237). Then 10 ps without thermostat from where they ended: drift
of the total energy. Water: 10 ps at 300 K, and the difference of its O-O g(r) from that of the reference frames.
Records are added to ``benchmarks/results/stability.json``, or to ``--results``.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ase
import numpy as np
import torch
from accuracy import append, commit
from ase import units
from ase.optimize import FIRE
from sets import labelled, revised_md17, water
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

import adatom
from adatom.elements import covalent_radius
from adatom.errors import SimulationError
from adatom.graph import Graph, collate, edge_vectors
from adatom.models.allscaip import AllScAIP, Attended
from adatom.neighbors import graph_from_atoms
from adatom.nn import softgraph
from adatom.nn.slots import index_slots
from adatom.potential import Potential
from adatom.properties.observables import fit_drift
from adatom.properties.rdf import RDF, rdf
from adatom.sim.md import MDConfig, run
from adatom.units import BOLTZMANN

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "stability.json"
TIMESTEP, FRICTION = 0.5 * units.fs, 1.0 / (0.5e3 * units.fs)
TEMPERATURE, BROKEN = 500.0, 0.5  # K, Å
LOOK = 10  # steps between looks at bonds and energies


class Replicas:
    """Copies of one molecule that move as one batch: a step of all costs about one evaluation.

    While every pair is closer than the cutoff the graph is the same at each step, and only positions are exchanged:
    one evaluation is then traced and compiled, which makes it four times faster. Otherwise the graph is made anew.
    ``forces`` are those of the potential, eV/Å.
    """

    def __init__(self, potential: Potential, starts: list[ase.Atoms], compiled: bool) -> None:
        self.potential, self.starts = potential, starts
        self.count, self.atoms = len(starts), len(starts[0])
        self.positions = torch.tensor(np.concatenate([a.positions for a in starts]))  # (R n, 3)
        self.masses = torch.tensor(np.concatenate([a.get_masses() for a in starts])).unsqueeze(1)  # (R n, 1)
        self.momenta = torch.zeros_like(self.positions)
        self.moving = torch.ones(self.count, dtype=torch.bool)
        self.whole = self._graph(potential.cutoff + 100.0)
        self.rebuilds = 0
        self.energies = torch.zeros(self.count, dtype=torch.float64)
        self.forces = torch.zeros_like(self.positions)
        self.fast = self._compiled() if compiled else self._plain
        self.evaluate()

    def evaluate(self) -> None:
        """Energies (R,) and forces (R n, 3) where the atoms stand; what no longer moves feels no force."""
        ends = self.positions.index_select(0, self.whole.edges[1]) - self.positions.index_select(0, self.whole.edges[0])
        if bool((ends.square().sum(1) < self.potential.cutoff**2).all()):
            self.energies, forces = self.fast(self.positions)
        else:
            found = self.potential(self._graph(self.potential.cutoff), forces=True)
            self.energies, forces = found.energy.detach(), found.forces.detach()
            self.rebuilds += 1
        self.forces = forces * self.per_atom(self.moving)

    def check(self) -> float:
        """Largest difference of the compiled forces from plain ones, eV/Å, where the atoms stand now."""
        return float((self.fast(self.positions)[1] - self._plain(self.positions)[1]).abs().max())

    def _plain(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Energies and forces with every pair of a molecule an edge."""
        found = self.potential(self.whole.replace(positions=positions), forces=True)
        return found.energy.detach(), found.forces.detach()

    def _compiled(self) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        potential, whole = every_edge(copy.deepcopy(self.potential), self.whole), self.whole

        def evaluation(positions: Tensor) -> tuple[Tensor, Tensor]:
            found = potential(whole.replace(positions=positions), forces=True)
            return found.energy.detach(), found.forces.detach()

        traced = make_fx(evaluation)(self.positions)
        compiled: Callable[[Tensor], tuple[Tensor, Tensor]] = torch.compile(traced, options={"cpp_wrapper": True})
        return compiled

    def per_atom(self, values: Tensor) -> Tensor:
        """One value per replica, (R,), as (R n, 1)."""
        return values.repeat_interleave(self.atoms).unsqueeze(1)

    def freeze(self, failed: Tensor) -> None:
        """Put replicas that have failed back to where they began, at rest for good."""
        self.moving = self.moving & ~failed
        rest = self.per_atom(failed)
        begun = torch.tensor(np.concatenate([a.positions for a in self.starts]))
        self.positions = torch.where(rest, begun, self.positions)
        self.momenta = torch.where(rest, 0.0, self.momenta)
        self.forces = torch.where(rest, 0.0, self.forces)

    def kinetic(self) -> Tensor:
        """Kinetic energy of each replica in eV, (R,)."""
        return (0.5 * self.momenta.square() / self.masses).view(self.count, -1).sum(1)

    def _graph(self, cutoff: float) -> Graph:
        atoms = self.positions.view(self.count, -1, 3).numpy()
        moved = [ase.Atoms(s.numbers, p) for s, p in zip(self.starts, atoms, strict=True)]
        return collate([graph_from_atoms(m, cutoff) for m in moved])


def every_edge(potential: Potential, graph: Graph) -> Potential:
    """The same potential, its list of edges the same for all positions, as tracing needs it.

    AllScAIP lists at every geometry which edges are attended; where no atom has as many neighbours as there are places,
    as in small molecules, it is always every edge. ``Replicas.check`` compares with the untouched potential.
    """
    network = potential.network
    if not isinstance(network, AllScAIP):
        return potential
    k, cutoff = network.config.neighbours, network.config.cutoff
    assert graph.slots.shape[1] < k, "an atom has more neighbours than are surely attended: run with --eager"
    every = index_slots(graph.edges, graph.slots, graph.reverse, potential.dtype)

    def attended(graph: Graph, dtype: torch.dtype) -> Attended:
        vectors = edge_vectors(graph).to(dtype)
        r = vectors.square().sum(1).sqrt()
        ranks = softgraph.fading_ranks(softgraph.distances_in_slots(r, every), cutoff)
        weight = softgraph.soft_envelope(r, ranks, every, graph.reverse, k, cutoff)
        return Attended(every, r, vectors / r.unsqueeze(1), softgraph.log_weight(weight))

    network._attended = attended  # type: ignore[method-assign]
    return potential


def thermal(replicas: Replicas, temperature: float, seed: int) -> Callable[[], None]:
    """One step of Langevin dynamics in the order B A O A B (Leimkuhler and Matthews 2013)."""
    random = torch.Generator().manual_seed(seed)
    keep = math.exp(-FRICTION * TIMESTEP)
    width = torch.sqrt(replicas.masses * BOLTZMANN * temperature)

    def noise() -> Tensor:
        return width * torch.randn(width.shape[0], 3, generator=random, dtype=torch.float64)

    replicas.momenta = noise() * replicas.per_atom(replicas.moving)

    def step() -> None:
        r = replicas
        moving = r.per_atom(r.moving)
        r.momenta = r.momenta + 0.5 * TIMESTEP * r.forces
        r.positions = r.positions + 0.5 * TIMESTEP * r.momenta / r.masses
        r.momenta = (keep * r.momenta + math.sqrt(1 - keep**2) * noise()) * moving
        r.positions = r.positions + 0.5 * TIMESTEP * r.momenta / r.masses
        r.evaluate()
        r.momenta = r.momenta + 0.5 * TIMESTEP * r.forces

    return step


def free(replicas: Replicas) -> Callable[[], None]:
    """One step of velocity Verlet."""

    def step() -> None:
        r = replicas
        r.momenta = r.momenta + 0.5 * TIMESTEP * r.forces
        r.positions = r.positions + TIMESTEP * r.momenta / r.masses
        r.evaluate()
        r.momenta = r.momenta + 0.5 * TIMESTEP * r.forces

    return step


@dataclass
class Bonds:
    """Pairs bonded in a molecule, their mean lengths in the data, and how far each replica has been from them."""

    pairs: np.ndarray  # (2, B)
    means: Tensor  # (B,)  Å
    worst: list[float] = field(default_factory=list)  # per replica, Å, until it failed
    failed_ps: list[float | None] = field(default_factory=list)

    @classmethod
    def of(cls, frames: list[ase.Atoms]) -> Bonds:
        """Bonds are pairs closer than 1.25 times the sum of their covalent radii in the first frame."""
        first = frames[0]
        radii = covalent_radius(first.numbers)
        close = first.get_all_distances() < 1.25 * (radii[:, None] + radii[None, :])
        pairs = np.stack(np.nonzero(np.triu(close, 1)))
        lengths = [np.linalg.norm(f.positions[pairs[1]] - f.positions[pairs[0]], axis=1) for f in frames]
        return cls(pairs, torch.tensor(np.mean(lengths, axis=0)))

    def look(self, replicas: Replicas, time_ps: float) -> None:
        """Note the largest departures, and freeze what has failed."""
        self.worst = self.worst or [0.0] * replicas.count
        self.failed_ps = self.failed_ps or [None] * replicas.count
        at = replicas.positions.view(replicas.count, -1, 3)
        lengths = (at[:, self.pairs[1]] - at[:, self.pairs[0]]).norm(dim=2)  # (R, B)
        off = torch.nan_to_num((lengths - self.means).abs(), nan=torch.inf).amax(1)
        failed = (off > BROKEN) & replicas.moving
        for k in replicas.moving.nonzero().flatten().tolist():
            self.worst[k] = max(self.worst[k], float(off[k]))
            if failed[k]:
                self.failed_ps[k] = time_ps
        if bool(failed.any()):
            replicas.freeze(failed)


def ethanol(potential: Potential, options: argparse.Namespace) -> dict[str, Any]:
    """Five hot replicas, then five without thermostat."""
    train, _, test = revised_md17("ethanol")(options.data)
    bonds = Bonds.of([s.atoms for s in train])
    replicas = Replicas(potential, [labelled(s) for s in test[: options.replicas]], not options.eager)
    step = thermal(replicas, TEMPERATURE, seed=0)
    start, temperatures = time.process_time(), []
    steps = round(1e3 * options.ps / 0.5)
    for k in range(1, steps + 1):
        step()
        if k % LOOK == 0:
            bonds.look(replicas, 0.5e-3 * k)
            degrees = 3 * replicas.atoms * BOLTZMANN * 0.5
            temperatures.append(float(replicas.kinetic()[replicas.moving].mean()) / degrees)
            if not bool(replicas.moving.any()) or time.monotonic() > options.started + 60 * options.wall_minutes:
                break
    taken = time.process_time() - start
    heated = {
        "replicas": replicas.count, "temperature_K": TEMPERATURE, "timestep_fs": 0.5, "ps": 0.5e-3 * k,
        "friction_per_ps": 2.0, "mean_temperature_K": float(np.mean(temperatures[len(temperatures) // 10 :])),
        "largest_departure_A": bonds.worst, "failed_at_ps": bonds.failed_ps,
        "stable": all(t is None for t in bonds.failed_ps), "cpu_ms_per_step": 1e3 * taken / k,
        "graphs_made_anew": replicas.rebuilds, "compiled_forces_off_by_eV_per_A": replicas.check(),
    }  # fmt: skip
    return {"nvt": heated, "nve": unthermostatted(replicas, bonds, options.nve_ps)}


def unthermostatted(replicas: Replicas, bonds: Bonds, ps: float) -> dict[str, Any]:
    """Drift of the total energy of each replica that has not failed."""
    survived = replicas.moving.clone()
    if not bool(survived.any()):
        return {"ps": 0.0, "remark": "no replica was left"}
    later = Bonds(bonds.pairs, bonds.means)
    step = free(replicas)
    totals, times = [], []
    for k in range(1, round(1e3 * ps / 0.5) + 1):
        step()
        if k % LOOK == 0:
            later.look(replicas, 0.5e-3 * k)
            totals.append((replicas.energies + replicas.kinetic()).numpy().copy())
            times.append(0.5e-3 * k)
    energies = 1e3 * np.array(totals) / replicas.atoms  # (T, R)  meV/atom
    kept = [r for r in survived.nonzero().flatten().tolist() if later.failed_ps[r] is None]
    drifts = [fit_drift(np.array(times), energies[:, r]) for r in kept]
    return {
        "ps": ps, "timestep_fs": 0.5, "failed_at_ps": later.failed_ps, "largest_departure_A": later.worst,
        "drift_meV_per_atom_per_ps": [d.meV_per_atom_per_ps for d in drifts],
        "drift_error_meV_per_atom_per_ps": [d.error_meV_per_atom_per_ps for d in drifts],
        "scatter_meV_per_atom": [d.rms_meV_per_atom for d in drifts],
    }  # fmt: skip


def liquid(potential: Potential, options: argparse.Namespace) -> dict[str, Any]:
    """O-O g(r) of a run beside that of the reference frames."""
    train, valid, test = water(options.data)
    frames = [s.atoms for s in (*train, *valid, *test)]
    reference = rdf(frames, r_max=6.0)
    steps = round(1e3 * options.ps / 0.5)
    config = MDConfig(
        ensemble="nvt", timestep_fs=0.5, temperature_K=300.0, thermostat="bussi", thermostat_ps=0.1, steps=steps,
        trajectory_every=20, log_every=20, min_distance_margin=0.5,
    )  # fmt: skip
    folder = options.runs / f"water_{options.name}"
    record: dict[str, Any] = {
        "ps": options.ps,
        "temperature_K": 300.0,
        "timestep_fs": 0.5,
        "reference_frames": len(frames),
    }
    start = time.process_time()
    try:
        done = run(calmed(test[0].atoms, potential), potential, config, folder, "water", overwrite=True)
    except SimulationError as error:
        record["failed"] = str(error)
    else:
        spent = time.process_time() - start
        warm = [t.temperature_K for t in done.thermo if t.time_ps > 0.1 * options.ps]
        record |= {"mean_temperature_K": float(np.mean(warm)), "cpu_ms_per_step": 1e3 * spent / max(done.steps, 1)}
    moved: list[ase.Atoms] = ase.io.read(folder / "water.xyz", ":")
    kept = moved[len(moved) // 5 :]  # the first fifth is left out: the start forgets
    found = rdf(kept, r_max=6.0)
    record |= {"frames": len(kept), **difference(found, reference)}
    return record


def calmed(atoms: ase.Atoms, potential: Potential) -> ase.Atoms:
    """Downhill until no force is above 1 eV/Å, for 100 steps at most: beads of path integrals are hot as atoms."""
    calm = atoms.copy()
    calm.calc = adatom.Calculator(potential)
    FIRE(calm, logfile=None).run(fmax=1.0, steps=100)
    calm.calc = None
    return calm


def difference(found: RDF, reference: RDF) -> dict[str, Any]:
    """Mean absolute difference of g(r) from 2 to 6 Å, and the first peak of O-O."""
    part = reference.r > 2.0
    curves = {"r_A": reference.r.round(4).tolist()}
    figures: dict[str, Any] = {}
    for pair in ("O-O", "H-O", "H-H"):
        mine, theirs = found.g[pair], reference.g[pair]
        figures[f"mean_difference_{pair}"] = float(np.abs(mine - theirs)[part].mean())
        curves[f"{pair}"], curves[f"{pair} reference"] = mine.round(4).tolist(), theirs.round(4).tolist()
    peaks = [(float(g.max()), float(reference.r[g.argmax()])) for g in (found.g["O-O"], reference.g["O-O"])]
    return figures | {"first_peak_O-O": peaks[0], "first_peak_O-O_reference": peaks[1], "curves": curves}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("ethanol", "water"))
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--name", required=True, help="under which the record is kept")
    parser.add_argument("--ps", type=float, help="with thermostat: 100 for ethanol, 10 for water")
    parser.add_argument("--nve-ps", type=float, default=10.0)
    parser.add_argument("--replicas", type=int, default=5)
    parser.add_argument("--wall-minutes", type=float, default=math.inf, help="ethanol: stop there, wherever it is")
    parser.add_argument("--eager", action="store_true", help="do not compile")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the trajectory of water goes")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.ps = options.ps or (100.0 if options.what == "ethanol" else 10.0)
    options.started = time.monotonic()
    torch.set_num_threads(1)
    potential = adatom.load(options.model).eval().requires_grad_(False)
    record = {
        "what": options.what, "name": options.name, "date": time.strftime("%Y-%m-%d %H:%M"), "commit": commit(),
        "command": f"python benchmarks/stability.py {options.what} RUN/model.adatom --data DIR --name {options.name}",
        "model": {k: v for k, v in adatom.info(options.model).items() if k in ("architecture", "config", "parameters")},
        **{"ethanol": ethanol, "water": liquid}[options.what](potential, options),
    }  # fmt: skip
    append(options.results, record)
    print(json.dumps({k: v for k, v in record.items() if k != "curves"}, indent=1))


if __name__ == "__main__":
    main()
