"""Fine-tuning runs as small as they get, and data for them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import ase
import ase.io
import torch
from ase.build import bulk
from ase.calculators.lj import LennardJones
from rich.console import Console

from adatom.data.dataset import Dataset
from adatom.data.read import read
from adatom.neighbors import graph_from_atoms
from adatom.potential import Potential
from adatom.train.config import TrainConfig
from adatom.train.run import train
from train.runs import configuration, frames, write

SHIFT = -101.6  # eV/atom, as another code counts energies
OFF = {"replay": {"share": 0.0}}


def shifted(folder: Path, name: str = "shifted", count: int = 16) -> str:
    """Frames of silicon whose energies another code counts from elsewhere."""
    chosen = [atoms.copy() for atoms in frames("train")[5::9][:count]]
    for atoms in chosen:
        atoms.info["REF_energy"] += SHIFT * len(atoms)
    return str(write(folder / f"{name}.xyz", chosen))


def molybdenum(folder: Path, count: int = 10) -> str:
    """Frames of molybdenum, labelled by pairs of Lennard and Jones."""
    made = []
    for k in range(count):
        atoms = bulk("Mo", "bcc", a=3.1 + 0.02 * k, cubic=True)
        atoms.rattle(0.05, seed=k)
        atoms.calc = LennardJones(sigma=2.5, epsilon=0.4, rc=6.0, smooth=True)
        labels = (atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False))
        atoms.calc = None
        atoms.info |= {"REF_energy": labels[0] - 10.0 * len(atoms), "REF_stress": labels[2].ravel()}
        atoms.arrays["REF_forces"] = labels[1]
        made.append(atoms)
    return str(write(folder / "mo.xyz", made))


def tune(base: Path, files: str, folder: Path, resume: bool = False, **changes: Any) -> Path:
    """Fine-tune for a few steps, and keep quiet about it."""
    return train(settings(base, files, **changes), folder, resume, Console(file=io.StringIO(), width=120))


def settings(base: Path, files: str, finetune: dict[str, Any] | None = None, **changes: Any) -> TrainConfig:
    values = configuration({"train": [files]}, **changes)
    values["finetune"] = {"model": str(base), **OFF, **(finetune or {})}
    del values["model"]
    return TrainConfig.parse(values)


def silent(potential: Potential, atoms: ase.Atoms, source: int = 0) -> float:
    graph = graph_from_atoms(atoms, potential.cutoff)
    graph = graph.replace(source=torch.full_like(graph.source, source))
    return float(potential.eval()(graph, forces=False).energy)


def dataset(files: str, cutoff: float = 4.0) -> Dataset:
    return Dataset(read(files)[0], cutoff)
