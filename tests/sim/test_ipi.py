"""i-PI: what its servers are told, path integrals with the real program, and errors that stop."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator as AseCalculator
from ase.calculators.calculator import all_changes
from ase.calculators.socketio import SocketIOCalculator

from adatom.cli import main
from adatom.errors import CheckpointError, ConfigError, SimulationError, UnknownElementError
from adatom.model_file import save
from adatom.models import MODELS
from adatom.sim import ipi
from adatom.sim.calculator import Calculator
from adatom.sim.ipi import Server, serve
from adatom.units import BOLTZMANN
from toy import Toy, toy_potential

pytest.importorskip("ipi")
from adatom.sim.pimd import PathIntegralConfig, path_integral, placed

POTENTIAL = toy_potential()
Command = Callable[..., tuple[int, str]]


class Client(threading.Thread):
    """Our client beside a server in this process; its error is kept."""

    def __init__(self, atoms: ase.Atoms, server: Server) -> None:
        super().__init__(daemon=True)
        self.atoms, self.server = atoms, server
        self.error: BaseException | None = None
        self.count = -1

    def run(self) -> None:
        try:
            self.count = serve(POTENTIAL, self.atoms, self.server)
        except BaseException as error:
            self.error = error


@contextmanager
def ase_server(atoms: ase.Atoms, inet: bool = False) -> Iterator[tuple[SocketIOCalculator, Client]]:
    """ASE's server of the same protocol, and our client."""
    name = f"adatom_{uuid.uuid4().hex[:8]}"
    if inet:
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        server, calculator = Server(port=port), {"port": port}
    else:
        server, calculator = Server(name), {"unixsocket": name}
    client = Client(atoms, server)
    client.start()
    with SocketIOCalculator(**calculator, timeout=20) as calc:
        yield calc, client
    client.join(20)


def sheared() -> ase.Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.set_cell(atoms.cell.array @ [[1, 0.1, 0], [0.05, 1, 0.02], [0, -0.08, 1]], scale_atoms=True)
    atoms.rattle(0.05)
    return atoms


@pytest.mark.parametrize("inet", [False, True])
def test_another_server_of_the_protocol_gets_energy_forces_and_stress_of_ase(inet: bool) -> None:
    atoms = sheared()
    own = atoms.copy()
    own.calc = Calculator(POTENTIAL)
    with ase_server(atoms, inet) as (calc, client):
        moving = atoms.copy()
        moving.calc = calc
        for _ in range(2):
            assert moving.get_potential_energy() == pytest.approx(own.get_potential_energy(), abs=1e-9)
            np.testing.assert_allclose(moving.get_forces(), own.get_forces(), atol=1e-9)
            np.testing.assert_allclose(moving.get_stress(), own.get_stress(), atol=1e-9)
            for each in (moving, own):
                each.positions[0] += 0.1
                each.set_cell(each.cell.array * 1.01)
    assert client.error is None
    assert client.count == 2


def test_an_open_molecule_that_the_server_folds_into_its_box_stays_whole() -> None:
    atoms = molecule("H2O")
    atoms.positions += [0.0, 0.4, 0.3]
    own = atoms.copy()
    own.calc = Calculator(POTENTIAL)
    with ase_server(atoms) as (calc, _):
        folded = atoms.copy()
        folded.set_cell(np.eye(3) * 12.0)
        for _ in range(5):  # wanders through the wall of the box
            own.positions -= 0.25
            folded.positions = own.positions % 12.0
            folded.calc = calc
            assert folded.get_potential_energy() == pytest.approx(own.get_potential_energy(), abs=1e-9)
            np.testing.assert_allclose(folded.get_forces(), own.get_forces(), atol=1e-9)


def test_another_number_of_atoms_is_named_by_the_client() -> None:
    with ase_server(sheared()[:3]) as (calc, client):
        moving = sheared()
        moving.calc = calc
        with pytest.raises(OSError):
            moving.get_potential_energy()
    assert isinstance(client.error, ConfigError)
    assert "another number of atoms" in str(client.error)


def test_no_server_is_said_after_some_patience() -> None:
    with pytest.raises(ConfigError, match="no i-PI server") as caught:
        serve(POTENTIAL, sheared(), Server("nobody"), patience=0.2)
    assert "/tmp/ipi_nobody" in str(caught.value)
    with pytest.raises(UnknownElementError):
        serve(POTENTIAL, ase.Atoms("Au"), Server("nobody"))


def talk(*messages: bytes) -> BaseException | None:
    """What a client says of a server that sends these bytes and goes."""
    here, there = socket.socketpair()
    with here, there:
        here.sendall(b"".join(messages))
        here.shutdown(socket.SHUT_WR)
        client = ipi.Client(there, Calculator(POTENTIAL), sheared(), Server("test"))
        try:
            while client.answer():
                pass
        except SimulationError as error:
            return error
        return None


