"""Water at 300 K from a model: a long run, its structure, vibrations and diffusion, and the density at one bar.

    OMP_NUM_THREADS=1 python benchmarks/water.py nvt MODEL --frames FRAMES... --runs DIR --ps 100
    OMP_NUM_THREADS=1 python benchmarks/water.py spectrum MODEL --frames FRAMES... --runs DIR --ps 10
    OMP_NUM_THREADS=1 python benchmarks/water.py warm MODEL --frames FRAMES... --runs DIR --ps 20
    OMP_NUM_THREADS=1 adatom liquid MODEL START --folder DIR/liquid --json DIR/liquid.json
    python benchmarks/water.py analyse MODEL --frames FRAMES... --runs DIR

``FRAMES`` are the reference: 400 frames of 64 molecules (PBE0, ``water_pbe0_deepmd``). A run goes on where it stood
when it is called again: a machine may be switched off in between. Bussi's thermostat at 0.5 ps hardly disturbs
diffusion (Bussi, Donadio, Parrinello, J. Chem. Phys. 126, 014101 (2007)).

nvt        frames every 10 fs, from the first reference frame, relaxed downhill
warm       20 ps at 330 K, from the last frame of nvt there is: the reference seems to be that warm
spectrum   from the last frame of nvt there is, frames every 2 fs: a stretch of O-H takes 9 fs
analyse    what there is of the three: records into benchmarks/results/water.json, a figure into docs/
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
from accuracy import commit
from ase.optimize import FIRE

from adatom.model_file import info
from adatom.properties.analysis import Analysis, AnalysisConfig, analyse
from adatom.properties.diffusion import DiffusionConfig
from adatom.properties.liquid import Liquid, LiquidConfig, gas_phase, summary
from adatom.properties.molecules import integrity, molecules
from adatom.properties.observables import average
from adatom.properties.trajectory import read_frames_of
from adatom.report.card import liquid as liquid_card
from adatom.report.card import trajectory as trajectory_card
from adatom.report.card.section import Section
from adatom.report.picture import write_figure
from adatom.report.record import Record, read_lines
from adatom.sim.calculator import Calculator
from adatom.sim.md import MDConfig, run
from adatom.sim.record import Files

HERE = Path(__file__).resolve().parent
RESULTS, FIGURE = HERE / "results" / "water.json", HERE.parent / "docs" / "water_properties.png"
SETTLE, WEIGHED = 5.0, 3.5  # ps left out of nvt, and of the run at constant pressure
VISCOSITY = 0.854  # mPa s, of real water at 300 K; that of the model is not known
TIMESTEP = 0.5  # fs
SHARED = {
    "timestep_fs": TIMESTEP, "temperature_K": 300.0, "thermostat": "bussi", "thermostat_ps": 0.5, "log_every": 20,
    "restart_every": 2000, "min_distance_margin": 0.5, "compile": "on",
}  # fmt: skip
STAGES = {
    "nvt": {"ensemble": "nvt", "trajectory_every": 20, "seed": 1},
    "spectrum": {"ensemble": "nvt", "trajectory_every": 4, "seed": 2},
    "warm": {"ensemble": "nvt", "trajectory_every": 20, "seed": 4, "temperature_K": 330.0, "thermostat_ps": 0.2},
}  # fmt: skip


def stage(name: str, options: argparse.Namespace) -> None:
    """One run, or what is left of it."""
    config = MDConfig.parse(SHARED | STAGES[name] | {"steps": round(1e3 * options.ps / TIMESTEP)}, where=name)
    calculator = Calculator(options.model)
    going_on = (options.runs / f"{name}.restart.npz").exists()
    if name == "nvt":
        first = ase.io.read(options.frames[0], 0)
        start = first if going_on else calmed(first, calculator)
    else:
        start = read_frames_of(options.runs / "nvt.xyz")[-1]
    done = run(start, calculator, config, options.runs, name, restart=going_on)
    print(f"{name}: {done.steps} steps, {done.us_per_atom_step:.1f} µs per atom and step")


def calmed(atoms: ase.Atoms, calculator: Calculator) -> ase.Atoms:
    """Downhill until no force is above 1 eV/Å, for 100 steps at most: beads of path integrals are hot as atoms."""
    calm = atoms.copy()
    calm.calc = calculator
    FIRE(calm, logfile=None).run(fmax=1.0, steps=100)
    calm.calc = None
    return calm


def analysis(options: argparse.Namespace) -> dict[str, Any]:
    """Records of all runs there are, and one figure of them."""
    reference = [atoms for path in options.frames for atoms in read_frames_of(path)]
    frames = read_frames_of(options.runs / "nvt.xyz", SETTLE)
    config = AnalysisConfig(
        parts=("pairs", "structure", "diffusion"), r_max=6.2, structure_frames=500,
        diffusion=DiffusionConfig(blocks=3, fit_ps=(5.0, 25.0), viscosity_mPas=VISCOSITY, temperature_K=300.0),
    )  # fmt: skip
    found = analyse(frames, config, reference=reference)
    fast = analyse(read_frames_of(options.runs / "spectrum.xyz"), AnalysisConfig(parts=("velocities",)))
    bulk = Record(weighed(options).to_record(), "liquid")
    draw(found, fast, bulk, FIGURE)
    card = info(options.model)
    return {
        "what": "water", "date": time.strftime("%Y-%m-%d %H:%M"), "commit": commit(),
        "command": __doc__.split("\n\n")[1],
        "model": {"architecture": card["architecture"], "config": card["config"], "errors": card["errors"]},
        "nvt": thermodynamics(options.runs / "nvt.jsonl") | {
            "molecules": vars(integrity(frames, molecules(frames[0]))),
            "reference_frames": len(reference),
            "likeness": {pair: one.to_record() for pair, one in found.likeness.items()},
            "diffusion": without(found.diffusion, "lag_ps", "msd_A2", "msd_error_A2"),
            "viscosity_of_the_correction_mPas": VISCOSITY,
        },
        "inner": {"run": inner(frames[::20]), "reference": inner(reference)},
        "spectrum": peaks(fast),
        "liquid": {key: value for key, value in bulk.values.items() if key not in ("series", "model")},
        "curves": {
            "r_A": found.to_record()["pairs"]["r_A"],
            "g": {pair: values.round(3).tolist() for pair, values in found.pairs.g.items()},
            "g_reference": {pair: values.round(3).tolist() for pair, values in found.reference.g.items()},
        },
    }  # fmt: skip


def weighed(options: argparse.Namespace) -> Liquid:
    """Density and vaporisation from the run of adatom liquid, however long it has become; the gas by equipartition."""
    start = ase.io.read(options.runs / "start.xyz")
    found, files = molecules(start), Files.of(options.runs / "liquid", "liquid")
    last = [line.real("time_ps") for line in read_lines(files.log) if line.text("kind") == "step"][-1]
    config = LiquidConfig(equilibration_ps=WEIGHED, production_ps=last - WEIGHED, gas="harmonic")
    gas = gas_phase(found.one(start), Calculator(options.model, compile="off"), options.runs / "liquid", config)
    return summary(start, found, files, config, gas)


def thermodynamics(log: Path) -> dict[str, Any]:
    """Length, means with errors and speed of a run, its start left out."""
    lines = read_lines(log)
    steps = [line for line in lines if line.text("kind") == "step"]
    times = np.array([line.real("time_ps") for line in steps])
    late = times >= SETTLE
    interval = float(times[1] - times[0])
    means = {
        name: average(np.array([line.real(name) for line in steps])[late], interval).to_record()
        for name in ("temperature_K", "potential_eV", "pressure_GPa")
    }
    ends = [line for line in lines if line.text("kind") == "end"]
    return {
        "ps": float(times[-1]), "ended": ends[-1].text("reason") if ends else "running", "means": means,
        "hottest_K": float(max(line.real("temperature_K") for line in steps)), "legs": len(ends),
    }  # fmt: skip


def inner(frames: Sequence[ase.Atoms]) -> dict[str, float]:
    """O-H bonds and H-O-H angles: spread as wide as the nuclei are hot, and far wider where they are quantum."""
    bonds, angles = [], []
    for atoms in frames:
        found = molecules(atoms)
        for part in found.members:
            oxygen = part[atoms.numbers[part] == 8]
            ways = found.positions[part[atoms.numbers[part] == 1]] - found.positions[oxygen]
            lengths = np.linalg.norm(ways, axis=1)
            bonds += lengths.tolist()
            angles.append(float(np.degrees(np.arccos(ways[0] @ ways[1] / lengths.prod()))))
    return {
        "bond_A": float(np.mean(bonds)), "bond_spread_A": float(np.std(bonds)),
        "angle_deg": float(np.mean(angles)), "angle_spread_deg": float(np.std(angles)),
    }  # fmt: skip


def peaks(found: Analysis) -> dict[str, Any]:
    """Where the density of states of hydrogen peaks in the ranges of water's motions, cm^-1."""
    record = found.velocities.to_record()
    nu, dos = np.array(record["frequency_per_cm"]), np.array(record["species"]["H"]["dos_per_THz"], dtype=float)
    places = {}
    for name, low, high in (("libration", 300, 900), ("bend", 1400, 1900), ("stretch", 2900, 4200)):
        inside = (nu > low) & (nu < high)
        places[f"{name}_per_cm"] = float(nu[inside][dos[inside].argmax()])
    keys = ("resolution_THz", "highest_THz", "folded", "resolved", "source")
    return {"ps": found.duration_ps} | places | {key: record[key] for key in keys}


