"""Files become structures with labels, whatever their format and key names."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path

import ase
import ase.db
import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from rich.console import Console

from adatom.data.read import Keys, Structure, Units, fingerprint, found_table, read, require
from adatom.errors import ConfigError, DataError, GeometryError, LabelError
from adatom.units import EV_PER_A3_IN_GPA

SILICON = Path(__file__).parents[2] / "data" / "si_pbe_gpaw"
STRESS = np.array([[0.010, 0.001, 0.002], [0.001, 0.020, 0.003], [0.002, 0.003, 0.030]])
VOIGT = [0.010, 0.020, 0.030, 0.003, 0.002, 0.001]  # xx yy zz yz xz xy
FLAT = " ".join(str(x) for x in STRESS.ravel())

SIX = " ".join(str(x) for x in VOIGT)


def frame(comment: str = "energy=-10.5", columns: str = "forces:R:3", rows: list[str] | None = None) -> str:
    """Two silicon atoms as extended XYZ text."""
    rows = rows or ["Si 0 0 0 0.1 0.2 0.3", "Si 1.36 1.36 1.36 -0.1 -0.2 -0.3"]
    lattice = 'Lattice="0 2.72 2.72 2.72 0 2.72 2.72 2.72 0"'
    properties = f"Properties=species:S:1:pos:R:3:{columns}".rstrip(":")
    return "\n".join([str(len(rows)), f"{lattice} {properties} {comment}", *rows]) + "\n"


def write(path: Path, *frames: str) -> Path:
    path.write_text("".join(frames))
    return path


def one(path: Path, **options: Keys | Units) -> Structure:
    structures, _ = read(path, **options)  # type: ignore[arg-type]
    assert len(structures) == 1
    return structures[0]


def test_the_silicon_set_is_read_whole() -> None:
    structures, found = read([SILICON / "train.xyz.xz", SILICON / "test.xyz.xz"])
    assert [f.frames for f in found] == [263, 56]
    assert found[0].labelled == {"energy": 263, "forces": 263, "stress": 263}
    assert found[0].key("stress") == "REF_stress"
    assert found[0].remarks == ()
    first = structures[0]
    assert first.name == "train.xyz.xz:0"
    assert first.config_type == "beta-tin"
    assert first.energy == pytest.approx(-40.84839798152385, abs=1e-12)
    assert first.forces[0] == pytest.approx([-0.68867039, 0.10379, -0.60931047])
    assert first.stress[0, 1] == pytest.approx(0.038772330292356036)
    assert first.atoms.calc is None
    assert first.atoms.pbc.all()
    assert structures[263].name == "test.xyz.xz:0"
    require(structures, {"energy", "forces", "stress"})


@pytest.mark.parametrize("name", ["a.xyz", "a.extxyz", "a.xyz.gz", "a.xyz.xz", "a.xyz.bz2", "a.extxyz.gz"])
def test_extended_xyz_is_read_plain_and_compressed(tmp_path: Path, name: str) -> None:
    text = frame() + frame("energy=-9.0")
    opener = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}.get(Path(name).suffix, open)
    with opener(tmp_path / name, "wt") as stream:
        stream.write(text)
    structures, found = read(tmp_path / name)
    assert [s.energy for s in structures] == [-10.5, -9.0]
    assert [s.name for s in structures] == [f"{name}:0", f"{name}:1"]
    assert structures[1].forces[1].tolist() == [-0.1, -0.2, -0.3]
    assert found[0].atoms == 4


def calculated() -> ase.Atoms:
    atoms = bulk("Si", "diamond", a=5.5)
    results = {"energy": -10.0, "free_energy": -10.0, "forces": np.full((2, 3), 0.25), "stress": np.array(VOIGT)}
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


@pytest.mark.parametrize("name", ["a.traj", "a.db", "a.json", "a.extxyz"])
def test_calculator_results_are_labels_in_every_format_of_ase(tmp_path: Path, name: str) -> None:
    ase.io.write(tmp_path / name, [calculated(), calculated()])
    structures, _ = read(tmp_path / name)
    assert len(structures) == 2
    assert structures[1].energy == -10.0
    assert structures[1].forces == pytest.approx(np.full((2, 3), 0.25))
    assert structures[1].stress == pytest.approx(STRESS)


def test_database_columns_and_data_are_fields(tmp_path: Path) -> None:
    with ase.db.connect(tmp_path / "a.db") as database:
        database.write(
            bulk("Si"), key_value_pairs={"dft_energy": -9.5, "system": "x1"}, data={"dft_forces": np.ones((2, 3))}
        )
    structure = one(tmp_path / "a.db")
    assert structure.energy == -9.5
    assert structure.forces.tolist() == np.ones((2, 3)).tolist()
    assert structure.tags["system"] == "x1"


def test_fixed_atoms_keep_their_forces(tmp_path: Path) -> None:
    atoms = calculated()
    atoms.set_constraint(ase.constraints.FixAtoms([0]))
    ase.io.write(tmp_path / "a.traj", atoms)
    assert one(tmp_path / "a.traj").forces[0].tolist() == [0.25] * 3


@pytest.mark.parametrize(
    ("key", "forces"),
    [
        ("REF_energy", "REF_forces"),
        ("dft_energy", "dft_forces"),
        ("DFT_energy", "DFT_forces"),
        ("free_energy", "forces"),
        ("energy", "force"),
        ("total_energy", "forces"),
        ("energy_pbe", "pbe_forces"),
        ("revpbe_energy", "revpbe_force"),
    ],
)
def test_labels_are_found_by_name(tmp_path: Path, key: str, forces: str) -> None:
    path = write(tmp_path / "a.xyz", frame(f"{key}=-10.5 formation_energy=0.3 energy_per_atom=-5.25", f"{forces}:R:3"))
    structures, found = read(path)
    assert structures[0].energy == -10.5
    assert structures[0].forces[0].tolist() == [0.1, 0.2, 0.3]
    assert (found[0].key("energy"), found[0].key("forces")) == (key, forces)
    assert structures[0].keys["energy"] == key


def test_energies_of_something_else_are_not_taken(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xyz", frame("formation_energy=0.3 interaction_energy=0.2 energy_sigma=0.001", ""))
    assert np.isnan(one(path).energy)


def test_the_free_energy_goes_before_the_energy_and_the_rival_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xyz", frame("energy=-10.5 free_energy=-10.6"), frame("energy=-1.0 free_energy=-1.0"))
    structures, found = read(path)
    assert [s.energy for s in structures] == [-10.6, -1.0]
    assert found[0].remarks == ("energy: 'free_energy' was taken, 'energy' holds other values (1 frames)",)


def test_frames_of_one_file_may_use_different_keys_and_it_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xyz", frame("REF_energy=-10.5"), frame("energy=-9.0"), frame("", "forces:R:3"))
    structures, found = read(path)
    assert [s.energy for s in structures[:2]] == [-10.5, -9.0]
    assert np.isnan(structures[2].energy)
    assert found[0].keys["energy"] == {"REF_energy": 1, "energy": 1}
    assert found[0].labelled["energy"] == 2
    assert any("more than one field serves" in remark for remark in found[0].remarks)


def test_two_equally_good_names_are_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xyz", frame("energy_pbe=-10.5 energy_scan=-11.5"))
    with pytest.raises(LabelError, match=r"several fields could be the energy[\s\S]*energy_pbe, energy_scan"):
        read(path)
    assert one(path, keys=Keys(energy="energy_scan")).energy == -11.5


def test_a_key_that_is_asked_for_wins(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xyz", frame("REF_energy=-10.5 scan_energy=-9.0"))
    assert one(path, keys=Keys(energy="scan_energy")).energy == -9.0


def test_an_unknown_key_offers_the_nearest_and_lists_what_is_there(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xyz", frame("REF_energy=-10.5"))
    with pytest.raises(
        LabelError, match=r"REF_energi[\s\S]*a\.xyz[\s\S]*REF_energy, forces[\s\S]*did you mean 'REF_energy'"
    ):
        read(path, keys=Keys(energy="REF_energi"))


def test_an_unknown_entry_of_keys_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="did you mean 'energy'"):
        Keys.parse({"enrgy": "E"})


@pytest.mark.parametrize(
    "stress", [f'REF_stress="{FLAT}"', f'stress="{FLAT}"', f'stress="{SIX}"', f'dft_stress="{SIX}"']
)
def test_stress_is_read_from_nine_and_from_six_numbers(tmp_path: Path, stress: str) -> None:
    assert one(write(tmp_path / "a.xyz", frame(f"energy=1 {stress}"))).stress == pytest.approx(STRESS)


@pytest.mark.parametrize("name", ["virial", "REF_virial", "virials", "dft_virial"])
def test_a_virial_becomes_a_stress_of_opposite_sign(tmp_path: Path, name: str) -> None:
    structure = one(write(tmp_path / "a.xyz", frame(f'energy=1 {name}="{FLAT}"')))
    assert structure.stress == pytest.approx(-STRESS / structure.atoms.get_volume())
    assert structure.keys["stress"] == name


def test_stress_goes_before_virial_unless_the_virial_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xyz", frame(f'energy=1 stress="{FLAT}" virial="1 0 0 0 1 0 0 0 1"'))
    assert one(path).stress == pytest.approx(STRESS)
    volume = one(path).atoms.get_volume()
    assert one(path, keys=Keys(virial="virial")).stress == pytest.approx(-np.eye(3) / volume)


def test_a_lopsided_stress_is_made_symmetric_and_told(tmp_path: Path) -> None:
    structures, found = read(write(tmp_path / "a.xyz", frame('energy=1 stress="1 0.4 0 0 1 0 0 0 1"')))
    assert structures[0].stress[0, 1] == structures[0].stress[1, 0] == pytest.approx(0.2)
    assert found[0].remarks == ("stress: not symmetric, its symmetric part is taken (1 frames)",)


def test_the_stress_of_an_open_system_is_dropped_and_told(tmp_path: Path) -> None:
    structures, found = read(write(tmp_path / "a.xyz", frame(f'energy=1 stress="{FLAT}" pbc="T T F"')))
    assert np.isnan(structures[0].stress).all()
    assert "not periodic" in found[0].remarks[0]


def test_units_are_converted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xyz", frame(f'energy=-1.0 stress="{FLAT}"'))
    structure = one(path, units=Units(energy="Hartree", forces="Hartree/Bohr", stress="-GPa"))
    assert structure.energy == pytest.approx(-27.211386, rel=1e-6)
    assert structure.forces[0, 0] == pytest.approx(0.1 * 51.422067, rel=1e-6)
    assert structure.stress == pytest.approx(-STRESS / EV_PER_A3_IN_GPA)


def test_a_virial_is_in_the_unit_of_energy(tmp_path: Path) -> None:
    structure = one(write(tmp_path / "a.xyz", frame(f'energy=-1 virial="{FLAT}"')), units=Units(energy="Ry"))
    assert structure.stress == pytest.approx(-13.605693 * STRESS / structure.atoms.get_volume(), rel=1e-6)


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        ({"energy": "Hartre"}, "did you mean 'Hartree'"),
        ({"energy": "furlong"}, "known: eV, meV"),
        ({"forces": "eV"}, "unknown unit of forces"),
        ({"forces": "eV/Ang"}, "unknown unit of forces"),
        ({"stress": "Gpa"}, "did you mean 'GPa'"),
    ],
)
def test_an_unknown_unit_is_a_config_error_that_offers_known_ones(values: dict[str, str], hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        Units.parse(values)


def test_charge_and_multiplicity_are_kept_for_the_graph(tmp_path: Path) -> None:
    atoms = one(write(tmp_path / "a.xyz", frame("energy=1 total_charge=-1 multiplicity=2"))).atoms
    assert atoms.info == {"total_charge": -1.0, "multiplicity": 2.0}
    assert one(write(tmp_path / "b.xyz", frame("energy=1 charge=2 q=1"))).atoms.info == {"total_charge": 2.0}


def test_a_free_atom_has_zero_forces_by_symmetry(tmp_path: Path) -> None:
    text = '1\nProperties=species:S:1:pos:R:3 energy=-0.8 pbc="F F F"\nSi 0 0 0\n'
    structures, found = read(write(tmp_path / "a.xyz", text, frame()))
    assert structures[0].isolated
    assert not structures[1].isolated
    assert structures[0].forces.tolist() == [[0, 0, 0]]
    assert found[0].isolated == 1
    require(structures, {"energy", "forces"})


def test_an_atom_in_a_box_is_free_only_where_it_is_called_so(tmp_path: Path) -> None:
    text = '1\nLattice="9 0 0 0 9 0 0 0 9" Properties=species:S:1:pos:R:3 energy=-0.8 {}\nSi 0 0 0\n'
    path = write(tmp_path / "a.xyz", text.format("config_type=IsolatedAtom"), text.format("config_type=fcc"))
    assert [s.isolated for s in read(path)[0]] == [True, False]


# missing and broken labels


@pytest.mark.parametrize("label", ["energy", "forces", "stress"])
def test_a_missing_label_that_the_loss_needs_names_file_frame_and_field(tmp_path: Path, label: str) -> None:
    whole = frame(f'energy=1 stress="{FLAT}"')
    poor = {
        "energy": frame(f'note=x stress="{FLAT}"'),
        "forces": frame(f'energy=1 stress="{FLAT}"', "momenta:R:3"),
        "stress": frame("energy=1"),
    }[label]
    structures, _ = read(write(tmp_path / "a.xyz", whole, poor, poor))
    message = (
        rf"needs {label}, and 2 of 3 structures lack it[\s\S]*a\.xyz, frame 1, field '{label}'[\s\S]*no such field"
    )
    with pytest.raises(LabelError, match=message):
        require(structures, {"energy", "forces", "stress"})
    require(structures, {"energy", "forces", "stress"} - {label})


def test_a_similar_field_is_offered_for_a_missing_label(tmp_path: Path) -> None:
    structures, _ = read(write(tmp_path / "a.xyz", frame("Energies=-1.0")))
    with pytest.raises(LabelError, match="Energies"):
        require(structures, {"energy"})


def test_a_nan_label_is_an_error_that_counts_the_values(tmp_path: Path) -> None:
    bad = frame(rows=["Si 0 0 0 nan 0.2 0.3", "Si 1.36 1.36 1.36 nan -0.2 -0.3"])
    structures, found = read(write(tmp_path / "a.xyz", frame(), bad))
    assert found[0].labelled["forces"] == 1
    with pytest.raises(LabelError, match=r"frame 1, field 'forces'[\s\S]*2 of 6 values are NaN"):
        require(structures, {"forces"})


@pytest.mark.parametrize("value", ["nan", "NaN", "None"])
def test_a_nan_energy_is_not_a_label(tmp_path: Path, value: str) -> None:
    structures, _ = read(write(tmp_path / "a.xyz", frame(f"energy={value}")))
    with pytest.raises(LabelError, match=r"field 'energy'[\s\S]*1 of 1 values are NaN"):
        require(structures, {"energy"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (frame("energy=inf"), r"no finite number[\s\S]*field 'energy'"),
        (frame("energy=abc"), r"no finite number[\s\S]*field 'energy'[\s\S]*'abc'"),
        (frame('energy="1 2 3"'), r"wrong shape[\s\S]*one number per structure[\s\S]*\(3,\)"),
        (frame('energy=1 stress="1 2 3"'), r"wrong shape[\s\S]*field 'stress'[\s\S]*\(3,\)"),
        (
            frame("energy=1", "forces:R:2", ["Si 0 0 0 1 2", "Si 1.36 1.36 1.36 3 4"]),
            r"wrong shape[\s\S]*field 'forces'[\s\S]*\(2, 3\): one vector per atom[\s\S]*\(2, 2\)",
        ),
    ],
)
def test_labels_of_wrong_kind_or_shape_name_file_frame_and_field(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(LabelError, match=message) as caught:
        read(write(tmp_path / "bad.xyz", text))
    assert caught.value.where is not None
    assert caught.value.where.startswith("bad.xyz, frame 0, field")
    assert caught.value.remedy


def test_stress_asked_of_molecules_alone_is_an_error(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "a.xyz", molecule("H2O"))
    with pytest.raises(LabelError, match="no structure is periodic"):
        require(read(tmp_path / "a.xyz")[0], {"stress"})


def test_a_label_that_does_not_exist_cannot_be_required(tmp_path: Path) -> None:
    structures, _ = read(write(tmp_path / "a.xyz", frame()))
    with pytest.raises(LabelError, match="no label 'charges'"):
        require(structures, {"charges"})


def test_nothing_at_all_is_an_empty_data_set() -> None:
    with pytest.raises(DataError, match="empty"):
        require([], {"energy"})


# broken files


@pytest.mark.parametrize("cut", [0.5, 0.9])
def test_a_file_that_ends_in_a_frame_is_truncated(tmp_path: Path, cut: float) -> None:
    text = frame() + frame("energy=-9")
    path = write(tmp_path / "a.xyz", text[: len(frame()) + int(cut * len(frame("energy=-9")))])
    with pytest.raises(DataError, match=r"ends in the middle of a frame[\s\S]*a\.xyz, frame 1, line 5"):
        read(path)


def test_a_file_cut_inside_its_last_number_is_truncated(tmp_path: Path) -> None:
    rows = ["Si 0.0000 0.0000 0.0000 0.1234 0.2345 0.3456", "Si 1.3600 1.3600 1.3600 -0.1234 -0.2345 -0.3456"]
    text = frame(rows=rows)
    assert len(read(write(tmp_path / "whole.xyz", text))[0]) == 1
    assert len(read(write(tmp_path / "no_newline.xyz", text[:-1]))[0]) == 1
    for cut in (2, 3, 9):
        with pytest.raises(DataError, match="ends in the middle"):
            read(write(tmp_path / "cut.xyz", text[:-cut]))


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".bz2"])
def test_a_truncated_compressed_file_is_an_error(tmp_path: Path, suffix: str) -> None:
    packed = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}[suffix]((frame() * 500).encode())
    path = tmp_path / f"a.xyz{suffix}"
    path.write_bytes(packed[: len(packed) * 2 // 3])
    with pytest.raises(DataError, match=r"cannot be read to its end[\s\S]*truncated"):
        read(path)


def test_a_file_that_is_not_compressed_as_its_name_says_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read to its end"):
        read(write(tmp_path / "a.xyz.gz", frame()))


@pytest.mark.parametrize("name", ["a.traj", "a.db"])
def test_truncated_files_of_ase_are_errors(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    ase.io.write(path, [calculated() for _ in range(20)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"cannot read this file[\s\S]*a\."):
        read(path)


def test_blank_lines_between_frames_hide_nothing(tmp_path: Path) -> None:
    structures, _ = read(write(tmp_path / "a.xyz", frame(), "\n", frame("energy=-9"), "\n\n"))
    assert [s.energy for s in structures] == [-10.5, -9.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (frame().replace("2\n", "1\n", 1), r"does not begin with its number of atoms[\s\S]*line 4"),
        (frame(rows=["Si 0 0 0 0 0 0", "Si 1.3 1.3 1.3 0 0"]), r"not extended XYZ[\s\S]*frame 0"),
        (frame(rows=["Si 0 0 0 0 0 0", "Qq 1.3 1.3 1.3 0 0 0"]), r"not extended XYZ[\s\S]*Qq"),
        (frame(rows=["Si 0 0 0 0 0 0", "Si 1.3 a 1.3 0 0 0"]), "not extended XYZ"),
        (frame(rows=["Si 0 0 0 0 0 0", "X 1.3 1.3 1.3 0 0 0"]), "no element"),
        ("0\nenergy=1\n", "without atoms"),
        ("", "holds no structure"),
        ("\n\n", "holds no structure"),
    ],
)
def test_a_damaged_file_is_a_data_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(write(tmp_path / "bad.xyz", text))
    assert "bad.xyz" in str(caught.value)


def test_a_missing_file_offers_the_nearest_name(tmp_path: Path) -> None:
    write(tmp_path / "train.xyz", frame())
    with pytest.raises(DataError, match=r"no such data file[\s\S]*did you mean 'train\.xyz'"):
        read(tmp_path / "trian.xyz")
    assert not list(tmp_path.glob("*.db"))
    for name in ("missing.xyz", "nowhere/a.db"):  # of .xyz alone nothing is guessed
        with pytest.raises(DataError, match=r"no such data file[\s\S]*check the path"):
            read(tmp_path / name)


def test_an_unknown_format_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ASE cannot read"):
        read(write(tmp_path / "a.docx", "hello"))


def test_no_files_are_an_error() -> None:
    with pytest.raises(DataError, match="no data files"):
        read([])


# impossible geometries


def test_a_periodic_cell_without_volume_names_file_and_frame(tmp_path: Path) -> None:
    flat = frame().replace("0 2.72 2.72 2.72 0 2.72 2.72 2.72 0", "0 2.72 2.72 2.72 0 2.72 2.72 2.72 5.44")
    with pytest.raises(GeometryError, match=r"no volume[\s\S]*a\.xyz, frame 1"):
        read(write(tmp_path / "a.xyz", frame(), flat))


def test_overlapping_atoms_name_file_frame_atoms_and_all_other_bad_frames(tmp_path: Path) -> None:
    overlap = frame(rows=["Si 0 0 0 0 0 0", "Si 0 0 0.3 0 0 0"])
    with pytest.raises(GeometryError, match=r"overlap[\s\S]*a\.xyz, frame 1, atoms 0[\s\S]*2 more such frames: 2, 4"):
        read(write(tmp_path / "a.xyz", frame(), overlap, overlap, frame(), overlap))


def test_positions_that_are_no_numbers_name_file_and_frame(tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match=r"not finite[\s\S]*frame 0"):
        read(write(tmp_path / "a.xyz", frame(rows=["Si 0 0 nan 0 0 0", "Si 1.3 1.3 1.3 0 0 0"])))


# what is told


def test_the_table_shows_keys_counts_and_remarks(tmp_path: Path) -> None:
    _, found = read(write(tmp_path / "a.xyz", frame("energy=-10.5 free_energy=-10.6"), frame("", "momenta:R:3")))
    console = Console(width=120, record=True, file=(tmp_path / "out.txt").open("w"))
    with console.file:
        console.print(found_table(found))
        text = " ".join(console.export_text().split())
    assert "free_energy 1/2" in text
    assert "forces 1/2" in text
    assert "'energy' holds other values" in text


def test_files_of_one_name_keep_their_paths(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "a.xyz", frame())
    structures, _ = read([tmp_path / "x" / "a.xyz", tmp_path / "y" / "a.xyz"])
    assert structures[0].name != structures[1].name


def test_the_fingerprint_tells_data_sets_apart(tmp_path: Path) -> None:
    a = read(write(tmp_path / "a.xyz", frame()))[0]
    b = read(write(tmp_path / "b.xyz", frame("energy=-10.500001")))[0]
    assert fingerprint(a) == fingerprint(read(tmp_path / "a.xyz")[0])
    assert fingerprint(a) != fingerprint(b)
    assert fingerprint(a).startswith("sha256:")


def test_masses_momenta_and_constraints_of_a_file_stay_with_the_atoms(tmp_path: Path) -> None:
    atoms = bulk("Si", cubic=True)
    atoms.set_momenta(np.random.default_rng(0).normal(size=(8, 3)))
    atoms.set_masses([28.0] * 7 + [30.0])
    plain = atoms.copy()
    atoms.set_constraint(FixAtoms([0, 3]))
    for name in ("a.traj", "a.xyz"):
        ase.io.write(tmp_path / name, atoms)
        found = one(tmp_path / name).atoms
        np.testing.assert_allclose(found.get_momenta(), plain.get_momenta(), atol=1e-7)
        assert found.get_masses()[-1] == pytest.approx(30.0)
        assert found.constraints[0].index.tolist() == [0, 3]
    bare = ase.Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
    ase.io.write(tmp_path / "b.traj", bare)
    assert fingerprint([one(tmp_path / "a.traj")]) == fingerprint([one(tmp_path / "b.traj")])
