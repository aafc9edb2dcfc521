"""The contract that every potential must keep: each promise measured, each with its figure, threshold and verdict."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import ase
import torch

from adatom.errors import DataError
from adatom.models.base import Claims
from adatom.neighbors import NEUTRAL, SINGLET
from adatom.potential import Potential
from adatom.testing import dynamics, physics, smoothness, symmetry
from adatom.testing.bench import Bench, Measured, prepare
from adatom.testing.structures import LARGEST, Sample, Spacing, generate, take

Verdict = Literal["pass", "fail", "not claimed", "not applicable"]


@dataclass(frozen=True)
class Check:
    """One promise and what was measured of it."""

    name: str
    claim: str  # the declared property it belongs to; "always" is asked of every potential
    figure: float | None  # None where the check does not apply
    threshold: float
    unit: str
    verdict: Verdict
    detail: str

    @property
    def missed(self) -> bool:
        """The promise does not hold, whether it was made or not."""
        return self.verdict in ("fail", "not claimed")


@dataclass(frozen=True)
class Verification:
    """All checks of one potential; passed when nothing that is claimed fails."""

    passed: bool
    model: str
    dtype: str
    seconds: float
    checks: tuple[Check, ...]

    def to_json(self, path: str | Path | None = None) -> str:
        """As JSON text, also written to ``path``; a figure that is no number is written as null."""
        values = asdict(self)
        for check in values["checks"]:
            if check["figure"] is not None and not math.isfinite(check["figure"]):
                check["figure"] = None
        text = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False)
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    def check(self, name: str) -> Check:
        """The check of that name; KeyError when there is none."""
        return {check.name: check for check in self.checks}[name]


@dataclass(frozen=True)
class Promise:
    """How one promise is measured and who makes it."""

    name: str
    claim: str
    claimed: Callable[[Claims], bool]
    threshold: float
    unit: str
    measure: Callable[[Bench], Measured]


def _always(claims: Claims) -> bool:
    return True


def _o3(claims: Claims) -> bool:
    return claims.symmetry == "O(3)"


def _extensive(claims: Claims) -> bool:
    return claims.extensive


def _grounded(claims: Claims) -> bool:
    return claims.extensive and claims.grounded


def _local(claims: Claims) -> bool:
    return claims.reach == "local"


def _conservative(claims: Claims) -> bool:
    return claims.conservative


def _smooth(claims: Claims) -> bool:
    return claims.smooth


def _conservative_o3(claims: Claims) -> bool:
    return claims.conservative and claims.symmetry == "O(3)"


def _conservative_smooth(claims: Claims) -> bool:
    return claims.conservative and claims.smooth


EXACT, SINGLE = 1e-10, 1e-5  # relative, float64 and float32

# asked in float64 and once more in float32
SYMMETRIES = (
    Promise("translation", "always", _always, EXACT, "relative", symmetry.translation),
    Promise("rotation", "symmetry O(3)", _o3, EXACT, "relative", symmetry.rotation),
    Promise("inversion", "symmetry O(3)", _o3, EXACT, "relative", symmetry.inversion),
    Promise("permutation", "always", _always, EXACT, "relative", symmetry.permutation),
    Promise("wrapped atoms", "always", _always, EXACT, "relative", symmetry.wrapping),
    Promise("choice of cell", "always", _always, EXACT, "relative", symmetry.choice_of_cell),
    Promise("batch = single", "always", _always, EXACT, "relative", symmetry.batch_is_single),
    Promise("padding", "always", _always, EXACT, "relative", symmetry.padding),
)
PHYSICS = (
    Promise("repetition", "always", _always, 1e-12, "relative", symmetry.repetition),
    Promise("input untouched", "always", _always, 0.0, "fields", symmetry.input_untouched),
    Promise("isolated atoms = references", "grounded", _grounded, 0.0, "eV", physics.isolated_atoms),
    Promise("far parts add up", "extensive", _extensive, EXACT, "relative", physics.far_parts),
    Promise("supercell = n cells", "extensive", _extensive, EXACT, "relative", physics.supercell),
    Promise("distant change unfelt", "reach local", _local, EXACT, "relative", physics.distant_change),
    Promise("forces = -dE/dr", "conservative", _conservative, 1e-6, "relative", physics.forces_are_derivatives),
    Promise("stress = dE/d(strain)/V", "conservative", _conservative, 1e-6, "relative", physics.stress_is_derivative),
    Promise("no net force", "conservative", _conservative, EXACT, "relative", physics.net_force),
    Promise("no net torque", "conservative, O(3)", _conservative_o3, EXACT, "relative", physics.net_torque),
    Promise("symmetric stress", "conservative, O(3)", _conservative_o3, EXACT, "relative", physics.symmetric_stress),
    Promise("energy across the cutoff", "smooth", _smooth, 1.0, "steps", smoothness.energy_across_cutoff),
    Promise("force across the cutoff", "smooth", _smooth, 1.0, "steps", smoothness.force_across_cutoff),
    Promise("energy as a pair parts", "smooth", _smooth, 1.0, "steps", smoothness.energy_of_last_neighbour),
    Promise("force as a pair parts", "smooth", _smooth, 1.0, "steps", smoothness.force_of_last_neighbour),
    Promise("no flare as a pair parts", "smooth", _smooth, 10.0, "medians", smoothness.flare_of_last_neighbour),
    Promise("NVE drift", "conservative, smooth", _conservative_smooth, 0.05, "meV/atom/ps", dynamics.energy_drift),
)


def verify(potential: Potential, structures: Sequence[ase.Atoms] | None = None, seed: int = 0) -> Verification:
    """Measure every promise of a potential on small structures of its elements.

    All of it in float64, the symmetries in float32 as well. Relative errors are relative to the interaction energy,
    force and stress (root mean square) of the structure, but not to less than the median over the samples. A property
    the network does not claim is measured and reported as ``not claimed`` when it does not hold; a claimed one that
    does not hold fails the verification.

    Parameters
    ----------
    potential
        Left as it is; copies of it are put to the test.
    structures
        The user's own system, to be tested besides generated structures. A few of up to 100 atoms are taken.
    seed
        Everything random follows from it.

    Raises
    ------
    UnknownElementError
        A given structure holds an element that the potential does not know.
    DataError
        The potential knows no element at all, or none of the given structures is small enough.
    """
    begin = time.perf_counter()
    samples = gather(potential, structures, seed)
    double = prepare(potential, samples, torch.float64, seed)
    checks = [measure(promise, double) for promise in (*SYMMETRIES, *PHYSICS)]
    single = prepare(potential, samples, torch.float32, seed)
    checks += [measure(in_single(promise), single) for promise in SYMMETRIES]
    return Verification(
        passed=all(check.verdict != "fail" for check in checks),
        model=type(potential.network).__name__,
        dtype="float64",
        seconds=time.perf_counter() - begin,
        checks=tuple(checks),
    )


def measure(promise: Promise, bench: Bench) -> Check:
    """Measure one promise and judge it."""
    figure, detail = promise.measure(bench)
    verdict = judge(promise, figure, bench.claims)
    return Check(promise.name, promise.claim, figure, promise.threshold, promise.unit, verdict, detail)


def judge(promise: Promise, figure: float | None, claims: Claims) -> Verdict:
    """Hold a figure against its threshold; one that is no number is above every threshold."""
    if figure is None:
        return "not applicable"
    if figure <= promise.threshold:
        return "pass"
    return "fail" if promise.claimed(claims) else "not claimed"


def in_single(promise: Promise) -> Promise:
    """The same promise for a network in float32."""
    return Promise(f"{promise.name} (float32)", promise.claim, promise.claimed, SINGLE, promise.unit, promise.measure)


def gather(potential: Potential, structures: Sequence[ase.Atoms] | None, seed: int) -> list[Sample]:
    """Given structures first, then generated ones of the same elements."""
    elements, given = potential.elements, take(structures or [])
    if not elements:
        raise DataError("this potential knows no element", wanted="references", remedy="give it isolated-atom energies")
    if structures and not given:
        raise DataError(
            "none of the structures is small enough to be verified with",
            wanted=f"1 to {LARGEST} atoms",
            got=f"{min(map(len, structures))} atoms and more",
            remedy="give a smaller cell, or none: structures are then made from the elements",
        )
    for sample in given:
        potential.check_atoms(sample.atoms, where=sample.name)
    if given:
        elements = sorted({int(z) for sample in given for z in sample.atoms.numbers})
    made = generate(elements, Spacing.of(potential.card), seed)
    for sample in made:
        sample.atoms.info |= _trained_info(potential)
    return given + made


def _trained_info(potential: Potential) -> dict[str, float]:
    """Charge and multiplicity for generated structures: neutral singlets, else what in training came nearest."""
    config = potential.network.config
    wanted = {"total_charge": (config.charges, NEUTRAL), "multiplicity": (config.spins, SINGLET)}
    return {key: min(max(usual, trained[0]), trained[1]) for key, (trained, usual) in wanted.items() if trained}
