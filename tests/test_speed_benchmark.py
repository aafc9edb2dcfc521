"""The speed benchmark: systems in processes of their own take turns, and the page says what they found."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import ase
import ase.io
import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = ("accuracy", "outcome", "sets", "table", "speed", "speed_figures", "speed_page", "speed_runs", "speed_worker")

# a system that takes no time: writes each call into a file; "weak" dies when it runs, "lame" says why it cannot
FAKE = """
import argparse, os, sys, time
sys.path.insert(0, {systems!r})
from pathlib import Path
from speed_worker import System, serve

class Fake(System):
    packages = ("ase",)
    tasks = ("forces",)
    def __init__(self, name, options):
        self.name, self.calls = name, 0
        print("a library that talks")
    def prepare(self, atoms, elements, task):
        if self.name == "lame":
            raise ValueError("no such element")
        def call():
            self.calls += 1
            if self.name == "weak" and self.calls > 4:
                os._exit(3)
            with open({log!r}, "a") as file:
                file.write(f"{{self.name}} ")
            return 0.0 if self.name == "still" else 1.0
        return call
    def clock(self, call):
        force = call()
        return self.calls * 1e-3, force

serve({{name: lambda options, name=name: Fake(name, options) for name in ("a", "b", "weak", "lame", "still")}})
"""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Imports a script of the folder as it imports its neighbours: by its bare name."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "systems"))
    yield importlib.import_module
    for name in SCRIPTS:
        sys.modules.pop(name, None)


@pytest.fixture
def benchmark(script, tmp_path: Path) -> Iterator[SimpleNamespace]:
    """The driver with made-up systems at work on one structure."""
    driver = script("speed")
    log, fake = tmp_path / "log.txt", tmp_path / "fake.py"
    fake.write_text(FAKE.format(systems=str(ROOT / "benchmarks" / "systems"), log=str(log)))
    ase.io.write(tmp_path / "silicon64.xyz", ase.Atoms("Si2", [[0, 0, 0], [1.4, 1.4, 1.4]], cell=[5.0] * 3, pbc=True))
    (tmp_path / "elements.json").write_text(json.dumps({"silicon64": [14]}))
    options = argparse.Namespace(rounds=4, limit=60.0, memory=1000.0, device="cpu")
    running: list[Any] = []

    def run(*names: str, atoms: int = 2, task: str = "forces") -> dict[str, Any]:
        for name in names:
            if name not in [p.name for p in running]:
                place = driver.Script(str(fake), None)
                running.append(driver.Process.start(name, place, Path(sys.executable), tmp_path, "cpu"))
        asked = [p for p in running if p.name in names]
        return {r["system"]: r for r in driver.measure(asked, "silicon64", task, atoms, options)}

    yield SimpleNamespace(run=run, log=log, options=options, processes=running)
    for process in running:
        process.stop()


def test_systems_take_turns_and_the_least_counts(benchmark):
    found = benchmark.run("a", "b")
    assert benchmark.log.read_text().split() == 3 * ["a"] + 3 * ["b"] + 4 * ["a", "b"]
    assert found["a"]["seconds"] == pytest.approx(4e-3)  # the first of its calls that count
    assert found["a"]["median_seconds"] == pytest.approx(5.5e-3)
    assert found["a"]["us_per_atom"] == pytest.approx(2000.0)
    assert found["a"]["rounds"] == 4
    assert found["b"]["peak_MiB"] > 5


def test_a_system_that_dies_is_left_out_and_the_others_go_on(benchmark):
    found = benchmark.run("a", "weak", "b")
    assert found["a"]["rounds"] == found["b"]["rounds"] == 4
    assert "skipped" in found["weak"]
    assert benchmark.run("a", "weak").keys() == {"a"}


def test_a_system_says_why_it_cannot(benchmark):
    assert benchmark.run("lame", "a")["lame"]["skipped"] == "ValueError: no such element"
    assert benchmark.run("a", task="training")["a"]["skipped"] == "offers no training"


def test_forces_of_zero_are_not_timed(benchmark):
    assert "largest force is 0.0" in benchmark.run("still")["still"]["skipped"]


def test_what_would_take_too_long_or_too_much_is_not_tried(benchmark):
    benchmark.run("a")
    benchmark.options.limit = 1.0
    calls = len(benchmark.log.read_text().split())
    found = benchmark.run("a", atoms=20_000)
    assert found["a"]["skipped"].endswith("over 1 s a call")
    benchmark.options.limit, benchmark.options.memory = 1e9, 10.0
    benchmark.processes[0].known["silicon", "forces"] = (2, 4e-3, 6.0)
    assert benchmark.run("a", atoms=20_000)["a"]["skipped"] == "6 MiB for 2 atoms: over 10 MiB"
    assert len(benchmark.log.read_text().split()) == calls


def test_every_system_has_a_name_for_the_page(script):
    assert set(script("speed").known_systems()) <= set(script("speed_runs").TITLES)
    assert set(script("speed").STRUCTURES) == set(script("speed_runs").STRUCTURES)


def test_the_last_figure_counts_and_a_reason_does_not_replace_it(script):
    def run(device: str, **record: Any) -> dict[str, Any]:
        named = {"system": "nemp-S-default-eager", "structure": "water192", "task": "forces"}
        return {"machine": {"device": device}, "records": [named | record]}

    table = script("speed_runs").chosen(
        [run("cpu", seconds=1.0), run("cpu", seconds=2.0), run("cpu", skipped="too long"), run("cuda", seconds=3.0)]
    )
    assert [r["seconds"] for r in table.values()] == [2.0]


def test_ratios_are_taken_within_one_run(script):
    page = script("speed_page")

    def run(**seconds: float) -> dict[str, Any]:
        names = {"nemp": "nemp-S-default-compiled", "eager": "nemp-S-default-eager", "peer": "nequip-l2-eager"}
        return {"records": [
            {"system": names[k], "structure": "water192", "task": "forces", "seconds": v} for k, v in seconds.items()
        ]}  # fmt: skip

    wanted = ("nemp-S-default", "nequip-l2", "water192", "forces", 60)
    assert not list(page.ratios([run(nemp=1.0), run(peer=70.0)], *wanted))
    (line,) = page.ratios([run(nemp=1.0, eager=2.0, peer=70.0), run(nemp=1.0)], *wanted)
    assert "1/70;" in line
    assert line.endswith("Kept.")
    (line,) = page.ratios([run(nemp=1.0, eager=2.0, peer=70.0), run(nemp=2.0, peer=70.0)], *wanted)
    assert "1/35;" in line
    assert "Missed" in line


def test_the_page_is_what_the_runs_say(script):
    written = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    assert written == script("speed_page").page()


def test_every_run_says_what_ran_and_how_often(script):
    for run in script("speed_runs").runs():
        assert run["threads"] == 1
        assert run["load"]["mean"] <= run["load"]["largest"]
        for r in run["records"]:
            if "skipped" in r:
                assert r["skipped"]
                continue
            assert run["versions"][r["system"]]
            assert r["rounds"] >= (3 if r["seconds"] > 4.0 or "three" in run["note"] else 7)
            assert r["us_per_atom"] == pytest.approx(1e6 * r["seconds"] / r["atoms"])
