"""What moves: positions, momenta and forces of one structure, in buffers that stay where they are."""

from __future__ import annotations

import ase
import numpy as np
import torch
from ase.constraints import FixAtoms
from torch import Tensor

from adatom.errors import ConfigError
from adatom.sim.calculator import has_volume


class Motion:
    """Positions (Å), momenta and forces (eV/Å) of one structure in ASE's units, float64: three views of one buffer.

    Nothing is ever exchanged, only overwritten: a step is the same few operations on the same memory, however many
    atoms there are, and can be captured as it is where a device offers that.

    Parameters
    ----------
    atoms
        The start. Atoms held by FixAtoms stay; other constraints are kept as ASE's integrators keep them.
    device
        Where the buffers live.
    """

    def __init__(self, atoms: ase.Atoms, device: torch.device | str = "cpu") -> None:
        masses = atoms.get_masses()
        if not (masses > 0.0).all():
            raise ConfigError(
                "an atom without mass cannot move",
                where=f"md, atom {int(np.flatnonzero(~(masses > 0.0))[0])}",
                remedy="set masses, or remove it",
            )
        held = np.zeros(len(atoms), dtype=bool)
        for constraint in atoms.constraints:
            if isinstance(constraint, FixAtoms):
                held[constraint.get_indices()] = True
        others = [c for c in atoms.constraints if not isinstance(c, FixAtoms)]
        self.phase = torch.zeros(3, len(atoms), 3, dtype=torch.float64, device=device)
        self.positions, self.momenta, self.forces = self.phase.unbind()  # (N, 3) each
        self.masses = torch.from_numpy(masses).to(device).unsqueeze(1)  # (N, 1)  amu
        self.mobile = torch.from_numpy((~held).astype(np.float64)).to(device).unsqueeze(1)  # (N, 1)  0 where held
        self.inverse = self.mobile / self.masses  # (N, 1)
        self._root = (0.5 * self.inverse).sqrt()
        self._weighed = torch.zeros_like(self.momenta)
        self._flat = self._weighed.view(-1)
        self.cell = np.array(atoms.cell, dtype=np.float64)  # (3, 3)  exchanged when it changes
        self.periodic = has_volume(atoms)
        self.rules = Rules(atoms, others) if others else None
        self.freedoms = int(atoms.get_number_of_degrees_of_freedom())
        self.free = not atoms.constraints
        self.positions.copy_(torch.from_numpy(atoms.get_positions()))
        self.momenta.copy_(torch.from_numpy(atoms.get_momenta()) * self.mobile.cpu())

    @property
    def volume(self) -> float:
        """Å^3; NaN where the structure is not periodic in three directions."""
        return float(abs(np.linalg.det(self.cell))) if self.periodic else float("nan")

    def kick(self, time: float) -> None:
        """p += F t."""
        self.momenta.addcmul_(self.forces, self.mobile, value=time)
        if self.rules is not None:
            self.rules.project(self)

    def drift(self, time: float) -> None:
        """r += p t / m."""
        if self.rules is None:
            self.positions.addcmul_(self.momenta, self.inverse, value=time)
        else:
            before = self.positions.clone()
            self.positions.addcmul_(self.momenta, self.inverse, value=time)
            self.rules.hold(self, before, time)

    def kinetic(self) -> Tensor:
        """Kinetic energy in eV, (), the motion of the whole included."""
        torch.mul(self.momenta, self._root, out=self._weighed)
        return self._flat.dot(self._flat)

    def rescale(self, factor: float) -> None:
        """Cell and positions grow by ``factor``, momenta shrink by it."""
        self.cell = self.cell * factor
        self.positions.mul_(factor)
        self.momenta.div_(factor)

    def write(self, atoms: ase.Atoms) -> None:
        """Put positions, momenta and cell into ``atoms``, constraints or not."""
        atoms.set_cell(self.cell)
        atoms.set_positions(self.positions.cpu().numpy(), apply_constraint=False)
        atoms.set_momenta(self.momenta.cpu().numpy(), apply_constraint=False)


class Rules:
    """Constraints other than fixed atoms, asked of ASE at every step: RATTLE, as its integrators have it.

    Positions that had to be put right put the momenta right with them; momenta then lose what leads out of the
    constraints. This goes through the host and through Python: it is as fast as ASE.
    """

    def __init__(self, atoms: ase.Atoms, constraints: list[object]) -> None:
        self._atoms = atoms.copy()
        self._atoms.set_constraint(constraints)

    def hold(self, motion: Motion, before: Tensor, time: float) -> None:
        """Put positions right that were drifted from ``before`` for ``time``, and the momenta with them."""
        self._atoms.set_positions(before.cpu().numpy(), apply_constraint=False)
        self._atoms.set_positions(motion.positions.cpu().numpy())
        motion.positions.copy_(torch.from_numpy(self._atoms.get_positions()))
        motion.momenta.copy_((motion.positions - before) * motion.masses * motion.mobile / time)
        self.project(motion)

    def project(self, motion: Motion) -> None:
        """Take from the momenta what the constraints forbid."""
        self._atoms.set_positions(motion.positions.cpu().numpy(), apply_constraint=False)
        self._atoms.set_momenta(motion.momenta.cpu().numpy())
        motion.momenta.copy_(torch.from_numpy(self._atoms.get_momenta()))

    def energy(self, motion: Motion, energy: Tensor) -> Tensor:
        """Put the forces right, and give the energy (1,) with what the constraints add to it."""
        forces = motion.forces.cpu().numpy().copy()
        self._atoms.set_positions(motion.positions.cpu().numpy(), apply_constraint=False)
        for constraint in self._atoms.constraints:
            redistribute = getattr(constraint, "redistribute_forces_md", None)
            if redistribute is not None:
                redistribute(self._atoms, forces)
            added = getattr(constraint, "adjust_potential_energy", None)
            if added is not None:
                constraint.adjust_forces(self._atoms, forces)
                energy = energy + added(self._atoms)
        motion.forces.copy_(torch.from_numpy(forces))
        return energy
