"""A run folder as training would leave it, of invented numbers: silicon, many kinds of structures, all files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

GPA = 160.21766208  # eV/Å^3 -> GPa
REFERENCE = -0.8447  # eV, isolated atom

# config_type: training structures, test structures, atoms, height eV/atom, force eV/Å, stress GPa, share of error
KINDS: dict[str, tuple[int, int, int, float, float, float, float]] = {
    "diamond": (65, 14, 8, 0.06, 0.9, 4.0, 0.05),
    "md4000": (41, 9, 8, 0.75, 2.6, 9.0, 0.06),
    "beta-tin": (21, 4, 8, 0.38, 0.9, 8.0, 0.09),
    "eos": (21, 4, 8, 0.18, 0.0, 14.0, 0.03),
    "md900": (21, 4, 8, 0.12, 0.9, 2.0, 0.04),
    "md1600": (21, 4, 8, 0.22, 1.2, 3.0, 0.05),
    "md2500": (16, 4, 8, 0.42, 1.8, 5.0, 0.06),
    "vacancy": (16, 4, 7, 0.52, 0.7, 3.0, 0.12),
    "lonsdaleite": (13, 3, 8, 0.08, 0.8, 4.0, 0.05),
    "md300": (12, 3, 8, 0.04, 0.5, 1.0, 0.05),
    "sc": (10, 2, 8, 0.45, 0.6, 7.0, 0.09),
    "interstitial": (6, 1, 9, 0.55, 1.1, 5.0, 0.15),
}

CONFIG = """\
name: silicon
data:
  train: [data/si_pbe_gpaw/train.xyz.xz]
  test: [data/si_pbe_gpaw/test.xyz.xz]
  keys: {energy: null, forces: null, stress: null}
model:
  architecture: mlanet
  size: S
  cutoff: 5.0
train:
  budget: {atoms: 64, edges: null}
  learning_rate: 0.005
  seconds: 300
