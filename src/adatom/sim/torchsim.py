"""TorchSim: a potential as its model interface, and states that know what atoms of ASE know.

TorchSim 0.3 keeps cells as columns, and one flag of periodicity for a whole batch. ``AtomsState`` adds what that leaves
out: periodicity along each axis, total charge and multiplicity of each structure, atoms that stay where they are.
Stress has the unit and the sign of this package: eV/Å^3, tension positive.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase
import numpy as np
import torch
from ase.constraints import FixAtoms
from torch import Tensor

from adatom.compile import Mode
from adatom.errors import ConfigError
from adatom.neighbors import NEUTRAL, SINGLET, charge_and_spin, graph_from_atoms
from adatom.potential import Potential
from adatom.sim.calculator import Calculator
from adatom.sim.lists import Lists
from adatom.sim.many import atoms_at_once

try:
    with warnings.catch_warnings():
        # of its own code, and of what it imports
        for old in ("torch.jit.script", "vesin.torch"):
            warnings.filterwarnings("ignore", message=f".*{old}.*is deprecated", category=DeprecationWarning)
        from torch_sim.autobatching import InFlightAutoBatcher, to_constant_volume_bins
        from torch_sim.models.interface import ModelInterface
        from torch_sim.state import SimState
except ImportError as error:
    raise ConfigError(
        "TorchSim is not installed",
        wanted="the package torch-sim-atomistic",
        got=str(error),
        remedy="pip install 'adatom[torchsim]'",
    ) from error

__all__ = [  # what is TorchSim's own is handed on: it comes with an error of ours where it is missing
    "AtomsState", "InFlightAutoBatcher", "ModelInterface", "TorchSimModel",
    "atoms_state", "batch_room", "held", "to_constant_volume_bins",
]  # fmt: skip


class PerStructure:
    """In the place of TorchSim's one flag of periodicity: nobody takes a slab for a cluster, or a crystal for one."""

    def __bool__(self) -> bool:
        raise ConfigError(
            "TorchSim's own integrators and optimisers know one flag of periodicity for a whole batch",
            where="AtomsState, whose structures have their own",
            wanted="a state from torch_sim.io.atoms_to_state, of crystals alone or of molecules alone",
            remedy="make such a state, or use adatom.sim.relax_many, adatom.sim.md_many",
        )


@dataclass
class AtomsState(SimState):  # type: ignore[misc]
    """A state of TorchSim with all that a potential asks of a structure. Its ``pbc`` is no flag, see ``periodic``."""

    periodic: Tensor  # (S, 3)  bool
    charge: Tensor  # (S,)  e
    spin: Tensor  # (S,)  multiplicity
    number: Tensor  # (S,)  int64, of the structure among all that were given
    mobile: Tensor  # (N, 1)  1, and 0 for atoms that are held

    _atom_attributes = SimState._atom_attributes | {"mobile"}
    _system_attributes = SimState._system_attributes | {"periodic", "charge", "spin", "number"}


def atoms_state(
    structures: Sequence[ase.Atoms],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
    first: int = 0,
) -> AtomsState:
    """Atoms of ASE as one state, slabs and wires among them; they are numbered from ``first``.

    ConfigError for constraints other than FixAtoms.
    """
    charges, spins = np.array([charge_and_spin(atoms) for atoms in structures]).reshape(-1, 2).T
    sizes = [len(atoms) for atoms in structures]

    def floats(values: np.ndarray) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(values), dtype=dtype, device=device)

    return AtomsState(
        positions=floats(np.concatenate([atoms.get_positions() for atoms in structures])),
        masses=floats(np.concatenate([atoms.get_masses() for atoms in structures])),
        cell=floats(np.stack([atoms.cell.array.T for atoms in structures])),
        pbc=PerStructure(),
        atomic_numbers=torch.as_tensor(np.concatenate([atoms.numbers for atoms in structures]), device=device),
        system_idx=torch.arange(len(sizes), device=device).repeat_interleave(torch.tensor(sizes, device=device)),
        periodic=torch.as_tensor(np.stack([atoms.pbc for atoms in structures]), device=device),
        charge=floats(charges),
        spin=floats(spins),
        number=torch.arange(first, first + len(sizes), device=device),
        mobile=floats(np.concatenate([~held(atoms) for atoms in structures])).unsqueeze(1),
    )


