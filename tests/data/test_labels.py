"""The order in which fields serve labels."""

from __future__ import annotations

import numpy as np
import pytest

from adatom.data.labels import NAMES, choose, same, tensor
from adatom.errors import LabelError


@pytest.mark.parametrize("label", ["energy", "forces", "stress", "virial"])
def test_listed_names_serve_in_their_order(label: str) -> None:
    names = list(NAMES[label])
    for k, name in enumerate(names):
        choice = choose(dict.fromkeys(reversed(names[k:]), 1.0), label, None, "here")
        assert choice is not None
        assert choice.key == name
        assert list(choice.rivals) == names[k + 1 :]


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("energy", "formation_energy"),
        ("energy", "energy_per_atom"),
        ("energy", "kinetic_energy"),
        ("energy", "mace_energy"),
        ("energy", "energy_sigma"),
        ("energy", "energyshift"),
        ("forces", "REF_magforces"),
        ("forces", "spin_forces"),
        ("forces", "force_sigma"),
        ("stress", "stress_weight"),
        ("virial", "virial_sigma"),
    ],
)
def test_names_of_other_things_serve_nothing(label: str, name: str) -> None:
    assert choose({name: 1.0}, label, None, "here") is None


def test_open_forms_that_agree_are_no_conflict() -> None:
    choice = choose({"a_energy": 1.0, "b_energy": 1.0 + 1e-9}, "energy", None, "here")
    assert choice is not None
    assert choice.key == "a_energy"
    with pytest.raises(LabelError, match="several fields could be the energy"):
        choose({"a_energy": 1.0, "b_energy": 1.1}, "energy", None, "here")


def test_a_given_name_is_taken_or_nothing_is() -> None:
    fields = {"energy": 1.0, "E0": 2.0}
    choice = choose(fields, "energy", "E0", "here")
    assert choice is not None
    assert choice.key == "E0"
    assert choose(fields, "energy", "E1", "here") is None


def test_voigt_order_is_that_of_ase() -> None:
    from ase.stress import voigt_6_to_full_3x3_stress

    six = np.arange(1.0, 7.0)
    assert tensor(six, "here").tolist() == voigt_6_to_full_3x3_stress(six).tolist()
    assert tensor(np.arange(9.0), "here").tolist() == np.arange(9.0).reshape(3, 3).tolist()


def test_equal_means_equal_numbers() -> None:
    assert same([1.0, 2.0], np.array([1.0, 2.0]))
    assert same(None, "nan")
    assert not same([1.0, 2.0], [1.0])
    assert not same("text", 1.0)
