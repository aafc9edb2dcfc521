"""Harmonics and couplings against e3nn, and against what they must obey by themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from e3nn import o3

from adatom.nn.spherical import SphericalHarmonics, coupling, coupling_paths, degrees, reference_harmonics
from rotations import rotation, wigner

L_MAX = 4
ALL_PATHS = coupling_paths(L_MAX, L_MAX)


def directions(count: int = 40) -> torch.Tensor:
    """Unit vectors, the poles and the axes among them, (count + 6, 3)."""
    random = torch.from_numpy(np.random.default_rng(0).normal(size=(count, 3)))
    axes = torch.eye(3, dtype=torch.float64)
    vectors = torch.cat([random, axes, -axes])
    return vectors / vectors.norm(dim=1, keepdim=True)


def harmonics(vectors: torch.Tensor, l_max: int = L_MAX) -> torch.Tensor:
    return SphericalHarmonics(l_max)(vectors)


def block(degree: int) -> slice:
    return slice(degree**2, (degree + 1) ** 2)


def test_the_harmonics_are_those_of_e3nn() -> None:
    unit = directions()
    ours = harmonics(unit)
    for degree in range(L_MAX + 1):
        theirs = o3.spherical_harmonics(degree, unit[:, [1, 2, 0]], True, "component")
        torch.testing.assert_close(ours[:, block(degree)], theirs, rtol=0, atol=1e-12)


def test_the_recursion_gives_the_reference_harmonics() -> None:
    unit = directions()
    torch.testing.assert_close(harmonics(unit).numpy(), reference_harmonics(unit.numpy(), L_MAX), rtol=0, atol=1e-12)


def test_the_first_degree_is_the_vector_itself_as_y_z_x() -> None:
    unit = directions()
    torch.testing.assert_close(harmonics(unit)[:, 1:4], math.sqrt(3) * unit[:, [1, 2, 0]])


def test_squares_sum_to_the_number_of_components() -> None:
    y = harmonics(directions())
    for degree in range(L_MAX + 1):
        squares = y[:, block(degree)].square().sum(1)
        torch.testing.assert_close(squares, torch.full_like(squares, 2 * degree + 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("l_max", range(L_MAX + 1))
def test_a_lower_highest_degree_gives_the_first_part_of_a_higher_one(l_max: int) -> None:
    unit = directions()
    part = harmonics(unit, l_max)
    assert part.shape == (unit.shape[0], (l_max + 1) ** 2)
    assert len(degrees(l_max)) == (l_max + 1) ** 2
    torch.testing.assert_close(part, harmonics(unit)[:, : (l_max + 1) ** 2])


def test_rotated_vectors_have_rotated_harmonics() -> None:
    unit = directions()
    y, turned = harmonics(unit), harmonics(unit @ rotation().T)
    for degree in range(L_MAX + 1):
        torch.testing.assert_close(turned[:, block(degree)], y[:, block(degree)] @ wigner(degree).T, rtol=0, atol=1e-10)


def test_inverted_vectors_change_the_sign_of_odd_degrees() -> None:
    unit = directions()
    parity = torch.tensor([(-1.0) ** degree for degree in degrees(L_MAX)], dtype=torch.float64)
    torch.testing.assert_close(harmonics(-unit), harmonics(unit) * parity, rtol=0, atol=1e-14)


def test_the_harmonics_can_be_differentiated_twice() -> None:
    unit = directions(2)[:2].requires_grad_()
    module = SphericalHarmonics(3)
    assert torch.autograd.gradcheck(module, (unit,))
    assert torch.autograd.gradgradcheck(module, (unit,))


def test_no_vectors_give_no_harmonics() -> None:
    assert harmonics(torch.zeros(0, 3, dtype=torch.float64)).shape == (0, (L_MAX + 1) ** 2)


def test_harmonics_that_were_cast_to_single_precision_and_back_are_still_exact() -> None:
    module = SphericalHarmonics(L_MAX).float()
    assert module(directions().float()).dtype == torch.float32
    again = module.double()(directions())
    np.testing.assert_allclose(again.numpy(), reference_harmonics(directions().numpy(), L_MAX), rtol=0, atol=1e-12)


@pytest.mark.parametrize("path", ALL_PATHS)
def test_couplings_are_the_wigner_3j_symbols_of_e3nn_up_to_sign(path: tuple[int, int, int]) -> None:
    theirs = math.sqrt(2 * path[2] + 1) * o3.wigner_3j(*path, dtype=torch.float64).numpy()
    ours = coupling(*path)
    assert min(np.abs(ours - theirs).max(), np.abs(ours + theirs).max()) < 1e-12


@pytest.mark.parametrize("path", ALL_PATHS)
def test_couplings_commute_with_rotations(path: tuple[int, int, int]) -> None:
    tensor = torch.from_numpy(coupling(*path))
    first, second, third = (wigner(degree) for degree in path)
    before = torch.einsum("abc,ai,bj->ijc", tensor, first, second)  # inputs turned
    after = torch.einsum("ijk,ck->ijc", tensor, third)  # output turned
    torch.testing.assert_close(before, after, rtol=0, atol=1e-10)


@pytest.mark.parametrize("path", ALL_PATHS)
def test_couplings_map_inputs_of_unit_variance_to_outputs_of_unit_variance(path: tuple[int, int, int]) -> None:
    per_component = np.square(coupling(*path)).sum((0, 1))
    np.testing.assert_allclose(per_component, 1.0, atol=1e-12)


def test_paths_are_all_those_that_conserve_parity_and_obey_the_triangle() -> None:
    wanted = {
        (a, b, c)
        for a in range(4)
        for b in range(4)
        for c in range(3)
        if abs(a - b) <= c <= a + b and (a + b + c) % 2 == 0
    }
    paths = coupling_paths(3, 2)
    assert set(paths) == wanted
    assert len(paths) == len(wanted)
    assert [path[2] for path in paths] == sorted(path[2] for path in paths)


def test_two_degrees_give_eleven_paths() -> None:
    assert len(coupling_paths(2, 2)) == 11
