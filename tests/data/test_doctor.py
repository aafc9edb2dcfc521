"""Labels that contradict each other are found, and those that agree are not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import ase
import numpy as np
import pytest
from ase.build import molecule

from adatom.data.doctor import Finding, consistency
from adatom.data.pairs import ALL_PAIRS, close_pairs, slopes
from adatom.data.read import Structure, read
from adatom.units import ENERGY, EV_PER_A3_IN_GPA, LENGTH

SILICON = Path(__file__).parents[2] / "data" / "si_pbe_gpaw"
HARTREE, BOHR = ENERGY["Hartree"], LENGTH["Bohr"]


@pytest.fixture(scope="module")
def silicon() -> list[Structure]:
    return read(SILICON / "train.xyz.xz")[0]


def molecules(count: int = 60, seed: int = 0, turned: bool = False) -> list[Structure]:
    """Rattled ethanol with springs between all atoms: energies and forces that belong together."""
    random = np.random.default_rng(seed)
    start = molecule("CH3CH2OH")
    first, second = np.triu_indices(len(start), 1)

    def springs(positions: np.ndarray) -> tuple[float, np.ndarray]:
        vectors = positions[second] - positions[first]
        lengths = np.linalg.norm(vectors, axis=1)
        stretch = lengths - rest
        pull = 2.0 * stretch[:, None] * vectors / lengths[:, None]
        forces = np.zeros_like(positions)
        np.add.at(forces, first, pull)
        np.add.at(forces, second, -pull)
        return float((stretch**2).sum()), forces

    rest = np.linalg.norm(start.positions[second] - start.positions[first], axis=1)
    made = []
    for k in range(count):
        atoms = start.copy()
        atoms.positions += 0.05 * random.normal(size=atoms.positions.shape) + random.normal(size=3)
        energy, forces = springs(atoms.positions)
        made.append(Structure(atoms, energy - 4000.0, forces, np.full((3, 3), np.nan), f"a.xyz:{k}"))
    return made


def errors(findings: list[Finding]) -> list[Finding]:
    return [f for f in findings if f.severity == "error"]


def test_the_silicon_set_is_clean(silicon: list[Structure]) -> None:
    findings = consistency(silicon)
    assert {f.severity for f in findings} == {"note"}
    assert "energies and forces agree: dE = (1.0" in findings[0].message
    assert "energies and stress agree: dE = (1.000" in findings[1].message


def test_the_slopes_of_the_silicon_set_are_one(silicon: list[Structure]) -> None:
    fit = slopes(close_pairs(silicon))
    assert fit.force == pytest.approx(1.0, abs=0.02)
    assert fit.stress == pytest.approx(1.0, abs=0.005)
    assert fit.unexplained < 0.1
    assert not fit.outliers.any()


def test_rattled_molecules_agree() -> None:
    findings = consistency(molecules())
    assert not errors(findings)
    assert [f.message[:23] for f in findings if f.kind == "energy and forces"] == ["energies and forces agr"]


Corrupt = Callable[[Structure], Structure]
FORCES: dict[str, tuple[Corrupt, str]] = {
    "sign": (lambda s: dataclasses.replace(s, forces=-s.forces), "forces have the opposite sign"),
    "Hartree/Bohr": (
        lambda s: dataclasses.replace(s, forces=s.forces * BOHR / HARTREE),
        "forces are in Hartree/Bohr",
    ),
    "-Hartree/Bohr": (
        lambda s: dataclasses.replace(s, forces=-s.forces * BOHR / HARTREE),
        "forces are in Hartree/Bohr, and forces have the opposite sign",
    ),
    "kcal/mol": (lambda s: dataclasses.replace(s, energy=s.energy / ENERGY["kcal/mol"]), "energies are in kcal/mol"),
    "Hartree": (lambda s: dataclasses.replace(s, energy=s.energy / HARTREE), "energies are in Hartree"),
    "atomic units": (
        lambda s: dataclasses.replace(s, energy=s.energy / HARTREE, forces=s.forces * BOHR / HARTREE),
        "per Bohr, not per Å",
    ),
    "per atom": (
        lambda s: dataclasses.replace(s, energy=s.energy / len(s.atoms)),
        "energies are per atom, not total",
    ),
}


@pytest.mark.parametrize("name", list(FORCES))
@pytest.mark.parametrize("system", ["silicon", "molecules"])
def test_forces_that_do_not_belong_to_the_energies_are_an_error(
    silicon: list[Structure], system: str, name: str
) -> None:
    corrupt, remedy = FORCES[name]
    structures = silicon if system == "silicon" else molecules()
    found = [f for f in errors(consistency([corrupt(s) for s in structures])) if f.kind == "energy and forces"]
    assert len(found) == 1
    assert remedy in found[0].remedy
    assert found[0].where in ("train.xyz.xz", "a.xyz")
    assert "contradict" in found[0].message


def volume(structure: Structure) -> float:
    return float(structure.atoms.get_volume())


STRESS: dict[str, tuple[Corrupt, str]] = {
    "sign": (lambda s: dataclasses.replace(s, stress=-s.stress), "stress has the opposite sign"),
    "GPa": (lambda s: dataclasses.replace(s, stress=s.stress * EV_PER_A3_IN_GPA), "stress is in GPa"),
    "-kbar": (
        lambda s: dataclasses.replace(s, stress=-s.stress * 10.0 * EV_PER_A3_IN_GPA),
        "stress is in kbar, and stress has the opposite sign",
    ),
    "virial": (lambda s: dataclasses.replace(s, stress=-s.stress * volume(s)), "this is a virial, not a stress"),
}


@pytest.mark.parametrize("name", list(STRESS))
def test_a_stress_that_does_not_belong_to_the_energies_is_an_error(silicon: list[Structure], name: str) -> None:
    corrupt, remedy = STRESS[name]
    found = errors(consistency([corrupt(s) for s in silicon]))
    assert [f.kind for f in found] == ["energy and stress"]
    assert remedy in found[0].remedy


def test_wrong_energies_are_told_from_wrong_forces_by_the_stress(silicon: list[Structure]) -> None:
    found = errors(consistency([dataclasses.replace(s, energy=s.energy / HARTREE) for s in silicon]))
    assert "forces and stress agree with each other" in found[1].remedy


def test_strained_cells_without_stress_are_not_compared(silicon: list[Structure]) -> None:
    blind = [dataclasses.replace(s, stress=np.full((3, 3), np.nan)) for s in silicon]
    findings = consistency(blind)
    assert not errors(findings)
    assert close_pairs(blind).stress_work.any() == np.False_


def test_a_set_without_any_force_is_judged_by_its_stress(silicon: list[Structure]) -> None:
    still = [dataclasses.replace(s, forces=0.0 * s.forces) for s in silicon if s.config_type == "eos"]
    findings = {f.kind: f for f in consistency(still)}
    assert findings["energy and forces"].message.startswith("no pair of structures has a force")
    assert "energies and stress agree" in findings["energy and stress"].message


def test_two_structures_are_too_few_to_judge() -> None:
    findings = {f.kind: f for f in consistency(molecules(2))}
    assert findings["energy and forces"].severity == "note"
    assert "could not be compared" in findings["energy and forces"].message


def test_energies_that_jump_are_a_warning() -> None:
    random = np.random.default_rng(5)
    jumping = [dataclasses.replace(s, energy=s.energy + 20.0 * random.integers(0, 2)) for s in molecules(150)]
    assert any(
        "differ by more than their forces explain" in f.message or f.kind == "odd structures"
        for f in consistency(jumping)
    )


def test_single_bad_labels_are_named(silicon: list[Structure]) -> None:
    diamond = [s for s in silicon if s.config_type in ("diamond", "md300", "md900", "vacancy")]
    diamond[20] = dataclasses.replace(diamond[20], energy=diamond[20].energy + 5.0)
    odd = [f for f in consistency(diamond) if f.kind == "odd structures"]
    assert len(odd) == 1
    assert odd[0].where == diamond[20].name


def test_copies_with_other_labels_are_a_warning_and_faithful_ones_a_note(silicon: list[Structure]) -> None:
    wrong = dataclasses.replace(silicon[3], energy=silicon[3].energy + 1.0, name="b.xyz:0")
    findings = {f.kind: f for f in consistency([*silicon[:10], silicon[5], wrong])}
    assert findings["contradicting copies"].severity == "warning"
    assert findings["contradicting copies"].where == f"{silicon[3].name} and b.xyz:0"
    assert "0.125 eV/atom" in findings["contradicting copies"].message
    assert findings["copies"].severity == "note"


def test_close_contacts_net_forces_and_wild_labels_are_warnings() -> None:
    structures = molecules(30)
    squeezed = structures[0].atoms.copy()
    squeezed.positions[1] = squeezed.positions[0] + (0.0, 0.0, 0.7)
    structures[0] = dataclasses.replace(structures[0], atoms=squeezed)
    structures[1] = dataclasses.replace(structures[1], forces=structures[1].forces + 0.2)
    structures[2].forces[0, 0] += 500.0
    structures[3] = dataclasses.replace(structures[3], energy=structures[3].energy + 900.0)
    findings = {f.kind: f for f in consistency(structures)}
    assert findings["close contacts"].where == "a.xyz:0"
    assert findings["net force"].where == "a.xyz:1, a.xyz:2"
    assert findings["large forces"].where == "a.xyz:2"
    assert findings["wild energies"].where == "a.xyz:3"


@pytest.mark.parametrize("label", ["energy", "forces", "stress"])
def test_placeholders_of_zero_are_an_error(silicon: list[Structure], label: str) -> None:
    zero = {"energy": 0.0, "forces": np.zeros((8, 3)), "stress": np.zeros((3, 3))}[label]
    eight = [dataclasses.replace(s, **{label: zero}) for s in silicon if len(s.atoms) == 8]  # type: ignore[arg-type]
    assert f"empty {label}" in [f.kind for f in errors(consistency(eight))]


def test_labels_that_the_loss_leaves_alone_do_not_stop_it(silicon: list[Structure]) -> None:
    flipped = [dataclasses.replace(s, stress=-s.stress) for s in silicon]
    assert [f.kind for f in errors(consistency(flipped, {"energy", "forces", "stress"}))] == ["energy and stress"]
    idle = consistency(flipped, {"energy", "forces"})
    assert not errors(idle)
    assert (idle[0].severity, idle[0].kind) == ("warning", "energy and stress")


def test_findings_come_errors_first(silicon: list[Structure]) -> None:
    order = [
        f.severity for f in consistency([dataclasses.replace(s, forces=-s.forces) for s in [*silicon, silicon[0]]])
    ]
    assert order == sorted(order, key=["error", "warning", "note"].index)
    assert order[0] == "error"


def test_wrapped_atoms_and_rigid_shifts_do_not_hide_pairs(silicon: list[Structure]) -> None:
    random = np.random.default_rng(2)
    moved = []
    for s in silicon:
        atoms = s.atoms.copy()
        atoms.positions += random.normal(size=3)
        atoms.wrap()
        moved.append(dataclasses.replace(s, atoms=atoms))
    fit = slopes(close_pairs(moved))
    assert fit.force == pytest.approx(1.0, abs=0.03)
    assert fit.stress == pytest.approx(1.0, abs=0.005)


def test_many_structures_are_searched_without_comparing_all() -> None:
    many = molecules(ALL_PAIRS + 100)
    near = many[0].atoms.copy()
    near.positions[0, 0] += 1e-3
    near.positions += (3.0, -2.0, 1.0)
    many.append(dataclasses.replace(many[0], atoms=near, energy=many[0].energy - 1e-3 * many[0].forces[0, 0]))
    pairs = close_pairs(many)
    assert (0, len(many) - 1) in set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    assert slopes(pairs).force == pytest.approx(1.0, abs=0.05)


def test_atoms_half_a_cell_away_are_as_near_as_they_are() -> None:
    made = []
    for k, place in enumerate((0.0, 4.9, 5.1)):  # of a cell of 10 Å: the last two are 0.2 Å apart
        atoms = ase.Atoms("Ar2", [(0, 0, 0), (place, 3.0, 0)], cell=(10, 10, 10), pbc=True)
        made.append(Structure(atoms, 0.0, np.zeros((2, 3)), np.zeros((3, 3)), f"a:{k}"))
    pairs = close_pairs(made)
    assert list(zip(pairs.first, pairs.second, strict=True)) == [(1, 2)]
    assert pairs.distance[0] == pytest.approx(0.1)


def test_slabs_take_part() -> None:
    slabs = []
    for s in molecules(40):
        atoms = s.atoms.copy()
        atoms.cell, atoms.pbc = [[12.0, 0, 0], [3.0, 11.0, 0], [0, 0, 0]], (True, True, False)
        atoms.wrap()
        slabs.append(dataclasses.replace(s, atoms=atoms))
    assert slopes(close_pairs(slabs)).force == pytest.approx(1.0, abs=0.05)


def test_free_atoms_are_passed_over() -> None:
    atom = Structure(ase.Atoms("Si"), -0.8, np.zeros((1, 3)), np.full((3, 3), np.nan), "a:0")
    assert consistency([atom]) == []