def test_a_broken_conversation_is_an_error_and_a_closed_one_is_not() -> None:
    status, exit_ = b"STATUS".ljust(12), b"EXIT".ljust(12)
    assert talk(status, status) is None
    assert talk(status, exit_) is None
    assert "middle of a message" in str(talk(status, b"POSDATA".ljust(12), b"\0" * 40))
    assert "middle of a message" in str(talk(b"STA"))
    assert "no place here" in str(talk(b"GETFORCE".ljust(12)))
    assert "no place here" in str(talk(b"NONSENSE".ljust(12)))


def waters() -> ase.Atoms:
    """Two water molecules in a box."""
    one, two = molecule("H2O"), molecule("H2O")
    two.positions += [0.3, 0.2, 2.9]
    atoms = one + two
    atoms.set_cell([[7.0, 0, 0], [1.0, 7.5, 0], [0.5, -0.4, 8.0]])
    atoms.pbc = True
    atoms.rotate(30, (1, 2, 3), rotate_cell=True)
    return atoms


SHORT = PathIntegralConfig(beads=4, steps=12, log_every=2, temperature_K=300.0, timestep_fs=0.25, restart_every=5)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs") / "pimd"


def test_rings_of_beads_run_in_i_pi_and_conserve_what_they_should(run_folder: Path) -> None:
    steps: list[int] = []
    result = path_integral(waters(), POTENTIAL, SHORT, run_folder, progress=steps.append)
    assert result.finished
    assert result.evaluations == 1 + 4 * 12  # all beads start on one spot
    assert steps == list(range(13))
    np.testing.assert_allclose(result.time_ps, np.arange(0, 13, 2) * 0.25e-3)
    assert result.counts == {"H": 4, "O": 2}
    # beads that got the forces of others would not conserve anything
    assert np.ptp(result.conserved_eV) < 0.02 * np.ptp(result.potential_eV)
    np.testing.assert_allclose(sum(result.kinetic_by_element_eV.values()), result.kinetic_eV, rtol=1e-6)
    # six free nuclei of 3/2 kT each, and more where they are bound
    assert 6 * 1.5 * BOLTZMANN * 300 * 0.8 < result.kinetic_eV[-1] < 2.0
    start = waters()
    start.calc = Calculator(POTENTIAL)
    assert result.potential_eV[0] == pytest.approx(start.get_potential_energy(), abs=1e-4)  # all beads on one spot


def test_a_run_goes_on_as_if_it_had_never_stopped(run_folder: Path, tmp_path: Path) -> None:
    longer = SHORT.model_copy(update={"steps": 16})
    result = path_integral(waters(), POTENTIAL, longer, run_folder, restart=True)
    whole = path_integral(waters(), POTENTIAL, longer, tmp_path / "whole")
    assert result.time_ps[-1] == pytest.approx(whole.time_ps[-1])
    assert result.potential_eV[-1] == pytest.approx(whole.potential_eV[-1], abs=1e-5)
    with pytest.raises(ConfigError, match="holds a run already"):
        path_integral(waters(), POTENTIAL, SHORT, run_folder)
    with pytest.raises(CheckpointError, match="no run to go on with"):
        path_integral(waters(), POTENTIAL, SHORT, tmp_path / "nothing", restart=True)


def test_ctrl_c_ends_a_run_after_its_step_and_it_can_go_on(tmp_path: Path) -> None:
    def press(step: int) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)  # a shell's background jobs ignore it
    long = SHORT.model_copy(update={"steps": 100_000, "log_every": 1})
    result = path_integral(waters(), POTENTIAL, long, tmp_path, progress=press)
    assert not result.finished
    done = len(result.time_ps)
    assert 3 < done < 10_000
    more = path_integral(waters(), POTENTIAL, long.model_copy(update={"steps": done + 3}), tmp_path, restart=True)
    np.testing.assert_allclose(np.diff(more.time_ps), 0.25e-3, rtol=1e-5)
    assert signal.getsignal(signal.SIGINT) is before


def test_other_settings_are_not_passed_over_when_a_run_goes_on(run_folder: Path) -> None:
    """i-PI would go on with those of its restart file, and say nothing."""
    for change in ({"temperature_K": 500.0}, {"beads": 8}, {"timestep_fs": 0.5}):
        other = SHORT.model_copy(update={"steps": 20, **change})
        with pytest.raises(CheckpointError, match="other atoms or settings") as caught:
            path_integral(waters(), POTENTIAL, other, run_folder, restart=True)
        assert next(iter(change)) in str(caught.value.got)
    with pytest.raises(CheckpointError, match="other atoms"):
        path_integral(molecule("H2O"), POTENTIAL, SHORT, run_folder, restart=True)


def test_a_run_that_was_killed_goes_on_from_its_checkpoint_and_no_step_is_there_twice(tmp_path: Path) -> None:
    """A crash of the machine leaves no RESTART, and lines that are later than the last checkpoint."""
    config = SHORT.model_copy(update={"log_every": 1, "trajectory_every": 2})
    path_integral(waters(), POTENTIAL, config, tmp_path)
    (tmp_path / "RESTART").unlink()
    longer = config.model_copy(update={"steps": 14})
    result = path_integral(waters(), POTENTIAL, longer, tmp_path, restart=True)
    np.testing.assert_allclose(result.time_ps, np.arange(15) * 0.25e-3, rtol=1e-6)
    frames = (tmp_path / "pimd.centroid.xyz").read_text().split("Step:")[1:]
    assert [int(frame.split()[0]) for frame in frames] == list(range(0, 15, 2))


