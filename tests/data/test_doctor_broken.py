"""Each file broken on purpose gives the finding that names file, frame, field and the way out; the whole one none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest

from adatom.data.doctor.examine import Examination
from adatom.data.doctor.files import examine_files
from adatom.data.doctor.finding import Finding
from data.broken_files import BROKEN_MOLECULES, BROKEN_SILICON, Broken, molecules, silicon, write

ALL = {**dict.fromkeys(BROKEN_SILICON, silicon), **dict.fromkeys(BROKEN_MOLECULES, molecules)}
CASES: dict[str, Broken] = BROKEN_SILICON | BROKEN_MOLECULES


def looked_at(path: Path, **others: Path) -> Examination:
    return examine_files({"train": [path], **{part: [file] for part, file in others.items()}})


def one(examination: Examination, kind: str) -> Finding:
    found = [f for f in examination.findings if f.kind == kind]
    assert len(found) == 1, [(f.severity, f.kind, f.message) for f in examination.findings]
    return found[0]


@pytest.mark.parametrize("make", [silicon, molecules])
def test_a_whole_file_is_clean(make: Callable[[], list[ase.Atoms]], tmp_path: Path) -> None:
    assert looked_at(write(make(), tmp_path / "x.xyz")).verdict == "clean"


@pytest.mark.parametrize("name", list(ALL))
def test_a_broken_file_is_told_with_the_way_out(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    examination = looked_at(write(case.break_it(ALL[name]()), tmp_path / "x.xyz"))
    finding = one(examination, case.kind)
    assert finding.severity == case.severity
    assert case.message in finding.message
    assert case.remedy in finding.remedy
    assert finding.where.startswith(case.where)
    assert all(f.remedy for f in examination.findings)


def test_a_truncated_file_names_frame_and_line(tmp_path: Path) -> None:
    path = write(silicon(), tmp_path / "x.xyz")
    text = path.read_text()
    path.write_text(text[: int(0.4 * len(text))])
    finding = one(looked_at(path), "unreadable")
    assert finding.severity == "error"
    assert f"{path}, frame 1" in finding.where
    assert "line" in finding.where
    assert "truncated" in finding.remedy


def test_an_unknown_element_names_frame_and_line(tmp_path: Path) -> None:
    path = write(silicon()[:3], tmp_path / "x.xyz")
    path.write_text(path.read_text().replace("Si ", "Xy ", 1))
    finding = one(looked_at(path), "unreadable")
    assert f"{path}, frame 0" in finding.where
    assert "Xy" in finding.message


def test_a_file_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path) -> None:
    good, bad = write(silicon(), tmp_path / "good.xyz"), tmp_path / "bad.xyz"
    bad.write_text("not a number\n")
    examination = examine_files({"train": [good, bad]})
    assert [f.kind for f in examination.errors] == ["unreadable"]
    assert examination.tables["parts"]["train"]["structures"] == 263


def test_test_structures_in_the_training_set_are_an_error_and_near_ones_a_warning(tmp_path: Path) -> None:
    frames = silicon()
    train, test = frames[:200], [a.copy() for a in frames[200:]]
    test[0] = frames[3].copy()
    for k in range(1, 5):
        test[k] = frames[k].copy()
        test[k].positions += 0.02 * np.sin(np.arange(24.0)).reshape(8, 3)
    files = write(train, tmp_path / "train.xyz"), write(test, tmp_path / "test.xyz")
    examination = looked_at(files[0], test=files[1])
    leak, near = one(examination, "leakage"), one(examination, "near-leakage")
    assert (leak.severity, leak.names) == ("error", ("test.xyz:0",))
    assert "test.xyz:0 = train.xyz:3" in leak.where
    assert near.severity == "warning"
    assert {f"test.xyz:{k}" for k in range(1, 5)} <= set(near.names)


def test_elements_of_the_test_set_that_training_never_sees_are_an_error(tmp_path: Path) -> None:
    strange = silicon()[200:230]
    strange[4].symbols[0] = "Ge"
    files = write(silicon()[:200], tmp_path / "train.xyz"), write(strange, tmp_path / "test.xyz")
    finding = one(looked_at(files[0], test=files[1]), "unknown element")
    assert (finding.severity, finding.where) == ("error", "test.xyz:4")
    assert "Ge" in finding.message


def test_a_file_of_another_zero_of_energy_is_told(tmp_path: Path) -> None:
    shifted = silicon()[1::2]
    for atoms in shifted:
        atoms.info["REF_energy"] += 1.5 * len(atoms)
    files = write(silicon()[::2], tmp_path / "a.xyz"), write(shifted, tmp_path / "b.xyz")
    finding = one(examine_files({"train": list(files)}), "shifted energies")
    assert finding.where in ("a.xyz", "b.xyz")
    assert "1.5" in finding.message


def test_free_atoms_of_another_method_do_not_fit(tmp_path: Path) -> None:
    frames = silicon()
    for energy, kind in ((-0.8, "note"), (-300.0, "warning")):
        atom = ase.Atoms("Si", info={"REF_energy": energy, "config_type": "isolated_atom"})
        finding = one(looked_at(write([*frames, atom], tmp_path / f"{kind}.xyz")), "isolated atoms")
        assert finding.severity == kind
