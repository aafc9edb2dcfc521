"""The data sets of the benchmarks, parted once and written as plain files, so that every system reads the very same.

    python benchmarks/sets.py --data DIR --set rmd17_ethanol --to FOLDER

DIR holds the data sets, one folder each (extended XYZ, xz). FOLDER receives ``train.xyz``, ``valid.xyz`` and
``test.xyz`` with ``REF_energy`` (eV), ``REF_forces`` (eV/Å) and, where the set has it, ``REF_stress`` (eV/Å^3, six
numbers xx yy zz yz xz xy, tension positive).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import ase
import ase.io
import numpy as np
from ase.stress import full_3x3_to_voigt_6_stress

from adatom.data.read import Structure, read

PARTS = ("train", "valid", "test")
Parts = tuple[list[Structure], list[Structure], list[Structure]]


def silicon_cells(data: Path) -> Parts:
    """Small cells of silicon computed for this project; its own test set, 5 % of the rest for validation."""
    train, valid = hold_back(_read(data, "si_pbe_gpaw/train"), 0.05)
    return train, valid, _read(data, "si_pbe_gpaw/test")


def mlearn(element: str) -> Callable[[Path], Parts]:
    """An element of Zuo et al.: crystal, strain, surfaces, vacancies, molecular dynamics; the published test set."""

    def parts(data: Path) -> Parts:
        train, valid = hold_back(_read(data, f"mlearn_elements/{element}/train"), 0.05)
        return train, valid, _read(data, f"mlearn_elements/{element}/test")

    return parts


def revised_md17(molecule: str) -> Callable[[Path], Parts]:
    """Fold 1 of rMD17: 950 for training, 50 for validation, 1,000 to test on."""

    def parts(data: Path) -> Parts:
        train, valid = hold_back(_read(data, f"rmd17/{molecule}/train_01"), 50)
        return train, valid, _read(data, f"rmd17/{molecule}/test_01")

    return parts


def water(data: Path) -> Parts:
    """Liquid water, 64 molecules: three trajectories, 5 % of them for validation, and the fourth to test on."""
    frames = [_read(data, f"water_pbe0_deepmd/data_{k}") for k in range(4)]
    train, valid = hold_back([*frames[0], *frames[1], *frames[2]], 0.05)
    return train, valid, frames[3]


def formate(data: Path) -> Parts:
    """Formate on copper (110), 408 frames chosen for their diversity, in the split that comes with them."""
    name = "formate_cu110_subset/deal_0.05_408"
    frames = _read(data, name)
    split = json.loads((data / f"{name}.split_seed0.json").read_text())
    train, valid, test = ([frames[i] for i in split[part]] for part in ("train", "val", "test"))
    return train, valid, test


def silica(data: Path) -> Parts:
    """Zeolites of silica: 5 % of the training frames for validation; other frameworks to test on."""
    train, valid = hold_back(_read(data, "silica_zeolites/train"), 0.05)
    return train, valid, _read(data, "silica_zeolites/test_new_frameworks")


SETS: dict[str, Callable[[Path], Parts]] = {
    "si_pbe_gpaw": silicon_cells,
    "mlearn_si": mlearn("Si"),
    "mlearn_li": mlearn("Li"),
    "mlearn_mo": mlearn("Mo"),
    "rmd17_ethanol": revised_md17("ethanol"),
    "rmd17_aspirin": revised_md17("aspirin"),
    "water": water,
    "formate": formate,
    "silica": silica,
}


def write_set(name: str, data: Path, folder: Path) -> dict[str, int]:
    """Write a set as three files; returns the number of structures of each part."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = {}
    for part, structures in zip(PARTS, SETS[name](data), strict=True):
        ase.io.write(folder / f"{part}.xyz", [labelled(s) for s in structures], format="extxyz")
        counts[part] = len(structures)
    return counts


def labelled(structure: Structure) -> ase.Atoms:
    """Bare atoms with the labels under the names that all systems are told."""
    atoms = structure.atoms
    bare = ase.Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    bare.info["REF_energy"] = structure.energy
    bare.arrays["REF_forces"] = structure.forces
    if np.isfinite(structure.stress).all():
        bare.info["REF_stress"] = full_3x3_to_voigt_6_stress(structure.stress)
    if structure.config_type:
        bare.info["config_type"] = structure.config_type
    return bare


def hold_back(structures: list[Structure], share: float | int) -> tuple[list[Structure], list[Structure]]:
    """The structures without, and those of, a random share (below 1) or number; always the same one."""
    count = share if isinstance(share, int) else max(round(share * len(structures)), 1)
    held = set(np.random.default_rng(0).permutation(len(structures))[:count].tolist())
    kept = [s for k, s in enumerate(structures) if k not in held]
    return kept, [structures[k] for k in sorted(held)]


def _read(data: Path, name: str) -> list[Structure]:
    return read(data / f"{name}.xyz.xz")[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--set", choices=sorted(SETS), required=True)
    parser.add_argument("--to", type=Path, required=True)
    options = parser.parse_args()
    print(write_set(options.set, options.data, options.to))


if __name__ == "__main__":
    main()
