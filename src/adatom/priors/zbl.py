"""Ziegler-Biersack-Littmark repulsion of atomic cores, switched on at short range only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from adatom.config import Config
from adatom.elements import MAX_Z, covalent_radius
from adatom.nn.floor import pair_table
from adatom.priors.base import Prior
from adatom.units import COULOMB

# Ziegler, Biersack, Littmark, The Stopping and Range of Ions in Solids (1985): phi(x) = sum_k A_k exp(-B_k x)
AMPLITUDES = (0.1818, 0.5099, 0.2802, 0.02817)
DECAYS = (3.2, 0.9423, 0.4029, 0.2016)
BOHR = 0.529177210903  # Å
SCREENING, POWER = 0.8854, 0.23
TESTED = 0.8  # of the shortest distance in training: there the least repulsion is asked for
BISECTIONS = 50  # of some Å: to the last bit


class ZBLConfig(Config):
    """Where the repulsion has faded out: at ``reach`` times the sum of the covalent radii, or farther out at ``beyond``
    times the shortest distance of the pair in the training data, ``closest`` (Å, as in ``{"H-O": 0.9}``). At 0.8 of it
    two atoms repel each other by ``least`` (eV) at the least, however soft their cores are.
    """

    name: Literal["zbl"] = "zbl"
    reach: PositiveFloat = 0.7
    beyond: NonNegativeFloat = 1.25
    least: NonNegativeFloat = 0.0
    closest: dict[str, PositiveFloat] | None = None  # None: a fact of the training data, filled in for a new model


class ZBL(Prior):
    """E_i = 1/2 sum_j [ s(r_ij / r_out) (Z_i Z_j e^2 / 4 pi eps0 r_ij) phi(r_ij / a_ij) + A_ij s(r_ij / d_ij) ].

    a_ij = 0.8854 a0 / (Z_i^0.23 + Z_j^0.23); s(x) = (1 - x)^3 (1 + 3x + 6x^2) falls from 1 at contact to 0 at x = 1
    with two continuous derivatives; r_out = max(reach (r_cov,i + r_cov,j), beyond d_ij), so that bonds are left to the
    network. d_ij is the shortest distance of the training data: nearer, a network is no guide, and the wall
    must be there before (it is learned with the wall in place, at no cost in accuracy: LOG.md, 2026-11-28). Cores of
    hydrogen are so soft that the pull of others presses them together; A_ij >= 0, finite at contact and without any say
    in the data, makes of the wall at 0.8 d_ij what ``least`` says, some 11 k_B T at 3,000 K.
    """

    name: ClassVar[str] = "zbl"
    config: ZBLConfig

    def __init__(self, config: ZBLConfig | None = None) -> None:
        super().__init__()
        self.config = config or ZBLConfig()
        radii = torch.from_numpy(covalent_radius(range(MAX_Z + 1)))  # type: ignore[arg-type]
        outer = torch.maximum(
            self.config.reach * (radii.unsqueeze(1) + radii), self.config.beyond * pair_table(self.config.closest or {})
        )
        self.register_buffer("outers", outer.flatten(), persistent=False)
        inverse = torch.arange(MAX_Z + 1, dtype=torch.float64) ** POWER / (SCREENING * BOHR)
        self.register_buffer("inverse_lengths", inverse, persistent=False)
        closest = pair_table(self.config.closest or {}).flatten()
        self.register_buffer("inners", torch.where(closest > 0, closest, 1.0), persistent=False)
        self.register_buffer("bumps", torch.zeros_like(closest), persistent=False)
        self.bumps = self._bumps(closest)

    def taught(self, closest: Mapping[str, float]) -> ZBL:
        """With a wall for pairs new to it; those it knows keep theirs, beside which the network has learned."""
        known = self.config.closest
        if known is None:
            return self
        new = {pair: d for pair, d in closest.items() if not {pair, "-".join(reversed(pair.split("-")))} & known.keys()}
        return ZBL(self.config.model_copy(update={"closest": known | new})) if new else self

    outers: Tensor  # (119 * 119,)  Å
    inverse_lengths: Tensor  # (119,)  1/Å
    inners: Tensor  # (119 * 119,)  d in Å
    bumps: Tensor  # (119 * 119,)  A in eV

    def pairs(self, numbers: Tensor, others: Tensor, vectors: Tensor, filled: Tensor) -> Tensor:
        """Repulsion per atom in eV, (n,)."""
        z_i, z_j = numbers.unsqueeze(1).expand_as(others), others
        near = filled & (vectors.detach().square().sum(2).sqrt() < self.outer(z_i, z_j))
        if torch.compiler.is_compiling():  # one program for all, whoever is near
            harmless = torch.where(near.unsqueeze(2), vectors, 1.0)
            return torch.where(near, self._pair(harmless, z_i, z_j), 0.0).sum(1)
        close = near.flatten().nonzero().flatten()  # few or none: the work is done for these alone
        pair = self._pair(*(t.index_select(0, close) for t in (vectors.flatten(0, 1), z_i.flatten(), z_j.flatten())))
        return torch.zeros_like(vectors[:, 0, 0]).index_add(0, close // others.shape[1], pair)

    def outer(self, z_i: Tensor, z_j: Tensor) -> Tensor:
        """Where the repulsion has faded out, Å."""
        return self.outers.index_select(0, (z_i * (MAX_Z + 1) + z_j).flatten()).view(z_i.shape)

    def nearest(self, z_i: Tensor, z_j: Tensor, energy: float) -> Tensor:
        """How far apart, in Å, two atoms are that repel each other by ``energy`` (eV, positive), alone; float64."""
        near, far = torch.full_like(self.outer(z_i, z_j), 1e-3), self.outer(z_i, z_j)
        for _ in range(BISECTIONS):
            middle = 0.5 * (near + far)
            vectors = torch.stack([middle, torch.zeros_like(middle), torch.zeros_like(middle)], dim=-1)
            higher = 2.0 * self._pair(vectors, z_i, z_j) > energy
            near, far = torch.where(higher, middle, near), torch.where(higher, far, middle)
        return 0.5 * (near + far)

    def _pair(self, vectors: Tensor, z_i: Tensor, z_j: Tensor) -> Tensor:
        """Half of the energy of pairs at vectors (..., 3), eV; zero beyond the reach."""
        r = vectors.square().sum(-1).sqrt()
        x = (r / self.outer(z_i, z_j)).clamp(max=1.0)
        switch = _switch(x)
        screened = r * (self.inverse_lengths[z_i] + self.inverse_lengths[z_j])
        phi = sum(a * torch.exp(-b * screened) for a, b in zip(AMPLITUDES, DECAYS, strict=True))
        row = (z_i * (MAX_Z + 1) + z_j).flatten()
        bump, inner = (t.index_select(0, row).view(z_i.shape) for t in (self.bumps, self.inners))
        near = _switch((r / inner).clamp(max=1.0))
        return 0.5 * (COULOMB * (z_i * z_j).to(r.dtype) / r * phi * switch + bump * near)

    def _bumps(self, closest: Tensor) -> Tensor:
        """What brings the repulsion of each known pair at its test distance to the least, (119 * 119,) eV."""
        known = ((closest > 0.0) & (closest <= self.outers)).nonzero().flatten()
        place = TESTED * closest[known]
        vectors = torch.stack([place, torch.zeros_like(place), torch.zeros_like(place)], dim=1)
        own = 2.0 * self._pair(vectors, known // (MAX_Z + 1), known % (MAX_Z + 1))
        bump = (self.config.least - own).clamp(min=0.0) / (1 - TESTED) ** 3 / (1 + 3 * TESTED + 6 * TESTED**2)
        return torch.zeros_like(closest).index_put((known,), bump)


def _switch(x: Tensor) -> Tensor:
    """From 1 at 0 to 0 at 1, with two continuous derivatives."""
    return (1 - x) ** 3 * (1 + 3 * x + 6 * x * x)
