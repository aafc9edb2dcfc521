"""A potential for a LAMMPS that was compiled and started with Kokkos: ``pair_style mliap unified model.pkl 0``.

LAMMPS hands over its pairs, and carries rows of atoms to their copies and slopes back (``forward_exchange`` and
``reverse_exchange`` of its data, there since 2025 with Kokkos): all that a network of layers needs on several cards.
LAMMPS wants the object as a pickle. What is pickled is a model file, byte for byte, and the name of the function that
reads it; still, a pickle may run anything when it is read: take such files from people you trust.
"""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from adatom import model_file
from adatom.elements import symbols
from adatom.errors import ConfigError, SimulationError
from adatom.graph import pad_rows
from adatom.models.layered import Rows
from adatom.potential import Potential
from adatom.priors.base import Prior
from adatom.sim.lammps.forces import layers_of

BUFFERED = 3  # numbers of each atom that LAMMPS has room for when processes exchange them


class MLIAPPotential:
    """What ``pair_style mliap unified`` calls; the attributes are those that LAMMPS's ``MLIAPUnified`` has.

    ConfigError for potentials that cannot be cut into layers: AllScAIP, paper forms, direct heads.
    """

    def __init__(self, potential: Potential) -> None:
        potential = potential.of_source()
        body = layers_of(potential)
        if body is None:
            raise ConfigError(
                "this potential cannot be given to ML-IAP",
                wanted="a network of layers whose forces are derivatives: MLANet or NEMP, default form",
                got=f"{type(potential.network).__name__}, derivatives {potential.derivatives}",
                remedy="run it by adatom lammps",
            )
        self.interface: Any = None  # LAMMPS sets it
        self.element_types = symbols(potential.elements)
        self.ndescriptors, self.nparams = 1, 1  # there are none; LAMMPS wants a number
        self.rcutfac = 0.5 * potential.cutoff  # LAMMPS takes it twice
        self.potential, self.body = potential.eval().requires_grad_(False), body
        self.priors = [prior for prior in potential.priors if isinstance(prior, Prior)]

    def __reduce__(self) -> tuple[Any, tuple[bytes]]:
        """Pickled as a model file."""
        with TemporaryDirectory() as folder:
            return from_bytes, (model_file.save(self.potential, Path(folder) / "model.adatom").read_bytes(),)

    def compute_descriptors(self, data: Any) -> None:
        """Nothing: there are no descriptors apart."""

    def compute_gradients(self, data: Any) -> None:
        """Nothing."""

    def compute_forces(self, data: Any) -> None:
        """Energies of own atoms and dE/dr_ij of their pairs, (P, 3), into ``data``.

        SimulationError where the potential gives no number, ConfigError where LAMMPS was not set up for it: LAMMPS
        prints what is raised and stops. One process of several ends itself instead, which ends them all: LAMMPS would
        wait at a barrier for the others, and they for rows of this one.
        """
        try:
            self._compute(data)
        except Exception:
            if not _among_others():
                raise
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)

    def _compute(self, data: Any) -> None:
        """What ``compute_forces`` promises."""
        self._check_data(data)
        own = int(data.nlistatoms)
        if int(data.ntotal) == 0:  # nor do other processes know an atom of this one
            data.energy = 0.0
            return
        elems = torch.as_tensor(data.elems).long()
        device = elems.device
        self.potential.to(device)
        if bool((elems < 0).any()):
            raise ConfigError("the potential is one of all atoms", got="NULL in pair_coeff", remedy="name an element")
        numbers = torch.tensor(self.potential.elements, device=device).index_select(0, elems)  # (n + g,)
        if own == 0:
            numbers = torch.cat([numbers[:1], numbers])  # an atom alone, so that layers and exchanges are gone through
        vectors, centre, other = _pairs(data, device)
        order = centre.argsort(stable=True)
        slots = pad_rows(centre.index_select(0, order), max(own, 1))  # (n, M)
        filled = slots < order.shape[0]
        pair = torch.cat([order, order.new_zeros(1)]).index_select(0, slots.flatten()).view_as(slots)
        near = torch.cat([other, other.new_zeros(1)]).index_select(0, pair.flatten()).view_as(slots)
        leaf = vectors.new_ones(*slots.shape, 3)
        leaf[filled] = vectors.index_select(0, pair[filled])
        leaf.requires_grad_()
        with torch.enable_grad():
            energies = self._energies(numbers, near, leaf, filled, data)
            (slope,) = torch.autograd.grad(energies.sum(), leaf, allow_unused=True)
        energies = energies.detach()[:own] + self.potential.references.index_select(0, numbers[:own])
        pulls = torch.zeros_like(vectors)
        if slope is not None:
            pulls[pair[filled]] = slope[filled]
        self._check(energies, pulls)
        data.energy = float(energies.sum())
        if own:
            torch.as_tensor(data.eatoms, device=device)[:own] = energies
        if pulls.shape[0]:
            data.update_pair_forces(pulls.contiguous())

    def _energies(self, numbers: Tensor, near: Tensor, vectors: Tensor, filled: Tensor, data: Any) -> Tensor:
        """Energy of each own atom without its reference, (n,) eV, through all layers."""
        own, body, dtype = near.shape[0], self.body, self.potential.dtype
        others = numbers.index_select(0, near.flatten()).view_as(near)
        seen = body.surroundings(vectors.to(dtype), filled.to(dtype).unsqueeze(1), numbers[:own], others)
        rows, energy = body.start(numbers), torch.zeros_like(vectors[:, 0, 0])
        for number in range(len(body.layers)):
            told = tuple(row.index_select(0, near.flatten()).view(*near.shape, row.shape[1]) for row in rows)
            step = body.layer(number, tuple(row[:own] for row in rows), told, seen, numbers[:own])
            energy = energy + step.energy * self.potential.scale
            if number + 1 < len(body.layers):
                rows = _exchanged(step.rows, data)
        for prior in self.priors:
            energy = energy + prior.pairs(numbers[:own], others, vectors, filled)
        return energy

    def _check_data(self, data: Any) -> None:
        """ConfigError for a LAMMPS whose data are not those of all atoms, with an exchange of rows."""
        try:
            data.forward_exchange  # noqa: B018
        except AttributeError as error:
            raise ConfigError(
                "this LAMMPS hands no rows of atoms from process to process",
                wanted="pair style mliap/kk of a LAMMPS from 2025 or later",
                got="pair style mliap, without Kokkos",
                remedy="start it as lmp -k on -sf kk -pk kokkos newton on neigh half -in in.lmp",
            ) from error
        own, atoms = int(data.nlistatoms), int(data.nlocal)
        if own != atoms:
            raise ConfigError(
                "the potential is one of all atoms",
                got=f"{own} of {atoms} atoms of a process",
                remedy="take pair_style mliap alone, or under hybrid/overlay with '* *'",
            )

    def _check(self, energies: Tensor, pulls: Tensor) -> None:
        if not bool(energies.isfinite().all()) or not bool(pulls.isfinite().all()):
            raise SimulationError(
                "the potential gave no number",
                wanted="finite energies and forces",
                remedy="relax the structure first, take a shorter timestep, or train on such structures",
            )


