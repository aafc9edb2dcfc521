"""The contract passes what is sound, catches each broken promise, and says `not claimed` where nothing was promised."""

from __future__ import annotations

import dataclasses
import io
import json

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk
from rich.console import Console

import broken
from adatom.errors import DataError, UnknownElementError
from adatom.potential import Potential
from adatom.testing import Verification, verify
from adatom.testing.bench import prepare
from adatom.testing.table import verification_table
from adatom.testing.verify import PHYSICS, SYMMETRIES, gather, in_single, judge, measure
from toy import SOUND, Toy, toy_potential

NOTHING = SOUND._replace(symmetry="learned", reach="global", extensive=False, conservative=False, smooth=False)

ROUGH = {"smooth": False, "conservative": False}  # what jumps has no derivative there
PARTING = "energy as a pair parts"

# model, its derivatives, checks it must fail, the claims without which it passes (none: nothing excuses it)
BROKEN = [
    (broken.HardCutoff, "gradient", {"energy across the cutoff", PARTING}, ROUGH),
    (broken.SteepForce, "gradient", {"force across the cutoff", "force as a pair parts"}, ROUGH),
    (broken.KeenLast, "gradient", {PARTING}, {"smooth": False}),
    (broken.Flaring, "gradient", {"no flare as a pair parts"}, {"smooth": False}),
    (broken.MeanPooled, "gradient", {"far parts add up", "supercell = n cells"}, {"extensive": False}),
    (broken.Direct, "direct", {"forces = -dE/dr", "stress = dE/d(strain)/V", "NVE drift"}, {"conservative": False}),
    (broken.Restless, "direct", {"no net force", "no net torque", "symmetric stress"}, {"conservative": False}),
    (broken.Tilted, "gradient", {"rotation", "rotation (float32)", "no net torque"}, {"symmetry": "learned"}),
    (broken.Handed, "gradient", {"inversion"}, {"symmetry": "learned"}),
    (broken.Offset, "gradient", {"isolated atoms = references"}, {"extensive": False}),
    (broken.Telepathic, "gradient", {"distant change unfelt"}, {"reach": "global", "extensive": False}),
    (broken.Leaky, "gradient", {"batch = single", "batch = single (float32)"}, None),
    (broken.PaddingReader, "gradient", {"padding"}, None),
    (broken.Anchored, "gradient", {"translation"}, None),
    (broken.Ordered, "gradient", {"permutation"}, None),
    (broken.CellReader, "gradient", {"choice of cell"}, None),
    (broken.ShiftReader, "gradient", {"wrapped atoms"}, None),
    (broken.Forgetful, "gradient", {"repetition"}, None),
    (broken.Vandal, "gradient", {"input untouched"}, None),
    (broken.Nothing, "gradient", {"translation", "batch = single"}, None),
]
PROMISES = {p.name: p for p in (*SYMMETRIES, *PHYSICS, *map(in_single, SYMMETRIES))}


@pytest.fixture(scope="module")
def sound() -> Verification:
    return verify(toy_potential(dtype=torch.float32))


def test_a_sound_potential_passes_every_check(sound: Verification) -> None:
    assert sound.passed
    assert {check.verdict for check in sound.checks} == {"pass"}
    assert [check.name for check in sound.checks] == list(PROMISES)


def test_a_sound_potential_passes_with_room_to_spare(sound: Verification) -> None:
    """Figures near their threshold would fail on another machine."""
    for check in sound.checks:
        assert check.figure is not None
        assert check.figure <= 0.9 * check.threshold, check


@pytest.mark.parametrize(
    ("kind", "derivatives", "caught", "withdrawn"), BROKEN, ids=lambda v: getattr(v, "__name__", "")
)
def test_a_broken_promise_fails_and_a_withdrawn_one_is_reported(kind, derivatives, caught, withdrawn) -> None:
    potential = broken.broken_potential(kind, SOUND, derivatives)
    samples = gather(potential, None, seed=0)
    for name in sorted(caught):
        dtype = torch.float32 if name.endswith("(float32)") else torch.float64
        check = measure(PROMISES[name], prepare(potential, samples, dtype, seed=0))
        assert check.verdict == "fail", check
        assert check.figure is not None
        modest = SOUND._replace(**withdrawn) if withdrawn else NOTHING
        assert judge(PROMISES[name], check.figure, modest) == ("not claimed" if withdrawn else "fail")


