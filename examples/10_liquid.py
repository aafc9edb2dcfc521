"""A liquid: run it, look at its structure, diffusion and vibrations, then ask for its density and heat of vaporisation.

python examples/10_liquid.py MODEL START --temperature 300 --ps 20 --density-ps 20
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase.io

from adatom import Calculator
from adatom.properties.analysis import AnalysisConfig, analyse
from adatom.properties.liquid import LiquidConfig, liquid
from adatom.properties.trajectory import read_frames_of
from adatom.report.picture import write_figure
from adatom.report.properties import section_of
from adatom.report.record import Record
from adatom.sim.md import MDConfig, run


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("start")
    parser.add_argument("--temperature", type=float, default=300.0)
    parser.add_argument("--timestep", type=float, default=0.5, help="fs; 0.5 where there is hydrogen")
    parser.add_argument("--ps", type=float, default=20.0)
    parser.add_argument("--density-ps", type=float, default=20.0)
    parser.add_argument("--gas", default="dynamics", help="none for liquids without molecules")
    parser.add_argument("--folder", type=Path, default=Path("liquid"))
    options = parser.parse_args(arguments)
    calculator = Calculator(options.model)
    start = ase.io.read(options.start)

    # velocity rescaling hardly disturbs how atoms move; frames close enough in time for the fastest vibration
    settings = MDConfig(
        ensemble="nvt", thermostat="bussi", thermostat_ps=0.2, temperature_K=options.temperature,
        timestep_fs=options.timestep, steps=round(1e3 * options.ps / options.timestep), trajectory_every=4,
    )  # fmt: skip
    moved = run(start, calculator, settings, options.folder, "motion", overwrite=True)
    frames = read_frames_of(options.folder / "motion.xyz", skip_ps=0.2 * options.ps)
    shown = analyse(frames, AnalysisConfig(r_max=6.0)).to_record()
    figure = write_figure(section_of(Record(shown, "trajectory")), options.folder / "motion.png")
    for name, one in shown["diffusion"]["species"].items():
        if one["D_cm2_per_s"] is None:
            print(f"{name} does not diffuse: it goes {one['moved_A']:.2f} Å")
            continue
        print(f"{name}: D = {one['D_cm2_per_s']:.2e} ± {one['D_error_cm2_per_s']:.1e} cm²/s")

    found = liquid(
        moved.atoms, calculator, options.folder,
        LiquidConfig.parse({
            "temperature_K": options.temperature, "timestep_fs": options.timestep, "gas": options.gas,
            "equilibration_ps": 0.25 * options.density_ps, "production_ps": 0.75 * options.density_ps,
        }),
        overwrite=True,
    )  # fmt: skip
    print(f"density {found.density_g_per_cm3:.3f} ± {found.density_error_g_per_cm3:.3f} g/cm³")
    if found.vaporisation_kJ_per_mol is not None:
        print(f"vaporisation {found.vaporisation_kJ_per_mol:.1f} ± {found.vaporisation_error_kJ_per_mol:.1f} kJ/mol")
    print("\n".join(found.warnings()))
    (options.folder / "liquid.json").write_text(json.dumps(found.to_record(), indent=1), encoding="utf-8")
    print(f"plots {figure}")
    return shown | {"density": found.density_g_per_cm3, "figure": str(figure)}


if __name__ == "__main__":
    main()
