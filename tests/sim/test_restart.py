from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path

import ase
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.constraints import FixAtoms, FixBondLengths

import adatom.sim.record
from adatom.errors import CheckpointError, ConfigError
from adatom.sim.calculator import Calculator
from adatom.sim.md import MDConfig, MDRun, run
from adatom.sim.record import Files, Recorder, Thermo
from adatom.sim.skin import SkinList
from adatom.testing.untrained import untrained
from toy import toy_potential

CASES = {
    "nve": {"ensemble": "nve"},
    "langevin": {"ensemble": "nvt"},
    "bussi": {"ensemble": "nvt", "thermostat": "bussi"},
    "npt": {"ensemble": "npt", "barostat_every": 3, "barostat_ps": 0.1},
}


def crystal() -> ase.Atoms:
    return bulk("Cu", a=3.46, cubic=True)


def settings(case: str, steps: int) -> MDConfig:
    base = {"temperature_K": 400.0, "steps": steps, "log_every": 4, "trajectory_every": 5, "restart_every": 10}
    return MDConfig.parse(base | CASES[case])


def lines_without_times(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if json.loads(line)["kind"] == "step"]


def same(first: Path, second: Path, name: str) -> None:
    assert lines_without_times(first / f"{name}.jsonl") == lines_without_times(second / f"{name}.jsonl")
    assert (first / f"{name}.xyz").read_bytes() == (second / f"{name}.xyz").read_bytes()


@pytest.mark.parametrize("case", CASES)
def test_a_continued_run_is_bit_for_bit_the_run_that_never_stopped(case: str, tmp_path: Path) -> None:
    potential = toy_potential()
    whole = run(crystal(), potential, settings(case, 44), tmp_path / "whole", "md")
    run(crystal(), potential, settings(case, 24), tmp_path / "parts", "md")
    rest = run(crystal(), potential, settings(case, 44), tmp_path / "parts", "md", restart=True)
    assert rest.steps == 20
    assert np.array_equal(rest.atoms.positions, whole.atoms.positions)
    assert np.array_equal(rest.atoms.get_momenta(), whole.atoms.get_momenta())
    assert np.array_equal(rest.atoms.cell.array, whole.atoms.cell.array)
    same(tmp_path / "whole", tmp_path / "parts", "md")


def droplet() -> ase.Atoms:
    """Atoms that wander far: many lists are made, and edges beyond the cutoff come and go."""
    atoms = bulk("Si", a=5.6, cubic=True) * (2, 1, 1)
    atoms.set_pbc(False)
    atoms.set_cell(None)
    return atoms


