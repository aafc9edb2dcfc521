"""A ramp of temperature: even, exact across a restart, refused where nothing heats."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from adatom.errors import CheckpointError, ConfigError
from adatom.sim.md import MDConfig, run
from toy import toy_potential


def copper() -> Atoms:
    return bulk("Cu", cubic=True, a=3.6) * 2


def settings(**more: object) -> MDConfig:
    given = {"temperature_K": 100.0, "final_temperature_K": 900.0, "steps": 40, "thermostat_ps": 0.005, "log_every": 1}
    return MDConfig.parse(given | {"compile": "off", "restart_every": 10, "trajectory_every": 0} | more)


def test_the_target_moves_evenly() -> None:
    ramp = settings()
    assert [ramp.target_K(step) for step in (0, 10, 40, 50)] == [100.0, 300.0, 900.0, 900.0]
    assert settings(final_temperature_K=None).target_K(20) == 100.0


@pytest.mark.parametrize("thermostat", ["langevin", "bussi"])
def test_atoms_are_heated_and_cooled(thermostat: str) -> None:
    hot = run(copper(), toy_potential(), settings(steps=150, thermostat=thermostat)).thermo
    early, late = (np.mean([line.temperature_K for line in part]) for part in (hot[:30], hot[-30:]))
    assert early < 350
    assert late > 600
    down = settings(steps=150, thermostat=thermostat, temperature_K=900.0, final_temperature_K=50.0)
    cold = run(copper(), toy_potential(), down).thermo
    assert np.mean([line.temperature_K for line in cold[-20:]]) < 250


def test_a_ramp_goes_on_after_a_restart_to_the_last_bit(tmp_path) -> None:
    whole = run(copper(), toy_potential(), settings(), tmp_path, "whole")

    class Cut(Exception):  # noqa: N818
        pass

    def stop(step: int, _: object) -> None:
        if step == 23:
            raise Cut

    with pytest.raises(Cut):
        run(copper(), toy_potential(), settings(), tmp_path, "cut", progress=stop)
    rest = run(copper(), toy_potential(), settings(), tmp_path, "cut", restart=True)
    np.testing.assert_array_equal(rest.atoms.positions, whole.atoms.positions)
    np.testing.assert_array_equal(rest.atoms.get_momenta(), whole.atoms.get_momenta())
    with pytest.raises(CheckpointError, match="steps"):
        run(copper(), toy_potential(), settings(steps=80), tmp_path, "cut", restart=True)


def test_without_a_thermostat_nothing_is_heated() -> None:
    with pytest.raises(ConfigError, match="thermostat"):
        settings(ensemble="nve")
