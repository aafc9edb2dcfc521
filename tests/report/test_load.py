"""Files of a run folder: what may be missing or cut short, and what is an error that names the file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from adatom.errors import DataError
from adatom.report.load import load_run
from adatom.report.record import Record, read_lines
from report.fake_run import predictions, write


def test_a_record_gives_typed_values_and_none_for_what_is_missing() -> None:
    record = Record({"a": 1, "b": "x", "c": float("nan"), "d": [1, None], "e": {"f": 2}, "g": True, "h": float("inf")})
    assert record.real("a") == 1.0
    assert record.whole("a") == 1
    assert (record.real("c"), record.real("z"), record.real("g"), record.real("h")) == (None, None, None, None)
    assert record.extended("h") == float("inf")
    assert record.text("b") == "x"
    assert record.text("z", "none") == "none"
    assert record.flag("g") is True
    np.testing.assert_array_equal(record.reals("d"), [1.0, np.nan])
    assert record.record("e").real("f") == 2.0
    assert record.record("z").values == {}
    assert record.numbers() == {"a": 1.0}


@pytest.mark.parametrize(
    ("ask", "wanted"),
    [
        (lambda r: r.real("text"), "a number"),
        (lambda r: r.text("list"), "a text"),
        (lambda r: r.flag("text"), "true or false"),
        (lambda r: r.record("text"), "an object"),
        (lambda r: r.records("list"), "a list of objects"),
        (lambda r: r.reals("text"), "a list of numbers"),
        (lambda r: r.reals("table"), "a list of numbers"),
    ],
)
def test_a_value_of_the_wrong_kind_names_file_and_key(ask, wanted: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError) as error:
        ask(Record({"text": "x" * 200, "list": [1], "table": [[1], [2]]}, "metrics.json"))
    assert error.value.where == "metrics.json"
    assert error.value.wanted == wanted
    assert error.value.got is not None
    assert len(error.value.got) <= 80


def test_a_last_line_cut_short_is_left_out_but_a_broken_one_before_it_is_an_error(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"kind": "step", "step": 1}\n\n{"kind": "st')
    assert [line.whole("step") for line in read_lines(log)] == [1]
    log.write_text('{"kind": "step"\n{"kind": "step", "step": 1}\n')
    with pytest.raises(DataError, match="line 1"):
        read_lines(log)
    log.write_text("[1]\n")
    with pytest.raises(DataError, match="line 1: list"):
        read_lines(log)


def test_a_resumed_run_replaces_the_steps_it_repeats(tmp_path: Path) -> None:
    def lines(*steps: tuple[str, int, float]) -> str:
        return "".join(json.dumps({"kind": k, "step": s, "loss": v}) + "\n" for k, s, v in steps)

    first = lines(("step", 1, 9.0), ("step", 2, 8.0), ("valid", 2, 7.0), ("step", 3, 6.0))
    second = lines(("step", 2, 5.0), ("valid", 2, 4.0), ("step", 3, 3.0))
    (tmp_path / "log.jsonl").write_text(first + '{"kind": "start"}\n' + second)
    history = load_run(tmp_path).history
    assert history is not None
    np.testing.assert_array_equal(history.steps["step"], [1, 2, 3])
    np.testing.assert_array_equal(history.steps["loss"], [9, 5, 3])
    np.testing.assert_array_equal(history.valid["loss"], [4])


def test_the_fake_run_is_read_whole(tmp_path: Path) -> None:
    run = load_run(write(tmp_path / "silicon"))
    assert run.name == "silicon"
    assert [p.split for p in run.predictions] == ["test", "validation"]
    assert [curve.label for curve in run.curves] == ["model", "DFT (PBE)"]
    assert [t.name for t in run.trajectories] == ["nve", "nvt"]
    assert run.trajectories[0].columns["time_ps"].shape == run.trajectories[0].columns["total_eV"].shape == (500,)
    assert run.data is not None
    assert run.data.splits == {"train": 239, "valid": 24, "test": 56}
    assert run.predictions[0].owner.shape == (445,)


@pytest.mark.parametrize("name", ["metrics.json", "data.json", "eos.json", "verify.json", "speed.json", "card.json"])
def test_a_broken_json_file_is_named(name: str, tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / name).write_text('{"a": ')
    with pytest.raises(DataError) as error:
        load_run(folder)
    assert error.value.where == str(folder / name)
    assert error.value.remedy is not None


def test_predictions_of_the_wrong_shape_a_missing_array_and_a_pickle_are_refused(tmp_path: Path) -> None:
    arrays = predictions(np.random.default_rng(0))
    path = tmp_path / "predictions.npz"
    np.savez(path, **(arrays | {"forces": arrays["forces"][:-1]}))
    with pytest.raises(DataError, match=r"'forces' of shape \(445, 3\)(?s:.*)shape \(444, 3\)"):
        load_run(tmp_path)
    np.savez(path, **{key: value for key, value in arrays.items() if key != "stress"})
    with pytest.raises(DataError, match="an array 'stress'"):
        load_run(tmp_path)
    np.savez(path, **(arrays | {"names": arrays["names"].astype(object)}))
    with pytest.raises(DataError, match="plain arrays"):
        load_run(tmp_path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match="cannot be read"):
        load_run(tmp_path)


def test_volumes_and_energies_that_do_not_pair_up_are_refused(tmp_path: Path) -> None:
    (tmp_path / "eos.json").write_text('{"volume_A3_per_atom": [1, 2], "energy_eV_per_atom": [1]}')
    with pytest.raises(DataError, match="2 volumes, 1 energies"):
        load_run(tmp_path)


def test_a_restarted_simulation_replaces_the_steps_it_repeats(tmp_path: Path) -> None:
    folder = write(tmp_path, only={"md"})
    log = folder / "md" / "nve.jsonl"
    again = {"kind": "step", "step": 8, "time_ps": 0.008, "temperature_K": 1.0}
    log.write_text(log.read_text() + json.dumps(again) + "\n")
    run = load_run(folder).trajectories[0]
    assert run.columns["temperature_K"].shape == (500,)
    assert run.columns["temperature_K"][2] == 1.0


def test_a_curve_is_read_by_rising_volume(tmp_path: Path) -> None:
    (tmp_path / "eos.json").write_text('{"volume_A3_per_atom": [3, 1, 2], "energy_eV_per_atom": [30, 10, 20]}')
    (curve,) = load_run(tmp_path).curves
    np.testing.assert_array_equal(curve.volume, [1, 2, 3])
    np.testing.assert_array_equal(curve.energy, [10, 20, 30])
