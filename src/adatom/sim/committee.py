"""A committee: several potentials asked together; their mean moves the atoms, their spread says how sure they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import ase
import numpy as np
import torch
from ase.calculators.calculator import Calculator as AseCalculator
from ase.calculators.calculator import all_changes

from adatom.compile import Mode
from adatom.errors import ConfigError
from adatom.potential import Potential
from adatom.sim.calculator import Calculator

SPREADS = {"energy": "energy_std", "forces": "forces_std", "stress": "stress_std"}


class Committee(AseCalculator):  # type: ignore[misc]
    """Mean energy, forces, stress and atomic energies of several potentials for ASE, with the spread among them.

    mean = sum_m x_m / M,  std^2 = sum_m (x_m - mean)^2 / (M - 1). The mean force is the derivative of the mean energy.

    ``results["energy_std"]`` (eV), ``results["forces_std"]`` (N, 3; eV/Å, for each component) and
    ``results["stress_std"]`` (6; eV/Å^3) are there whenever the property itself is. They are the disagreement of the
    members, which falls short of the error where all are wrong in the same way: calibrate before trusting it.

    Parameters
    ----------
    members
        Two or more model files or potentials, differing in seed, data or architecture. Those of equal cutoff share one
        neighbour list.
    device, dtype, skin, compile, source
        As in ``adatom.Calculator``, the same for all.

    Raises
    ------
    ConfigError
        Fewer than two members.
    UnknownElementError, ChargeError
        A member was not made for a structure.
    """

    implemented_properties: ClassVar[list[str]] = [*Calculator.implemented_properties, *SPREADS.values()]

    def __init__(
        self,
        members: Sequence[Potential | str | Path],
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        skin: float = 0.5,
        compile: Mode | None = None,
        source: str | None = None,
    ) -> None:
        super().__init__()
        if isinstance(members, (str, Path, Potential)) or len(members) < 2:
            raise ConfigError(
                "one potential is no committee",
                where="members",
                wanted="a list of two or more model files or potentials",
                got=str(members) if isinstance(members, (str, Path)) else "one",
                remedy="train the same configuration with several seeds: adatom train CONFIG --set seed=1",
            )
        self.members = [Calculator(member, device, dtype, skin, compile, source) for member in members]
        lists = {member.neighbors.cutoff: member.neighbors for member in self.members}
        for member in self.members:
            member.neighbors = lists[member.neighbors.cutoff]

    def _get_name(self) -> str:
        return f"committee of {len(self.members)}"

    def check_state(self, atoms: ase.Atoms, tol: float = 0.0) -> list[str]:
        """What has changed since the last calculation, as its members see it."""
        return self.members[0].check_state(atoms, tol)

    def calculate(
        self,
        atoms: ase.Atoms | None = None,
        properties: list[str] | tuple[str, ...] = ("energy",),
        system_changes: list[str] = all_changes,
    ) -> None:
        """Fill ``results``; errors are those of the members."""
        super().calculate(atoms, properties, system_changes)
        if system_changes:
            self.results = {}
        wanted = {name.removesuffix("_std") for name in properties}
        for name in ["energy", *sorted(wanted - {"energy", "free_energy"})]:  # the energy comes along with all else
            values = np.array([member.get_property(name, self.atoms) for member in self.members])  # (M, ...)
            self.results[name] = values.mean(axis=0)
            if name in SPREADS:
                self.results[SPREADS[name]] = values.std(axis=0, ddof=1)
        self.results["energy"] = self.results["free_energy"] = float(self.results["energy"])
        self.results["energy_std"] = float(self.results["energy_std"])