@pytest.mark.parametrize("start", [droplet, lambda: bulk("Si", a=5.43, cubic=True)], ids=["open", "periodic"])
@pytest.mark.parametrize("case", ["nve", "langevin", "bussi"])
def test_a_run_can_be_cut_at_any_step_new_list_or_old(
    case: str, start: Callable[[], ase.Atoms], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network sums in another order when its list is another: only the same list gives the same last bit."""
    potential, builds, build = untrained("nemp", channels=8), [], SkinList._build
    monkeypatch.setattr(SkinList, "_build", lambda self, origin: builds.append(self.loose) or build(self, origin))
    hot = {"temperature_K": 3000.0, "timestep_fs": 4.0, "max_temperature_K": 1e9, "min_distance_margin": 0.1}

    def leg(steps: int, name: str, restart: bool = False) -> MDRun:
        config = MDConfig.parse(settings(case, steps).model_dump() | hot)
        return run(start(), potential, config, tmp_path, name, restart=restart)

    whole = leg(30, "whole")
    assert sum(builds) > 4
    for cut in (0, 1, 7, 8, 9, 10, 23, 29):
        leg(cut, "parts", restart=cut > 0)
    rest = leg(30, "parts", restart=True)
    assert np.array_equal(rest.atoms.positions, whole.atoms.positions)
    assert np.array_equal(rest.atoms.get_momenta(), whole.atoms.get_momenta())


def test_fixed_atoms_and_rigid_bonds_are_continued_to_the_last_bit(tmp_path: Path) -> None:
    atoms = molecule("CH3CH2OH")
    atoms.numbers[atoms.numbers == 6] = 14
    atoms.positions *= 1.3
    atoms.set_constraint([FixAtoms([0]), FixBondLengths([(2, 3)])])
    whole = run(atoms, toy_potential(), settings("langevin", 30), tmp_path, "whole")
    run(atoms, toy_potential(), settings("langevin", 13), tmp_path, "parts")
    rest = run(atoms, toy_potential(), settings("langevin", 30), tmp_path, "parts", restart=True)
    assert np.array_equal(rest.atoms.positions, whole.atoms.positions)


def test_a_restart_file_of_another_format_is_not_guessed_at(tmp_path: Path) -> None:
    run(crystal(), toy_potential(), settings("nve", 10), tmp_path)
    path = tmp_path / "nve.restart.npz"
    with np.load(path) as arrays:
        values = dict(arrays)
    values["meta"] = np.array(json.dumps(json.loads(str(values["meta"])) | {"format": 1}))
    np.savez(path, **values)
    with pytest.raises(CheckpointError, match="another format"):
        run(crystal(), toy_potential(), settings("nve", 20), tmp_path, restart=True)


def test_a_killed_run_goes_on_from_its_last_restart_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    potential = toy_potential()
    whole = run(crystal(), potential, settings("langevin", 44), tmp_path / "whole", "md")
    with monkeypatch.context() as patch:
        save = Recorder.save
        # after step 10 the restart file is never written again, as when the process dies at step 37
        patch.setattr(
            Recorder, "save", lambda self, state, *rest: save(self, state, *rest) if state.step <= 10 else None
        )
        run(crystal(), potential, settings("langevin", 37), tmp_path / "killed", "md")
    with (tmp_path / "killed" / "md.jsonl").open("a") as file:
        file.write('{"kind": "step", "st')  # cut in the middle of a line
    rest = run(crystal(), potential, settings("langevin", 44), tmp_path / "killed", "md", restart=True)
    assert rest.steps == 34
    assert np.array_equal(rest.atoms.positions, whole.atoms.positions)
    same(tmp_path / "whole", tmp_path / "killed", "md")


def test_an_interrupted_run_loses_no_step(tmp_path: Path) -> None:
    potential = toy_potential()
    whole = run(crystal(), potential, settings("langevin", 44), tmp_path / "whole", "md")

    def interrupt(step: int, thermo: Thermo) -> None:
        if step == 28:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(crystal(), potential, settings("langevin", 44), tmp_path / "cut", "md", progress=interrupt)
    last = json.loads((tmp_path / "cut" / "md.jsonl").read_text().splitlines()[-1])
    assert last["reason"] == "interrupted: KeyboardInterrupt"
    rest = run(crystal(), potential, settings("langevin", 44), tmp_path / "cut", "md", restart=True)
    assert rest.steps == 44 - 27
    assert np.array_equal(rest.atoms.positions, whole.atoms.positions)
    same(tmp_path / "whole", tmp_path / "cut", "md")


def test_a_finished_run_can_be_continued_with_nothing_left_to_do(tmp_path: Path) -> None:
    run(crystal(), toy_potential(), settings("nve", 12), tmp_path)
    again = run(crystal(), toy_potential(), settings("nve", 12), tmp_path, restart=True)
    assert again.steps == 0
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "nve.jsonl").read_text().splitlines()]
    assert kinds.count("end") == 1


def test_what_belongs_to_another_run_is_not_continued(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no run to continue"):
        run(crystal(), toy_potential(), settings("nve", 10), tmp_path, restart=True)
    run(crystal(), toy_potential(), settings("nve", 10), tmp_path)
    with pytest.raises(CheckpointError, match="other atoms"):
        run(crystal() * 2, toy_potential(), settings("nve", 20), tmp_path, restart=True)
    other = settings("nve", 20).model_copy(update={"timestep_fs": 2.0})
    with pytest.raises(CheckpointError, match="other settings") as caught:
        run(crystal(), toy_potential(), other, tmp_path, restart=True)
    assert (caught.value.wanted, caught.value.got) == ("timestep_fs = 1.0", "timestep_fs = 2.0")
    with pytest.raises(ConfigError, match="needs the folder"):
        run(crystal(), toy_potential(), settings("nve", 10), restart=True)


@pytest.mark.parametrize("damage", [b"", b"no archive", b"PK\x03\x04 cut short"])
def test_a_damaged_restart_file_is_said_to_be_damaged(damage: bytes, tmp_path: Path) -> None:
    run(crystal(), toy_potential(), settings("nve", 10), tmp_path)
    (tmp_path / "nve.restart.npz").write_bytes(damage)
    with pytest.raises(CheckpointError, match="damaged"):
        run(crystal(), toy_potential(), settings("nve", 20), tmp_path, restart=True)


def test_a_log_that_was_cut_is_noticed(tmp_path: Path) -> None:
    run(crystal(), toy_potential(), settings("nve", 10), tmp_path)
    (tmp_path / "nve.jsonl").write_text("")
    with pytest.raises(CheckpointError, match="was cut"):
        run(crystal(), toy_potential(), settings("nve", 20), tmp_path, restart=True)


def test_a_full_disk_leaves_the_last_restart_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(crystal(), toy_potential(), settings("nve", 10), tmp_path)
    before = (tmp_path / "nve.restart.npz").read_bytes()

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(adatom.sim.record, "write_atomically", full)
        with pytest.raises(CheckpointError, match="No space left"):
            run(crystal(), toy_potential(), settings("nve", 30), tmp_path, restart=True)
    assert (tmp_path / "nve.restart.npz").read_bytes() == before
    assert run(crystal(), toy_potential(), settings("nve", 30), tmp_path, restart=True).steps == 20


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_full_disk_under_log_or_trajectory_is_a_typed_error(tmp_path: Path) -> None:
    files = Files.of(tmp_path, "md")
    recorder = Recorder(files)
    recorder.files = Files(files.log, Path("/dev/full"), files.restart)
    atoms = crystal()
    atoms.calc = Calculator(toy_potential())
    with pytest.raises(CheckpointError, match="trajectory of the run could not be written"):
        recorder.frame(atoms, 0, 0.0)
    recorder.close()
    recorder = Recorder(Files.of(tmp_path, "other"))
    recorder._log.close()
    recorder._log = Path("/dev/full").open("a", encoding="utf-8")  # noqa: SIM115  (the recorder closes it)
    with pytest.raises(CheckpointError, match=r"log of the run could not be written[\s\S]*other\.jsonl"):
        recorder.line("step", {})
    with pytest.raises(CheckpointError, match="log of the run"):
        recorder.close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="files of the run cannot be made here"):
        run(crystal(), toy_potential(), settings("nve", 1), tmp_path / "file" / "md", "md")
