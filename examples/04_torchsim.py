"""TorchSim: many structures as one batch. Relaxes crystals, a slab and a molecule together, runs replicas, and drives
TorchSim's own integrator with the same potential.

    python examples/04_torchsim.py model.adatom start.xyz            # a crystal the model knows
    python examples/04_torchsim.py model.adatom start.xyz --copies 200 --cell
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ase.io
import numpy as np
import torch
from ase import units

import adatom
from adatom.sim.md import MDConfig
from adatom.sim.md_many import run_many
from adatom.sim.relax_many import relax_many
from adatom.sim.torchsim import TorchSimModel


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a model file")
    parser.add_argument("structure", type=Path, help="a crystal, anything ASE reads")
    parser.add_argument("--copies", type=int, default=8)
    parser.add_argument("--cell", action="store_true", help="relax cells too")
    parser.add_argument("--steps", type=int, default=50, help="of dynamics")
    parser.add_argument("--folder", type=Path, default=Path("runs/torchsim"))
    options = parser.parse_args(arguments)

    start = ase.io.read(options.structure, -1)
    calculator = adatom.Calculator(options.model)

    # many structures to their minima, each on a way of its own; they leave the batch as they arrive
    rng = np.random.default_rng(0)
    displaced = [start.copy() for _ in range(options.copies)]
    for atoms in displaced:
        atoms.rattle(0.1, rng=rng)
    done = relax_many(displaced, calculator, cell=options.cell)
    energies = np.array([one.energy / len(one.atoms) for one in done.results])
    print(f"{sum(one.converged for one in done.results)} of {len(displaced)} converged, "
          f"{done.structures_per_second:.1f} structures/s, lowest {energies.min():.4f} eV/atom")  # fmt: skip

    # replicas of the lowest, each with velocities and files of its own
    lowest = done.results[int(energies.argmin())].atoms
    config = MDConfig(ensemble="nvt", temperature_K=300.0, steps=options.steps, log_every=10, trajectory_every=0)
    runs = run_many([lowest] * 4, calculator, config, options.folder, overwrite=True).require_finished()
    print("temperatures of the replicas:", *(f"{one.thermo[-1].temperature_K:.0f} K" for one in runs.replicas))

    # and TorchSim's own integrator, with the potential as its model: states as TorchSim makes them
    model = TorchSimModel(calculator)
    drift = own_integrator(model, [lowest] * 2, options.steps)
    print(f"TorchSim's NVE: energy drifts by {1000 * drift:.3f} meV/atom in {options.steps} steps")
    return {
        "converged": float(sum(one.converged for one in done.results)),
        "spread_eV_per_atom": float(np.ptp(energies)),
        "temperature_K": float(np.mean([one.thermo[-1].temperature_K for one in runs.replicas])),
        "drift_eV_per_atom": drift,
    }


def own_integrator(model: TorchSimModel, structures: list[ase.Atoms], steps: int) -> float:
    """Largest change of total energy per atom, eV, in dynamics by TorchSim at 300 K and 1 fs."""
    import torch_sim

    state = torch_sim.io.atoms_to_state(structures, model.device, model.dtype)
    timestep = torch.tensor(units.fs, dtype=model.dtype)
    heat = torch.tensor(300.0 * units.kB, dtype=model.dtype)
    begin, step = torch_sim.integrators.nve(model, dt=timestep, kT=heat, seed=0)
    state = begin(state)

    def totals() -> torch.Tensor:
        kinetic = (state.momenta.square() / state.masses.unsqueeze(1)).sum(1) / 2.0
        return state.energy + torch.zeros_like(state.energy).index_add(0, state.system_idx, kinetic)

    before = totals()
    for _ in range(steps):
        state = step(state)
    return float(((totals() - before).abs() / len(structures[0])).max())


if __name__ == "__main__":
    main()