"""


def write(folder: Path, only: set[str] | None = None, seed: int = 0) -> Path:
    """Write the run; ``only`` names the files to write (``"log.jsonl"``, ``"md"``, ...)."""
    rng = np.random.default_rng(seed)
    test = predictions(rng)
    parts: dict[str, Any] = {
        "config.yaml": lambda: (folder / "config.yaml").write_text(CONFIG),
        "log.jsonl": lambda: _lines(folder / "log.jsonl", training_log(rng)),
        "data.json": lambda: _json(folder / "data.json", data_sheet()),
        "card.json": lambda: _json(folder / "card.json", card()),
        "predictions.npz": lambda: np.savez_compressed(folder / "predictions.npz", **test),
        "valid_predictions.npz": lambda: np.savez_compressed(folder / "valid_predictions.npz", **predictions(rng)),
        "metrics.json": lambda: _json(folder / "metrics.json", metrics(test)),
        "eos.json": lambda: _json(folder / "eos.json", energy_volume(rng)),
        "md": lambda: _dynamics(folder / "md", rng),
        "verify.json": lambda: _json(folder / "verify.json", verify()),
        "speed.json": lambda: _json(folder / "speed.json", speed()),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in parts.items():
        if only is None or name in only:
            make()
    return folder


def tuned(folder: Path, labels: str = "of files", bound: float | None = 3.0) -> Path:
    """Make a run one that began with a model, forgot some of what it knew, and met with trouble."""
    log, metrics = folder / "log.jsonl", folder / "metrics.json"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    lines[-1:-1] = [*_trouble(), *(_forgotten(step) for step in range(0, 4201, 300))]
    _lines(log, lines)
    after = {key: value for key, value in _forgotten(3900).items() if "rmse" in key}
    held = json.loads(metrics.read_text())
    held["forgetting"] = {
        "structures": 56, "labels": labels, "before": BEFORE, "after": after, "ratio": 1.5, "bound": bound,
        "stopped": False,
    }  # fmt: skip
    held["not_finite"] = {"steps_not_taken_for": {"train.xyz.xz:17": 2, "train.xyz.xz:203": 1}, "rollbacks": 1}
    _json(metrics, held)
    return folder


BEFORE = {"energy_rmse_meV_per_atom": 6.0, "forces_rmse_meV_per_A": 80.0, "stress_rmse_GPa": 0.4}


def _forgotten(step: int) -> dict[str, Any]:
    factor = 1 + 0.5 * step / 3900
    errors = {key: factor * value for key, value in BEFORE.items()}
    return {"kind": "forgetting", "step": step, "epoch": step // 30, **errors, "ratio": factor}


def _trouble() -> list[dict[str, Any]]:
    names = [f"train.xyz.xz:{k}" for k in range(8)]
    overflow = {"loss": None, "gradient_norm": None}
    return [
        {"kind": "spike", "step": 1450, "epoch": 44, "loss": 812.4, "gradient_norm": 9120.0}
        | {"structures": [*names, "and 3 more"]},
        {"kind": "memory", "step": 310, "epoch": 9, "atoms_at_once": 1200},
        {
            "kind": "not finite",
            "step": 96,
            "epoch": 2,
            **overflow,
            "structures": ["train.xyz.xz:17", "train.xyz.xz:203"],
        }
        | {"reason": "first in network.layers.0.attention (Attention)", "answer": "skip"},
        {"kind": "not finite", "step": 2710, "epoch": 82, **overflow, "structures": ["train.xyz.xz:17"]}
        | {"reason": "after the network: in the sum over atoms, the derivatives, or the loss", "answer": "roll back"},
    ]


def training_log(rng: np.random.Generator) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = [
        {
            "kind": "start",
            "time": "2026-11-20T10:02:00+00:00",
            "device": "cpu",
            "threads": 2,
            "parameters": 128_640,
            "architecture": "MLANet",
        }
    ]
    steps = 4200
    for step in range(10, steps + 1, 10):
        decay = 0.03 + 0.97 * np.exp(-step / 350) + 0.25 * np.exp(-step / 1500)
        noise = np.exp(0.12 * rng.normal())
        seconds = 0.071 * step
        common = {"step": step, "epoch": step * 8 // 263, "seconds": round(seconds, 2)}
        rate = 5e-3 * min(1.0, step / 200) * 0.5 * (1 + np.cos(np.pi * max(0, step - 200) / (steps - 200)))
        lines.append(
            {
                "kind": "step",
                **common,
                "lr": rate,
                "loss": 2.4 * decay * noise,
                "energy_mae_meV_per_atom": 160 * decay * noise,
                "forces_mae_meV_per_A": 780 * decay * noise,
                "stress_mae_GPa": 6.5 * decay * noise,
                "structures_per_s": 112 + 4 * rng.normal(),
            }
        )
        if step % 60 == 0:
            wobble = np.exp(0.05 * rng.normal(size=3))
            energy, forces, stress = np.array([175, 900, 7.2]) * (decay + 0.02) * wobble
            lines.append(
                {
                    "kind": "valid",
                    **common,
                    "loss": 2.7 * (decay + 0.02) * wobble[1],
                    "energy_rmse_meV_per_atom": 1.4 * energy,
                    "energy_mae_meV_per_atom": energy,
                    "forces_rmse_meV_per_A": 1.5 * forces,
                    "forces_mae_meV_per_A": forces,
                    "stress_rmse_GPa": 1.5 * stress,
                    "stress_mae_GPa": stress,
                }
            )
    return [*lines, {"kind": "end", "seconds": 298.2, "reason": "the learning rate has run its course"}]


def data_sheet() -> dict[str, Any]:
    valid = {kind: max(1, row[0] // 10) for kind, row in KINDS.items()}
    counts = {
        "train": {kind: row[0] - valid[kind] for kind, row in KINDS.items()},
        "valid": valid,
        "test": {kind: row[1] for kind, row in KINDS.items()},
    }
    keys = {"energy_key": "REF_energy", "forces_key": "REF_forces", "stress_key": "REF_stress"}
    return {
        "files": [
            {"file": f"{split}.xyz.xz", "split": serves, "frames": n, "atoms": atoms, **keys}
            | {"labelled": {"energy": n, "forces": n, "stress": n}}
            for split, serves, n, atoms in (("train", "train, valid", 263, 2094), ("test", "test", 56, 445))
        ],
        "splits": {split: sum(found.values()) for split, found in counts.items()},
        "elements": {"Si": 2539},
        "config_types": counts,
        "references": {"Si": {"energy_eV": REFERENCE, "source": "given"}},
        "findings": [
            {
                "severity": "note",
                "kind": "net force",
                "where": "train.xyz.xz:41",
                "message": "net force of 2.1 meV/Å on the cell, the largest of this file",
                "remedy": "nothing to do below 10 meV/Å",
            },
            {
                "severity": "warning",
                "kind": "thin cell",
                "where": "train.xyz.xz, 263 frames",
                "message": "cells of 4.8 to 7.7 Å are thinner than the cutoff: every atom sees its own images",
                "remedy": "larger cells carry more information per structure",
            },
        ],
        "fingerprint": "sha256:9f2c4f0d51b1c0b7a5e6a1f6b1c1e0a7d2f3b4c5968778695a4b3c2d1e0f9a8b",
    }


def card() -> dict[str, Any]:
    return {
        "architecture": "MLANet",
        "parameters": 128_640,
        "elements": ["Si"],
        "cutoff": 5.0,
        "references": {"Si": REFERENCE},
        "min_distance_A": {"Si-Si": 1.62},
        "config": {"size": "S", "l_max": 2, "channels": 32, "layers": 2},
        "versions": {"adatom": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6", "ase": "3.29.0", "python": "3.11.7"},
    }


def predictions(rng: np.random.Generator, repeats: int = 1) -> dict[str, np.ndarray]:
    """Labels and predictions of the test set, repeated with fresh noise."""
    names, kinds, counts, energies, forces, stresses = [], [], [], [], [], []
    for kind, (_, n, atoms, height, force, stress, share) in KINDS.items():
        for _ in range(n * repeats):
            names.append(f"test.xyz.xz:{len(names)}")
            kinds.append(kind)
            counts.append(atoms)
            e_ref = atoms * (-5.42 + height * rng.uniform(0.5, 1.5))
            energies.append((e_ref, e_ref + atoms * 0.0055 * (1 + 8 * share) * rng.normal()))
            f_ref = force * rng.normal(size=(atoms, 3))
            f_ref -= f_ref.mean(axis=0)
            forces.append((f_ref, f_ref + (0.02 + share * np.abs(f_ref)) * rng.normal(size=(atoms, 3))))
            strain = rng.normal(size=(3, 3))
            s_ref = stress / GPA * (strain + strain.T) / 2
            strain = rng.normal(size=(3, 3))
            stresses.append((s_ref, s_ref + (0.2 + share * stress / 2) / GPA * (strain + strain.T) / 2))
    e, s = np.array(energies), np.array(stresses)
    return {
        "names": np.array(names),
        "config_types": np.array(kinds),
        "n_atoms": np.array(counts),
        "numbers": np.full(sum(counts), 14),
        "energy_ref": e[:, 0],
        "energy": e[:, 1],
        "forces_ref": np.concatenate([f[0] for f in forces]),
        "forces": np.concatenate([f[1] for f in forces]),
        "stress_ref": s[:, 0],
        "stress": s[:, 1],
    }


def metrics(test: dict[str, np.ndarray]) -> dict[str, Any]:
    energy = 1e3 * (test["energy"] - test["energy_ref"]) / test["n_atoms"]
    forces = 1e3 * (test["forces"] - test["forces_ref"])
    stress = GPA * (test["stress"] - test["stress_ref"])
    quantities = {"energy_{}_meV_per_atom": energy, "forces_{}_meV_per_A": forces, "stress_{}_GPa": stress}
    return {
        "test": {name.format("rmse"): float(np.sqrt(np.mean(v**2))) for name, v in quantities.items()}
        | {name.format("mae"): float(np.mean(np.abs(v))) for name, v in quantities.items()},
        "lattice_constant_A": 5.4741,
        "bulk_modulus_GPa": 90.2,
        "nve_drift_meV_per_atom_per_ps": 0.0031,
        "train_seconds": 298.2,
        "verify_passed": True,
        "reference": {"lattice_constant_A": 5.477, "bulk_modulus_GPa": 88.3},
    }


def energy_volume(rng: np.random.Generator) -> dict[str, Any]:
    def curve(V0: float, E0: float, B0: float, B1: float, volumes: np.ndarray, noise: float) -> dict[str, Any]:
        x = (V0 / volumes) ** (2 / 3)
        energy = E0 + 9 * V0 * B0 / GPA / 16 * (B1 * (x - 1) ** 3 + (x - 1) ** 2 * (6 - 4 * x))
        energy = energy + noise * np.cos(9 * x) + 0.3 * noise * rng.normal(size=x.shape)
        fit = {"V0_A3_per_atom": V0, "E0_eV_per_atom": E0, "B0_GPa": B0, "B0_prime": B1}
        fit["lattice_constant_A"] = (8 * V0) ** (1 / 3)
        return {"volume_A3_per_atom": volumes.tolist(), "energy_eV_per_atom": energy.tolist(), "fit": fit}

    volumes = 20.54 * np.linspace(0.80, 1.28, 25)
    reference = {"label": "DFT (PBE)", **curve(20.537, -5.4237, 88.3, 4.2, volumes, 0.0)}
    return {**curve(20.504, -5.4219, 90.2, 4.4, volumes, 0.002), "reference": reference}


def verify() -> dict[str, Any]:
    nan = float("nan")
    rows: list[tuple[str, str, float, float, str, str, str]] = [
        ("translation", "always", 3.1e-15, 1e-10, "relative", "pass", "largest in the forces of 'cluster of 5'"),
        ("rotation", "symmetry O(3)", 2.4e-14, 1e-10, "relative", "pass", "largest in the stress of 'crystal'"),
        ("inversion", "symmetry O(3)", 1.8e-14, 1e-10, "relative", "pass", "largest in the forces of 'crystal'"),
        ("permutation", "always", 8.8e-16, 1e-10, "relative", "pass", "largest in the energy of 'cluster of 5'"),
        ("batch = single", "always", 0.0, 1e-10, "relative", "pass", "no difference at all"),
        ("isolated atoms = references", "grounded", 0.0, 0.0, "eV", "pass", "1 element"),
        (
            "supercell = n cells",
            "extensive",
            6.2e-15,
            1e-10,
            "relative",
            "pass",
            "largest in the energy of 'crystal x 2'",
        ),
        ("forces = -dE/dr", "conservative", 1.4e-8, 1e-6, "relative", "pass", "largest in 'cluster of 11'"),
        ("stress = dE/d(strain)/V", "conservative", 3.9e-8, 1e-6, "relative", "pass", "largest in 'crystal'"),
        ("energy across the cutoff", "smooth", 3.4e-5, 1.0, "steps", "pass", "largest for scan 2"),
        ("NVE drift", "conservative, smooth", 0.0031, 0.05, "meV/atom/ps", "pass", "8 atoms, 300 K, 45 fs"),
        ("rotation (float32)", "symmetry O(3)", 8.8e-7, 1e-5, "relative", "pass", "largest in the forces of 'crystal'"),
        ("charge", "charge", nan, 0.0, "eV", "not applicable", "this potential knows no charges"),
        ("reach", "reach global", 0.82, 0.01, "relative", "not claimed", "two ions, 12 Å apart"),
    ]
    names = ("name", "claim", "figure", "threshold", "unit", "verdict", "detail")
    checks = [dict(zip(names, row, strict=True)) for row in rows]
    return {"passed": True, "model": "model.adatom", "dtype": "float64", "seconds": 21.4, "checks": checks}


def speed() -> dict[str, Any]:
    rows = [
        {"system": "diamond, 64 atoms", "atoms": 64, "us_per_atom_energy_forces": 402.0, "peak_memory_MB": 96.0},
        {"system": "diamond, 216 atoms", "atoms": 216, "us_per_atom_energy_forces": 311.0, "peak_memory_MB": 188.0},
        {"system": "diamond, 1,000 atoms", "atoms": 1000, "us_per_atom_energy_forces": 296.0, "peak_memory_MB": 655.0},
    ]
    return {"device": "cpu", "threads": 2, "rows": rows, "train_structures_per_s": 112.4}


def _dynamics(folder: Path, rng: np.random.Generator) -> None:
    folder.mkdir(exist_ok=True)
    for ensemble, kelvin, picoseconds in (("nve", 300.0, 2.0), ("nvt", 1000.0, 4.0)):
        _lines(folder / f"{ensemble}.jsonl", thermo(rng, ensemble, kelvin, picoseconds))
        r = np.linspace(0.0, 7.5, 300)
        width = 0.07 * np.sqrt(kelvin / 300)
        shells = ((2.371, 4), (3.872, 12), (4.540, 12), (5.476, 6), (5.967, 12), (6.706, 24), (7.113, 16), (7.74, 12))
        g = np.zeros_like(r)
        for distance, count in shells:
            wide = width * (1 + 0.1 * distance)
            peak = np.exp(-(((r - distance) / wide) ** 2) / 2) / (wide * np.sqrt(2 * np.pi))
            g += count * peak / (4 * np.pi * distance**2 / 20.5)
        _json(folder / f"{ensemble}.rdf.json", {"r_A": r.tolist(), "g": {"Si-Si": g.tolist()}})


def thermo(rng: np.random.Generator, ensemble: str, kelvin: float, picoseconds: float, atoms: int = 216) -> list[Any]:
    """The log of one run: equipartition at the start, then correlated noise of the right size."""
    count = int(picoseconds * 1000 / 4)
    noise = np.zeros((count, 2))
    for i in range(1, count):
        noise[i] = 0.92 * noise[i - 1] + 0.39 * rng.normal(size=2)
    time = np.arange(count) * 0.004
    temperature = kelvin * (
        1 + np.sqrt(2 / (3 * atoms)) * noise[:, 0] + 0.9 * np.exp(-time / 0.02) * (ensemble == "nve")
    )
    kinetic = 1.5 * atoms * 8.617333e-5 * temperature
    total = -5.42 * atoms + 2 * 1.5 * atoms * 8.617333e-5 * kelvin + np.zeros(count)
    if ensemble == "nve":
        total += atoms * 1e-3 * (0.0031 * time + 0.004 * rng.normal(size=count))
    else:
        total += atoms * 1e-3 * (20 * (1 - np.exp(-time / 0.3)) + 4 * noise[:, 1])
    pressure = 0.4 + 2.5e-4 * kelvin + 0.25 * noise[:, 1]
    start = {"kind": "start", "ensemble": ensemble, "atoms": atoms, "timestep_fs": 1.0, "temperature_K": kelvin}
    steps = [
        {
            "kind": "step",
            "step": 4 * i,
            "time_ps": float(time[i]),
            "temperature_K": float(temperature[i]),
            "potential_eV": float(total[i] - kinetic[i]),
            "kinetic_eV": float(kinetic[i]),
            "total_eV": float(total[i]),
            "pressure_GPa": float(pressure[i]),
        }
        for i in range(count)
    ]
    return [start, *steps, {"kind": "end", "reason": "finished", "seconds": 134.0, "us_per_atom_step": 318.0}]


def _json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values))


def _lines(path: Path, lines: list[Any]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
