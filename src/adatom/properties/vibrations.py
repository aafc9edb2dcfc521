"""Vibrations: normal modes of molecules, of atoms on fixed surfaces and of crystals at the zone centre."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ase
import ase.io
import numpy as np
import torch
from ase import units
from ase.calculators.calculator import BaseCalculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from pydantic import Field, PositiveFloat

from adatom.config import Config
from adatom.errors import ConfigError, SimulationError
from adatom.neighbors import graph_from_atoms
from adatom.potential import Potential
from adatom.sim.calculator import Calculator
from adatom.sim.many import evaluate
from adatom.sim.relax import as_calculator, relax

PER_CM = units._hbar * 1e10 / math.sqrt(units._e * units._amu) / units.invcm  # cm^-1 of sqrt(eV/Å^2/amu)
KM_PER_MOL = units._Nav / (12.0 * units._eps0 * units._c**2) * units._e**2 / units._amu / 1e3  # of e^2/amu
LINEAR = 1e-4  # of the largest moment of inertia: a molecule with a smaller one is a line
Shape = Literal["atom", "line", "body", "held", "periodic"]


class VibrationsConfig(Config):
    """How the Hessian is made, and what counts as rest.

    ``differences``: central differences of forces, ``displacement_A`` to both sides, all as one batch. ``autograd``:
    second derivatives of the energy, exact, for potentials of this package. With ``relax_first`` the atoms are brought
    to rest (forces below ``fmax``, eV/Å); otherwise larger forces are an error.
    """

    hessian: Literal["differences", "autograd"] = "differences"
    displacement_A: float = Field(default=0.01, gt=0.0, le=0.1)
    relax_first: bool = False
    fmax: PositiveFloat = 0.01
    relax_steps: int = Field(default=500, ge=0)


@dataclass(frozen=True)
class Vibrations:
    """Normal modes of M = 3 n - (rigid motions) vibrations, by rising frequency; n atoms move, the others are held.

    ``frequencies_per_cm`` are negative where imaginary. ``modes`` are Cartesian displacements of unit length,
    l_k = M^(-1/2) q_k sqrt(mu_k) with q_k an eigenvector of the mass-weighted Hessian; ``reduced_masses_amu``
    mu_k = 1 / |M^(-1/2) q_k|^2; ``force_constants_eV_per_A2`` mu_k omega_k^2. ``shape`` says which rigid motions were
    projected out: of an atom or a periodic structure the translations, of a line two rotations and of a body three as
    well, none where atoms are held.
    """

    atoms: ase.Atoms
    moving: np.ndarray  # (n,)  indices
    hessian: np.ndarray  # (3 n, 3 n)  eV/Å^2
    frequencies_per_cm: np.ndarray  # (M,)
    modes: np.ndarray  # (M, N, 3)
    reduced_masses_amu: np.ndarray  # (M,)
    force_constants_eV_per_A2: np.ndarray  # (M,)
    energy_eV: float
    fmax: float  # eV/Å, largest force left
    shape: Shape

    @property
    def imaginary(self) -> int:
        """Number of imaginary frequencies: 0 at a minimum, 1 at a transition state."""
        return int((self.frequencies_per_cm < 0.0).sum())

    @property
    def zero_point_eV(self) -> float:
        """Half of the sum of h nu over the real modes."""
        return 0.5 * float(self.frequencies_per_cm[self.frequencies_per_cm > 0.0].sum()) * float(units.invcm)

    def infrared_km_per_mol(self, dipole_derivatives: np.ndarray) -> np.ndarray:
        """IR intensity of every mode, (M,), from dmu_a/dr_ib in e: (N, 3, 3), axes atom, its direction b, dipole a.

        A_k = N_A pi / (3 c^2) / (4 pi eps0) |dmu / dQ_k|^2 with the mass-weighted coordinate Q_k. ConfigError for
        another shape.
        """
        given = np.asarray(dipole_derivatives, dtype=np.float64)
        if given.shape != (len(self.atoms), 3, 3):
            raise ConfigError(
                "dipole derivatives do not fit these atoms",
                where="infrared_km_per_mol",
                wanted=f"an array ({len(self.atoms)}, 3, 3): atom, direction, component of the dipole",
                got=f"shape {given.shape}",
            )
        slopes = np.einsum("kib,iba->ka", self.modes, given) / np.sqrt(self.reduced_masses_amu)[:, None]
        intensities: np.ndarray = KM_PER_MOL * np.square(slopes).sum(1)
        return intensities

    def frames(self, mode: int, amplitude_A: float = 0.3, count: int = 24) -> list[ase.Atoms]:
        """One swing of a mode: the atom that moves most moves by ``amplitude_A`` to either side."""
        largest = float(np.linalg.norm(self.modes[mode], axis=1).max())
        moved = []
        for phase in np.linspace(0.0, 2.0 * math.pi, count, endpoint=False):
            frame = self.atoms.copy()
            frame.positions += amplitude_A / largest * math.sin(phase) * self.modes[mode]
            frame.info["frequency_per_cm"] = float(self.frequencies_per_cm[mode])
            moved.append(frame)
        return moved

    def write_modes(self, folder: str | Path) -> list[Path]:
        """A swing of every mode as ``mode_001.xyz`` and so on, its frequency in each frame."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        paths = [target / f"mode_{k + 1:03d}.xyz" for k in range(len(self.modes))]
        for k, path in enumerate(paths):
            ase.io.write(path, self.frames(k), format="extxyz")
        return paths

    def to_record(self) -> dict[str, Any]:
        """As the report reads it."""
        return {
            "property": "vibrations",
            "frequency_per_cm": self.frequencies_per_cm.tolist(),
            "reduced_mass_amu": self.reduced_masses_amu.tolist(),
            "force_constant_eV_per_A2": self.force_constants_eV_per_A2.tolist(),
            "zero_point_eV": self.zero_point_eV,
            "imaginary": self.imaginary,
            "energy_eV": self.energy_eV,
            "fmax_eV_per_A": self.fmax,
            "shape": self.shape,
            "atoms": len(self.atoms),
            "moving": len(self.moving),
        }


