"""Elastic tensor: stability, moduli and sound velocities of a crystal at rest, from the stress of strained copies.

Voigt order xx, yy, zz, yz, xz, xy; strains are engineering strains (yz means 2 eps_yz), so that
sigma_i = sum_j C_ij e_j holds with the components of the stress as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ase
import numpy as np
from ase import units as ase_units
from ase.calculators.calculator import BaseCalculator
from pydantic import Field, PositiveFloat

from adatom.config import Config
from adatom.potential import Potential
from adatom.properties.crystal import at_rest, primitive_cell
from adatom.sim.many import Evaluation, evaluate
from adatom.sim.relax import as_calculator
from adatom.sim.settle import settle
from adatom.sim.symmetry import space_group
from adatom.units import BOLTZMANN, EV_PER_A3_IN_GPA

VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
PLANCK = float(ase_units._hplanck / ase_units._e)  # eV s
AMU = float(ase_units._amu)  # kg
# independent constants of each kind of crystal, in the axes of its conventional cell
CONSTANTS = {
    "cubic": ("11", "12", "44"),
    "hexagonal": ("11", "12", "13", "33", "44"),
    "trigonal": ("11", "12", "13", "14", "15", "33", "44"),
    "tetragonal": ("11", "12", "13", "16", "33", "44", "66"),
    "orthorhombic": ("11", "22", "33", "12", "13", "23", "44", "55", "66"),
    "monoclinic": ("11", "22", "33", "12", "13", "23", "44", "55", "66", "15", "25", "35", "46"),
    "triclinic": tuple(f"{i}{j}" for i in range(1, 7) for j in range(i, 7)),
}
LAST = {"triclinic": 2, "monoclinic": 15, "orthorhombic": 74, "tetragonal": 142, "trigonal": 167, "hexagonal": 194}


class ElasticConfig(Config):
    """How far and how often the crystal is strained, and when it and its copies are at rest.

    ``points`` strains along each of the six components, evenly spaced from ``-strain`` to ``strain``, zero left out.
    """

    strain: float = Field(default=0.005, gt=0.0, le=0.05)
    points: int = Field(default=4, ge=4, le=20, multiple_of=2)
    fmax: PositiveFloat = 0.001
    smax_GPa: PositiveFloat = 0.02
    steps: int = Field(default=500, ge=1)


@dataclass(frozen=True)
class Moduli:
    """Voigt, Reuss and Hill averages over the orientations of a polycrystal."""

    K_voigt_GPa: float
    K_reuss_GPa: float
    K_GPa: float  # Hill: bulk modulus
    G_voigt_GPa: float
    G_reuss_GPa: float
    G_GPa: float  # Hill: shear modulus
    E_GPa: float  # Young's modulus of the Hill averages
    nu: float  # Poisson's ratio of them
    anisotropy: float  # universal: 5 G_voigt / G_reuss + K_voigt / K_reuss - 6, zero for an isotropic crystal
    v_long_km_per_s: float  # sound of the polycrystal
    v_trans_km_per_s: float
    debye_K: float  # elastic Debye temperature
    young_min_GPa: float  # of the single crystal, over all directions
    young_max_GPa: float


@dataclass(frozen=True)
class Fit:
    """How good the constants are: rms of stresses about their parabolas, and what symmetry had to mend."""

    rms_GPa: float
    asymmetry_GPa: float  # largest |C_ij - C_ji|
    symmetry_GPa: float  # largest change by the average over the rotations of the crystal
    stress_GPa: float  # largest component left in the crystal at rest


@dataclass(frozen=True)
class Elastic:
    """Elastic tensor of a crystal, GPa, in the axes of the structure that was given.

    ``stiffness_GPa`` with atoms that follow the strain to where they rest, ``clamped_GPa`` with atoms that only scale
    with the cell. ``conventional_GPa`` is the first in the axes of the conventional cell (a along x, b in the xy
    plane), ``constants`` its independent components. ``eigenvalues_GPa`` are those of the tensor (Kelvin's), all above
    zero in a crystal that is mechanically stable (Born). ``moduli`` is None where it is not.
    """

    stiffness_GPa: np.ndarray  # (6, 6)
    clamped_GPa: np.ndarray  # (6, 6)
    conventional_GPa: np.ndarray  # (6, 6)
    system: str  # cubic, hexagonal, ...
    space_group: str
    eigenvalues_GPa: np.ndarray  # (6,)  ascending
    moduli: Moduli | None
    fit: Fit
    density_g_per_cm3: float
    atoms: ase.Atoms  # at rest: the primitive cell, not turned
    strain: float
    points: int

    @property
    def stable(self) -> bool:
        """Whether every strain costs energy."""
        return bool(self.eigenvalues_GPa[0] > 0.0)

    @property
    def constants(self) -> dict[str, float]:
        """Independent components in the axes of the conventional cell, ``{"C11": ..., ...}``, GPa."""
        return _named(self.conventional_GPa, self.system)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader must know before he uses the figures."""
        said = []
        if not self.stable:
            said.append(
                f"mechanically unstable: an eigenvalue of the elastic tensor is {self.eigenvalues_GPa[0]:.3g} GPa; "
                "this structure is no minimum, and has no moduli"
            )
        mended = max(self.fit.asymmetry_GPa, self.fit.symmetry_GPa)
        if mended > 0.05 * float(np.abs(self.stiffness_GPa).max()):
            said.append(f"symmetry had to mend {mended:.2g} GPa: the potential has not the symmetry of the crystal")
        return tuple(said)

    def to_record(self) -> dict[str, Any]:
        """As the report reads it."""
        return {
            "property": "elastic",
            "space_group": self.space_group,
            "system": self.system,
            "stiffness_GPa": self.stiffness_GPa.tolist(),
            "clamped_GPa": self.clamped_GPa.tolist(),
            "conventional_GPa": self.conventional_GPa.tolist(),
            "constants_GPa": self.constants,
            "eigenvalues_GPa": self.eigenvalues_GPa.tolist(),
            "stable": self.stable,
            "moduli": None if self.moduli is None else asdict(self.moduli),
            "fit": asdict(self.fit),
            "density_g_per_cm3": self.density_g_per_cm3,
            "strain": self.strain,
            "points": self.points,
            "warnings": list(self.warnings),
        }


def elastic(
    atoms: ase.Atoms,
    calculator: BaseCalculator | Potential | str | Path,
    *,
    strain: float = 0.005,
    points: int = 4,
    fmax: float = 0.001,
    smax_GPa: float = 0.02,
    steps: int = 500,
    progress: Callable[[str], None] | None = None,
) -> Elastic:
    """Elastic tensor C_ij = d sigma_i / d e_j of a crystal; the parameters are those of ElasticConfig.

    Atoms and cell come to rest first, with the symmetry they have. Strained copies of the primitive cell are evaluated
    as one batch, once as they are and once with their atoms at rest. A parabola is fitted to the stresses along each
    strain, its slope averaged with its transpose and over the rotations of the crystal. ``progress`` is called with
    what is being done.

    Raises
    ------
    ConfigError
        Parameters that make no sense.
    StressError
        No volume, or a potential that gives no stress.
    SimulationError
        The crystal or a strained copy does not come to rest.
    """
    config = ElasticConfig.parse(
        {"strain": strain, "points": points, "fmax": fmax, "smax_GPa": smax_GPa, "steps": steps}, where="elastic"
    )
    say = progress or (lambda _: None)
    engine = as_calculator(calculator)
    say("relaxing the crystal")
    rest = at_rest(atoms, engine, config.fmax, config.smax_GPa, config.steps)
    crystal = primitive_cell(rest.atoms)
    group = space_group(crystal)
    half = np.linspace(0.0, config.strain, config.points // 2 + 1)[1:]
    strains = np.concatenate([-half[::-1], half])  # (P,)
    copies = [strained(crystal, voigt * e) for voigt in np.eye(6) for e in strains]
    say(f"{len(copies)} strained copies of {len(crystal)} atoms")
    clamped = evaluate(copies, engine, stress=True)
    say("their atoms come to rest")
    settled = settle(copies, engine, fmax=config.fmax, steps=config.steps, stress=True)
    for one in settled:
        one.require_converged("strained copy", config.fmax)
    turns = group.cartesian(crystal.cell.array)
    relaxed_C, fit = _tensor([one.evaluation for one in settled], strains, turns)
    clamped_C, _ = _tensor(clamped, strains, turns)
    system = crystal_system(group.number)
    mass = float(crystal.get_masses().sum())
    density = mass / float(crystal.get_volume()) * AMU * 1e27  # amu/Å^3 -> g/cm^3
    kelvin = np.linalg.eigvalsh(_kelvin(relaxed_C))
    per_volume = len(crystal) / float(crystal.get_volume())
    return Elastic(
        relaxed_C,
        clamped_C,
        turned(relaxed_C, group.to_conventional),
        system,
        str(group),
        kelvin,
        moduli(relaxed_C, density, per_volume) if kelvin[0] > 0.0 else None,
        Fit(fit[0], fit[1], fit[2], rest.smax_GPa),
        density,
        crystal,
        config.strain,
        config.points,
    )


def strained(atoms: ase.Atoms, voigt: np.ndarray) -> ase.Atoms:
    """A copy deformed by r -> (1 + eps) r, eps from six engineering strains; atoms scale with the cell."""
    eps = np.zeros((3, 3))
    for value, (i, j) in zip(voigt, VOIGT, strict=True):
        eps[i, j] = eps[j, i] = value if i == j else 0.5 * value
    copy = atoms.copy()
    copy.set_cell(atoms.cell.array @ (np.eye(3) + eps), scale_atoms=True)
    return copy


def turned(stiffness: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """A 6x6 stiffness in axes turned by ``rotation`` (3, 3), which acts on columns."""
    full = _full(stiffness)
    return _voigt(np.einsum("ai,bj,ck,dl,ijkl->abcd", rotation, rotation, rotation, rotation, full, optimize=True))


def moduli(stiffness: np.ndarray, density_g_per_cm3: float, atoms_per_A3: float) -> Moduli:
    """Voigt-Reuss-Hill averages of a stable stiffness (6, 6) in GPa, and what follows from them.

    K_V = (C11 + C22 + C33 + 2 (C12 + C13 + C23)) / 9,
    G_V = (C11 + C22 + C33 - C12 - C13 - C23 + 3 (C44 + C55 + C66)) / 15,
    1 / K_R = S11 + S22 + S33 + 2 (S12 + S13 + S23),
    15 / G_R = 4 (S11 + S22 + S33 - S12 - S13 - S23) + 3 (S44 + S55 + S66).
    Debye temperature: h / k_B (3 n / 4 pi)^(1/3) v_m with 3 / v_m^3 = 1 / v_l^3 + 2 / v_t^3, n atoms per volume
    (Hill, Proc. Phys. Soc. A 65, 349 (1952); Anderson, J. Phys. Chem. Solids 24, 909 (1963)).
    """
    C, S = stiffness, np.linalg.inv(stiffness)
    K_voigt = (np.trace(C[:3, :3]) + 2.0 * (C[0, 1] + C[0, 2] + C[1, 2])) / 9.0
    G_voigt = (np.trace(C[:3, :3]) - (C[0, 1] + C[0, 2] + C[1, 2]) + 3.0 * np.trace(C[3:, 3:])) / 15.0
    K_reuss = 1.0 / (np.trace(S[:3, :3]) + 2.0 * (S[0, 1] + S[0, 2] + S[1, 2]))
    G_reuss = 15.0 / (4.0 * (np.trace(S[:3, :3]) - (S[0, 1] + S[0, 2] + S[1, 2])) + 3.0 * np.trace(S[3:, 3:]))
    K, G = 0.5 * (K_voigt + K_reuss), 0.5 * (G_voigt + G_reuss)
    v_long = math.sqrt((K + 4.0 / 3.0 * G) / density_g_per_cm3)  # GPa / (g/cm^3) = (km/s)^2
    v_trans = math.sqrt(G / density_g_per_cm3)
    v_mean = (3.0 / (1.0 / v_long**3 + 2.0 / v_trans**3)) ** (1.0 / 3.0)
    per_metre = 1e10 * (3.0 * atoms_per_A3 / (4.0 * math.pi)) ** (1.0 / 3.0)
    young = young_modulus(C, sphere(2000))
    return Moduli(
        K_voigt_GPa=float(K_voigt),
        K_reuss_GPa=float(K_reuss),
        K_GPa=float(K),
        G_voigt_GPa=float(G_voigt),
        G_reuss_GPa=float(G_reuss),
        G_GPa=float(G),
        E_GPa=float(9.0 * K * G / (3.0 * K + G)),
        nu=float((3.0 * K - 2.0 * G) / (2.0 * (3.0 * K + G))),
        anisotropy=float(5.0 * G_voigt / G_reuss + K_voigt / K_reuss - 6.0),
        v_long_km_per_s=v_long,
        v_trans_km_per_s=v_trans,
        debye_K=PLANCK / BOLTZMANN * per_metre * 1e3 * v_mean,
        young_min_GPa=float(young.min()),
        young_max_GPa=float(young.max()),
    )


def young_modulus(stiffness: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Young's modulus along unit vectors (D, 3), GPa: 1 / (n n n n : S)."""
    n = np.asarray(directions)
    # engineering strain of a pull along n is S v, its part along n is v . S v
    v = np.stack([n[:, i] * n[:, j] for i, j in VOIGT], axis=1)  # (D, 6)
    along: np.ndarray = 1.0 / np.einsum("di,ij,dj->d", v, np.linalg.inv(stiffness), v)
    return along


def sphere(count: int) -> np.ndarray:
    """Unit vectors spread evenly over half a sphere, (count, 3), the axes and diagonals of a cube among them."""
    k = np.arange(count) + 0.5
    z, angle = k / count, math.pi * (1.0 + math.sqrt(5.0)) * k
    spread = np.stack([np.sqrt(1 - z * z) * np.cos(angle), np.sqrt(1 - z * z) * np.sin(angle), z], axis=1)
    grid = np.array([[i, j, k] for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (0, 1) if (i, j, k) != (0, 0, 0)])
    return np.concatenate([spread, grid / np.linalg.norm(grid, axis=1, keepdims=True)])


def crystal_system(number: int) -> str:
    """Crystal system of a space group by its number."""
    return next((name for name, last in LAST.items() if number <= last), "cubic")


def _tensor(
    found: list[Evaluation], strains: np.ndarray, turns: np.ndarray
) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Symmetric stiffness (6, 6) in GPa, and rms, asymmetry and symmetrisation (GPa) of the fit."""
    stress = EV_PER_A3_IN_GPA * np.array([[one.stress[i, j] for i, j in VOIGT] for one in found])
    stress = stress.reshape(6, strains.size, 6)  # strain, point, stress
    design = np.stack([np.ones_like(strains), strains, strains**2], axis=1)
    raw, off = np.zeros((6, 6)), []
    for j in range(6):
        parabola, *_ = np.linalg.lstsq(design, stress[j], rcond=None)
        raw[:, j] = parabola[1]
        off.append(design @ parabola - stress[j])
    even = 0.5 * (raw + raw.T)
    mean = np.mean([turned(even, turn) for turn in turns], axis=0)
    rms = float(np.sqrt(np.mean(np.square(off))))
    return mean, (rms, float(np.abs(raw - raw.T).max()), float(np.abs(mean - even).max()))


def _full(stiffness: np.ndarray) -> np.ndarray:
    """C_ijkl of C_ij."""
    full = np.zeros((3, 3, 3, 3))
    for a, (i, j) in enumerate(VOIGT):
        for b, (k, m) in enumerate(VOIGT):
            full[i, j, k, m] = full[j, i, k, m] = full[i, j, m, k] = full[j, i, m, k] = stiffness[a, b]
    return full


def _voigt(full: np.ndarray) -> np.ndarray:
    return np.array([[full[i, j, k, m] for k, m in VOIGT] for i, j in VOIGT])


def _kelvin(stiffness: np.ndarray) -> np.ndarray:
    """The matrix whose eigenvalues are those of the tensor: shears weighted by sqrt(2)."""
    weight = np.array([1.0, 1.0, 1.0, *3 * [math.sqrt(2.0)]])
    weighted: np.ndarray = stiffness * np.outer(weight, weight)
    return weighted


def _named(stiffness: np.ndarray, system: str) -> dict[str, float]:
    return {f"C{ij}": float(stiffness[int(ij[0]) - 1, int(ij[1]) - 1]) for ij in CONSTANTS[system]}
