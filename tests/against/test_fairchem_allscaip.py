"""The published AllScAIP against the authors' own: the same weights give the same energies and forces.

Needs fairchem-core (checked with 2.24.0): ``make against-fairchem``. Not collected by ``make test``.

The authors' code goes through single precision in four places (angular encoding, frequencies, masks, features handed to
the heads). Their arithmetic is compared here, not its rounding: where their modules say float32, they get float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from torch import nn

from adatom.graph import collate
from adatom.models.allscaip import AllScAIP, AllScAIPConfig
from adatom.neighbors import graph_from_atoms
from adatom.potential import Potential

pytest.importorskip("fairchem.core", reason="needs fairchem-core: make against-fairchem")

from fairchem.core.datasets.atomic_data import AtomicData, atomicdata_list_to_batch
from fairchem.core.models.allscaip import AllScAIP as theirs  # noqa: N813
from fairchem.core.models.allscaip.utils import data_preprocess

WIDTH, LAYERS, HEADS = 128, 3, 2  # heads of 64 channels, as in every published size
SETS = ("Ne", "NeNo", "NeAnNo", "NeAnNoSi")


class Double:
    """torch, in which float32 is float64."""

    float32 = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@pytest.fixture(autouse=True)
def _double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(theirs, "torch", Double())
    monkeypatch.setattr(data_preprocess, "torch", Double())
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def their_model(components: str, direct: bool) -> tuple[nn.Module, nn.Module, nn.Module | None]:
    """Backbone, energy head and force head with random weights everywhere."""
    torch.manual_seed(0)
    backbone = theirs.AllScAIPBackbone(
        regress_forces=True, direct_forces=direct, hidden_size=WIDTH, num_layers=LAYERS, use_compile=False,
        use_padding=False, use_node_path="No" in components, max_num_elements=119, max_atoms=200, max_batch_size=8,
        max_radius=6.0, knn_k=30, atten_name="math", atten_num_heads=HEADS, use_freq_mask="An" in components,
        use_sincx_mask="Si" in components,
    )  # fmt: skip
    if direct:
        parts = (backbone, theirs.AllScAIPEnergyHead(backbone), theirs.AllScAIPDirectForceHead(backbone))
    else:
        parts = (backbone, theirs.AllScAIPGradientEnergyForceStressHead(backbone, wrap_property=False), None)
    for part in parts:
        for parameter in part.parameters() if part is not None else ():
            spread = 0.3 if parameter.dim() < 2 else 2.0 / parameter.shape[-1] ** 0.5
            parameter.data = (1.0 if parameter.dim() < 2 else 0.0) + spread * torch.randn_like(parameter)
    return parts


# ours: theirs
INPUT = {
    "species": "atomic_embedding", "charge": "charge_embedding.rand_emb", "spin": "spin_embedding.rand_emb",
    "order": "node_direction_embedding.0", "atom": "node_linear.0", "atom_norm": "node_norm",
    "state": "charge_spin_linear.0", "slot": "edge_feature_linear.0", "pair": "edge_attr_linear.0",
}  # fmt: skip
PROJECTIONS = {"q": "attn_in_proj_q", "k": "attn_in_proj_k", "v": "attn_in_proj_v", "out": "attn_out_proj"}
NETWORK = {"norm": "ffn_norm", "up": "ffn.0.0", "down": "ffn.1.0"}


def names(components: str) -> dict[str, str]:
    """Our modules and parameters and theirs, block by block."""
    table = {ours: f"input_block.{name}" for ours, name in INPUT.items()}
    for n in range(LAYERS):
        ours, block = f"blocks.{n}", f"transformer_blocks.{n}"
        for side, name in (("out", "src"), ("in", "dst")):
            near = f"{block}.neighborhood_attention.{name}_attn"
            table |= {f"{ours}.{side}_attention.{a}": f"{near}.{b}" for a, b in PROJECTIONS.items()}
            table[f"{ours}.{side}_attention.norm"] = f"{near}_norm"
            table[f"{ours}.{side}_attention.gain"] = f"{near}_res_scale"
        for kind in ("edge", "node"):
            table |= {f"{ours}.{kind}_network.{a}": f"{block}.{kind}_ffn.{b}" for a, b in NETWORK.items()}
            table[f"{ours}.{kind}_network.gain"] = f"{block}.{kind}_ffn.ffn_res_scale"
        if "No" in components:
            table |= {f"{ours}.nodes.{a}": f"{block}.node_attention.{b}" for a, b in PROJECTIONS.items()}
            table[f"{ours}.nodes.norm"] = f"{block}.node_attention.node_norm"
            table[f"{ours}.nodes.gain"] = f"{block}.node_attention.node_attn_res_scale"
        if "Si" in components:
            table[f"{ours}.radial"] = f"{block}.node_attention.radial_weight"
    return table


def renamed(state: dict[str, torch.Tensor], table: dict[str, str], inside: str) -> dict[str, torch.Tensor]:
    """Their parameters under our names."""
    back = {name: ours for ours, name in table.items()}
    found = {}
    for key, value in state.items():
        stem, _, last = key.rpartition(".")
        found[f"{inside}{back[key]}" if key in back else f"{inside}{back[stem]}.{last}"] = value
    return found


def our_potential(components: str, direct: bool, parts: tuple[nn.Module, nn.Module, nn.Module | None]) -> Potential:
    """Ours with their weights, every one of them used and none missing."""
    config = AllScAIPConfig.parse(
        {"form": "paper", "channels": WIDTH, "layers": LAYERS, "heads": HEADS, "components": components,
         "derivatives": "direct" if direct else "gradient"}
    )  # fmt: skip
    network = AllScAIP(config).double()
    state = renamed(parts[0].state_dict(), names(components), "body.")
    head = {"norm": "node_norm"}
    state |= renamed(parts[1].state_dict(), head | {"up": "energy_ffn.0.0", "down": "energy_ffn.1.0"}, "body.energy.")
    if parts[2] is not None:
        state |= renamed(parts[2].state_dict(), head | {"up": "force_ffn.0.0", "down": "force_ffn.1.0"}, "body.forces.")
    network.load_state_dict(state)
    return Potential(network, dict.fromkeys(range(1, 119), 0.0), derivatives=config.derivatives).eval()


def structures() -> list[ase.Atoms]:
    """A charged molecule, a large one, an open cluster wider than the cutoff, two crystals and a thin skewed cell."""
    rng = np.random.default_rng(0)
    ion = molecule("H2O")
    ion.info |= {"charge": 1, "spin": 2}
    salt = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    metal = bulk("Cu", cubic=True) * (2, 2, 2)
    thin = bulk("Si")
    cluster = bulk("Cu", cubic=True) * (3, 3, 3)
    cluster.pbc = False
    found = [ion, molecule("C6H6"), molecule("CH3CH2OH"), cluster, salt, metal, thin]
    for atoms in found:
        atoms.rattle(0.08, rng=rng)
        atoms.info = {"charge": 0, "spin": 1} | atoms.info
        if atoms.pbc.any():
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.03 * rng.normal(size=(3, 3))), scale_atoms=True)
            atoms.wrap()
    return found


def their_answer(parts: tuple[nn.Module, nn.Module, nn.Module | None], atoms: ase.Atoms) -> tuple[float, np.ndarray]:
    """Energy and forces of the authors' model."""
    open_, copy = not atoms.pbc.any(), atoms.copy()
    if open_:
        copy.set_cell(np.eye(3) * 120.0)
    data = AtomicData.from_ase(copy, r_edges=False, r_data_keys=["charge", "spin"], task_name="omol")
    data = atomicdata_list_to_batch([data])
    for key in ("pos", "cell"):
        data[key] = torch.from_numpy(np.array(copy.positions if key == "pos" else copy.cell.array[None]))
    backbone, energy_head, force_head = (part.eval() if part is not None else None for part in parts)
    embedded = backbone(data)
    found = energy_head(data, embedded)
    if force_head is not None:
        found = found | force_head(data, embedded)
    return found["energy"].item(), found["forces"].detach().numpy()


