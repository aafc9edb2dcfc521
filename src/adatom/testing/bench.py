"""The potential under test: a copy without references, evaluated in batches, and the scale of its own output."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import ase
import numpy as np
import torch

from adatom.graph import Graph, collate
from adatom.models.base import Claims
from adatom.neighbors import graph_from_atoms
from adatom.potential import Potential
from adatom.testing.structures import Sample, Spacing

BATCH_ATOMS, BATCH_EDGES = 600, 12_000
LEAST = 1e-3  # eV/atom, eV/Å: keeps zero from being divided by zero


class Outcome(NamedTuple):
    """What the potential says about one structure."""

    energy: float  # eV, without references
    forces: np.ndarray  # (n, 3)  eV/Å
    stress: np.ndarray  # (3, 3)  eV/Å^3, NaN where there is no volume


class Measured(NamedTuple):
    """Figure of a check and the words that go with it; no figure: the check does not apply."""

    figure: float | None
    detail: str


class Scale(NamedTuple):
    """Typical size of the potential's output: relative errors are relative to it."""

    energy: float  # eV/atom, interaction energy
    force: float  # eV/Å
    stress: float  # eV/Å^3


@dataclass(frozen=True, eq=False)
class Bench:
    """A potential, samples, and what the potential says about them.

    ``potential`` is a copy in evaluation mode with references of zero: they are constants, and all-electron references
    of 10^5 eV would drown the digits that the checks look at. ``references`` keeps them.
    """

    potential: Potential
    references: dict[int, float]  # eV
    samples: list[Sample]
    outcomes: list[Outcome]
    scale: Scale
    seed: int

    @property
    def claims(self) -> Claims:
        """What the network promises."""
        return self.potential.network.claims

    @property
    def cutoff(self) -> float:
        """Reach of the edges in Å."""
        return self.potential.cutoff

    @property
    def spacing(self) -> Spacing:
        """Sensible distances between the elements."""
        return Spacing.of(self.potential.card)

    def rng(self) -> np.random.Generator:
        """A fresh generator: every check draws the same numbers whether it runs alone or among others."""
        return np.random.default_rng(self.seed)

    def graph(self, atoms: ase.Atoms) -> Graph:
        """Graph of a structure on the device of the potential."""
        return graph_from_atoms(atoms, self.cutoff).to(device=self.potential.references.device)

    def run(self, structures: Sequence[ase.Atoms], forces: bool = True, stress: bool = True) -> list[Outcome]:
        """Evaluate structures in batches."""
        return evaluate(self.potential, [self.graph(atoms) for atoms in structures], forces, stress)

    def energies(self, structures: Sequence[ase.Atoms]) -> np.ndarray:
        """Energies alone, (S,) eV."""
        return np.array([outcome.energy for outcome in self.run(structures, forces=False, stress=False)])

    def open_samples(self) -> list[tuple[Sample, Outcome]]:
        """Samples of two and more atoms without any periodic direction."""
        pairs = zip(self.samples, self.outcomes, strict=True)
        return [(s, o) for s, o in pairs if not s.atoms.pbc.any() and len(s.atoms) > 1]

    def periodic_samples(self) -> list[tuple[Sample, Outcome]]:
        """Samples that are periodic in three directions."""
        return [(s, o) for s, o in zip(self.samples, self.outcomes, strict=True) if s.atoms.pbc.all()]


def prepare(potential: Potential, samples: list[Sample], dtype: torch.dtype, seed: int) -> Bench:
    """Bench of a copy of the potential whose network has the given dtype; the original is left as it is."""
    references = {z: float(potential.references[z]) for z in potential.elements}
    twin = copy.deepcopy(potential).eval()
    twin.runner = None  # a float64 network is checked for what it says, not run for long
    twin.network.to(dtype)
    twin.references.mul_(0.0)  # NaN, the mark of an unknown element, stays
    empty = Bench(twin, references, samples, [], Scale(1.0, 1.0, 1.0), seed)
    outcomes = empty.run([sample.atoms for sample in samples])
    # a network gives numbers of order one: single precision rounds them by 1e-7 of the unit, however small their sum
    least = max(LEAST, 0.1 * float(potential.scale)) if dtype == torch.float32 else LEAST
    return Bench(twin, references, samples, outcomes, _scale(outcomes, least), seed)


