"""A solute of the potential in a classical solvent, for OpenMM: mechanical embedding.

    E = E_classical(all) - E_classical(inside the region) + E_potential(region)

The region and its surroundings meet through the charges and Lennard-Jones parameters of the force field alone: the
solvent does not polarise the potential.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from adatom.compile import Mode
from adatom.errors import ConfigError
from adatom.potential import Potential
from adatom.sim.openmm import force  # says what to install where OpenMM is missing

import openmm  # isort: skip
from openmm.app import Topology  # isort: skip

# what acts on whole systems or from outside, and is no business of the region
OUTSIDE = (
    openmm.CMMotionRemover,
    openmm.AndersenThermostat,
    openmm.MonteCarloBarostat,
    openmm.MonteCarloAnisotropicBarostat,
    openmm.MonteCarloFlexibleBarostat,
    openmm.MonteCarloMembraneBarostat,
    openmm.CustomExternalForce,
    openmm.CustomCentroidBondForce,
    openmm.CustomCVForce,
    openmm.RMSDForce,
    openmm.PythonForce,
)
KEPT = "adatom_kept"  # 0 for a term inside the region, 1 for others


def mixed_system(
    potential: Potential | str | Path,
    topology: Topology,
    system: openmm.System,
    atoms: Sequence[int],
    *,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    compile: Mode | None = None,
    source: str | None = None,
    total_charge: float | None = None,
    multiplicity: float | None = None,
) -> openmm.System:
    """A copy of a classical System in which the potential takes over what happens inside a region.

    Bonds, angles, torsions and maps of the force field inside the region are set to zero, its pairs are excepted from
    the nonbonded forces, its constraints removed; between region and solvent all stays classical. Bonds of the region
    stay as bonds of strength zero: barostats move what is bonded as one molecule.

    Parameters
    ----------
    potential, device, dtype, compile, source, total_charge, multiplicity
        As in ``adatom.sim.openmm.force``.
    topology, system
        The classical system, as ``ForceField.createSystem`` makes it. It is left as it is.
    atoms
        Indices of the region: whole molecules.

    Raises
    ------
    ConfigError
        The region cuts a molecule; a force in the System whose part inside the region cannot be told, such as implicit
        solvent; a Topology of other particles; or what ``force`` says.
    UnknownElementError, ChargeError
        The potential was not made for the region.
    """
    if topology.getNumAtoms() != system.getNumParticles():
        raise ConfigError(
            "Topology and System are of different particles",
            wanted=f"{topology.getNumAtoms()} particles, as the Topology",
            got=f"{system.getNumParticles()}",
            remedy="make the System of this Topology",
        )
    learned = force(
        potential, topology, atoms, periodic=system.usesPeriodicBoundaryConditions(),
        device=device, dtype=dtype, compile=compile, source=source,
        total_charge=total_charge, multiplicity=multiplicity,
    )  # fmt: skip
    region = {int(i) for i in atoms}
    mixed = copy.deepcopy(system)
    for part in mixed.getForces():
        if isinstance(part, OUTSIDE):
            continue
        silence = _SILENCERS.get(type(part))
        if silence is None:
            raise ConfigError(
                f"of a {type(part).__name__} it cannot be told what happens inside the region",
                where=part.getName(),
                wanted=f"a System of {', '.join(kind.__name__ for kind in _SILENCERS)}",
                remedy="make the System without it: in explicit solvent, with another force field",
            )
        silence(part, region)
    _check_whole(topology, system, region)
    _free(mixed, region)
    mixed.addForce(learned)
    return mixed


def _check_whole(topology: Topology, system: openmm.System, region: set[int]) -> None:
    """ConfigError where a bond leads out of the region."""
    for a, b in _bonds(topology, system):
        if (a in region) != (b in region):
            names = [f"{atom.name} of {atom.residue.name} {atom.residue.id}" for atom in topology.atoms()]
            raise ConfigError(
                "the region cuts a molecule",
                where=f"bond of atoms {a} ({names[a]}) and {b} ({names[b]})",
                wanted="whole molecules",
                remedy="take all atoms of the molecule into the region, or none",
            )


def _bonds(topology: Topology, system: openmm.System) -> Iterator[tuple[int, int]]:
    for bond in topology.bonds():
        yield bond.atom1.index, bond.atom2.index
    for number in range(system.getNumConstraints()):
        a, b, _ = system.getConstraintParameters(number)
        yield a, b
    for part in system.getForces():
        if isinstance(part, openmm.HarmonicBondForce):
            for number in range(part.getNumBonds()):
                a, b, *_ = part.getBondParameters(number)
                yield a, b


def _free(system: openmm.System, region: set[int]) -> None:
    """Remove the constraints of the region; what they held together stays one molecule."""
    kept = openmm.HarmonicBondForce()
    kept.setName("molecules of the region")
    for number in reversed(range(system.getNumConstraints())):
        a, b, length = system.getConstraintParameters(number)
        if a in region and b in region:
            system.removeConstraint(number)
            kept.addBond(a, b, length, 0.0)
    if kept.getNumBonds():
        system.addForce(kept)


def _bond(part: openmm.HarmonicBondForce, region: set[int]) -> None:
    for number in range(part.getNumBonds()):
        a, b, length, _ = part.getBondParameters(number)
        if {a, b} <= region:
            part.setBondParameters(number, a, b, length, 0.0)


def _angle(part: openmm.HarmonicAngleForce, region: set[int]) -> None:
    for number in range(part.getNumAngles()):
        a, b, c, angle, _ = part.getAngleParameters(number)
        if {a, b, c} <= region:
            part.setAngleParameters(number, a, b, c, angle, 0.0)


def _torsion(part: openmm.PeriodicTorsionForce, region: set[int]) -> None:
    for number in range(part.getNumTorsions()):
        a, b, c, d, period, phase, _ = part.getTorsionParameters(number)
        if {a, b, c, d} <= region:
            part.setTorsionParameters(number, a, b, c, d, period, phase, 0.0)


def _rb_torsion(part: openmm.RBTorsionForce, region: set[int]) -> None:
    for number in range(part.getNumTorsions()):
        a, b, c, d, *_ = part.getTorsionParameters(number)
        if {a, b, c, d} <= region:
            part.setTorsionParameters(number, a, b, c, d, *[0.0] * 6)


def _map(part: openmm.CMAPTorsionForce, region: set[int]) -> None:
    flat: int | None = None
    for number in range(part.getNumTorsions()):
        _, *ends = part.getTorsionParameters(number)
        if set(ends) <= region:
            if flat is None:
                flat = part.addMap(2, [0.0] * 4)
            part.setTorsionParameters(number, flat, *ends)


def _custom(kind: str, particles: int) -> Callable[[Any, set[int]], None]:
    """For CustomBondForce and its like: their expression times a parameter of each term."""

    def silence(part: Any, region: set[int]) -> None:
        count, get = getattr(part, f"getNum{kind}s")(), getattr(part, f"get{kind}Parameters")
        terms = [get(number) for number in range(count)]
        if not any(set(term[:particles]) <= region for term in terms):
            return
        energy, semicolon, definitions = part.getEnergyFunction().partition(";")
        part.setEnergyFunction(f"{KEPT}*({energy}){semicolon}{definitions}")
        getattr(part, f"addPer{kind}Parameter")(KEPT)
        for number, term in enumerate(terms):
            *ends, values = term
            kept = 0.0 if set(ends) <= region else 1.0
            getattr(part, f"set{kind}Parameters")(number, *ends, [*values, kept])

    return silence


def _nonbonded(part: openmm.NonbondedForce, region: set[int]) -> None:
    if part.getNumExceptionParameterOffsets():
        raise ConfigError(
            "the nonbonded exceptions of this System depend on parameters: they would come back inside the region",
            where=part.getName(),
            remedy="make the System without exception parameter offsets",
        )
    for a, b in combinations(sorted(region), 2):
        part.addException(a, b, 0.0, 1.0, 0.0, True)


def _custom_nonbonded(part: openmm.CustomNonbondedForce, region: set[int]) -> None:
    known = {frozenset(part.getExclusionParticles(number)) for number in range(part.getNumExclusions())}
    for a, b in combinations(sorted(region), 2):
        if frozenset((a, b)) not in known:
            part.addExclusion(a, b)


_SILENCERS: dict[type, Callable[[Any, set[int]], None]] = {
    openmm.HarmonicBondForce: _bond,
    openmm.HarmonicAngleForce: _angle,
    openmm.PeriodicTorsionForce: _torsion,
    openmm.RBTorsionForce: _rb_torsion,
    openmm.CMAPTorsionForce: _map,
    openmm.CustomBondForce: _custom("Bond", 2),
    openmm.CustomAngleForce: _custom("Angle", 3),
    openmm.CustomTorsionForce: _custom("Torsion", 4),
    openmm.NonbondedForce: _nonbonded,
    openmm.CustomNonbondedForce: _custom_nonbonded,
}