def without(found: Any, *names: str) -> dict[str, Any]:
    """A record without its curves."""
    record = {key: value for key, value in found.to_record().items() if key not in names}
    inner_ones = {n: {k: v for k, v in one.items() if k not in names} for n, one in record["species"].items()}
    return record | {"species": inner_ones}


def draw(found: Analysis, fast: Analysis, bulk: Record, path: Path) -> None:
    """g(r), displacements, vibrations and density in one picture."""
    slow = trajectory_card.section(Record(found.to_record(), "nvt"))
    quick = trajectory_card.section(Record(fast.to_record(), "spectrum"))
    weight = liquid_card.section(bulk)
    by_name = {f.name: f for section in (slow, quick, weight) for f in section.figures}
    names = ("trajectory-pairs", "trajectory-msd", "trajectory-vibrations", "liquid-density")
    write_figure(Section("water", "Water", figures=tuple(by_name[name] for name in names)), path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=(*STAGES, "analyse"))
    parser.add_argument("model", type=Path)
    parser.add_argument("--frames", type=Path, nargs="+", required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs/water_md"))
    parser.add_argument("--ps", type=float, default=100.0)
    options = parser.parse_args()
    if options.what != "analyse":
        stage(options.what, options)
        return
    record = analysis(options)
    RESULTS.write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")
    print(json.dumps({key: record[key] for key in ("nvt", "inner", "spectrum")}, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
