"""Shear stresses in another order are named, and those in the right one are left in peace."""

from __future__ import annotations

import dataclasses

import ase
import numpy as np
import pytest

from adatom.data.doctor import Finding, consistency
from adatom.data.read import Structure

KIND = "order of the stress"
SHEARS = ((1, 2), (0, 2), (0, 1))  # yz, xz, xy
# of a crystal without any symmetry, so that no two shears answer alike: xx yy zz yz xz xy, eV/Å^3
RANDOM = np.random.default_rng(3).uniform(-0.06, 0.06, (6, 6))
STIFFNESS = np.diag([1.5, 1.3, 1.7, 0.7, 0.5, 0.9]) + 0.5 * (RANDOM + RANDOM.T)


def vector(tensor: np.ndarray) -> np.ndarray:
    """xx yy zz 2yz 2xz 2xy of a strain."""
    return np.array([*np.diag(tensor), *(2.0 * tensor[i, j] for i, j in SHEARS)])


def tensor_of(six: np.ndarray) -> np.ndarray:
    tensor = np.diag(six[:3])
    for (i, j), value in zip(SHEARS, six[3:], strict=True):
        tensor[i, j] = tensor[j, i] = value
    return tensor


def strained(strain: np.ndarray, k: int, noise: float = 0.0) -> Structure:
    """Elastic: E = V_0/2 eta C eta with Green's strain eta, and the Cauchy stress that belongs to it."""
    start = 5.0 * np.eye(3)
    deformation = np.eye(3) + strain  # rows: cell = start @ deformation
    eta = vector(0.5 * (deformation @ deformation.T - np.eye(3)))
    atoms = ase.Atoms("Si2", [(0, 0, 0), (2.5, 2.5, 2.5)], cell=start, pbc=True)
    atoms.set_cell(start @ deformation, scale_atoms=True)
    stress = deformation.T @ tensor_of(STIFFNESS @ eta) @ deformation / np.linalg.det(deformation)
    energy = 62.5 * float(eta @ STIFFNESS @ eta) - 300.0
    jump = noise * np.random.default_rng(k).normal()
    return Structure(atoms, energy + jump, np.zeros((2, 3)), stress, f"a.xyz:{k}")


def sheared(noise: float = 0.0) -> list[Structure]:
    """Copies stretched and sheared along one component each, as elastic sets hold them."""
    sizes = [size for size in np.linspace(-0.04, 0.04, 9) if size != 0.0]
    strains = [np.zeros((3, 3))]
    strains += [np.diag(size * np.eye(3)[i]) for i in range(3) for size in sizes]
    strains += [tensor_of(np.eye(6)[3 + i] * size) for i in range(3) for size in sizes]
    return [strained(strain, k, noise) for k, strain in enumerate(strains)]


def mixed() -> list[Structure]:
    """Copies strained at random in all six components."""
    random = np.random.default_rng(1)
    return [strained(tensor_of(0.015 * random.normal(size=6)), k) for k in range(60)]


def reordered(structures: list[Structure], order: tuple[int, ...]) -> list[Structure]:
    """What belongs to the j-th shear stands under the order[j]-th."""
    made = []
    for s in structures:
        six = np.array([*np.diag(s.stress), 0.0, 0.0, 0.0])
        for j, (row, column) in enumerate(SHEARS):
            six[3 + order[j]] = s.stress[row, column]
        made.append(dataclasses.replace(s, stress=tensor_of(six)))
    return made


def found(structures: list[Structure]) -> list[Finding]:
    return [f for f in consistency(structures) if f.kind == KIND]


ORDERS = {
    (0, 1, 2): "",
    (1, 0, 2): "yz and xz are exchanged",
    (2, 1, 0): "yz and xy are exchanged",
    (0, 2, 1): "xz and xy are exchanged",
    (1, 2, 0): "yz under xz, xz under xy, xy under yz",
    (2, 0, 1): "yz under xy, xz under yz, xy under xz",
}


@pytest.mark.parametrize("order", list(ORDERS))
@pytest.mark.parametrize("kind", ["one by one", "mixed"])
def test_the_order_of_shear_stresses_is_named_and_the_right_one_silent(kind: str, order: tuple[int, ...]) -> None:
    findings = found(reordered(sheared() if kind == "one by one" else mixed(), order))
    if not ORDERS[order]:
        assert findings == []
        return
    assert [f.severity for f in findings] == ["warning"]
    assert ORDERS[order] in findings[0].message
    assert "xx yy zz yz xz xy" in findings[0].remedy
    assert findings[0].where == "a.xyz"


def test_energies_too_noisy_to_judge_accuse_no_order() -> None:
    assert found(sheared(noise=0.5)) == []
    assert found(reordered(sheared(noise=5.0), (1, 0, 2))) == []


def test_few_sheared_pairs_accuse_no_order() -> None:
    few = [s for k, s in enumerate(reordered(sheared(), (1, 0, 2))) if k < 25 or k == 28]
    assert found(few) == []


def test_a_wrong_file_is_found_beside_a_larger_right_one() -> None:
    right = [dataclasses.replace(s, name=s.name.replace("a.", "b.")) for s in mixed()]
    assert [f.where for f in found([*right, *reordered(sheared(), (1, 0, 2))])] == ["a.xyz"]
