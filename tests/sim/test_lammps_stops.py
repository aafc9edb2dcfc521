"""What makes LAMMPS stop: figures that are no numbers, memory, signals, and scripts that would go wrong in silence."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from adatom import model_file
from adatom.cli import main
from adatom.errors import ChargeError, ConfigError, MemoryLimitError, SimulationError, UnknownElementError
from adatom.graph import Graph, Results
from adatom.potential import Potential
from adatom.sim.lammps import domain
from adatom.sim.lammps.drive import Interrupted, Progress, run
from adatom.sim.lammps.library import LammpsError
from adatom.testing.untrained import untrained
from lammps_cases import script, structures, thermo, write_data
from toy import toy_potential

STYLE = "pair_style adatom\npair_coeff * * Cu\n"
MOVE = "velocity all create 300 7\nfix move all nve\nthermo 1\n"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_data(structures()["cubic"][0], Path("cu.data"), ("Cu",))
    write_data(structures()["two species"][0], Path("sio.data"), ("Si", "O"))


def go(body: str, potential: Potential | None = None, data: str = "cu.data", **settings: object) -> None:
    Path("in.lmp").write_text(script(Path(data), "p p p", body))
    run("in.lmp", potential or toy_potential(), **settings)


class After:
    """Forces of a toy until so many were asked for, then something else."""

    def __init__(self, good: int, then: Exception | None = None) -> None:
        self.left, self.then, self.calls = good, then, 0

    def __call__(self, potential: Potential, graph: Graph, stress: bool) -> Results:
        self.calls += 1
        self.left -= 1
        if self.left >= 0:
            return potential.eager(graph, stress=stress)
        if self.then is not None:
            raise self.then
        found = potential.eager(graph, stress=stress)
        return found._replace(forces=found.forces.index_fill(0, torch.tensor([3]), torch.nan))


def broken(good: int, then: Exception | None = None) -> tuple[Potential, After]:
    potential = toy_potential()
    potential.runner = After(good, then)
    return potential, potential.runner


@pytest.mark.parametrize("good", [0, 1, 4])
@pytest.mark.parametrize("command", ["run 10", "minimize 0 0 20 100"])
def test_a_bad_number_stops_the_run_at_once_and_nothing_is_written_from_then_on(command: str, good: int) -> None:
    potential, after = broken(good)
    body = f"{MOVE}restart 1 state.*\ndump all all custom 1 all.dump id x y z\n{command}\nprint 'went on'"
    with pytest.raises(SimulationError, match="no number") as error:
        go(STYLE + body, potential)
    assert f"in.lmp, line 14: {command}; step" in str(error.value.where)
    assert error.value.got is not None
    assert "forces on 1 atoms" in error.value.got
    assert after.calls == good + 1  # not asked again
    log = Path("log.lammps").read_text()
    assert "went on" not in log.split(command)[1]
    assert len(thermo(Path("log.lammps"))) <= good
    frames = Path("all.dump").read_text() if Path("all.dump").exists() else ""
    assert frames.count("TIMESTEP") <= good
    assert "nan" not in frames.lower() + log.lower()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), MemoryLimitError),
        (MemoryError(), MemoryLimitError),
        (ZeroDivisionError("something that nobody thought of"), ZeroDivisionError),
    ],
)
def test_an_error_within_the_potential_stops_the_run_and_is_raised(error: Exception, kind: type[Exception]) -> None:
    potential, after = broken(3, error)
    with pytest.raises(kind):
        go(STYLE + MOVE + "run 10", potential)
    assert after.calls == 4


def test_words_of_lammps_come_with_the_line_of_the_script() -> None:
    with pytest.raises(LammpsError, match="Unrecognized fix style") as error:
        go(STYLE + "fix 1 all nvee\nrun 1")
    assert error.value.where == "in.lmp, line 9"
    assert error.value.got == "fix 1 all nvee"
    with pytest.raises(LammpsError, match=r"Cannot open file nowhere\.data"):
        go(STYLE, data="nowhere.data")


@pytest.mark.parametrize(
    ("body", "data", "kind", "said"),
    [
        ("pair_style adatom\npair_coeff * * Si\nrun 0", "sio.data", ConfigError, "the type map does not fit"),
        ("pair_style adatom\npair_coeff * * O Si\nrun 0", "sio.data", ConfigError, "does not fit the masses"),
        ("pair_style adatom\npair_coeff * * Si Xx\nrun 0", "sio.data", ConfigError, "'Xx' is no element"),
        (
            "pair_style adatom\npair_coeff * * Si N\nmass 2 14.007\nrun 0",
            "sio.data",
            UnknownElementError,
            "does not know N",
        ),
        ("pair_style adatom\npair_coeff * * Si NULL\nrun 0", "sio.data", ConfigError, "one of all atoms"),
        ("pair_style adatom\npair_coeff 1 1 Si\nrun 0", "sio.data", ConfigError, "one of all atoms"),
        ("mass 2 14.007\nrun 0", "sio.data", ConfigError, "no element of this potential has the mass of type 2"),
        ("pair_style lj/cut 4.0\npair_coeff * * 0.1 2.0\nrun 0", "cu.data", ConfigError, "a pair style of its own"),
        ("pair_style hybrid adatom lj/cut 4.0\nrun 0", "cu.data", ConfigError, "cannot be read"),
        (STYLE + "unfix adatom\nrun 0", "cu.data", ConfigError, "has removed the potential"),
        (STYLE + "run_style respa 2 2\nrun 0", "cu.data", ConfigError, "r-RESPA"),
        (STYLE + "compute j all heat/flux a b c\n", "cu.data", ConfigError, "heat flux"),
        (STYLE + "compute s all stress/atom NULL\n", "cu.data", ConfigError, "no virials of single atoms"),
        ("quit 3", "cu.data", ConfigError, "ended itself with an exit code"),
    ],
)
def test_what_would_go_wrong_in_silence_is_an_error(body: str, data: str, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        go(body, data=data)


def test_units_other_than_metal_and_two_dimensions_are_refused() -> None:
    Path("real.lmp").write_text("units real\nread_data cu.data\n")
    with pytest.raises(ConfigError, match="metal units") as error:
        run("real.lmp", toy_potential())
    assert error.value.where == "real.lmp, line 2"
    Path("flat.lmp").write_text("units metal\ndimension 2\nregion b block 0 9 0 9 -0.5 0.5\ncreate_box 1 b\n")
    with pytest.raises(ConfigError, match="two dimensions"):
        run("flat.lmp", toy_potential())


def test_a_model_that_asks_for_charge_and_multiplicity_is_given_them_or_refuses() -> None:
    potential = untrained("allscaip", elements=(14, 29), cutoff=4.0).eval()
    with pytest.raises(ChargeError):
        go(STYLE + "run 0", potential)
    go(STYLE + "run 0", potential, charge=0.0, multiplicity=1.0)


def test_elements_are_taken_from_the_masses_or_from_outside() -> None:
    go("run 0", data="sio.data")
    go("run 0", data="sio.data", elements=("Si", "O"))
    with pytest.raises(ConfigError, match="two type maps that differ"):
        go("pair_style adatom\npair_coeff * * Si O\nrun 0", data="sio.data", elements=("O", "Si"))


def test_ctrl_c_ends_a_run_after_the_step_in_hand_and_leaves_a_restart_file() -> None:
    def press(progress: Progress) -> None:
        if progress.step == 0:
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)  # a shell's background jobs ignore it
    with pytest.raises(Interrupted) as stop:
        go(STYLE + MOVE + "run 100000\nprint 'went on'", progress=press)
    assert stop.value.restart == Path("in.interrupted.restart")
    assert stop.value.step < 10
    Path("more.lmp").write_text(f"read_restart {stop.value.restart}\nfix move all nve\nrun 3\n")
    assert run("more.lmp", toy_potential()).step == stop.value.step + 3
    assert signal.getsignal(signal.SIGINT) is before


def test_the_command_ends_with_a_code_of_its_own_and_says_how_to_go_on() -> None:
    model_file.save(untrained("nemp", elements=(29,), cutoff=4.0), "cu.adatom")
    Path("in.lmp").write_text(script(Path("cu.data"), "p p p", MOVE + "run 1000000"))
    command = [sys.executable, "-c", "from adatom.cli import main; main()", "lammps", "in.lmp", "cu.adatom"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    log, deadline = Path("log.lammps"), time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
        if log.exists() and "Per MPI rank" in log.read_text():
            break
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "read_restart in.interrupted.restart" in said
    assert "PotEng" in said  # what LAMMPS prints is shown
    assert "Traceback" not in said
    assert Path("in.interrupted.restart").exists()


def test_a_script_that_never_asks_the_model_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model_file.save(untrained("nemp", elements=(29,), cutoff=4.0), "cu.adatom")
    Path("in.lmp").write_text("# nothing\n")
    monkeypatch.setattr(sys, "argv", ["adatom", "lammps", "in.lmp", "cu.adatom"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    said = capsys.readouterr()
    assert "without asking the model" in said.err
    assert "µs" not in said.out


def test_patience_with_uncompiled_code_is_counted_in_time_of_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    wall, busy, said = 0.0, 0.0, []

    def step(module: nn.Module, seconds: float) -> float:
        nonlocal wall, busy
        wall, busy = wall + 10.0, busy + seconds  # nine tenths of it others had the processor
        return seconds

    monkeypatch.setattr(domain.time, "monotonic", lambda: wall)
    monkeypatch.setattr(domain.time, "process_time", lambda: busy)
    monkeypatch.setattr(domain, "Checked", lambda function, device: function)
    patient = domain.Patient(step, "cpu", 2.5, lambda: said.append(busy))
    for _ in range(5):
        patient(nn.Identity(), 1.0)
    assert said == [3.0], "said once, when three seconds are spent"
    many = domain.Patient(step, "cpu", 25.0, lambda: said.append(wall))
    for _ in range(2):
        many(nn.Identity(), 40.0)  # four threads
    assert many.patience == 5.0


def test_the_command_prints_the_error_and_the_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model_file.save(untrained("nemp", elements=(29,), cutoff=4.0), "cu.adatom")
    Path("in.lmp").write_text(script(Path("cu.data"), "p p p", "fix 1 all nvee\n"))
    monkeypatch.setattr(sys, "argv", ["adatom", "lammps", "in.lmp", "cu.adatom", "--elements", "Cu", "--var", "T=300"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert "LammpsError" in said
    assert "in.lmp, line 7" in said
