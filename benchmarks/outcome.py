"""What a training of any system hands back, and the one place where errors are computed. Needs NumPy and ASE only."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np

GPA = 160.21766208  # eV/Å^3


def read_part(folder: Path, part: str) -> list[ase.Atoms]:
    """The labelled structures of a part, as ``sets.py`` wrote them."""
    frames: list[ase.Atoms] = ase.io.read(folder / f"{part}.xyz", ":", format="extxyz")
    return frames


def predict(frames: list[ase.Atoms], calculator: Any, stress: bool) -> dict[str, np.ndarray]:
    """Energies (S,), forces of all atoms (N, 3) and stresses (S, 6) by an ASE calculator."""
    energies, forces, stresses = [], [], []
    for frame in frames:
        atoms = ase.Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
        atoms.calc = calculator
        energies.append(atoms.get_potential_energy())
        forces.append(atoms.get_forces())
        stresses.append(atoms.get_stress() if stress else np.full(6, np.nan))
    return {"energy": np.array(energies), "forces": np.concatenate(forces), "stress": np.array(stresses)}


def errors(frames: list[ase.Atoms], predicted: dict[str, np.ndarray]) -> dict[str, float]:
    """RMSE and MAE: energy in meV/atom, force components in meV/Å, stress components in GPa where it is labelled."""
    sizes = np.array([len(f) for f in frames])
    differences = {
        ("energy", "meV_per_atom"): 1e3 * (predicted["energy"] - [f.info["REF_energy"] for f in frames]) / sizes,
        ("forces", "meV_per_A"): 1e3 * (predicted["forces"] - np.concatenate([f.arrays["REF_forces"] for f in frames])),
    }
    if has_stress(frames):
        labels = np.array([f.info["REF_stress"] for f in frames])  # (S, 6)
        twice = np.repeat((predicted["stress"] - labels)[:, [0, 1, 2, 3, 4, 5]], [1, 1, 1, 2, 2, 2], axis=1)
        differences["stress", "GPa"] = GPA * twice  # all nine components
    figures = {}
    for (label, unit), difference in differences.items():
        figures[f"{label}_rmse_{unit}"] = float(np.sqrt(np.square(difference).mean()))
        figures[f"{label}_mae_{unit}"] = float(np.abs(difference).mean())
    return figures


def has_stress(frames: list[ase.Atoms]) -> bool:
    """Whether every structure carries a stress."""
    return all("REF_stress" in f.info for f in frames)


def write(out: Path, facts: dict[str, Any], predicted: dict[str, np.ndarray]) -> None:
    """Put what a training found where ``accuracy.py`` looks for it.

    ``facts``: system, versions, parameters, steps, epochs, settings, ``cpu_seconds`` of the whole process up to the end
    of training, and ``curve``: validation errors with the CPU seconds at which they were found.
    """
    np.savez_compressed(out / "predictions.npz", **predicted)
    (out / "outcome.json").write_text(json.dumps(facts, indent=1) + "\n")


def cpu_seconds() -> float:
    """CPU time of this process since it was started, imports included."""
    return time.process_time()
