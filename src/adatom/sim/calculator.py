"""The ASE calculator: any potential of this package for everything that ASE can do with atoms."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import ClassVar

import ase
import numpy as np
import torch
from ase.calculators.calculator import Calculator as AseCalculator
from ase.calculators.calculator import PropertyNotImplementedError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from adatom.compile import Compiler, Mode, compiled, load
from adatom.errors import AdatomError, ConfigError
from adatom.graph import Graph
from adatom.neighbors import given_charge_and_spin
from adatom.potential import Potential
from adatom.sim.skin import SkinList


class StressError(AdatomError, PropertyNotImplementedError):  # type: ignore[misc]
    """Stress was asked of a system that has no volume, or of a model that does not give it."""


class Calculator(AseCalculator):  # type: ignore[misc]
    """Energy, forces, stress and atomic energies for ASE.

    Units: eV, eV/Å, eV/Å^3 (Voigt order xx yy zz yz xz xy, tension positive); ``free_energy`` equals ``energy``.
    Total charge and spin multiplicity are read from ``atoms.info`` (``total_charge`` or ``charge``, ``multiplicity``
    or ``spin``). A figure that is no number comes back as NaN; relaxations and molecular dynamics stop on it.

    Whatever of forces and stress was asked for at one geometry is computed along with the first request at the next:
    a step of molecular dynamics is one pass through the network.

    Parameters
    ----------
    potential
        A model file, or a Potential, of which a copy is taken.
    device
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...
    dtype
        Floating-point type of the network; None keeps its own. Geometry and energies are float64 always.
    skin
        What the neighbour list holds beyond the cutoff, Å: more makes it live longer, and dearer to cut.
    compile
        ``"auto"``, ``"on"`` or ``"off"``, see ``adatom.compiled``; None is that of the Potential, for a file auto.
    source
        The level of theory, where the model knows several; by default the first, for a file with a warning.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces", "stress", "energies"]

    def __init__(
        self,
        potential: Potential | str | Path,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        skin: float = 0.5,
        compile: Mode | None = None,
        source: str | None = None,
    ) -> None:
        super().__init__()
        place = _device(device)
        # a copy: what is trained elsewhere keeps its mode and its gradients
        if isinstance(potential, Potential):
            own = copy.deepcopy(potential).of_source(source)
        else:
            own = load(potential, place, dtype, source=source)
        self.code = compile
        if compile is not None:
            compiled(own, compile)
        elif isinstance(own.runner, Compiler) and own.runner.training:  # a potential in the middle of its training
            own.runner = None
        if dtype is not None:
            own.network.to(dtype)
        self.potential = own.to(place).eval().requires_grad_(False)
        if skin < 0:
            raise ConfigError("the skin of a neighbour list is a length", wanted="0 Å or more", got=f"{skin} Å")
        self.neighbors = SkinList(own.cutoff, skin, place)
        self._known: tuple[object, ...] = ()  # what was found to be of the potential's kind
        self._expected: set[str] = {"forces"}  # asked for at the geometry before

    def expect(self, *properties: str) -> None:
        """Say what else (``"forces"``, ``"stress"``) the next geometry will be asked for: one pass serves all."""
        self._expected |= set(properties)

    def _get_name(self) -> str:
        return "adatom"

    def check_state(self, atoms: ase.Atoms, tol: float = 0.0) -> list[str]:
        """What has changed since the last calculation, bit by bit; total charge and spin too, which ASE overlooks."""
        last = self.atoms
        if last is None:
            return list(all_changes)
        same = {
            "positions": np.array_equal(last.positions, atoms.positions),
            "numbers": np.array_equal(last.numbers, atoms.numbers),
            "cell": np.array_equal(last.cell.array, atoms.cell.array),
            "pbc": np.array_equal(last.pbc, atoms.pbc),
            "initial_charges": given_charge_and_spin(last) == given_charge_and_spin(atoms),
        }
        return [name for name, equal in same.items() if not equal]

    def get_property(
        self, name: str, atoms: ase.Atoms | None = None, allow_calculation: bool = True
    ) -> float | np.ndarray | None:
        """One property of ``atoms``, from the last calculation where nothing has changed since."""
        value: float | np.ndarray | None = super().get_property(name, atoms, allow_calculation)
        self._expected.add(name)
        return value

    def calculate(
        self,
        atoms: ase.Atoms | None = None,
        properties: list[str] | tuple[str, ...] = ("energy",),
        system_changes: list[str] = all_changes,
    ) -> None:
        """Fill ``results``.

        UnknownElementError and ChargeError before any work, StressError where there is no volume.
        """
        super().calculate(atoms, properties, system_changes)
        system: ase.Atoms = self.atoms
        wanted = set(properties)
        self.check(system)
        if "stress" in wanted:
            require_volume(system)
        if system_changes:
            self.results = {}
            wanted |= self._expected
            self._expected = set()
        if not has_volume(system):
            wanted.discard("stress")
        if len(system) == 0:
            self.results = _nothing(wanted)
            return
        graph = self.neighbors.graph(system)
        if wanted - {"energies"}:
            self._predict(graph, forces=bool(wanted & {"forces", "stress"}), stress="stress" in wanted)
        if "energies" in wanted:
            with torch.no_grad():
                self.results["energies"] = self.potential.atomic_energies(graph).cpu().numpy()

    def check(self, system: ase.Atoms) -> None:
        """UnknownElementError or ChargeError where the potential was not made for these atoms; asked once of a kind."""
        kind = (system.numbers.tobytes(), given_charge_and_spin(system))
        if kind != self._known:
            self.potential.check_atoms(system)
            self._known = kind

    def _predict(self, graph: Graph, forces: bool, stress: bool) -> None:
        predicted = self.potential(graph, forces=forces, stress=stress)
        energy = float(predicted.energy)
        self.results["energy"] = self.results["free_energy"] = energy
        if forces:
            self.results["forces"] = predicted.forces.detach().cpu().numpy()
        if stress:
            tensor = predicted.stress.detach().cpu().numpy()[0]
            if np.isnan(tensor).all() and np.isfinite(energy):
                raise StressError(
                    "this potential gives no stress",
                    wanted="a potential whose stress is the derivative of its energy, or one with a stress head",
                    remedy="keep the cell fixed, or train with stress",
                )
            self.results["stress"] = full_3x3_to_voigt_6_stress(tensor)


