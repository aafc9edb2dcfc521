"""Elements by name and number."""

from __future__ import annotations

import numpy as np
import pytest

from adatom import elements
from adatom.errors import ConfigError


def test_symbols_and_numbers_lead_to_each_other() -> None:
    assert elements.symbols([1, 14, 118]) == ["H", "Si", "Og"]
    assert [elements.number(name) for name in elements.symbols(range(1, elements.MAX_Z + 1))] == list(range(1, 119))


@pytest.mark.parametrize("name", ["Xx", "X", "si", ""])
def test_what_is_no_element_is_a_typed_error(name: str) -> None:
    with pytest.raises(ConfigError, match="no element"):
        elements.number(name)


def test_covalent_radii_are_those_of_cordero() -> None:
    np.testing.assert_allclose(elements.covalent_radius(np.array([1, 6, 14, 55])), [0.31, 0.76, 1.11, 2.44])
    assert elements.covalent_radius(8) == pytest.approx(0.66)
