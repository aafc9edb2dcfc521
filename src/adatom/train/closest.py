"""How near to one another atoms of each pair of elements come in the training data."""

from __future__ import annotations

import numpy as np

from adatom.data.dataset import Dataset
from adatom.data.selection import LARGE
from adatom.elements import symbol
from adatom.graph import edge_vectors

CHUNK = 256  # structures looked at together


def closest_pairs(dataset: Dataset) -> dict[str, float]:
    """Shortest distance of each pair of elements in the data, Å: what simulations are held against."""
    some = dataset.sample(LARGE)
    shortest = np.full((256, 256), np.inf)
    for start in range(0, len(some), CHUNK):
        graph, _ = some.batch(np.arange(start, min(start + CHUNK, len(some))))
        r = edge_vectors(graph).norm(dim=1).numpy()
        low, high = np.sort(graph.numbers.numpy()[graph.edges.numpy()], axis=0)
        np.minimum.at(shortest, (low, high), r)
    pairs = np.argwhere(np.isfinite(shortest))
    return {f"{symbol(a)}-{symbol(b)}": float(shortest[a, b]) for a, b in pairs}
