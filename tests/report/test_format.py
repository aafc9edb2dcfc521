"""Numbers as a reader sees them."""

from __future__ import annotations

import math

import pytest

from adatom.report import format as written


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (90.249, "90.2"),
        (0.01234, "0.0123"),
        (-4.6, "−4.60"),
        (0.0, "0"),
        (1.25e-8, "1.25×10⁻⁸"),
        (128640.0, "128\u202f640"),
        (3.1e7, "3.10×10⁷"),
        (None, "–"),
        (math.nan, "–"),
        (-math.inf, "−∞"),
    ],
)
def test_three_significant_digits(value: float | None, shown: str) -> None:
    assert written.number(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(300.0, "300"), (0.05, "0.05"), (1e-10, "10⁻¹⁰"), (4.1e-4, "4.1×10⁻⁴"), (-0.25, "−0.25"), (0.0, "0"), (None, "–")],
)
def test_set_values_keep_no_zeros(value: float | None, shown: str) -> None:
    assert written.tidy(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.53, "0.53 s"),
        (48.2, "48 s"),
        (298.2, "4 min 58 s"),
        (59.7, "1 min 00 s"),
        (11100.0, "3 h 05 min"),
        (None, "–"),
    ],
)
def test_durations(seconds: float | None, shown: str) -> None:
    assert written.duration(seconds).replace("\u202f", " ") == shown


def test_differences_carry_their_sign() -> None:
    assert written.signed(0.003, 3) == "+0.003"
    assert written.signed(-0.003, 3) == "−0.003"


def test_exponents_are_raised_and_everything_else_is_escaped() -> None:
    assert written.raised("3×10⁻⁸ <b>") == "3×10<sup>−8</sup> &lt;b&gt;"
    assert written.raised("Å³") == "Å³"


def test_plurals() -> None:
    assert written.plural(1, "point") == "1 point"
    assert written.plural(1234, "point") == "1\u202f234 points"
