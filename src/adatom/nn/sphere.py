"""Products of fields on the sphere: all parity-even couplings of any order for the price of a few points.

Features x_lm are a function on the sphere, f(n) = sum_lm x_lm Y_lm(n). The product of functions, taken point by point
and projected on harmonics again, is a sum of couplings (the Gaunt product; Luo, Chen, Krishnapriyan, ICLR 2024). On the
points of a quadrature that is exact for the degree of the product it is exact, and so it is equivariant.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import Tensor, nn

from adatom.nn.equivariant import DegreeLinear, Gate, add_degrees, bounded
from adatom.nn.exact import Exact
from adatom.nn.spherical import reference_harmonics

_P, _Q = math.sqrt((3 + math.sqrt(3)) / 6), math.sqrt((3 - math.sqrt(3)) / 6)
# highest degree that is integrated exactly -> orbits of the octahedral group: a point (normalised here), its weight
# (Lebedev, USSR Comp. Math. 16 (1976) 10)
OCTAHEDRAL: dict[int, list[tuple[tuple[float, float, float], float]]] = {
    3: [((1, 0, 0), 1 / 6)],
    5: [((1, 0, 0), 1 / 15), ((1, 1, 1), 3 / 40)],
    7: [((1, 0, 0), 1 / 21), ((1, 1, 0), 4 / 105), ((1, 1, 1), 9 / 280)],
    9: [((1, 0, 0), 1 / 105), ((1, 1, 1), 9 / 280), ((_P, _Q, 0), 1 / 35)],
    11: [((1, 0, 0), 4 / 315), ((1, 1, 0), 64 / 2835), ((1, 1, 1), 27 / 1280), ((1, 1, 3), 14641 / 725760)],
}


def quadrature(degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (P, 3) and weights (P,), sum 1, that average polynomials up to ``degree`` exactly over the sphere.

    Octahedral rules of 6 to 50 points up to degree 11, a product of Gauss-Legendre and equal angles beyond.
    """
    for exact, orbits in OCTAHEDRAL.items():
        if degree <= exact:
            rings = [_orbit(point) for point, _ in orbits]
            return np.concatenate(rings), np.repeat([w for _, w in orbits], [len(ring) for ring in rings])
    heights, weights = np.polynomial.legendre.leggauss(degree // 2 + 1)
    angles = 2 * np.pi * np.arange(degree + 1) / (degree + 1)
    radii = np.sqrt(1 - heights**2)
    points = [np.outer(radii, np.cos(angles)), np.outer(radii, np.sin(angles)), np.outer(heights, np.ones_like(angles))]
    return np.stack(points, -1).reshape(-1, 3), np.repeat(weights / (2 * (degree + 1)), degree + 1)


def _orbit(point: tuple[float, float, float]) -> np.ndarray:
    """All different points that permutations and reflections of the axes make of one, on the unit sphere."""
    x = np.asarray(point) / np.linalg.norm(point)
    images = [x[list(p)] * s for p in itertools.permutations(range(3)) for s in itertools.product((1, -1), repeat=3)]
    _, first = np.unique(np.round(images, 12) + 0.0, axis=0, return_index=True)
    return np.asarray(images)[np.sort(first)]


class SphereProduct(nn.Module):
    """Products of two, three, ... mixtures of one set of features: (N, L2, C) -> (N, (l_out+1)^2, (order-1) W).

        f_k(n) = sum_lm (V_k x)_lm Y_lm(n) / (l_max + 1)
        z_k,lm = (k l_max + 1) < f_1 f_2 ... f_k Y_lm >,   k = 2 .. order

    with < > the average over the sphere and V_k mixing channels within each degree; the factors keep unit variance. A
    product of k fields couples k features and says something about k + 1 atoms at once. Exact for every degree, it
    commutes with rotations and inversion. The weights of the paths that lead to one degree are not free, but products
    of those in the V_k. The cost per atom and channel is that of transforms to P points and back, P about half of
    (order l_max + l_out)^2.
    """

    def __init__(self, l_max: int, l_out: int, channels: int, width: int, order: int = 3) -> None:
        super().__init__()
        points, weights = quadrature(order * l_max + l_out)
        harmonics = reference_harmonics(points, max(l_max, l_out))
        self.order, self.width = order, width
        self.gains = [k * l_max + 1 for k in range(2, order + 1)]
        self.mix = DegreeLinear(l_max, channels, order * width)
        self.spread = Exact(harmonics[:, : (l_max + 1) ** 2] / (l_max + 1))  # (P, L2)
        self.collect = Exact((weights[:, None] * harmonics[:, : (l_out + 1) ** 2]).T)  # ((l_out+1)^2, P)

    def forward(self, x: Tensor) -> Tensor:
        """Products of orders 2 and up, side by side in the channels."""
        mixed = self.mix(x).transpose(0, 1)  # (L2, N, order W): harmonics first, so that a transform is one product
        L, N = mixed.shape[:2]
        fields = (self.spread(x.dtype) @ mixed.reshape(L, -1)).view(-1, N, self.order, self.width).unbind(2)
        product, products = fields[0], []
        for field, gain in zip(fields[1:], self.gains, strict=True):
            product = product * field  # (P, N, W)
            products.append(gain * product)
        joined = torch.cat(products, dim=2)  # (P, N, (order-1) W)
        projected: Tensor = self.collect(x.dtype) @ joined.view(joined.shape[0], -1)
        return projected.view(-1, N, joined.shape[2]).transpose(0, 1)


class SphereUpdate(nn.Module):
    """Features of an atom updated with powers of what its neighbours sent, couplings once per atom.

        x <- x + W Gate( W_o [ m || m m || m m m ] ),   m of size one at most, products as in ``SphereProduct``

    x (N, (l_in+1)^2, C) becomes (N, (l_out+1)^2, C); without neighbours m = 0 and scalars stay as they are. The powers,
    (N, (l_seen+1)^2, 3 C) with l_seen >= l_out, come back too, for heads that read them.
    """

    def __init__(self, l_max: int, l_out: int, l_seen: int, channels: int) -> None:
        super().__init__()
        C = channels
        self.size_out, self.size_seen = (l_out + 1) ** 2, (max(l_seen, l_out) + 1) ** 2
        self.products = SphereProduct(l_max, max(l_seen, l_out), C, C, order=3)
        self.out = DegreeLinear(l_out, 3 * C, C)
        with torch.no_grad():
            self.out.weight[:, C:] *= 0.3  # a network starts smooth; how fast products are learned stays the same
        self.gate = Gate(l_out, C)
        self.update = DegreeLinear(l_out, C, C, gain=0.5)

    def forward(self, x: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        """New features, and the powers they were made of."""
        m = bounded(m)
        powers = torch.cat([m[:, : self.size_seen], self.products(m)], dim=2)
        update = self.update(self.gate(self.out(powers[:, : self.size_out])))
        return add_degrees(update, x[:, : self.size_out]), powers
