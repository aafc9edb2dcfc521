"""MLANet in both forms: its sizes, its limits, its derivatives, and what the published form does not keep."""

from __future__ import annotations

from functools import cache
from typing import Any

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from adatom.errors import ConfigError
from adatom.graph import Graph, Results, collate
from adatom.models import MODELS
from adatom.models.mlanet import SIZES, MLANet, MLANetConfig
from adatom.neighbors import graph_from_atoms
from adatom.potential import Potential
from rotations import rotation

CUTOFF = 4.5
REFERENCES = {1: -13.0, 8: -430.0, 14: -160.0}
FORMS = ("default", "paper")
SMALL = {"channels": 8, "heads": 2, "readout": 8, "cutoff": CUTOFF}


@cache
def made(form: str = "default", l_max: int = 2, dtype: torch.dtype = torch.float64) -> Potential:
    """A narrow network with weights that nobody chose."""
    torch.manual_seed(1)
    config = MLANetConfig.parse({"form": form, "l_max": l_max, **SMALL})
    return Potential(MLANet(config).to(dtype), REFERENCES, derivatives=config.derivatives).eval()


def crystal() -> ase.Atoms:
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.1, seed=0)
    strain = np.array([[0.02, 0.01, 0], [0, -0.03, 0.02], [0.01, 0, 0.01]])
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    return atoms


def water() -> ase.Atoms:
    atoms = molecule("H2O")
    atoms.rattle(0.05, seed=0)
    return atoms


def pair(distance: float) -> ase.Atoms:
    return ase.Atoms("Si2", positions=[[0, 0, 0], np.array([0.6, -0.48, 0.64]) * distance])


def lone(element: str = "Si") -> ase.Atoms:
    return ase.Atoms(element, positions=[[0.1, 0.2, 0.3]])


def graph(*structures: ase.Atoms) -> Graph:
    return collate([graph_from_atoms(atoms, CUTOFF) for atoms in structures])


def ask(potential: Potential, *structures: ase.Atoms) -> Results:
    return potential(graph(*structures), stress=True)


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * float(b.nan_to_num().abs().max()), equal_nan=True)


# --- configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", SIZES)
def test_every_size_of_every_form_predicts(form: str, size: str) -> None:
    config = MLANetConfig.parse({"form": form, "size": size})
    potential = Potential(MLANet(config), REFERENCES, derivatives=config.derivatives).eval()
    energy, forces, stress = potential(graph_from_atoms(bulk("Si"), config.cutoff), stress=True)
    assert all(t.isfinite().all() for t in (energy, forces, stress))
    assert (energy.shape, forces.shape, stress.shape) == ((1,), (2, 3), (1, 3, 3))
    assert energy.dtype == forces.dtype == stress.dtype == torch.float64
    assert potential.dtype == torch.float32


def test_the_size_sets_the_numbers_and_a_number_set_by_hand_wins() -> None:
    small, large = MLANetConfig.parse({"size": "S"}), MLANetConfig.parse({"size": "L"})
    assert {name: getattr(small, name) for name in SIZES["S"]} == SIZES["S"]
    assert {name: getattr(large, name) for name in SIZES["L"]} == SIZES["L"]
    mixed = MLANetConfig.parse({"size": "L", "channels": 24, "heads": 3})
    assert (mixed.channels, mixed.heads, mixed.l_max) == (24, 3, SIZES["L"]["l_max"])
    assert MLANetConfig.parse({}) == small


def test_a_larger_size_has_more_parameters() -> None:
    counts = [sum(p.numel() for p in MLANet(MLANetConfig.parse({"size": s})).parameters()) for s in ("S", "M", "L")]
    assert counts == sorted(set(counts))


