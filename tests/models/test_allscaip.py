"""AllScAIP in both forms: published values and counts, what the default form keeps and the published one does not."""

from __future__ import annotations

from functools import cache
from typing import Any

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from torch.nn.functional import softplus

from adatom.errors import ChargeError, ConfigError, MemoryLimitError
from adatom.graph import Graph, Results, collate
from adatom.models import MODELS, allscaip
from adatom.models.allscaip import FREQUENCIES, SIZES, AllScAIP, AllScAIPConfig, PaperBlock
from adatom.neighbors import graph_from_atoms
from adatom.nn import attention, softgraph
from adatom.nn.images import sinc
from adatom.nn.spherical import reference_harmonics
from adatom.potential import Potential
from rotations import rotation

REFERENCES = {1: -13.0, 8: -430.0, 14: -160.0, 29: -1300.0}
SMALL = {"channels": 16, "slot_channels": 16, "heads": 2, "readout": 8, "cutoff": 4.5, "l_max": 2}
PAPER = {"form": "paper", "channels": 40, "layers": 2, "heads": 2}
SETS = ("Ne", "NeNo", "NeAnNo", "NeAnNoSi")


@cache
def made(components: str = "NeNo", form: str = "default", symmetry: str = "", seed: int = 1) -> Potential:
    """A narrow network with weights that nobody chose."""
    torch.manual_seed(seed)
    values: dict[str, Any] = {"components": components} | (PAPER if form == "paper" else SMALL)
    config = AllScAIPConfig.parse(values | ({"symmetry": symmetry} if symmetry else {}))
    return Potential(AllScAIP(config).double(), REFERENCES).eval()


def crystal() -> ase.Atoms:
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.1, seed=0)
    strain = np.array([[0.02, 0.01, 0], [0, -0.03, 0.02], [0.01, 0, 0.01]])
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    return atoms


def thin() -> ase.Atoms:
    atoms = bulk("Cu")
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.1 * np.arange(9).reshape(3, 3) / 9), scale_atoms=True)
    return atoms


def water(shift: float = 0.0) -> ase.Atoms:
    atoms = molecule("H2O")
    atoms.rattle(0.05, seed=0)
    atoms.positions += [shift, 0, 0]
    return atoms


def ion(charge: float, multiplicity: float = 1.0) -> ase.Atoms:
    atoms = water()
    atoms.info |= {"charge": charge, "spin": multiplicity}
    return atoms


def lone(element: str = "Si") -> ase.Atoms:
    return ase.Atoms(element, positions=[[0.1, 0.2, 0.3]])


def graph(potential: Potential, *structures: ase.Atoms) -> Graph:
    return collate([graph_from_atoms(atoms, potential.cutoff) for atoms in structures])


def ask(potential: Potential, *structures: ase.Atoms) -> Results:
    return potential(graph(potential, *structures), stress=True)


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(
        a, b, rtol=tolerance, atol=tolerance * (1e-3 + float(b.detach().nan_to_num().abs().max())), equal_nan=True
    )


# --- configuration ----------------------------------------------------------------------------------------------------


def test_the_table_of_architectures_names_it() -> None:
    assert MODELS["allscaip"] is AllScAIP
    assert AllScAIPConfig.parse({}).architecture == "allscaip"


@pytest.mark.parametrize("size", SIZES["default"])
@pytest.mark.parametrize("derivatives", ["gradient", "direct"])
def test_every_size_of_the_default_form_predicts(size: str, derivatives: Any) -> None:
    config = AllScAIPConfig.parse({"size": size, "derivatives": derivatives})
    potential = Potential(AllScAIP(config), REFERENCES, derivatives=derivatives).eval()
    energy, forces, stress = ask(potential, bulk("Si"))
    assert all(t.isfinite().all() for t in (energy, forces, stress))
    assert (energy.shape, forces.shape, stress.shape) == ((1,), (2, 3), (1, 3, 3))
    assert energy.dtype == torch.float64
    assert potential.dtype == torch.float32