class Failing(AseCalculator):  # type: ignore[misc]
    """Gives no number after some geometries."""

    implemented_properties = ("energy", "forces", "stress")
    left = 9

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:  # type: ignore[no-untyped-def]
        super().calculate(atoms, properties, system_changes)
        self.left -= 1
        value = 0.0 if self.left > 0 else np.nan
        self.results = {"energy": value, "forces": np.zeros((len(self.atoms), 3)), "stress": np.zeros(6)}


def test_a_figure_that_is_no_number_stops_client_and_server(tmp_path: Path) -> None:
    with pytest.raises(SimulationError, match="gives no number") as caught:
        path_integral(waters(), Failing(), SHORT, tmp_path)
    assert "H4O2" in str(caught.value)
    assert "Restartable as is: YES" in (tmp_path / "ipi.log").read_text()
    assert (tmp_path / "RESTART").exists()


def test_a_server_that_does_not_start_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = SHORT.model_copy(update={"thermostat": "pile_x"})
    with pytest.raises(SimulationError, match="stopped on its own") as caught:
        path_integral(waters(), POTENTIAL, broken, tmp_path)
    assert "pile_x" in (tmp_path / "ipi.log").read_text()
    assert "exit code" in str(caught.value)


def test_i_pi_that_is_not_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(ConfigError, match="not installed"):
        path_integral(waters(), POTENTIAL, SHORT, tmp_path)


def test_a_cell_is_turned_as_i_pi_wants_it_and_distances_stay() -> None:
    atoms = waters()
    cell, positions = placed(atoms)
    np.testing.assert_allclose(cell, np.tril(cell), atol=1e-12)
    turned = ase.Atoms(atoms.numbers, positions, cell=cell, pbc=True)
    np.testing.assert_allclose(turned.get_all_distances(mic=True), atoms.get_all_distances(mic=True), atol=1e-9)
    with pytest.raises(ConfigError, match="cell with a volume"):
        placed(ase.Atoms("Cu", cell=[3, 3, 0], pbc=(True, True, False)))


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """adatom in a folder that holds toy.adatom and start.xyz: exit code and all that it says."""
    monkeypatch.setitem(MODELS, "toy", Toy)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    save(POTENTIAL, tmp_path / "toy.adatom")
    ase.io.write(tmp_path / "start.xyz", waters())

    def run(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["adatom", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def test_adatom_pimd_prints_the_kinetic_energy_of_each_element(command: Command, tmp_path: Path) -> None:
    code, said = command(
        "pimd", "toy.adatom", "start.xyz", "--beads", 2, "--steps", 10, "--log-every", 1, "--json", "out.json"
    )
    assert code == 0, said
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["kinetic_meV_per_atom"]["H"]["value"] > 30
    assert record["classical_kinetic_meV_per_atom"] == pytest.approx(38.78, abs=0.01)
    assert "too short" in said or "error" in said
    assert f"{record['kinetic_meV_per_atom']['O']['value']:.1f}" in said


def test_adatom_ipi_answers_a_server_until_it_goes(command: Command) -> None:
    name = f"adatom_{uuid.uuid4().hex[:8]}"
    wanted = waters()
    wanted.calc = Calculator(POTENTIAL)
    found: list[float] = []

    def ask() -> None:
        moving = waters()
        with SocketIOCalculator(unixsocket=name, timeout=60) as moving.calc:
            found.append(moving.get_potential_energy())

    server = threading.Thread(target=ask, daemon=True)
    server.start()
    code, said = command("ipi", "toy.adatom", "start.xyz", "--socket", name)
    server.join(20)
    assert code == 0, said
    assert "goodbye after 1 geometries" in said
    assert found[0] == pytest.approx(wanted.get_potential_energy(), abs=1e-6)
    for words in ((), ("--socket", "a", "--address", "b")):
        code, said = command("ipi", "toy.adatom", "start.xyz", *words)
        assert code == 1
        assert "--socket NAME" in said


def test_adatom_pimd_says_by_its_exit_code_that_it_was_stopped_and_goes_on(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["pimd", "toy.adatom", "start.xyz", "--beads", 2, "--log-every", 1, "--json", "out.json"]

    def pressed(*arguments: object, **settings: object) -> object:
        return replace(path_integral(*arguments, **settings), finished=False)  # type: ignore[arg-type]

    with monkeypatch.context() as stopping:
        stopping.setattr("adatom.sim.pimd.path_integral", pressed)
        code, said = command(*words, "--steps", 4)
    assert code == 130
    assert "--restart goes on" in said
    code, said = command(*words, "--steps", 8, "--restart")
    assert code == 0, said
    record = json.loads((tmp_path / "out.json").read_text())
    assert (record["model"], record["formula"]) == ("toy.adatom", "H2O")
    assert record["time_ps"] == pytest.approx(8 * 0.5e-3)
    assert command(*words, "--equilibration", 1.5)[0] == 1
