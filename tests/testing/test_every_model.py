"""Every form of every architecture keeps what it claims, and needs every claim that it does not make."""

from __future__ import annotations

import pytest
import torch

from adatom.models import MODELS, forms
from adatom.models.base import Claims
from adatom.testing import Verification, verify
from adatom.testing.bench import prepare
from adatom.testing.untrained import untrained
from adatom.testing.verify import PHYSICS, SYMMETRIES, gather, measure
from narrow import NARROW

DIRECT = [
    (architecture, "default", "direct") for architecture in MODELS if "default" in forms(architecture)
]  # beside the way of its own
EVERY = [(architecture, form, "") for architecture in MODELS for form in forms(architecture)] + DIRECT

# of each claim, the checks of which one at least does not hold where it is not made
SHOWN = {
    "symmetry": {"rotation", "inversion"},
    "reach": {"distant change unfelt", "far parts add up"},
    "extensive": {"far parts add up", "supercell = n cells"},
    "conservative": {"forces = -dE/dr", "stress = dE/d(strain)/V"},
    "smooth": {"energy across the cutoff", "force across the cutoff", "energy as a pair parts", "force as a pair parts"}
    | {"no flare as a pair parts"},
}
MADE = Claims("O(3)", "local", extensive=True, conservative=True, smooth=True)


def withdrawn(claims: Claims) -> list[str]:
    """Names of the claims that are not made."""
    return [name for name in SHOWN if claims._asdict()[name] != MADE._asdict()[name]]


def verified(architecture: str, form: str, derivatives: str) -> tuple[Verification, Claims]:
    settings = NARROW[architecture].get(form, {}) | ({"derivatives": derivatives} if derivatives else {})
    potential = untrained(architecture, form=form, **settings)
    return verify(potential), potential.network.claims


@pytest.mark.parametrize(("architecture", "form", "derivatives"), EVERY, ids=["-".join(e).rstrip("-") for e in EVERY])
def test_what_is_claimed_holds_and_what_is_not_claimed_does_not(architecture: str, form: str, derivatives: str) -> None:
    result, claims = verified(architecture, form, derivatives)
    assert [check for check in result.checks if check.verdict == "fail"] == []
    missed = {check.name for check in result.checks if check.verdict == "not claimed"}
    for claim in withdrawn(claims):
        if claim != "reach":  # one that reaches everywhere may do so weakly
            assert missed & SHOWN[claim], f"{claim} holds: it can be claimed"
    if not withdrawn(claims):
        assert missed == set()
    assert {check.verdict for check in result.checks} <= {"pass", "not claimed"}, "nothing is left out"


def test_every_architecture_has_settings_for_tests() -> None:
    assert set(NARROW) == set(MODELS)


def test_the_table_of_claims_covers_them_all() -> None:
    assert set(SHOWN) | {"grounded"} >= set(Claims._fields)
    assert {name for names in SHOWN.values() for name in names} <= {p.name for p in (*SYMMETRIES, *PHYSICS)}


@pytest.mark.parametrize("l_max", [1, 3])
def test_default_mlanet_of_another_degree_keeps_the_symmetries_and_derivatives(l_max: int) -> None:
    potential = untrained("mlanet", **NARROW["mlanet"]["default"] | {"l_max": l_max})
    bench = prepare(potential, gather(potential, None, seed=0), torch.float64, seed=0)
    checks = [measure(promise, bench) for promise in (*SYMMETRIES, *PHYSICS[:-1])]  # the last is a trajectory
    assert [check for check in checks if check.verdict != "pass"] == []
