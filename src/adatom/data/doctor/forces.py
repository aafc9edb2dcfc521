"""Forces as mechanics: they sum to zero, they turn no molecule, and none is beyond any use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from adatom.data.doctor.finding import Finding, Severity, about, count
from adatom.data.read import Structure

PUSH: Final = (1e-3, 1e-2)  # eV/Å, noise per atom behind a net force: worth a note, a warning
TURN: Final = (0.02, 0.2)  # torque over the sum of |r| |F|: worth a warning, an error where the median is
WILD: Final = 100.0  # eV/Å


def check_forces(structures: Sequence[Structure]) -> list[Finding]:
    """Net forces, torques of molecules, and forces beyond any use."""
    known = [k for k, s in enumerate(structures) if len(s.atoms) > 1 and np.isfinite(s.forces).all()]
    return [*_net(structures, known), *_torque(structures, known), *_wild(structures, known)] if known else []


def _net(structures: Sequence[Structure], known: list[int]) -> list[Finding]:
    """The sum of n forces with independent errors e each is about e sqrt(n): a floor under the error of any model."""
    net = {k: float(np.linalg.norm(structures[k].forces.sum(axis=0))) for k in known}
    noise = {k: net[k] / np.sqrt(len(structures[k].atoms)) for k in known}
    pushed = [k for k in known if noise[k] > PUSH[0]]
    strong = [k for k in known if noise[k] > PUSH[1]]
    severity: Severity = "warning" if strong else "note"
    named = strong or pushed
    if not pushed or (not strong and len(pushed) < 0.02 * len(known)):
        return []
    values = np.array([net[k] for k in named])
    floor = float(np.median([noise[k] for k in named]))
    message = (
        f"forces do not sum to zero in {len(named)} of {len(known)} structures: {np.median(values):.2g} eV/Å in the "
        f"median, up to {values.max():.3g}; no model's error will fall much below {floor:.2g}"
    )
    remedy = "check for fixed atoms with zeroed forces, external fields, rows out of order, loose convergence"
    return [about("net force", severity, structures, named, message, remedy)]


def _torque(structures: Sequence[Structure], known: list[int]) -> list[Finding]:
    """Torque about the centre of open systems; an energy that does not change by turning leaves none."""
    relative, size = {}, {}
    for k in known:
        atoms, forces = structures[k].atoms, structures[k].forces
        if atoms.pbc.any():
            continue
        arms = atoms.positions - atoms.positions.mean(axis=0)
        pulls = forces - forces.mean(axis=0)
        total = float((np.linalg.norm(arms, axis=1) * np.linalg.norm(pulls, axis=1)).sum())
        size[k] = float(np.linalg.norm(np.cross(arms, pulls).sum(axis=0)))
        relative[k] = size[k] / total if total > 0.05 else 0.0
    turned = [k for k in relative if relative[k] > TURN[0] and size[k] > 0.05]
    if len(turned) < max(0.01 * len(relative), 1):
        return []
    middle = float(np.median(list(relative.values())))
    message = (
        f"forces turn {len(turned)} of {len(relative)} molecules: torques up to {max(size[k] for k in turned):.3g} eV, "
        f"{100 * middle:.2g} % of what forces and arms could give in the median"
    )
    severity: Severity = "error" if middle > 0.5 * TURN[1] and len(relative) >= 5 else "warning"
    remedy = "look for rows of forces in another order than those of the atoms, fields, or forces of a turned frame"
    return [about("torque of forces", severity, structures, turned, message, remedy)]


def _wild(structures: Sequence[Structure], known: list[int]) -> list[Finding]:
    largest = {k: float(np.linalg.norm(structures[k].forces, axis=1).max()) for k in known}
    wild = [k for k in known if largest[k] > WILD]
    if wild:
        message = f"{count(len(wild), 'structure')} with forces above {WILD:g} eV/Å, up to {max(largest.values()):.3g}"
        remedy = "check the unit; remove failed calculations, or let the loss be L1 or Huber"
        return [about("large forces", "warning", structures, wild, message, remedy)]
    usual = float(np.median(list(largest.values())))
    far = [k for k in known if largest[k] > max(8.0 * usual, 10.0)]
    if not far or len(known) < 20 or len(far) > 0.05 * len(known):
        return []
    message = (
        f"{count(len(far), 'structure')} with forces far beyond the rest: up to {max(largest.values()):.3g} eV/Å where "
        f"{usual:.2g} is the usual largest"
    )
    remedy = "look at them: wanted extremes are fine, failed calculations spoil the loss"
    return [about("large forces", "note", structures, far, message, remedy)]