@pytest.mark.parametrize("direct", [False, True], ids=["gradient", "direct"])
@pytest.mark.parametrize("components", SETS)
def test_energies_and_forces_are_those_of_the_authors(components: str, direct: bool) -> None:
    parts = their_model(components, direct)
    potential = our_potential(components, direct, parts)
    for atoms in structures():
        energy, forces = their_answer(parts, atoms)
        ours = potential(graph_from_atoms(atoms, potential.cutoff))
        assert np.abs(forces).max() > 1e-2
        assert ours.energy.item() == pytest.approx(energy, rel=1e-10, abs=1e-10)
        np.testing.assert_allclose(ours.forces.numpy(), forces, rtol=0, atol=1e-10 * max(1.0, np.abs(forces).max()))


@pytest.mark.parametrize("components", SETS)
def test_a_batch_gives_what_its_structures_give_the_authors(components: str) -> None:
    parts = their_model(components, direct=False)
    potential = our_potential(components, False, parts)
    batch = potential(collate([graph_from_atoms(atoms, potential.cutoff) for atoms in structures()]))
    alone = [their_answer(parts, atoms) for atoms in structures()]
    np.testing.assert_allclose(batch.energy.numpy(), [energy for energy, _ in alone], rtol=1e-10, atol=1e-10)
    forces = np.concatenate([forces for _, forces in alone])
    np.testing.assert_allclose(batch.forces.numpy(), forces, rtol=0, atol=1e-10 * max(1.0, np.abs(forces).max()))