def held(atoms: ase.Atoms) -> np.ndarray:
    """Which atoms FixAtoms holds, (n,) bool; ConfigError for any other constraint: none is passed over in silence."""
    fixed = np.zeros(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        if not isinstance(constraint, FixAtoms):
            raise ConfigError(
                f"many structures at once know no constraint {type(constraint).__name__}",
                where=atoms.get_chemical_formula(),
                wanted="FixAtoms, or no constraint",
                got=type(constraint).__name__,
                remedy="take it off, or treat this structure alone: adatom.relax, adatom.sim.md.run",
            )
        fixed[constraint.get_indices()] = True
    return fixed


class TorchSimModel(ModelInterface):  # type: ignore[misc]
    """A potential for TorchSim: its integrators, optimisers and batchers take it as ``model``.

    Energy (S,) eV, forces (N, 3) eV/Å, stress (S, 3, 3) eV/Å^3, tension positive, NaN where a structure has no volume.
    Inside, geometry is float64; results have the dtype of the state. Neighbour lists are kept from call to call.

    Parameters
    ----------
    potential
        A model file, a Potential or a Calculator, of which a copy is taken.
    device
        ``"cpu"``, ``"cuda"``, ...
    dtype
        Of states. float32 keeps some 0.1 meV of the energy of a hundred atoms: take float64 where that matters.
    network_dtype
        Of the network; None keeps its own.
    stress
        Whether stress is computed; ``compute_stress`` changes it later.
    skin, compile, source
        As for ``adatom.Calculator``.
    """

    def __init__(
        self,
        potential: Calculator | Potential | str | Path,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
        network_dtype: torch.dtype | None = None,
        stress: bool = True,
        skin: float = 0.5,
        compile: Mode | None = None,
        source: str | None = None,
    ) -> None:
        super().__init__()
        if isinstance(potential, Calculator):
            device, compile = potential.neighbors.device, compile or potential.code
            potential = potential.potential
        engine = Calculator(potential, device, network_dtype, skin, compile, source)
        self.potential = engine.potential
        self._device, self._dtype = engine.neighbors.device, dtype
        self._compute_forces, self._compute_stress = True, stress
        self._memory_scales_with = "n_atoms"
        self.lists = Lists(engine.potential.cutoff, skin, self._device)
        self._checked: tuple[Tensor, ...] = ()  # what was found to be of the potential's kind

    def _set_stress(self, wanted: bool) -> None:
        self._compute_stress = wanted

    def _set_forces(self, wanted: bool) -> None:
        self._compute_forces = wanted

    compute_stress = property(lambda self: self._compute_stress, _set_stress, doc="Whether stress is computed.")
    compute_forces = property(lambda self: self._compute_forces, _set_forces, doc="Whether forces are computed.")

    def forward(self, state: SimState | dict[str, Any]) -> dict[str, Tensor]:
        """Energy and, where wanted, forces and stress of every structure of a state.

        UnknownElementError, ChargeError and GeometryError as from the calculator.
        """
        if isinstance(state, dict):
            state = SimState(**state)
        numbers, owner = state.atomic_numbers.to(torch.int64), state.system_idx
        structures = state.cell.shape[0]
        if isinstance(state, AtomsState):
            keys, periodic = state.number.tolist(), state.periodic
            charge, spin = state.charge.double(), state.spin.double()
        else:
            keys = list(range(structures))
            flag = state.pbc if isinstance(state.pbc, Tensor) else torch.tensor(bool(state.pbc))
            periodic = flag.to(self._device).expand(structures, 3)
            charge, spin = (torch.full_like(state.cell[:, 0, 0], value).double() for value in (NEUTRAL, SINGLET))
        self._check(numbers, owner, charge, spin)
        rows = state.cell.mT.double()
        graph = self.lists.graph(keys, numbers, state.positions.double(), owner, rows, periodic, charge, spin)
        found = self.potential(graph, forces=self._compute_forces or self._compute_stress, stress=self._compute_stress)
        results = {"energy": found.energy.detach().to(state.dtype)}
        if self._compute_forces:
            results["forces"] = found.forces.detach().to(state.dtype)
        if self._compute_stress:
            results["stress"] = found.stress.detach().to(state.dtype)
        return results

    def _check(self, numbers: Tensor, owner: Tensor, charge: Tensor, spin: Tensor) -> None:
        """UnknownElementError or ChargeError for a structure of another kind; asked once of a batch."""
        kind = (numbers, owner, charge, spin)
        if len(self._checked) == len(kind) and all(torch.equal(a, b) for a, b in zip(kind, self._checked, strict=True)):
            return
        for z, q, s in zip(numbers.split(torch.bincount(owner).tolist()), charge.tolist(), spin.tolist(), strict=True):
            self.potential.check_atoms(ase.Atoms(z.cpu().numpy(), info={"charge": q, "spin": s}))
        self._checked = tuple(tensor.clone() for tensor in kind)


def batch_room(structures: Sequence[ase.Atoms], potential: Potential, device: torch.device) -> int:
    """How many atoms of such structures are best evaluated together: what a cache, or a card's memory holds."""
    if device.type == "cpu" or not structures:
        return atoms_at_once(potential, 1, device)
    largest = max(structures, key=len)
    width = graph_from_atoms(largest, potential.cutoff).slots.shape[1]
    return atoms_at_once(potential, width, device)