def vibrations(
    atoms: ase.Atoms,
    calculator: BaseCalculator | Potential | str | Path,
    *,
    hessian: Literal["differences", "autograd"] = "differences",
    displacement_A: float = 0.01,
    relax_first: bool = False,
    fmax: float = 0.01,
    relax_steps: int = 500,
    progress: Callable[[str], None] | None = None,
) -> Vibrations:
    """Normal modes of a structure at rest; the parameters are those of VibrationsConfig.

    Atoms held by FixAtoms stay. Rigid motions are projected out exactly: what is left has no modes near zero that are
    none. ``progress`` is called with a word on what is done.

    Raises
    ------
    SimulationError
        The atoms are not at rest: names the largest force; or the relaxation has not converged.
    ConfigError
        Nothing moves, other constraints than FixAtoms, or an analytic Hessian of a calculator of another package.
    """
    config = VibrationsConfig.parse(
        {
            "hessian": hessian,
            "displacement_A": displacement_A,
            "relax_first": relax_first,
            "fmax": fmax,
            "relax_steps": relax_steps,
        },
        where="vibrations",
    )
    say = progress or (lambda _: None)
    moving = _moving(atoms)
    engine = as_calculator(calculator)
    system = atoms.copy()
    if config.relax_first:
        say("relaxing")
        system = relax(system, engine, fmax=config.fmax, steps=config.relax_steps).require_converged().atoms.copy()
    here = evaluate([system], engine)[0]
    left = float(np.linalg.norm(here.forces[moving], axis=1).max())
    if left > config.fmax:
        raise SimulationError(
            "vibrations are those about a place of rest, and these atoms are pushed",
            where=atoms.get_chemical_formula(),
            wanted=f"forces below {config.fmax:g} eV/Å",
            got=f"a largest force of {left:.3g} eV/Å",
            remedy="relax the structure first (relax_first=True, --relax), or accept a larger fmax",
        )
    say(f"{6 * len(moving)} displaced structures" if config.hessian == "differences" else "second derivatives")
    if config.hessian == "autograd":
        matrix = second_derivatives(system, engine, moving)
    else:
        matrix = differences(system, engine, moving, config.displacement_A)
    system.calc = SinglePointCalculator(system, energy=here.energy, forces=here.forces)
    return _modes(system, moving, matrix, here.energy, left)


def differences(
    atoms: ase.Atoms, calculator: BaseCalculator | Potential | str | Path, moving: np.ndarray, step: float
) -> np.ndarray:
    """Hessian (3 n, 3 n) in eV/Å^2 by central differences of forces over ``step`` Å, all structures as one batch."""
    displaced = []
    for atom in moving:
        for axis in range(3):
            for way in (-step, step):
                copied = atoms.copy()
                copied.positions[atom, axis] += way
                displaced.append(copied)
    forces = np.array([one.forces[moving].ravel() for one in evaluate(displaced, calculator)])  # (6 n, 3 n)
    matrix = (forces[0::2] - forces[1::2]) / (2.0 * step)
    symmetric: np.ndarray = 0.5 * (matrix + matrix.T)
    return symmetric


