"""What energies and forces must obey: parts add up, forces and stress are derivatives, isolated systems conserve."""

from __future__ import annotations

import ase
import numpy as np

from adatom.elements import symbol
from adatom.testing.bench import Bench, Measured, Outcome, compare, largest, worst

FAR = 100.0  # Å, beyond any interaction that fades
STEP = 5e-4  # Å, and a third of it as strain: truncation and rounding both err by far less than 1e-6 there
PROBES = 4  # displaced atoms per sample


def isolated_atoms(bench: Bench) -> Measured:
    """E(one atom of Z) = E0(Z), F = 0, exactly, for every element the potential knows. Figure in eV (eV/Å)."""
    atoms = [ase.Atoms(numbers=[z], positions=[[0.1, 0.2, 0.3]]) for z in bench.references]
    figures = []
    for (z, reference), outcome in zip(bench.references.items(), bench.run(atoms), strict=True):
        # as the sum is taken in the potential: what is below the rounding of the reference does not exist
        figure = max(abs((outcome.energy + reference) - reference), largest(outcome.forces))
        figures.append(Measured(figure, f"{len(atoms)} elements, largest for {symbol(z)}"))
    return worst(figures)


def far_parts(bench: Bench) -> Measured:
    """Two copies, and two different clusters, 100 Å apart: energies add, forces are those of the parts."""
    parts = bench.open_samples()
    whole, wanted, names = [], [], []
    for k, (a, outcome_a) in enumerate(parts):
        for b, outcome_b in {id(p[0]): p for p in (parts[k], parts[(k + 1) % len(parts)])}.values():
            whole.append(join(a.atoms, b.atoms))
            wanted.append(_sum(outcome_a, outcome_b))
            names.append(f"{a.name} + {b.name}")
    return compare(bench, names, bench.run(whole), wanted)


def distant_change(bench: Bench) -> Measured:
    """A cluster is deformed 100 Å away: forces here stay as they were. Relative to the typical force."""
    (here, _), (there, _) = bench.open_samples()[:2]
    deformed = there.atoms.copy()
    deformed.positions *= 1.07
    before, after = bench.run([join(here.atoms, there.atoms), join(here.atoms, deformed)])
    count = len(here.atoms)
    figure = largest(after.forces[:count] - before.forces[:count]) / bench.scale.force
    return Measured(figure, f"'{here.name}' beside '{there.name}'")


def supercell(bench: Bench) -> Measured:
    """n cells: n times the energy, the same forces on every image, the same stress."""
    periodic = bench.periodic_samples()
    found, wanted, names = [], [], []
    for sample, outcome in periodic:
        for repeat in ((2, 1, 1), (1, 2, 2)) if len(sample.atoms) <= 10 else ((1, 1, 2),):
            n = int(np.prod(repeat))
            found.append(sample.atoms.repeat(repeat))
            wanted.append(Outcome(n * outcome.energy, np.tile(outcome.forces, (n, 1)), outcome.stress))
            names.append(f"{sample.name} x {n}")
    return compare(bench, names, bench.run(found), wanted)


def forces_are_derivatives(bench: Bench) -> Measured:
    """F = -dE/dr against central differences of fourth order, relative to the largest force of the structure."""
    rng = bench.rng()
    figures: list[Measured] = []
    for sample, outcome in zip(bench.samples, bench.outcomes, strict=True):
        count = len(sample.atoms)
        probes = rng.permutation(count)[:PROBES]
        directions = rng.normal(size=(len(probes), 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        displaced = [
            _displaced(sample.atoms, probe, step * STEP * direction)
            for probe, direction in zip(probes, directions, strict=True)
            for step in (-2, -1, 1, 2)
        ]
        slopes = _slopes(bench.energies(displaced).reshape(-1, 4), STEP)
        error = largest(slopes + (outcome.forces[probes] * directions).sum(axis=1))
        error /= max(largest(outcome.forces), bench.scale.force)
        figures.append(Measured(error, _in(sample.name)))
    return worst(figures)


def stress_is_derivative(bench: Bench) -> Measured:
    """stress = (1/V) dE/d(strain) against central differences of six strains, relative to the largest component."""
    step = STEP / 3.0
    figures: list[Measured] = []
    for sample, outcome in bench.periodic_samples():
        pairs = [(a, b) for a in range(3) for b in range(a, 3)]
        strained = [_strained(sample.atoms, a, b, k * step) for a, b in pairs for k in (-2, -1, 1, 2)]
        slopes = _slopes(bench.energies(strained).reshape(-1, 4), step) / sample.atoms.get_volume()
        tension = 0.5 * (outcome.stress + outcome.stress.T)
        error = largest(slopes - np.array([tension[a, b] for a, b in pairs]))
        error /= max(largest(tension), bench.scale.stress)
        figures.append(Measured(error, _in(sample.name)))
    return worst(figures)


def net_force(bench: Bench) -> Measured:
    """Sum of all forces, relative to the typical force."""
    return worst(
        [
            Measured(largest(outcome.forces.sum(axis=0)) / bench.scale.force, _in(sample.name))
            for sample, outcome in zip(bench.samples, bench.outcomes, strict=True)
        ]
    )


def net_torque(bench: Bench) -> Measured:
    """Sum of r x F of open structures about their centre, relative to the typical force times their radius."""
    figures = []
    for sample, outcome in bench.open_samples():
        arms = sample.atoms.positions - sample.atoms.positions.mean(axis=0)
        radius = np.linalg.norm(arms, axis=1).max()
        torque = np.cross(arms, outcome.forces).sum(axis=0)
        figures.append(Measured(largest(torque) / (bench.scale.force * radius), _in(sample.name)))
    return worst(figures)


def symmetric_stress(bench: Bench) -> Measured:
    """stress = stress^T, relative to the typical stress."""
    return worst(
        [
            Measured(largest(outcome.stress - outcome.stress.T) / bench.scale.stress, _in(sample.name))
            for sample, outcome in bench.periodic_samples()
        ]
    )


def join(a: ase.Atoms, b: ase.Atoms) -> ase.Atoms:
    """Two open structures as one, 100 Å apart."""
    moved = b.copy()
    moved.positions += np.array([FAR, 0.0, 0.0]) + a.positions.mean(axis=0) - b.positions.mean(axis=0)
    return a + moved


def _sum(a: Outcome, b: Outcome) -> Outcome:
    return Outcome(a.energy + b.energy, np.concatenate([a.forces, b.forces]), a.stress)


def _displaced(atoms: ase.Atoms, atom: int, step: np.ndarray) -> ase.Atoms:
    moved = atoms.copy()
    moved.positions[atom] += step
    return moved


def _strained(atoms: ase.Atoms, a: int, b: int, size: float) -> ase.Atoms:
    strain = np.eye(3)
    strain[a, b] += 0.5 * size
    strain[b, a] += 0.5 * size
    moved = atoms.copy()
    moved.set_cell(np.asarray(atoms.cell) @ strain, scale_atoms=False)
    moved.positions = atoms.positions @ strain
    return moved


def _slopes(energies: np.ndarray, step: float) -> np.ndarray:
    """Derivatives from energies at -2, -1, 1, 2 steps, (n, 4) -> (n,)."""
    return np.asarray((energies[:, 0] - 8 * energies[:, 1] + 8 * energies[:, 2] - energies[:, 3]) / (12 * step))


def _in(name: str) -> str:
    return f"largest in '{name}'"