@pytest.mark.parametrize(("size", "millions"), [("sm", 33.6), ("md", 85.15), ("lg", 175.0)])
def test_the_published_sizes_have_their_number_of_weights(size: str, millions: float) -> None:
    config = AllScAIPConfig.parse({"form": "paper", "size": size, "components": "NeNo", "derivatives": "direct"})
    with torch.device("meta"):
        network = AllScAIP(config.model_copy(update={"layers": 1}))
        block = sum(p.numel() for p in PaperBlock(config).parameters())
    backbone = sum(
        p.numel() for name, p in network.named_parameters() if "body.energy" not in name and "body.forces" not in name
    )
    assert (backbone + (config.layers - 1) * block) / 1e6 == pytest.approx(millions, rel=3e-3)


def test_the_size_dial_has_the_same_three_words_in_both_forms() -> None:
    for word, published in (("S", "sm"), ("M", "md"), ("L", "lg")):
        a, b = (AllScAIPConfig.parse({"form": "paper", "size": size}) for size in (word, published))
        assert a.model_dump(exclude={"size"}) == b.model_dump(exclude={"size"})
        assert (a.cutoff, a.neighbours, a.symmetry) == (6.0, 30, "learned")


@pytest.mark.parametrize("word", ["Ne", "NeNo", "NeAnNo", "NeAnNoSi", "NeNoSi", "NeAn"])
def test_components_are_written_as_one_word(word: str) -> None:
    config = AllScAIPConfig.parse({"form": "paper", "components": word})
    assert "".join(config.components) == word
    assert AllScAIPConfig.parse(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"components": "NeNa"}, "unknown component 'Na': did you mean N[eo]"),
        ({"components": "NeNoZz"}, "unknown component 'Zz'"),
        ({"components": "neno"}, "unknown component 'neno'"),
        ({"components": "No"}, "Ne is always part"),
        ({"components": "NeNe"}, "named twice"),
        ({"components": "NeNoSi"}, "paper form"),
        ({"form": "paper", "components": "NeSi"}, "node attention No"),
        ({"form": "paper", "symmetry": "invariant"}, "learns its symmetry"),
        ({"size": "md"}, "belongs to the paper form"),
        ({"size": "XL"}, "size"),
        ({"form": "published"}, "form"),
        ({"channels": 30, "heads": 4}, "multiple of heads"),
        ({"slot_channels": 12, "heads": 4}, "slot_channels"),
        ({"neighbors": 8}, "did you mean 'neighbours'"),
        ({"l_max": 0}, "l_max"),
    ],
)
def test_a_wrong_configuration_is_named(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        AllScAIPConfig.parse(values, where="model")


@pytest.mark.parametrize("form", ["default", "paper"])
def test_the_gradient_form_has_a_part_of_the_weights_of_the_direct_one(form: str) -> None:
    values = {"form": form} | (PAPER if form == "paper" else SMALL)
    direct = AllScAIP(AllScAIPConfig.parse(values | {"derivatives": "direct"}))
    gradient = AllScAIP(direct.config.with_derivatives("gradient"))
    theirs, ours = direct.state_dict(), gradient.state_dict()
    assert set(ours) < set(theirs)
    gradient.load_state_dict({name: theirs[name] for name in ours})
    assert not direct.claims.conservative
    assert gradient.claims.conservative


# --- published values -------------------------------------------------------------------------------------------------


def test_bond_orders_of_water_are_the_published_ones() -> None:
    unit = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [-0.2399872, 0.9266272, 0.0]])
    unit[2] /= np.linalg.norm(unit[2])
    harmonics = torch.from_numpy(reference_harmonics(unit, 9))
    harmonics[0, 1:] = 0  # the atom itself has no direction
    orders = softgraph.bond_orders(harmonics.unsqueeze(0), torch.ones(1, 3, dtype=torch.float64))[0]
    published = [1.0000, 0.4081, 0.3634, 0.5450, 0.5070, 0.3830, 0.4774, 0.5332, 0.4336, 0.4281]
    assert orders.tolist() == pytest.approx(published, abs=6e-5)


