"""The script that made the silicon set makes more of it."""

from __future__ import annotations

import importlib.util
import re
import textwrap
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from ase.build import bulk

from adatom.data.read import read

FOLDER = Path(__file__).parents[2] / "data" / "si_pbe_gpaw"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_more", FOLDER / "make_more.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_stillinger_weber_silicon_has_its_published_energy(script: ModuleType) -> None:
    atoms = bulk("Si", "diamond", a=5.4309, cubic=True)
    atoms.calc = script.StillingerWeber()
    assert atoms.get_potential_energy() / 8 == pytest.approx(-2 * 2.1683, abs=2e-4)
    assert np.abs(atoms.get_forces()).max() < 1e-10


def test_stillinger_weber_forces_are_derivatives(script: ModuleType) -> None:
    random = np.random.default_rng(0)
    atoms = script.rattled(script.strained(script.parent("diamond"), 0.04, random), 0.2, random)
    atoms.calc = script.StillingerWeber()
    forces = atoms.get_forces()
    for atom, axis in ((0, 0), (3, 1), (7, 2)):
        ends = []
        for step in (-1e-4, 1e-4):
            moved = atoms.copy()
            moved.positions[atom, axis] += step
            moved.calc = script.StillingerWeber()
            ends.append(moved.get_potential_energy())
        assert forces[atom, axis] == pytest.approx(-(ends[1] - ends[0]) / 2e-4, abs=1e-6)


def test_every_kind_makes_sound_cells_and_a_seed_repeats_them(script: ModuleType, tmp_path: Path) -> None:
    kinds = [k for k in script.KINDS if not k.startswith("md")]
    for name in ("a.xyz", "b.xyz"):
        script.main(
            ["--count", *(f"{k}=3" for k in kinds), "--seed", "4", "--out", str(tmp_path / name), "--no-labels"]
        )
    structures, _ = read(tmp_path / "a.xyz")
    assert len(structures) == 3 * len(kinds)
    assert {s.config_type for s in structures} == set(kinds)
    sizes = {s.config_type: len(s.atoms) for s in structures}
    assert (sizes["vacancy"], sizes["interstitial"], sizes["sc"]) == (7, 9, 8)
    assert min(script.shortest(s.atoms) for s in structures) >= script.CLOSEST
    assert (tmp_path / "a.xyz").read_text() == (tmp_path / "b.xyz").read_text()


def test_cells_look_like_those_of_the_set(script: ModuleType) -> None:
    ours, _ = read(FOLDER / "train.xyz.xz")
    random = np.random.default_rng(1)
    for kind in ("eos", "diamond", "beta-tin", "sc", "lonsdaleite"):
        old = [s.atoms.get_volume() / len(s.atoms) for s in ours if s.config_type == kind]
        new = [a.get_volume() / len(a) for a in script.cells(kind, 8, random)]
        assert np.mean(new) == pytest.approx(np.mean(old), rel=0.08)


def test_dynamics_makes_frames_that_differ(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "WARM_UP", 60)
    monkeypatch.setattr(script, "BETWEEN", 40)
    frames = list(script.cells("md300", 2, np.random.default_rng(2)))
    assert len(frames) == 2
    assert np.abs(frames[1].positions - frames[0].positions).max() > 0.05
    assert 2.1 < script.shortest(frames[0]) < 2.4


def test_wrong_orders_end_with_a_sentence(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no kind 'eoss'"):
        script.main(["--count", "eoss=3", "--out", str(tmp_path / "a.xyz"), "--no-labels"])
    with pytest.raises(SystemExit, match="no KIND=N"):
        script.main(["--count", "eos", "--out", str(tmp_path / "a.xyz"), "--no-labels"])
    (tmp_path / "a.xyz").touch()
    with pytest.raises(SystemExit, match="there already"):
        script.main(["--count", "eos=1", "--out", str(tmp_path / "a.xyz"), "--no-labels"])


def test_gpaw_repeats_a_label_of_the_set(script: ModuleType) -> None:
    pytest.importorskip("gpaw", reason="GPAW is not installed")
    structures, _ = read(FOLDER / "train.xyz.xz")
    structure = next(s for s in structures if s.config_type == "eos")
    found = script.label(structure.atoms)
    assert found["REF_energy"] == pytest.approx(structure.energy, abs=1e-3)
    assert found["REF_stress"] == pytest.approx(structure.stress, abs=1e-4)


def test_the_code_of_the_page_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(FOLDER.parents[1])
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    blocks = [textwrap.dedent(block) for block in re.findall(r"```python\n(.*?)\n *```", page, flags=re.DOTALL)]
    assert len(blocks) == 2
    exec("\n".join(blocks), {})
    assert "energies and forces agree" in capsys.readouterr().out


def test_the_counts_of_the_page_are_those_of_the_files() -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    for kind, train, test in re.findall(r"^\| `([\w-]+)` \| (\d+) \+ (\d+) \|", page, flags=re.MULTILINE):
        for name, count in (("train", train), ("test", test)):
            structures, _ = read(FOLDER / f"{name}.xyz.xz")
            assert sum(s.config_type == kind for s in structures) == int(count)