def _pairs(data: Any, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors (P, 3) in Å, their own atoms (P,) and the others (P,); LAMMPS has no arrays where there are no pairs."""
    if int(data.npairs) == 0:
        none = torch.zeros(0, dtype=torch.int64, device=device)
        return torch.zeros(0, 3, dtype=torch.float64, device=device), none, none
    return (
        torch.as_tensor(data.rij, device=device).to(torch.float64).view(-1, 3),
        torch.as_tensor(data.pair_i, device=device).long(),
        torch.as_tensor(data.pair_j, device=device).long(),
    )


def _among_others() -> bool:
    """Whether an MPI launcher (Hydra, Open MPI, Slurm) started several processes."""
    return any(
        int(os.environ.get(name, "1")) > 1 for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
    )


class _Exchange(torch.autograd.Function):
    """Rows of own atoms to their copies, slopes by copies home; LAMMPS does both."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, data: Any) -> Tensor:  # type: ignore[override]
        """Rows (n + g, F), those of copies filled."""
        ctx.data = data
        return _through(data.forward_exchange, rows)

    @staticmethod
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        """Slopes by own rows, with those of their copies added."""
        return _through(ctx.data.reverse_exchange, slopes), None


def _through(exchange: Callable[[Tensor, Tensor, int], None], rows: Tensor) -> Tensor:
    """What an exchange of LAMMPS makes of rows (n + g, F).

    Off the card LAMMPS sends them through buffers that it made for positions: more numbers than three of an atom would
    be written beyond their end.
    """
    size, width = rows.shape
    step = width if rows.is_cuda else BUFFERED
    parts = (
        nn.functional.pad(rows, (0, -width % step)).view(size, -1, step).transpose(0, 1).contiguous()
    )  # (K, n + g, 3)
    full = torch.empty_like(parts)
    for source, target in zip(parts, full, strict=True):
        exchange(source, target, step)
    return full.transpose(0, 1).reshape(size, -1)[:, :width].contiguous()


def _exchanged(rows: Rows, data: Any) -> Rows:
    """Rows of all atoms, (n + g, F) each, from those of own ones; that of an atom without process stays in front."""
    wide, own = torch.cat(rows, dim=1), int(data.nlistatoms)
    empty = wide.new_zeros(int(data.ntotal) - own, wide.shape[1])
    full: Tensor = _Exchange.apply(torch.cat([wide[:own], empty]), data)
    parted: Rows = torch.cat([wide[own:], full]).split([row.shape[1] for row in rows], dim=1)
    return parted


def from_bytes(content: bytes) -> MLIAPPotential:
    """What a pickle calls when it is read; ModelFileError when the model file in it is damaged."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.adatom"
        path.write_bytes(content)
        return MLIAPPotential(model_file.load(path))


def export(potential: Potential, path: Path) -> None:
    """Write the pickle that LAMMPS reads; for ``.pt`` and ``.pth`` LAMMPS calls ``torch.load``, else pickle itself."""
    made = MLIAPPotential(potential)
    if path.suffix in (".pt", ".pth"):
        torch.save(made, path)
        return
    with path.open("wb") as file:
        pickle.dump(made, file)