def test_a_resolved_configuration_rebuilds_itself() -> None:
    config = MLANetConfig.parse({"size": "M", "layers": 1, "mean_neighbours": 17.5})
    assert MLANetConfig.parse(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"channels": 10, "heads": 4}, r"channels \(10\) must be a multiple of heads \(4\)"),
        ({"chanels": 8}, "did you mean 'channels'"),
        ({"cut_off": 5.0}, "did you mean 'cutoff'"),
        ({"l_max": 4}, "l_max"),
        ({"l_max": 0}, "l_max"),
        ({"size": "XL"}, "size"),
        ({"form": "published"}, "form"),
        ({"cutoff": -1.0}, "cutoff"),
        ({"layers": 0}, "layers"),
        ({"architecture": "nemp"}, "architecture"),
    ],
)
def test_a_wrong_configuration_is_named(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        MLANetConfig.parse(values, where="model")


def test_the_table_of_architectures_names_it() -> None:
    assert MODELS["mlanet"] is MLANet
    assert MLANetConfig.parse({}).architecture == "mlanet"


# --- the default form -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("l_max", [1, 2, 3])
def test_a_lone_atom_has_exactly_its_reference_energy(l_max: int) -> None:
    energy, forces, _ = ask(made("default", l_max), lone("Si"), lone("O"))
    assert energy.tolist() == [REFERENCES[14], REFERENCES[8]]
    assert torch.equal(forces, torch.zeros_like(forces))


def test_a_lone_atom_beside_others_in_a_batch_changes_nothing() -> None:
    potential = made()
    together, alone = ask(potential, crystal(), lone(), water()), ask(potential, crystal())
    close(together.energy[:1], alone.energy)
    close(together.forces[:8], alone.forces)
    close(together.stress[:1], alone.stress)
    assert together.energy[1] == REFERENCES[14]


def test_atoms_beyond_the_cutoff_feel_nothing_and_the_last_bond_fades() -> None:
    potential = made()
    apart = ask(potential, pair(CUTOFF + 1e-6))
    assert float(apart.energy) == 2 * REFERENCES[14]
    distances = CUTOFF - np.logspace(-6, -1, 20)
    bound = ask(potential, *(pair(d) for d in distances))
    energies = (bound.energy - apart.energy).abs()
    assert energies[0] < 1e-9
    assert bound.forces.abs().max() < 20 * ask(potential, pair(CUTOFF - 0.5)).forces.abs().max()


@pytest.mark.parametrize("build", [crystal, water])
def test_forces_are_minus_the_slope_of_the_energy(build: Any) -> None:
    potential, atoms, step = made(), build(), 1e-4
    forces = ask(potential, atoms).forces
    for atom, axis in ((0, 0), (1, 2)):
        moved = [atoms.copy() for _ in range(2)]
        for sign, copy in zip((1, -1), moved, strict=True):
            copy.positions[atom, axis] += sign * step
        up, down = ask(potential, *moved).energy.tolist()
        assert forces[atom, axis].item() == pytest.approx(-(up - down) / (2 * step), rel=1e-5, abs=1e-6)


def test_parameters_learn_from_forces_as_finite_differences_say() -> None:
    """Training differentiates forces once more: through gathers, couplings and the attention."""
    torch.manual_seed(0)
    config = MLANetConfig.parse({**SMALL, "channels": 4, "readout": 4})
    potential = Potential(MLANet(config).double(), REFERENCES).train()
    batch = graph(crystal(), lone(), water())
    parameters = list(potential.parameters())
    direction = [torch.randn_like(p) for p in parameters]

    def objective() -> torch.Tensor:
        result = potential(batch, stress=True)
        return result.forces.square().sum() + result.stress.nan_to_num().square().sum() + 0.1 * result.energy.sum()

    slopes = torch.autograd.grad(objective(), parameters)
    along = sum((s * d).sum() for s, d in zip(slopes, direction, strict=True))
    values, step = [], 1e-5
    for shift in (step, -2 * step):
        with torch.no_grad():
            for parameter, d in zip(parameters, direction, strict=True):
                parameter += shift * d
        values.append(objective().item())
    assert along.item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_every_weight_takes_part(form: str) -> None:
    """A weight that nothing depends on is a mistake, and stops training on several devices."""
    config = MLANetConfig.parse({"form": form, **SMALL})
    potential = Potential(MLANet(config).double(), REFERENCES, derivatives=config.derivatives).train()
    result = potential(graph(crystal(), water()), stress=True)
    (result.energy.sum() + result.forces.square().sum() + result.stress.nan_to_num().square().sum()).backward()
    still = [name for name, p in potential.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert still == []


@pytest.mark.parametrize("form", FORMS)
def test_single_precision_agrees_with_double(form: str) -> None:
    single, double = made(form, dtype=torch.float32), made(form)
    single.network.load_state_dict({k: v.float() for k, v in double.network.state_dict().items()})
    a, b = ask(single, crystal()), ask(double, crystal())
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=3e-4 * float(b.forces.abs().max()))


@pytest.mark.parametrize("form", FORMS)
def test_predictions_repeat_bit_by_bit(form: str) -> None:
    first, second = (ask(made(form, dtype=torch.float32), crystal(), lone()) for _ in range(2))
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(first, second, strict=True))


