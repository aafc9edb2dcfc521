"""One labelled structure, and what a file of them held."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ase
import numpy as np

LABELS = ("energy", "forces", "stress")


@dataclass(frozen=True)
class Structure:
    """Atoms with their labels in eV, eV/Å and eV/Å^3 (tension positive); NaN = not labelled."""

    # masses, momenta and constraints as in the file; info holds total_charge and multiplicity where the file gives them
    atoms: ase.Atoms
    energy: float
    forces: np.ndarray  # (n, 3)
    stress: np.ndarray  # (3, 3)
    name: str  # file and frame counted from 0: "train.xyz.xz:12"
    config_type: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)  # the plain values that stood beside the atoms, for grouping
    fields: tuple[str, ...] = ()  # names of all fields of the frame
    keys: Mapping[str, str] = field(default_factory=dict)  # label -> the field that served it

    @property
    def isolated(self) -> bool:
        """A free atom, the reference of its element: one atom in the open, or in a box and called isolated."""
        alone = len(self.atoms) == 1
        return alone and (not self.atoms.pbc.any() or "isolated" in self.config_type.lower())

    def has(self, label: str) -> bool:
        """Whether a label is there and complete."""
        return bool(np.isfinite(getattr(self, label)).all())


@dataclass(frozen=True)
class Found:
    """What one file held."""

    file: str
    frames: int
    atoms: int
    isolated: int  # free atoms among the frames
    keys: Mapping[str, Mapping[str, int]]  # label -> field -> frames it served
    labelled: Mapping[str, int]  # label -> frames that have it, complete
    remarks: tuple[str, ...] = ()

    def key(self, label: str) -> str:
        """The field, or fields, that served a label; empty where none did."""
        return ", ".join(self.keys.get(label, {}))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Found:
        """From the plain values that ``dataclasses.asdict`` makes."""
        return cls(**{**values, "remarks": tuple(values["remarks"])})