def test_the_distance_bias_has_its_published_values_to_begin_with() -> None:
    config = AllScAIPConfig.parse(PAPER | {"components": "NeNoSi"})
    block = PaperBlock(config)
    assert block.radial is not None
    assert block.radial.shape == (config.heads, FREQUENCIES)
    frequencies = block.frequencies(torch.float64)
    assert frequencies[[0, -1]].tolist() == pytest.approx([0.02618, 12.566], rel=1e-4)
    r = torch.tensor([0.0, 1.0, 3.0, 10.0, 30.0], dtype=torch.float64).unsqueeze(1)
    bias = torch.log(softplus(sinc(r * frequencies) @ block.radial[0].double()) + 1e-6)
    assert bias.tolist() == pytest.approx([0.2725, 0.0697, -0.0381, -0.1609, -0.2768], abs=6e-5)


# --- what both forms do -----------------------------------------------------------------------------------------------


def both() -> list[Any]:
    return [*(("default", word) for word in ("Ne", "NeNo", "NeAnNo")), *(("paper", word) for word in SETS)]


@pytest.mark.parametrize(("form", "components"), both())
def test_a_batch_gives_what_its_structures_give(form: str, components: str) -> None:
    potential = made(components, form)
    parts = [crystal(), lone("Si"), water(), thin()]
    together, alone = ask(potential, *parts), [ask(potential, part) for part in parts]
    for field in Results._fields:
        close(getattr(together, field), torch.cat([getattr(one, field) for one in alone]))


@pytest.mark.parametrize(("form", "components"), both())
def test_forces_are_minus_the_slope_of_the_energy(form: str, components: str) -> None:
    potential, step = made(components, form), 1e-4
    for build in (crystal, water):
        forces = ask(potential, build()).forces
        moved = [build() for _ in range(2)]
        moved[0].positions[1, 2] += step
        moved[1].positions[1, 2] -= step
        up, down = ask(potential, *moved).energy.tolist()
        assert forces[1, 2].item() == pytest.approx(-(up - down) / (2 * step), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize(("form", "components"), [("default", "NeAnNo"), ("paper", "NeAnNoSi")])
def test_parameters_learn_from_forces_as_finite_differences_say(form: str, components: str) -> None:
    potential = made(components, form, seed=2).train()
    batch = graph(potential, crystal(), lone(), water())
    parameters = list(potential.parameters())
    torch.manual_seed(0)
    direction = [torch.randn_like(p) * p.std(correction=0) for p in parameters]

    def objective() -> torch.Tensor:
        result = potential(batch, stress=True)
        return result.forces.square().sum() + result.stress.nan_to_num().square().sum() + 0.1 * result.energy.sum()

    slopes = torch.autograd.grad(objective(), parameters, allow_unused=True)
    along = sum((s * d).sum() for s, d in zip(slopes, direction, strict=True) if s is not None)
    values, step = [], 1e-5
    for shift in (step, -2 * step, step):
        with torch.no_grad():
            for parameter, d in zip(parameters, direction, strict=True):
                parameter += shift * d
        values.append(objective().item())
    potential.eval()
    assert float(along.detach()) == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5)