def second_derivatives(atoms: ase.Atoms, calculator: BaseCalculator, moving: np.ndarray) -> np.ndarray:
    """Hessian (3 n, 3 n) in eV/Å^2 as the derivative of the energy's derivative; ConfigError where there is none."""
    if not isinstance(calculator, Calculator) or calculator.potential.derivatives != "gradient":
        raise ConfigError(
            "an analytic Hessian needs a potential of this package whose forces are derivatives of its energy",
            where="vibrations, hessian",
            wanted="differences, or such a potential",
            got="autograd",
            remedy="leave hessian at differences",
        )
    # in training mode every derivative can be differentiated once more
    potential = copy.deepcopy(calculator.potential).train()
    graph = graph_from_atoms(atoms, potential.cutoff).to(calculator.neighbors.device)
    positions = graph.positions.detach().requires_grad_()
    with torch.enable_grad():
        energy = potential.energies(graph.replace(positions=positions)).sum()
        (slope,) = torch.autograd.grad(energy, positions, create_graph=True)
        chosen = slope[torch.from_numpy(moving)].flatten()
        rows = [torch.autograd.grad(one, positions, retain_graph=True)[0] for one in chosen]
    matrix = torch.stack(rows)[:, torch.from_numpy(moving)].flatten(1).cpu().numpy()
    symmetric: np.ndarray = 0.5 * (matrix + matrix.T)
    return symmetric


def _moving(atoms: ase.Atoms) -> np.ndarray:
    """Indices of the atoms that are not held."""
    held: set[int] = set()
    for constraint in atoms.constraints:
        if not isinstance(constraint, FixAtoms):
            raise ConfigError(
                "vibrations know atoms that are held as a whole, and no other constraints",
                where=f"vibrations of {atoms.get_chemical_formula()}",
                wanted="FixAtoms",
                got=type(constraint).__name__,
                remedy="take the constraint away, or hold the atoms",
            )
        held |= {int(k) for k in constraint.get_indices()}
    moving = np.array([k for k in range(len(atoms)) if k not in held], dtype=np.int64)
    if not moving.size:
        raise ConfigError(
            "nothing moves in this structure",
            where="vibrations",
            wanted="an atom that is not held",
            got=f"{len(atoms)} atoms, {len(held)} of them held",
        )
    return moving


def _modes(atoms: ase.Atoms, moving: np.ndarray, hessian: np.ndarray, energy: float, fmax: float) -> Vibrations:
    """Diagonalise the mass-weighted Hessian in the space that is free of rigid motions."""
    masses = atoms.get_masses()[moving]
    root = np.repeat(np.sqrt(masses), 3)  # (3 n,)
    shape, rigid = rigid_motions(atoms, moving)
    # the columns that complete the rigid motions to an orthonormal basis
    complete, _, _ = np.linalg.svd(rigid, full_matrices=True)
    free = complete[:, rigid.shape[1] :]  # (3 n, M)
    squares, vectors = np.linalg.eigh(free.T @ (hessian / np.outer(root, root)) @ free)
    weighted = (free @ vectors).T  # (M, 3 n)
    plain = weighted / root
    reduced = 1.0 / np.square(plain).sum(1)
    modes = np.zeros((len(squares), len(atoms), 3))
    modes[:, moving] = (plain * np.sqrt(reduced)[:, None]).reshape(len(squares), len(moving), 3)
    frequencies = PER_CM * np.sign(squares) * np.sqrt(np.abs(squares))
    return Vibrations(
        atoms, moving, hessian, frequencies, modes, reduced, reduced * squares, float(energy), float(fmax), shape
    )


def rigid_motions(atoms: ase.Atoms, moving: np.ndarray) -> tuple[Shape, np.ndarray]:
    """What a structure is of which the atoms ``moving`` (n,) are not held, and its rigid motions: mass-weighted
    columns (3 n, 0 ... 6) of full rank.
    """
    if len(moving) < len(atoms):
        return "held", np.zeros((3 * len(moving), 0))
    masses = atoms.get_masses()
    root = np.sqrt(masses)
    columns = [np.outer(root, axis).ravel() for axis in np.eye(3)]
    if atoms.pbc.any():
        return "periodic", np.array(columns).T
    arms = atoms.positions - masses @ atoms.positions / masses.sum()
    moments, axes = np.linalg.eigh(inertia(masses, arms))
    turning = [axis for moment, axis in zip(moments, axes.T, strict=True) if moment > LINEAR * moments[-1] > 0.0]
    columns += [(root[:, None] * np.cross(axis, arms)).ravel() for axis in turning]
    shape: Shape = "atom" if len(atoms) == 1 else "line" if len(turning) == 2 else "body"
    return shape, np.array(columns).T


def inertia(masses: np.ndarray, arms: np.ndarray) -> np.ndarray:
    """Tensor of inertia (3, 3), amu Å^2, of arms (N, 3) from the centre of mass."""
    tensor: np.ndarray = np.einsum("i,ij,ij->", masses, arms, arms) * np.eye(3) - np.einsum(
        "i,ia,ib->ab", masses, arms, arms
    )
    return tensor
