"""Every form of every architecture keeps what it claims, with weights that nobody chose."""

from __future__ import annotations

import pytest
import torch

from adatom.models.mlanet import MLANet, MLANetConfig
from adatom.potential import Potential
from adatom.priors.zbl import ZBL
from adatom.testing import verify
from adatom.testing.bench import prepare
from adatom.testing.verify import PHYSICS, SYMMETRIES, gather, measure

REFERENCES = {8: -432.0, 14: -163.0}
# what the published form is known not to keep; all else it must
UNKEPT = {
    "isolated atoms = references",
    "far parts add up",
    "supercell = n cells",
    "forces = -dE/dr",
    "stress = dE/d(strain)/V",
    "no net force",
    "energy as a pair parts",
}


def made(form: str, l_max: int = 2) -> Potential:
    """A small network as training would start with it."""
    torch.manual_seed(0)
    config = MLANetConfig.parse({"form": form, "l_max": l_max, "channels": 8, "heads": 2, "readout": 8})
    return Potential(MLANet(config), REFERENCES, scale=0.5, priors=(ZBL(),), derivatives=config.derivatives)


def test_default_mlanet_keeps_every_promise() -> None:
    result = verify(made("default"))
    assert [check for check in result.checks if check.verdict != "pass"] == []


@pytest.mark.parametrize("l_max", [1, 3])
def test_default_mlanet_of_another_degree_keeps_the_symmetries_and_derivatives(l_max: int) -> None:
    potential = made("default", l_max)
    bench = prepare(potential, gather(potential, None, seed=0), torch.float64, seed=0)
    checks = [measure(promise, bench) for promise in (*SYMMETRIES, *PHYSICS[:-1])]  # the last is a trajectory
    assert [check for check in checks if check.verdict != "pass"] == []


def test_the_published_mlanet_keeps_what_it_claims_and_shows_what_it_does_not() -> None:
    result = verify(made("paper"))
    assert [check for check in result.checks if check.verdict == "fail"] == []
    assert {check.name for check in result.checks if check.verdict == "not claimed"} >= UNKEPT