@pytest.mark.parametrize(("form", "components"), [("default", "NeAnNo"), ("paper", "NeAnNoSi")])
def test_attention_in_tiles_trains_like_attention_in_one_piece(
    form: str, components: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    potential = made(components, form, seed=3).train()
    batch, found = graph(potential, crystal(), water()), []
    for tile in (2**22, 200):
        monkeypatch.setattr(attention, "TILE", tile)
        monkeypatch.setattr(softgraph, "TILE", tile)
        result = potential(batch, stress=True)
        loss = result.forces.square().sum() + result.energy.sum()
        slopes = torch.autograd.grad(loss, list(potential.parameters()), allow_unused=True)
        found.append([result.energy, result.forces, *(s for s in slopes if s is not None)])
    potential.eval()
    for whole, tiled in zip(*found, strict=True):
        close(tiled, whole, 1e-9)


def test_attention_to_near_atoms_trains_like_attention_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    potential = made("NeNo", seed=3).train()
    batch, found = graph(potential, crystal(), lone(), water(), thin()), []
    for crowd in (10**6, 0):
        monkeypatch.setattr(allscaip, "CROWD", crowd)
        result = potential(batch, stress=True)
        loss = result.forces.square().sum() + result.stress.nan_to_num().square().sum() + result.energy.sum()
        slopes = torch.autograd.grad(loss, list(potential.parameters()), allow_unused=True)
        found.append([result.energy, result.forces, result.stress, *(s for s in slopes if s is not None)])
    potential.eval()
    for whole, near in zip(*found, strict=True):
        close(near, whole, 1e-9)


@pytest.mark.parametrize("derivatives", ["gradient", "direct"])
def test_every_weight_of_the_default_form_takes_part(derivatives: Any) -> None:
    """A weight that nothing depends on is a mistake, and stops training on several devices."""
    torch.manual_seed(0)
    values = {**SMALL, "components": "NeAnNo", "charges": (-1, 1), "derivatives": derivatives, "symmetry": "learned"}
    config = AllScAIPConfig.parse(values)
    potential = Potential(AllScAIP(config).double(), REFERENCES, derivatives=derivatives).train()
    result = ask(potential, crystal(), ion(1))
    (result.energy.sum() + result.forces.square().sum() + result.stress.nan_to_num().square().sum()).backward()
    still = [name for name, p in potential.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert still == []


def test_the_last_edge_network_of_the_published_form_is_never_read() -> None:
    potential = made("NeAnNoSi", "paper", seed=4).train()
    result = ask(potential, crystal(), water())
    (result.energy.sum() + result.forces.square().sum()).backward()
    still = {name for name, p in potential.named_parameters() if p.grad is None or not p.grad.abs().max() > 0}
    potential.eval()
    assert {name.split(".")[2:5][1] + "." + name.split(".")[4] for name in still} == {"1.edge_network"}


@pytest.mark.parametrize(("form", "components"), [("default", "NeAnNo"), ("paper", "NeAnNoSi")])
def test_predictions_repeat_bit_by_bit(form: str, components: str) -> None:
    first, second = (ask(made(components, form), crystal(), lone(), thin()) for _ in range(2))
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(first, second, strict=True))


def test_neighbours_that_do_not_fit_into_memory_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    potential = made("Ne")

    def full(*_: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(potential.network.body, "forward", full)
    with pytest.raises(MemoryLimitError, match="8 atoms with up to 16 neighbours within"):
        ask(potential, bulk("Si", cubic=True))


def test_other_failures_keep_their_name(monkeypatch: pytest.MonkeyPatch) -> None:
    potential = made("Ne")

    def wrong(*_: Any) -> None:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(potential.network.body, "forward", wrong)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        ask(potential, water())


# --- the default form -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("components", ["Ne", "NeAnNo"])
def test_a_lone_atom_has_exactly_its_reference_energy(components: str) -> None:
    energy, forces, _ = ask(made(components), lone("Si"), lone("O"))
    assert energy.tolist() == [REFERENCES[14], REFERENCES[8]]
    assert torch.equal(forces, torch.zeros_like(forces))


def test_parts_beyond_the_node_cutoff_add_up_and_nearer_ones_feel_each_other() -> None:
    potential = made("NeNo")
    one = ask(potential, water()).energy
    far, near = (ask(potential, water() + water(distance)).energy for distance in (11.0, 6.5))
    close(far, 2 * one, 1e-13)
    assert (near - 2 * one).abs() > 1e-8


@pytest.mark.parametrize("components", ["Ne", "NeNo", "NeAnNo"])
@pytest.mark.parametrize("build", [crystal, thin])
def test_a_supercell_is_exactly_so_many_cells(components: str, build: Any) -> None:
    potential, atoms = made(components), build()
    one, many = ask(potential, atoms), ask(potential, atoms * (1, 2, 3))
    close(many.energy, 6 * one.energy, 1e-12)
    close(many.forces, one.forces.repeat(6, 1), 1e-9)
    close(many.stress, one.stress)


@pytest.mark.parametrize("parity", [1, -1], ids=["rotated", "rotated and inverted"])
@pytest.mark.parametrize("components", ["NeNo", "NeAnNo"])
def test_energies_do_not_turn_and_forces_do(components: str, parity: int) -> None:
    potential, atoms = made(components), crystal()
    matrix = parity * rotation().numpy()
    moved = atoms.copy()
    moved.set_cell(atoms.cell.array @ matrix.T)
    moved.positions = atoms.positions @ matrix.T
    before, after = ask(potential, atoms), ask(potential, moved)
    turn = torch.from_numpy(matrix)
    close(after.energy, before.energy)
    close(after.forces, before.forces @ turn.T)
    close(after.stress, turn @ before.stress @ turn.T)
    assert before.forces.abs().max() > 1e-4


def test_raw_harmonics_make_the_symmetry_a_learned_one() -> None:
    potential, atoms = made("NeNo", symmetry="learned"), water()
    atoms.rotate(70, (1, 2, 3))
    assert potential.network.claims.symmetry == "learned"
    assert (ask(potential, atoms).energy - ask(potential, water()).energy).abs() > 1e-7
    assert made("NeNo").network.claims.symmetry == "O(3)"


def test_nothing_jumps_as_atoms_cross_the_cutoff() -> None:
    """Four atoms of which one leaves: the published form jumps twice on the way, the default form never."""

    def energies(potential: Potential) -> np.ndarray:
        start = np.array([[0, 0, 0], [1.1, 0, 0], [0.2, 1.2, 0], [0.3, 0.4, 1.3]])
        frames = []
        for far in potential.network.config.cutoff - 0.6 + 0.002 * np.arange(350):
            places = start.copy()
            places[3] = start[0] + np.array([0.6, -0.48, 0.64]) * far
            frames.append(ase.Atoms("SiSiSiSi", positions=places))
        return ask(potential, *frames).energy.numpy()

    for components in ("Ne", "NeAnNo"):
        values = energies(made(components))
        steps = np.abs(np.diff(values))
        assert np.abs(np.diff(values, 2)).max() < 0.3 * steps.max()
    jumps = np.abs(np.diff(energies(made("Ne", "paper"))))
    assert jumps.max() > 10 * np.median(jumps)


def test_every_neighbour_inside_the_envelope_is_kept() -> None:
    """Many more than k + 20: atoms on top of each other are ranked and weighed, none left out."""
    potential = made("Ne")
    rng = np.random.default_rng(0)
    dense = ase.Atoms("H90", positions=rng.uniform(0, 2.4, size=(90, 3)))
    network = potential.network
    found = network._attended(graph(potential, dense), torch.float64)
    degree = found.slots.filled.sum(2).flatten()
    assert degree.max() >= 15
    assert found.r.shape[0] == int(degree.sum())
    assert found.bias.isfinite().all()


def test_charge_and_multiplicity_enter_where_the_data_give_them() -> None:
    torch.manual_seed(0)
    seen, blind = (
        Potential(AllScAIP(AllScAIPConfig.parse(SMALL | more)).double(), REFERENCES).eval()
        for more in ({"charges": (-1, 1), "spins": (1, 3)}, {})
    )
    assert seen.network.embeds_charge
    assert seen.network.embeds_spin
    assert torch.equal(ask(blind, ion(1)).energy, ask(blind, ion(0)).energy)
    blind.check_atoms(ion(0))
    with pytest.raises(ChargeError, match="not trained on a total charge of 1"):
        blind.check_atoms(ion(1))
    states = [ion(0), ion(1), ion(-1), ion(0, 3)]
    together = ask(seen, *states)
    assert len({round(e, 6) for e in together.energy.tolist()}) == 4
    close(together.energy, torch.cat([ask(seen, state).energy for state in states]))
    assert ask(seen, lone("O")).energy.item() == REFERENCES[8]


def test_between_and_beyond_the_trained_charges_nothing_jumps() -> None:
    torch.manual_seed(0)
    potential = Potential(AllScAIP(AllScAIPConfig.parse(SMALL | {"charges": (-1, 1)})).double(), REFERENCES).eval()
    energies = ask(potential, *(ion(charge) for charge in np.linspace(-3, 3, 61))).energy.numpy()
    assert np.abs(np.diff(energies, 2)).max() < 0.2 * np.abs(np.diff(energies)).max() + 1e-9


# --- the published form -----------------------------------------------------------------------------------------------


def test_the_published_form_claims_little() -> None:
    claims = made("NeNo", "paper").network.claims
    assert (claims.symmetry, claims.reach) == ("learned", "global")
    assert (claims.extensive, claims.smooth, claims.grounded) == (False, False, False)
    assert made("Ne", "paper").network.claims.extensive
    sound = made("NeNo").network.claims
    assert (sound.symmetry, sound.reach) == ("O(3)", "global")
    assert sound.extensive
    assert sound.smooth


@pytest.mark.parametrize("components", ["Ne", "NeNo", "NeAnNo"])
def test_without_distances_in_it_published_node_attention_is_exact_for_supercells(components: str) -> None:
    """The atoms of n cells are n copies of the same keys: the softmax stays as it is."""
    potential, atoms = made(components, "paper"), crystal()
    one, many = ask(potential, atoms), ask(potential, atoms * (2, 1, 2))
    close(many.energy, 4 * one.energy, 1e-12)
    close(many.forces, one.forces.repeat(4, 1), 1e-9)


def test_with_distances_in_it_published_node_attention_sees_the_choice_of_cell() -> None:
    potential = made("NeNoSi", "paper")
    one, many = ask(potential, crystal()).energy, ask(potential, crystal() * (2, 1, 1)).energy
    assert (many - 2 * one).abs() > 1e-9 * one.abs()


def test_published_node_attention_feels_other_molecules_at_any_distance() -> None:
    for components, felt in (("Ne", False), ("NeNo", True), ("NeAnNoSi", True)):
        potential = made(components, "paper")
        far = [ask(potential, water() + lone("Cu") if d == 0 else water() + _moved(d)).energy for d in (50.0, 200.0)]
        parts = ask(potential, water()).energy + ask(potential, lone("Cu")).energy
        assert bool((far[0] - parts).abs() > 1e-5) is felt
        if components == "NeNo":
            close(far[0], far[1], 1e-13)


def _moved(distance: float) -> ase.Atoms:
    return ase.Atoms("Cu", positions=[[distance, 0, 0]])


def test_the_published_form_knows_charge_and_multiplicity_of_each_structure() -> None:
    energies = ask(made("NeNo", "paper"), ion(0), ion(1), ion(0, 3)).energy
    assert len({round(e, 6) for e in energies.tolist()}) == 3


def test_the_direct_head_of_the_published_form_gives_forces_and_no_stress() -> None:
    torch.manual_seed(0)
    config = AllScAIPConfig.parse(PAPER | {"derivatives": "direct"})
    potential = Potential(AllScAIP(config).double(), REFERENCES, derivatives="direct").eval()
    energy, forces, stress = ask(potential, crystal())
    assert forces.abs().max() > 1e-3
    assert energy.isfinite().all()
    assert stress.isnan().all()
