"""Reference energies per element, and the scales of what is left."""

from __future__ import annotations

import numpy as np
import pytest

from adatom.errors import DataError
from adatom.statistics import fit_references, scales

H, O, SI = 1, 8, 14  # noqa: E741
WATER = np.array([H, H, O])
TRUE = {H: -13.6, O: -432.0, SI: -163.0}


def energies(numbers: list[np.ndarray]) -> list[float]:
    return [sum(TRUE[int(z)] for z in n) for n in numbers]


VARIED = [np.array(n) for n in ([H, H], [O, O], [H, H, O], [H, H, O, O], [SI, O, O], [SI] * 8)]


def test_least_squares_finds_the_elements_apart() -> None:
    found = fit_references(VARIED, energies(VARIED))
    assert found.energies == pytest.approx(TRUE)
    assert set(found.source.values()) == {"least squares"}
    assert found.remarks == ()


def test_it_is_never_the_mean_energy_per_atom() -> None:
    numbers = [np.array([H, H, O]), np.array([H, O])]
    found = fit_references(numbers, energies(numbers))
    assert found.energies == pytest.approx({H: -13.6, O: -432.0})


def test_free_atoms_go_before_the_fit_and_given_values_before_both() -> None:
    off = [e - 3.0 * len(n) for e, n in zip(energies(VARIED), VARIED, strict=True)]  # bound by 3 eV per atom
    found = fit_references(VARIED, off, isolated={H: -13.6, O: -432.0}, given={O: -430.0})
    assert found.energies[H] == -13.6
    assert found.energies[O] == -430.0
    assert found.source == {H: "isolated atom", O: "given", SI: "least squares"}


def test_the_elements_without_free_atom_are_fitted_on_what_is_left() -> None:
    numbers = [np.array([SI, O, O]), np.array([SI, SI, O])]
    found = fit_references(numbers, energies(numbers), isolated={O: TRUE[O]})
    assert found.energies[SI] == pytest.approx(TRUE[SI])


def test_structures_without_energy_are_left_out_of_the_fit() -> None:
    found = fit_references([*VARIED, np.array([H] * 50)], [*energies(VARIED), float("nan")])
    assert found.energies == pytest.approx(TRUE)


def test_one_composition_is_fitted_exactly_and_the_open_rest_is_told() -> None:
    found = fit_references([WATER] * 4, [TRUE[O] + 2 * TRUE[H]] * 4)
    assert found.total(WATER) == pytest.approx(TRUE[O] + 2 * TRUE[H])
    assert "tell apart 1 of 2 elements (H, O)" in found.remarks[0]
    # the smallest norm: shares in proportion to the counts
    assert found.energies[H] == pytest.approx(2 * found.energies[O])


def test_a_free_atom_settles_what_one_composition_leaves_open() -> None:
    found = fit_references([WATER] * 4, [TRUE[O] + 2 * TRUE[H]] * 4, isolated={H: TRUE[H]})
    assert found.energies[O] == pytest.approx(TRUE[O])
    assert found.remarks == ()


def test_large_structures_do_not_outweigh_small_ones() -> None:
    numbers = [np.array([SI] * 2), np.array([SI] * 200)]
    found = fit_references(numbers, [-10.0, -1200.0])  # -5 and -6 eV/atom
    assert found.energies[SI] == pytest.approx(-(10.0 + 1200.0) / 202.0)


def test_references_that_cannot_be_known_are_errors() -> None:
    with pytest.raises(DataError, match="no labelled structure holds O"):
        fit_references([np.array([H, H]), np.array([O])], [-27.2, float("nan")])
    with pytest.raises(DataError, match="no atoms"):
        fit_references([], [])
    with pytest.raises(DataError, match="reference energy of H is not a number"):
        fit_references([np.array([H])], [-1.0], given={H: float("nan")})


def test_references_given_for_other_elements_are_kept() -> None:
    found = fit_references([np.array([H, H])], [-27.2], given={SI: -163.0})
    assert found.energies == pytest.approx({H: -13.6, SI: -163.0})


def test_scales_are_root_mean_squares_of_what_is_left() -> None:
    numbers = [np.array([H, H]), np.array([H, H, H, H])]
    references = fit_references(numbers, [0.0, 0.0], given={H: -1.0})
    forces = [np.full((2, 3), 2.0), np.full((4, 3), np.nan)]
    found = scales(numbers, [-2.2, -4.4], forces, [np.full((3, 3), np.nan)] * 2, references)
    assert found.energy == pytest.approx(0.1)
    assert found.forces == pytest.approx(2.0)
    assert np.isnan(found.stress)


def test_scales_need_a_reference_for_each_element() -> None:
    references = fit_references([np.array([H, H])], [-27.2])
    with pytest.raises(DataError, match="no reference energy for O"):
        scales([WATER], [-1.0], [], [], references)