def has_volume(atoms: ase.Atoms) -> bool:
    """Whether a structure is periodic in three directions: only then has it a stress."""
    return bool(np.all(atoms.pbc))


def require_volume(atoms: ase.Atoms) -> None:
    """StressError unless the structure is periodic in three directions."""
    if not has_volume(atoms):
        raise StressError(
            "stress was asked of a system that is not periodic in three directions: it has no volume",
            where=f"{atoms.get_chemical_formula()}",
            wanted="pbc = True, True, True and a cell",
            got=f"pbc = {', '.join(str(bool(p)) for p in atoms.pbc)}",
            remedy="set cell and pbc, or do not ask for stress, pressure or cell relaxation",
        )


def _nothing(wanted: set[str]) -> dict[str, float | np.ndarray]:
    """Results for no atoms at all."""
    whole: dict[str, float | np.ndarray] = {
        "energy": 0.0,
        "free_energy": 0.0,
        "forces": np.zeros((0, 3)),
        "energies": np.zeros(0),
    }
    return whole | {"stress": np.zeros(6)} if "stress" in wanted else whole


def _device(device: torch.device | str) -> torch.device:
    """The device by name; ConfigError when there is none of that kind."""
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device '{device}' cannot be used here",
            got=str(error).splitlines()[0],
            remedy="use device='cpu', or install the build of torch for your accelerator",
        ) from error
    return place
