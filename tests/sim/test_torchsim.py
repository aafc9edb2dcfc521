"""TorchSim takes a potential as its model, and says what the calculator of ASE says."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import ase
import numpy as np
import pytest
import torch
from ase import units
from ase.build import bulk, fcc111, graphene, molecule
from ase.constraints import FixAtoms, FixBondLength

from adatom.errors import ChargeError, ConfigError, GeometryError, UnknownElementError
from adatom.models.nemp import NEMP, NEMPConfig
from adatom.potential import Potential
from adatom.sim.calculator import Calculator
from adatom.sim.descent import lbfgs
from adatom.sim.md import MDConfig, run
from adatom.sim.torchsim import TorchSimModel, atoms_state
from toy import REFERENCES, Toy, ToyConfig, toy_potential


@pytest.fixture
def torch_sim() -> ModuleType:
    """The package, which ``adatom.sim.torchsim`` has imported before: it warns of its own code when it comes first."""
    return import_module("torch_sim")


def structures() -> list[ase.Atoms]:
    """Crystals, a slab, a wire, molecules, cells thinner than the cutoff, several species."""
    wire = ase.Atoms("SiO", [[0, 0, 0], [1.7, 0.2, 0.1]], cell=[4.0, 0, 0], pbc=[True, False, False])
    sheet = graphene(a=3.9)
    sheet.numbers[:] = 14
    sheet.pbc = [True, True, False]
    given = [
        bulk("Cu", cubic=True), bulk("Si") * (1, 2, 3), bulk("Cu", "sc", a=2.4), fcc111("Cu", (2, 2, 3), vacuum=6.0),
        wire, sheet, molecule("H2O"), ase.Atoms("O"),
    ]  # fmt: skip
    rng = np.random.default_rng(3)
    for atoms in given:
        atoms.rattle(0.05, rng=rng)
        atoms.positions += rng.normal(size=3) * 20.0  # anywhere in space
    return given


@pytest.mark.parametrize(
    ("states", "network"),
    [(torch.float64, torch.float64), (torch.float64, torch.float32), (torch.float32, torch.float32)],
)
def test_the_contract_that_torch_sim_ships_holds(
    torch_sim: ModuleType, states: torch.dtype, network: torch.dtype
) -> None:
    potential = Potential(Toy(ToyConfig()), REFERENCES | {26: -100.0}).eval()
    model = TorchSimModel(potential, dtype=states, network_dtype=network, stress=False)
    torch_sim.models.interface.validate_model_outputs(model, torch.device("cpu"), states)
    assert model.compute_stress, "the contract asks for stress where it can be had"
    assert model.memory_scales_with == "n_atoms"


def test_a_batch_says_what_ase_says_of_each_structure() -> None:
    potential, given = toy_potential(), structures()
    state = atoms_state(given)
    found = TorchSimModel(potential)(state)
    forces = found["forces"].split([len(atoms) for atoms in given])
    for k, atoms in enumerate(given):
        atoms.calc = Calculator(potential)
        assert float(found["energy"][k]) == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
        np.testing.assert_allclose(forces[k].numpy(), atoms.get_forces(), atol=1e-8)
        if atoms.pbc.all():
            np.testing.assert_allclose(found["stress"][k].numpy(), atoms.get_stress(voigt=False), atol=1e-8)
        else:
            assert bool(found["stress"][k].isnan().all())


def test_a_network_in_single_precision_agrees_with_ase_to_its_rounding() -> None:
    torch.manual_seed(0)
    potential = Potential(NEMP(NEMPConfig(channels=8, l_max=2)), REFERENCES).eval()
    given = [bulk("Si") * (1, 2, 2), bulk("Cu", cubic=True), molecule("H2O")]
    for atoms in given:
        atoms.rattle(0.1, seed=1)
    found = TorchSimModel(potential)(atoms_state(given))
    forces = found["forces"].split([len(atoms) for atoms in given])
    for k, atoms in enumerate(given):
        atoms.calc = Calculator(potential)
        assert float(found["energy"][k]) == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
        np.testing.assert_allclose(forces[k].numpy(), atoms.get_forces(), atol=1e-5)


def test_states_of_torch_sim_itself_are_taken_too(torch_sim: ModuleType) -> None:
    given = [bulk("Cu", cubic=True), bulk("Si")]
    given[0].rattle(0.1, seed=1)
    model = TorchSimModel(toy_potential())
    state = torch_sim.io.atoms_to_state(given, torch.device("cpu"), torch.float64)
    ours = model(atoms_state(given))
    for name, value in model(state).items():
        torch.testing.assert_close(value, ours[name], rtol=0.0, atol=1e-10)
    cluster = torch_sim.io.atoms_to_state([molecule("H2O")], torch.device("cpu"), torch.float64)
    assert float(model(cluster)["energy"]) == pytest.approx(float(model(atoms_state([molecule("H2O")]))["energy"]))


def test_lists_are_made_anew_when_they_must_be_and_only_then() -> None:
    given = [bulk("Cu", cubic=True), bulk("Si", cubic=True)]
    model, potential = TorchSimModel(toy_potential(), skin=0.6), toy_potential()
    state = atoms_state(given)
    random = torch.Generator().manual_seed(0)
    for step in range(16):
        push = 0.05 if step < 12 else 0.5  # then jumps of more than the skin
        state.positions = state.positions + push * torch.randn(state.positions.shape, generator=random).double()
        state.cell = state.cell * (1.0 + 0.002 * step * (step < 6))
        moved = TorchSimModel(potential, skin=0.0)(state)
        for name, value in model(state).items():
            torch.testing.assert_close(value, moved[name], rtol=1e-10, atol=1e-9, equal_nan=True)
        if step == 0:
            first = model.lists.builds
    assert first == 2
    assert first < model.lists.builds < 24


def test_structures_that_come_and_go_keep_their_lists() -> None:
    given = structures()[:4]
    model = TorchSimModel(toy_potential())
    model(atoms_state(given))
    assert model.lists.builds == 4
    state = atoms_state(given)[[0, 2, 3]]
    fewer = model(state)
    assert model.lists.builds == 4
    assert fewer["energy"].shape == (3,)
    model(atoms_state(given))
    assert model.lists.builds == 5, "only the one that was away"


def test_what_the_potential_was_not_made_for_is_refused() -> None:
    model = TorchSimModel(toy_potential())
    with pytest.raises(UnknownElementError, match="He"):
        model(atoms_state([bulk("Cu"), molecule("H2O"), ase.Atoms("He")]))
    water = molecule("H2O")
    water.set_constraint(FixBondLength(0, 1))
    with pytest.raises(ConfigError, match="FixBondLength"):
        atoms_state([water])
    bad = atoms_state([bulk("Cu")])
    bad.positions[0, 0] = torch.nan
    with pytest.raises(GeometryError, match="finite"):
        model(bad)


def test_charges_reach_a_network_that_embeds_them_and_are_asked_for() -> None:
    from adatom.models.allscaip import AllScAIP, AllScAIPConfig

    torch.manual_seed(0)
    network = AllScAIP(AllScAIPConfig(size="S", charges=(-1.0, 1.0)))
    model = TorchSimModel(Potential(network, REFERENCES).eval(), stress=False)
    neutral, ion = molecule("H2O"), molecule("H2O")
    neutral.info["charge"], ion.info["charge"] = 0.0, 1.0
    energies = model(atoms_state([neutral, ion]))["energy"]
    assert abs(float(energies[0] - energies[1])) > 1e-6
    ion.info["charge"] = 3.0
    with pytest.raises(ChargeError):
        model(atoms_state([ion]))


def test_atoms_that_are_held_are_marked() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.set_constraint(FixAtoms([1]))
    assert atoms_state([atoms]).mobile.flatten().tolist() == [1.0, 0.0, 1.0, 1.0]


def test_its_own_integrator_conserves_energy_and_moves_atoms_as_ours_does(torch_sim: ModuleType) -> None:
    given = [bulk("Cu", cubic=True), bulk("Si", cubic=True)]
    rng = np.random.default_rng(0)
    for atoms in given:
        atoms.rattle(0.02, rng=rng)
        atoms.set_momenta(rng.normal(size=(len(atoms), 3)))
    model = TorchSimModel(toy_potential())
    step = torch.tensor(units.fs, dtype=torch.float64)  # in metal units TorchSim's time is that of ASE
    begin, move = torch_sim.integrators.nve(model, dt=step, kT=torch.tensor(0.0, dtype=torch.float64))
    state = torch_sim.io.atoms_to_state(given, torch.device("cpu"), torch.float64)
    state.momenta = torch.from_numpy(np.concatenate([atoms.get_momenta() for atoms in given]))
    state = begin(state)

    def energies() -> torch.Tensor:
        kinetic = (state.momenta.square() / state.masses.unsqueeze(1)).sum(1) / 2.0
        return state.energy + torch.zeros(2, dtype=torch.float64).index_add(0, state.system_idx, kinetic)

    before = energies()
    for _ in range(20):
        state = move(state)
    assert float((energies() - before).abs().max()) < 2e-3
    theirs = state.positions.split([len(atoms) for atoms in given])
    for atoms, positions in zip(given, theirs, strict=True):
        ours = run(atoms, toy_potential(), MDConfig(ensemble="nve", steps=20, compile="off")).atoms
        apart = np.linalg.solve(ours.cell.array.T, (positions.numpy() - ours.get_positions()).T)
        np.testing.assert_allclose(apart - apart.round(), 0.0, atol=1e-9)  # it folds atoms into the cell


def test_its_own_integrator_is_not_given_states_whose_periodicity_it_would_lose(torch_sim: ModuleType) -> None:
    model = TorchSimModel(toy_potential())
    zero = torch.tensor(0.0, dtype=torch.float64)
    begin, move = torch_sim.integrators.nve(model, dt=zero + 0.1, kT=zero)
    with pytest.raises(ConfigError, match="one flag of periodicity"):
        move(begin(atoms_state([bulk("Cu")])))


def test_its_optimize_takes_our_descent(torch_sim: ModuleType) -> None:
    given = [bulk("Cu", cubic=True), bulk("Cu") * (1, 2, 2)]
    for atoms in given:
        atoms.rattle(0.1, seed=2)
    model = TorchSimModel(toy_potential(), stress=False)
    end = torch_sim.optimize(
        atoms_state(given),
        model,
        optimizer=lbfgs,
        convergence_fn=torch_sim.generate_force_convergence_fn(0.01, include_cell_forces=False),
        autobatcher=torch_sim.InFlightAutoBatcher(model, memory_scales_with="n_atoms", max_memory_scaler=5.0),
        max_steps=100,
    )
    assert float(model(end)["forces"].norm(dim=1).max()) < 0.01
