"""OpenMM: a molecule alone, and the same molecule in a classical solvent that keeps its pressure.

    python examples/06_openmm.py water.adatom

The model must know H and O. The solute is one water molecule: bonds and angles come from the potential; what it says to
the TIP3P water around it, and that to itself, is classical.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import openmm
from ase.build import molecule
from openmm import app, unit

from adatom.sim.mixed import mixed_system
from adatom.sim.openmm import KJ_PER_MOL, NM, typed, whole_system

FEMTOSECOND = unit.femtosecond


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a model file that knows H and O")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--box", type=float, default=19.0, help="side of the box of water, Å")
    options = parser.parse_args(arguments)
    with typed():  # errors of the potential come out as they are, and Ctrl-C too
        return alone(options.model, options.steps) | solvated(options.model, options.steps, options.box)


def alone(model: Path, steps: int) -> dict[str, float]:
    """NVE of one molecule: how well the total energy is kept."""
    atoms = molecule("H2O")
    whole = whole_system(model, atoms)
    simulation = app.Simulation(whole.topology, whole.system, openmm.VerletIntegrator(0.25 * FEMTOSECOND))
    simulation.context.setPositions(whole.positions)
    simulation.minimizeEnergy(maxIterations=100)
    simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
    totals = []
    for _ in range(10):
        simulation.step(steps // 10)
        state = simulation.context.getState(getEnergy=True)
        totals.append((state.getPotentialEnergy() + state.getKineticEnergy()).value_in_unit(unit.kilojoule_per_mole))
    spread = 1e3 * float(np.ptp(totals)) / KJ_PER_MOL
    print(f"alone      total energy within {spread:.3f} meV over {steps * 0.25e-3:.3f} ps")
    return {"spread_meV": spread}


def solvated(model: Path, steps: int, box: float) -> dict[str, float]:
    """NPT of the molecule in TIP3P water: temperature and density."""
    atoms = molecule("H2O")
    topology = app.Topology()
    residue = topology.addResidue("HOH", topology.addChain())
    oxygen, *hydrogens = (topology.addAtom(n, app.Element.getBySymbol(n[0]), residue) for n in ("O", "H1", "H2"))
    for hydrogen in hydrogens:
        topology.addBond(oxygen, hydrogen)
    field = app.ForceField("amber14/tip3p.xml")
    modeller = app.Modeller(topology, atoms.positions * NM * unit.nanometer)
    modeller.addSolvent(field, model="tip3p", boxSize=openmm.Vec3(box, box, box) * unit.angstrom)
    classical = field.createSystem(modeller.topology, nonbondedMethod=app.PME, nonbondedCutoff=0.9 * unit.nanometer)
    system = mixed_system(model, modeller.topology, classical, atoms=[0, 1, 2])
    system.addForce(openmm.MonteCarloBarostat(1 * unit.bar, 300 * unit.kelvin))

    integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 0.5 * FEMTOSECOND)
    simulation = app.Simulation(modeller.topology, system, integrator)
    simulation.context.setPositions(modeller.positions)
    simulation.minimizeEnergy(maxIterations=100)
    simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
    simulation.step(steps)
    state = simulation.context.getState(getEnergy=True, getPositions=True)
    mass = sum(system.getParticleMass(i).value_in_unit(unit.dalton) for i in range(system.getNumParticles()))
    density = mass / state.getPeriodicBoxVolume().value_in_unit(unit.angstrom**3) * 1.66054
    bonds = np.linalg.norm(np.diff(state.getPositions(asNumpy=True)[:2].value_in_unit(unit.angstrom), axis=0))
    waters = system.getNumParticles() // 3
    print(f"solvated   {waters} molecules, {density:.3f} g/cm^3 after {steps * 0.5e-3:.3f} ps, O-H {bonds:.3f} Å")
    return {"density": density, "bond_A": float(bonds), "molecules": float(waters)}


if __name__ == "__main__":
    main()