# --- the published form -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("l_max", [1, 2, 3])
@pytest.mark.parametrize("parity", [1, -1], ids=["rotated", "rotated and inverted"])
def test_direct_forces_and_stress_turn_with_the_structure(l_max: int, parity: int) -> None:
    potential, atoms = made("paper", l_max), crystal()
    matrix = parity * rotation().numpy()
    moved = atoms.copy()
    moved.set_cell(atoms.cell.array @ matrix.T)
    moved.positions = atoms.positions @ matrix.T
    before, after = ask(potential, atoms), ask(potential, moved)
    turn = torch.from_numpy(matrix)
    close(after.energy, before.energy)
    close(after.forces, before.forces @ turn.T)
    close(after.stress, turn @ before.stress @ turn.T)
    assert before.forces.abs().max() > 1e-3
    assert before.stress.abs().max() > 1e-3


def test_direct_stress_is_symmetric_and_has_shear_from_two_degrees_on() -> None:
    for l_max, sheared in ((1, False), (2, True)):
        (stress,) = ask(made("paper", l_max), crystal()).stress
        close(stress, stress.T)
        off = stress - stress.diagonal().mean() * torch.eye(3)
        assert bool(off.abs().max() > 1e-6) is sheared


def test_the_published_form_claims_little() -> None:
    claims = made("paper").network.claims
    assert claims.symmetry == "O(3)"
    assert (claims.extensive, claims.conservative, claims.smooth) == (False, False, False)
    sound = made("default").network.claims
    assert (sound.extensive, sound.conservative, sound.smooth) == (True, True, True)


def test_the_published_energy_does_not_add_up() -> None:
    potential = made("paper")
    far = water()
    far.positions += [50.0, 0, 0]
    one, two = ask(potential, water()).energy, ask(potential, water() + far).energy
    bound = one - REFERENCES[8] - 2 * REFERENCES[1]
    assert (two - 2 * one).abs() > 1e-3 * bound.abs()


def test_the_published_forces_are_no_derivative_of_the_energy() -> None:
    potential, step = made("paper"), 1e-4
    moved = [crystal() for _ in range(2)]
    moved[0].positions[0, 0] += step
    moved[1].positions[0, 0] -= step
    up, down = ask(potential, *moved).energy.tolist()
    direct = ask(potential, crystal()).forces[0, 0].item()
    assert abs(direct + (up - down) / (2 * step)) > 0.1 * abs(direct)


def test_the_published_energy_jumps_at_the_cutoff() -> None:
    """A softmax over one neighbour gives it the weight 1 until it is gone."""
    inside, outside = ask(made("paper"), pair(CUTOFF - 1e-9), pair(CUTOFF + 1e-9)).energy
    assert abs(inside - outside) > 1e-3


def test_the_published_form_takes_lone_atoms() -> None:
    together = ask(made("paper"), water(), lone(), crystal())
    assert all(t.isfinite().all() for t in (together.energy, together.forces))
    assert torch.equal(together.forces[3], torch.zeros(3, dtype=torch.float64))
    close(together.energy[1:2], ask(made("paper"), lone()).energy)
    assert together.stress[:2].isnan().all()
    assert together.stress[2].isfinite().all()


def test_the_published_form_knows_the_total_charge_of_each_structure() -> None:
    potential, ion = made("paper"), water()
    ion.info["total_charge"] = 1
    neutral, charged = ask(potential, water()), ask(potential, ion)
    assert (charged.energy - neutral.energy).abs() > 1e-5
    assert (charged.forces - neutral.forces).abs().max() > 1e-5
    together = ask(potential, water(), ion)
    close(together.energy, torch.cat([neutral.energy, charged.energy]))
