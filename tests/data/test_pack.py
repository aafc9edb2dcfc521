"""Packing goes on where it was stopped, to the same bytes, and refuses what it cannot pack."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import IO

import ase
import pytest
from ase.build import bulk
from typer.testing import CliRunner

from adatom.cli import app
from adatom.data import pack as packing
from adatom.data.labels import Keys
from adatom.data.pack import pack
from adatom.data.read import Units
from adatom.data.store import JOURNAL, Store
from adatom.errors import DataError, GeometryError, LabelError, StoreError
from data.packed import contents, flip, odd_structures, write


class PulledError(Exception):
    """Stands for the plug being pulled."""


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [write(tmp_path / f"{name}.xyz", odd_structures(n, n)) for name, n in (("a", 30), ("b", 1), ("c", 41))]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "SHARD_FRAMES", 8)


@pytest.mark.parametrize("after", range(1, 8))
def test_an_interrupted_pack_goes_on_to_the_same_bytes(files, tmp_path: Path, monkeypatch, after: int) -> None:
    pack(files, tmp_path / "whole")
    steps = []
    real = os.fsync

    def pulled(descriptor: int) -> None:
        steps.append(descriptor)
        if len(steps) == after * 9 - after % 3:  # in a shard, at its last array, at the line of the journal
            raise PulledError
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", pulled)
        with pytest.raises(PulledError):
            pack(files, tmp_path / "cut")
    with pytest.raises(StoreError, match="packing was interrupted") as caught:
        Store(tmp_path / "cut")
    assert "run the same" in str(caught.value)
    with (tmp_path / "cut" / JOURNAL).open("ab") as journal:
        journal.write(b'0123 {"half a li')  # as a crash may leave it
    pack(files, tmp_path / "cut")
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_pack_killed_at_any_time_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    source = write(tmp_path / "a.xyz", [bulk("Si", cubic=True) for _ in range(1500)])
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from adatom.data import pack
        pack.SHARD_FRAMES = 8
        pack.pack([Path(sys.argv[1])], Path(sys.argv[2]), tell=lambda done: print(done, flush=True))
    """)
    pack([source], tmp_path / "whole")
    killed = 0
    for _ in range(4):
        command = [sys.executable, "-c", script, str(source), str(tmp_path / "cut")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(3):
                process.stdout.readline()
            time.sleep(0.013 * killed)
            process.send_signal(signal.SIGKILL)
        killed += process.returncode == -signal.SIGKILL
    assert killed == 4
    assert (tmp_path / "cut" / JOURNAL).exists()
    pack([source], tmp_path / "cut")
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_packing_again_does_nothing_and_packing_something_else_lists_the_differences(files, tmp_path: Path) -> None:
    pack(files, tmp_path / "store")
    before = contents(tmp_path / "store")
    assert len(pack(files, tmp_path / "store")) == 72
    assert contents(tmp_path / "store") == before
    with pytest.raises(StoreError, match=r"units\.energy was eV, is Ry"):
        pack(files, tmp_path / "store", units=Units(energy="Ry"))
    with pytest.raises(StoreError, match="files: 3 before, 1 now"):
        pack(files[:1], tmp_path / "store")
    assert contents(tmp_path / "store") == before
    (tmp_path / "store" / "mine.txt").write_text("kept")
    assert len(pack(files[:1], tmp_path / "store", overwrite=True)) == 30
    assert (tmp_path / "store" / "mine.txt").exists()


def test_a_file_that_changed_between_two_attempts_is_an_error(files, tmp_path: Path) -> None:
    bad = write(tmp_path / "d.xyz", [ase.Atoms("H2", [(0, 0, 0), (0, 0, 0.01)])])
    with pytest.raises(GeometryError, match=r"d.xyz, frame 0"):
        pack([*files, bad], tmp_path / "store")
    write(bad, [ase.Atoms("H2", [(0, 0, 0), (0, 0, 0.8)])])
    with pytest.raises(StoreError, match=r"files\[3\]"):
        pack([*files, bad], tmp_path / "store")
    assert len(pack([*files, bad], tmp_path / "store", overwrite=True)) == 73


def test_an_unfinished_store_that_lost_bytes_is_an_error(files, tmp_path: Path) -> None:
    bad = write(tmp_path / "d.xyz", [ase.Atoms("H2", [(0, 0, 0), (0, 0, 0.01)])])
    with pytest.raises(GeometryError):
        pack([*files, bad], tmp_path / "store")
    (tmp_path / "store" / "rows.f8").write_bytes(b"")
    with pytest.raises(StoreError, match="lost a part"):
        pack([*files, bad], tmp_path / "store")


def test_a_line_of_the_journal_that_was_altered_is_packed_again(files, tmp_path: Path) -> None:
    pack(files, tmp_path / "whole")
    bad = tmp_path / "c.xyz"
    lines = bad.read_text().splitlines(keepends=True)
    bad.write_text("".join(lines[:-1]))  # the end is cut off
    with pytest.raises(DataError, match="the file ends in the middle of a frame"):
        pack(files, tmp_path / "store")
    flip(tmp_path / "store" / JOURNAL, (tmp_path / "store" / JOURNAL).stat().st_size - 40)
    with pytest.raises(DataError, match="the file ends in the middle of a frame"):
        pack(files, tmp_path / "store")


def test_folders_of_others_and_second_packers_are_refused(files, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("")
    with pytest.raises(StoreError, match="this folder holds something else"):
        pack(files, tmp_path / "thesis")
    with pytest.raises(DataError, match="no such data file"):
        pack([tmp_path / "none.xyz"], tmp_path / "new")
    with pytest.raises(DataError, match="no data files were given"):
        pack([], tmp_path / "new")
    assert not (tmp_path / "new").exists()

    def second(done: int) -> None:
        with pytest.raises(StoreError, match="another process packs into this folder"):
            pack(files, tmp_path / "store")

    pack(files, tmp_path / "store", tell=second)


@pytest.mark.parametrize("finished", [True, False])
def test_who_overwrites_takes_nothing_from_a_process_that_packs(files, tmp_path: Path, finished: bool) -> None:
    store = tmp_path / "store"
    if finished:
        pack(files[:1], store)
    told = []

    def second(done: int) -> None:
        before = contents(store)
        with pytest.raises(StoreError, match="another process packs into this folder"):
            pack(files[:1], store, overwrite=True)
        assert contents(store) == before
        told.append(done)

    assert len(pack(files, store, overwrite=finished, tell=second)) == 72
    assert told
    pack(files, tmp_path / "whole")
    assert contents(store) == contents(tmp_path / "whole")


def test_the_old_store_is_whole_until_the_new_one_is(files, tmp_path: Path) -> None:
    store = tmp_path / "store"
    pack(files, store)
    before = contents(store)
    bad = write(tmp_path / "d.xyz", [ase.Atoms("H2", [(0, 0, 0), (0, 0, 0.01)])])
    with pytest.raises(GeometryError):
        pack([*files[:1], bad], store, overwrite=True)
    assert {name: data for name, data in contents(store).items() if name in before} == before
    Store(store).verify()
    assert len(pack(files[1:], store, overwrite=True)) == 42
    assert contents(store).keys() == before.keys()
    pack(files[1:], tmp_path / "whole")
    assert contents(store) == contents(tmp_path / "whole")


@pytest.mark.parametrize("after", range(12))
def test_overwriting_that_is_killed_at_any_file_goes_on(files, tmp_path: Path, monkeypatch, after: int) -> None:
    store = tmp_path / "store"
    pack(files, store)
    moves, real = [], Path.replace

    def pulled(path: Path, target: Path) -> Path:
        moves.append(target)
        if len(moves) == after + 1:
            raise PulledError
        return real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", pulled)
        if after < 11:  # the index into place, nine files, the index once more
            with pytest.raises(PulledError):
                pack(files[:1], store, overwrite=True)
        else:
            pack(files[:1], store, overwrite=True)
    assert len(pack(files[:1], store, overwrite=after == 0)) == 30
    Store(store).verify()
    pack(files[:1], tmp_path / "whole")
    assert contents(store) == contents(tmp_path / "whole")


def test_a_store_that_was_finished_while_waiting_for_its_lock_is_returned(files, tmp_path: Path, monkeypatch) -> None:
    store, real = tmp_path / "store", packing.fcntl.flock

    def late(journal: IO[bytes], how: int) -> None:
        monkeypatch.setattr(packing.fcntl, "flock", real)
        pack(files, store)  # by another process
        real(journal, how)

    monkeypatch.setattr(packing.fcntl, "flock", late)
    assert len(pack(files, store)) == 72
    assert not (store / JOURNAL).exists()


def test_a_key_that_no_frame_has_is_an_error(files, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="no frame has the field 'enrgy'"):
        pack(files, tmp_path / "store", keys=Keys(energy="enrgy"))


def test_the_verb_packs_and_verifies(files, tmp_path: Path) -> None:
    run = CliRunner().invoke
    done = run(app, ["data", "pack", *map(str, files), "-o", str(tmp_path / "store"), "--units", "energy=meV"])
    assert done.exit_code == 0, done.output
    assert "72 structures" in done.output
    checked = run(app, ["data", "pack", "--verify", str(tmp_path / "store")])
    assert "all as packed" in checked.output
    flip(tmp_path / "store" / "rows.f8", 99)
    with pytest.raises(StoreError, match="shard 0 of 9"):
        run(app, ["data", "pack", "--verify", str(tmp_path / "store")], catch_exceptions=False)