def evaluate(potential: Potential, graphs: Sequence[Graph], forces: bool = True, stress: bool = True) -> list[Outcome]:
    """Outcomes of single graphs, evaluated in batches of some hundred atoms."""
    outcomes: list[Outcome] = []
    batch: list[Graph] = []
    atoms = edges = 0
    for graph in graphs:
        atoms, edges = atoms + graph.numbers.shape[0], edges + graph.edges.shape[1]
        if batch and (atoms > BATCH_ATOMS or edges > BATCH_EDGES):
            outcomes += evaluate_batch(potential, collate(batch), forces, stress)
            batch, atoms, edges = [], graph.numbers.shape[0], graph.edges.shape[1]
        batch.append(graph)
    return outcomes + (evaluate_batch(potential, collate(batch), forces, stress) if batch else [])


def evaluate_batch(potential: Potential, graph: Graph, forces: bool = True, stress: bool = True) -> list[Outcome]:
    """Outcomes of the structures of one batch."""
    with torch.no_grad():  # a potential with gradient forces turns gradients on by itself
        results = potential(graph, forces=forces, stress=stress)
    energy, force, tension = (t.detach().to("cpu", torch.float64).numpy() for t in results)
    ends = np.cumsum(torch.bincount(graph.owner.cpu(), minlength=graph.cell.shape[0]).numpy())
    return [Outcome(float(energy[k]), rows, tension[k]) for k, rows in enumerate(np.split(force, ends[:-1]))]


def compare(bench: Bench, names: Sequence[str], found: Sequence[Outcome], wanted: Sequence[Outcome]) -> Measured:
    """Largest relative difference of energies, forces and stresses, with the place where it stands.

    Root-mean-square differences are relative to the root-mean-square interaction energy, force or stress of the
    structure, but not to less than what is typical of the samples: where everything cancels, rounding is all there is.
    """
    figures = []
    for name, a, b in zip(names, found, wanted, strict=True):
        atoms, scale = len(b.forces), bench.scale
        energy = abs(a.energy - b.energy) / max(abs(b.energy), atoms * scale.energy)
        force = rms(a.forces - b.forces) / max(rms(b.forces), scale.force)
        # no volume, or no stress head: both must say so
        silent = np.isnan(a.stress).all() and np.isnan(b.stress).all()
        stress = 0.0 if silent else rms(a.stress - b.stress) / max(rms(b.stress), scale.stress)
        for quantity, figure in (("energy", energy), ("forces", force), ("stress", stress)):
            figures.append(Measured(figure, f"largest in the {quantity} of '{name}'"))
    most = worst(figures)
    return Measured(0.0, "no difference at all") if most.figure == 0.0 else most


def worst(measured: Sequence[Measured]) -> Measured:
    """The largest figure; one that is no number is the largest of all, and nothing measured is no figure."""
    figures = [(np.inf if np.isnan(m.figure) else m.figure, k) for k, m in enumerate(measured) if m.figure is not None]
    return measured[max(figures)[1]] if figures else Measured(None, "no sample of this kind")


def largest(values: np.ndarray) -> float:
    """Largest absolute value, 0 of nothing."""
    return float(np.abs(values).max()) if values.size else 0.0


def rms(values: np.ndarray) -> float:
    """Root of the mean square, 0 of nothing."""
    return float(np.sqrt(np.square(values).mean())) if values.size else 0.0


def _scale(outcomes: Sequence[Outcome], least: float) -> Scale:
    """Median over the samples, those at rest left out, and no less than ``least`` (eV/atom, eV/Å; per 100 Å^3)."""

    def typical(values: list[float], floor: float) -> float:
        finite = [v for v in values if np.isfinite(v) and v > LEAST * floor / least]
        return max(float(np.median(finite)), floor) if finite else floor

    several = [o for o in outcomes if len(o.forces) > 1]
    return Scale(
        typical([abs(o.energy) / len(o.forces) for o in several], least),
        typical([rms(o.forces) for o in several], least),
        typical([rms(o.stress) for o in several], 1e-2 * least),
    )
