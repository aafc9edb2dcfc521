"""Changes of the description that must leave the physics alone: origin, order of atoms, choice of cell, company."""

from __future__ import annotations

from collections.abc import Callable

import ase
import numpy as np
import torch
from torch import Tensor

from adatom.graph import Graph
from adatom.testing.bench import Bench, Measured, Outcome, compare, evaluate, evaluate_batch, worst
from adatom.testing.structures import random_rotation


def translation(bench: Bench) -> Measured:
    """E(r + t) = E(r), F and stress likewise."""
    shift = bench.rng().uniform(-20.0, 20.0, size=3)
    return _changed(bench, lambda atoms: _moved(atoms, atoms.positions + shift), lambda o: o)


def rotation(bench: Bench) -> Measured:
    """E(R r) = E(r), F -> R F, stress -> R stress R^T, for two proper rotations."""
    rng = bench.rng()
    return worst([_orthogonal(bench, random_rotation(rng)) for _ in range(2)])


def inversion(bench: Bench) -> Measured:
    """E(-r) = E(r), F -> -F, stress unchanged."""
    return _orthogonal(bench, -np.eye(3))


def permutation(bench: Bench) -> Measured:
    """Atoms listed in another order: the same energy, the forces in that order."""
    rng = bench.rng()
    orders = [rng.permutation(len(sample.atoms)) for sample in bench.samples]
    found = bench.run([s.atoms[order] for s, order in zip(bench.samples, orders, strict=True)])
    wanted = [o._replace(forces=o.forces[order]) for o, order in zip(bench.outcomes, orders, strict=True)]
    return compare(bench, _names(bench), found, wanted)


def wrapping(bench: Bench) -> Measured:
    """Each atom moved by a lattice vector of its own: nothing changes."""
    rng = bench.rng()

    def scatter(atoms: ase.Atoms) -> ase.Atoms:
        whole = rng.integers(-3, 4, size=(len(atoms), 3)) * atoms.pbc
        return _moved(atoms, atoms.positions + whole @ np.asarray(atoms.cell))

    return _changed(bench, scatter, lambda o: o)


def choice_of_cell(bench: Bench) -> Measured:
    """The same lattice spanned by other vectors (an integer matrix of determinant 1): nothing changes."""
    mixings = np.array(
        [[[1, 1, 0], [0, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, 0], [-1, 0, 1]], [[1, 0, 0], [0, 1, 1], [0, 0, 1]]]
    )

    def recut(atoms: ase.Atoms) -> ase.Atoms:
        # only periodic vectors may be mixed with one another
        allowed = np.outer(atoms.pbc, atoms.pbc) | np.eye(3, dtype=bool)
        matrix = np.linalg.multi_dot([np.where(allowed, mixing, 0) for mixing in mixings])
        other = atoms.copy()
        other.set_cell(matrix @ np.asarray(atoms.cell), scale_atoms=False)
        return other

    return _changed(bench, recut, lambda o: o)


def batch_is_single(bench: Bench) -> Measured:
    """Structures of all sizes and boundaries in one batch, in both orders: what each says alone."""
    graphs = [bench.graph(sample.atoms) for sample in bench.samples]
    alone = [outcome for graph in graphs for outcome in evaluate(bench.potential, [graph])]
    together = evaluate(bench.potential, graphs)
    backwards = evaluate(bench.potential, graphs[::-1])[::-1]  # the lone atom first
    return worst([compare(bench, _names(bench), found, alone) for found in (together, backwards)])


def padding(bench: Bench) -> Measured:
    """Wider ``slots`` and ``table``, filled with nothing: nothing changes."""
    graphs = [bench.graph(sample.atoms) for sample in bench.samples]
    wide = [
        graph.replace(
            slots=_widened(graph.slots, 3, graph.edges.shape[1]),
            neighbours=_widened(graph.neighbours, 3, 0),
            back=_widened(graph.back, 3, 0),
            table=_widened(graph.table, 2, graph.numbers.shape[0]),
        )
        for graph in graphs
    ]
    found = [outcome for graph in wide for outcome in evaluate_batch(bench.potential, graph)]
    wanted = [outcome for graph in graphs for outcome in evaluate_batch(bench.potential, graph)]
    return compare(bench, _names(bench), found, wanted)


def repetition(bench: Bench) -> Measured:
    """The same batch a second time: the same answer."""
    graphs = [bench.graph(sample.atoms) for sample in bench.samples]
    return compare(bench, _names(bench), evaluate(bench.potential, graphs), evaluate(bench.potential, graphs))


def input_untouched(bench: Bench) -> Measured:
    """The graph that went in is the graph that comes out; the figure counts the fields that were written to."""
    graph = bench.graph(bench.samples[0].atoms)
    before = {name: value.clone() for name, value in _fields(graph)}
    evaluate_batch(bench.potential, graph)
    changed = [name for name, value in _fields(graph) if not torch.equal(value, before[name])]
    return Measured(float(len(changed)), f"written to: {', '.join(changed)}" if changed else "no field was written to")


def _fields(graph: Graph) -> list[tuple[str, Tensor]]:
    return [(name, value) for name, value in vars(graph).items()]


def _orthogonal(bench: Bench, matrix: np.ndarray) -> Measured:
    def turn(atoms: ase.Atoms) -> ase.Atoms:
        turned = _moved(atoms, atoms.positions @ matrix.T)
        turned.set_cell(np.asarray(atoms.cell) @ matrix.T, scale_atoms=False)
        return turned

    return _changed(bench, turn, lambda o: Outcome(o.energy, o.forces @ matrix.T, matrix @ o.stress @ matrix.T))


def _changed(
    bench: Bench, change: Callable[[ase.Atoms], ase.Atoms], expected: Callable[[Outcome], Outcome]
) -> Measured:
    """Compare what is said about changed samples with what is expected from the unchanged ones."""
    found = bench.run([change(sample.atoms) for sample in bench.samples])
    return compare(bench, _names(bench), found, [expected(outcome) for outcome in bench.outcomes])


def _moved(atoms: ase.Atoms, positions: np.ndarray) -> ase.Atoms:
    moved = atoms.copy()
    moved.positions = positions
    return moved


def _names(bench: Bench) -> list[str]:
    return [sample.name for sample in bench.samples]


def _widened(table: Tensor, columns: int, pad: int) -> Tensor:
    return torch.cat([table, table.new_full((table.shape[0], columns), pad)], dim=1)