def test_every_promise_has_a_model_that_breaks_it() -> None:
    caught = set().union(*(names for _, _, names, _ in BROKEN))
    assert {p.name for p in (*SYMMETRIES, *PHYSICS)} <= caught


def test_the_whole_fails_when_a_claim_fails_and_passes_when_it_is_withdrawn() -> None:
    boastful = verify(broken.broken_potential(broken.MeanPooled, SOUND))
    modest = verify(broken.broken_potential(broken.MeanPooled, SOUND._replace(extensive=False)))
    assert not boastful.passed
    assert modest.passed
    failed = [check.name for check in boastful.checks if check.verdict == "fail"]
    assert failed == [check.name for check in modest.checks if check.verdict == "not claimed"]
    assert all(modest.check(name).figure == boastful.check(name).figure for name in failed), "measured, never hidden"


def test_the_potential_is_left_as_it_was_and_the_figures_repeat(sound: Verification) -> None:
    potential = toy_potential(dtype=torch.float32).train()
    before = {name: value.clone() for name, value in potential.state_dict().items()}
    again = verify(potential)
    assert [check.figure for check in again.checks] == [check.figure for check in sound.checks]
    assert potential.training
    assert potential.dtype == torch.float32
    for name, value in potential.state_dict().items():
        assert torch.equal(value.nan_to_num(), before[name].nan_to_num()), name


def test_references_of_all_electron_size_do_not_drown_the_figures() -> None:
    heavy = Potential(Toy().double(), {29: -450_000.0, 8: -20_400.0}).eval()
    bench = prepare(heavy, gather(heavy, None, seed=0), torch.float64, seed=0)
    for name in ("translation", "far parts add up", "forces = -dE/dr", "isolated atoms = references"):
        assert measure(PROMISES[name], bench).verdict == "pass"


def test_given_structures_are_tested_too_and_perfect_crystals_are_no_trouble() -> None:
    """Their forces and stresses are rounding errors: nothing may be measured relative to those."""
    rattled = bulk("Cu", cubic=True)
    rattled.rattle(0.05, seed=1)
    result = verify(toy_potential(), [rattled, bulk("Cu", cubic=True), bulk("Cu", "fcc", a=3.45)])
    assert result.passed
    assert "structure 0 Cu4" in result.check("NVE drift").detail


def test_an_unknown_element_is_named_before_anything_is_computed() -> None:
    class Explodes(Toy):
        def forward(self, graph):
            raise AssertionError("computed")

    with pytest.raises(UnknownElementError, match="Au"):
        verify(broken.broken_potential(Explodes, SOUND), [bulk("Au")])


def test_structures_that_are_all_too_large_are_refused() -> None:
    with pytest.raises(DataError, match="100 atoms"):
        verify(toy_potential(), [ase.Atoms("Cu200", positions=np.random.default_rng(0).normal(size=(200, 3)))])


def test_the_result_as_json_can_be_read_back(tmp_path, sound: Verification) -> None:
    path = tmp_path / "verify.json"
    text = sound.to_json(path)
    values = json.loads(path.read_text(encoding="utf-8"))
    assert values == json.loads(text)
    assert values["passed"] is True
    assert values["model"] == "Toy"
    assert set(values["checks"][0]) == {"name", "claim", "figure", "threshold", "unit", "verdict", "detail"}


def test_the_table_names_every_check_and_where_one_fails(sound: Verification) -> None:
    def shown(result: Verification) -> str:
        console = Console(width=200, record=True, file=io.StringIO())
        console.print(verification_table(result))
        return console.export_text()

    assert all(check.name in shown(sound) for check in sound.checks)
    assert "every claim holds" in shown(sound)
    failed = dataclasses.replace(sound.checks[0], verdict="fail", figure=1.0, detail="largest in [here]")
    text = shown(dataclasses.replace(sound, passed=False, checks=(failed,)))
    assert "a claim does not hold" in text
    assert "largest in [here]" in text


def test_a_figure_that_is_no_number_is_a_failure_and_null_in_json(sound: Verification) -> None:
    potential = broken.broken_potential(broken.Nothing, NOTHING)
    bench = prepare(potential, gather(potential, None, seed=0), torch.float64, seed=0)
    checks = [measure(promise, bench) for promise in (*SYMMETRIES, *PHYSICS)]
    for check in checks:
        assert check.verdict in (("pass",) if check.name == "input untouched" else ("fail", "not claimed")), check
    values = json.loads(dataclasses.replace(sound, checks=tuple(checks)).to_json())
    assert np.isnan(checks[0].figure)
    assert values["checks"][0]["figure"] is None
