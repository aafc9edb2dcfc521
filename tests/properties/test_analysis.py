from __future__ import annotations

import json

import ase
import numpy as np
import pytest
from ase.build import bulk

from adatom.errors import ConfigError, DataError
from adatom.properties.analysis import AnalysisConfig, analyse
from adatom.report.card.trajectory import section
from adatom.report.record import Record


def walk(D: float = 0.5, frames: int = 400, pbc: bool = True) -> list[ase.Atoms]:
    """A random walk of two elements, 0.1 ps a frame."""
    rng = np.random.default_rng(0)
    start = bulk("NaCl", "rocksalt", a=5.6, cubic=True) * 2
    steps = rng.normal(scale=np.sqrt(2 * D * 0.1), size=(frames, len(start), 3))
    made = []
    for number, positions in enumerate(start.positions + np.cumsum(steps, axis=0)):
        atoms = ase.Atoms(start.numbers, positions, cell=start.cell if pbc else None, pbc=pbc)
        if pbc:
            atoms.wrap()
        atoms.info["time_ps"] = 0.1 * number
        made.append(atoms)
    return made


def test_all_parts_come_in_one_go_and_are_shown() -> None:
    seen: list[str] = []
    frames = walk()
    found = analyse(
        frames, AnalysisConfig(r_max=5.0, structure_frames=20), reference=frames[::50], progress=seen.append
    )
    assert seen == ["pairs", "structure", "diffusion", "velocities"]
    assert found.duration_ps == pytest.approx(39.9)
    assert found.pairs is not None
    assert found.pairs.frames == 20
    assert found.diffusion is not None
    for one in found.diffusion.species.values():
        assert one.D_A2_per_ps == pytest.approx(0.5, abs=4 * one.D_error_A2_per_ps)
    shown = section(Record(json.loads(json.dumps(found.to_record()))))
    assert [figure.name for figure in shown.figures] == [
        "trajectory-pairs", "trajectory-structure", "trajectory-msd", "trajectory-vibrations", "trajectory-vacf",
    ]  # fmt: skip
    assert shown.facts[0][0] == "D of Na"
    assert not shown.warnings


def test_what_the_frames_do_not_allow_is_left_out_with_a_note() -> None:
    open_system = analyse(walk(frames=45, pbc=False))
    assert open_system.pairs is None
    assert open_system.diffusion is not None
    assert "not periodic" in open_system.notes[0]
    few = analyse(walk(frames=5))
    assert few.diffusion is None
    assert "too few" in few.notes[0]
    timeless = walk(frames=50)
    del timeless[7].info["time_ps"]
    assert "--interval" in analyse(timeless).notes[0]


def test_parts_that_were_asked_for_fail_loudly() -> None:
    with pytest.raises(DataError, match="three frames"):
        analyse(walk(frames=2), AnalysisConfig(parts=("velocities",)))
    with pytest.raises(ConfigError, match="not among the parts"):
        analyse(walk(frames=60), AnalysisConfig(parts=("diffusion",)), reference=walk(frames=1))
    with pytest.raises(DataError, match="no frames"):
        analyse([])


def test_a_box_so_small_that_it_holds_diffusion_back_is_corrected_when_asked() -> None:
    settings = AnalysisConfig.parse(
        {"parts": ["diffusion"], "diffusion": {"viscosity_mPas": 0.9, "temperature_K": 300.0, "fit_ps": [1.0, 3.0]}}
    )
    found = analyse(walk(frames=200), settings).to_record()["diffusion"]
    one = found["species"]["Cl"]
    assert one["fit_ps"] == pytest.approx([1.0, 3.0])
    assert one["D_corrected_A2_per_ps"] == pytest.approx(one["D_A2_per_ps"] + found["correction_A2_per_ps"])
    assert found["correction_A2_per_ps"] > 0.0
