"""Figures: valid plotly, true to the data, and no more points than a browser can draw."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from adatom.report import figure, parity
from adatom.report.dynamics import drift, dynamics
from adatom.report.energy_volume import birch_murnaghan, constants, energy_volume_figure
from adatom.report.figure import Figure
from adatom.report.learning import learning_figures
from adatom.report.load import EnergyVolume, History, Predictions, Run, Trajectory, columns, load_run
from adatom.report.record import Record
from adatom.units import EV_PER_A3_IN_GPA
from report.fake_run import predictions, thermo, write

STYLE = Path(figure.__file__).parent / "templates" / "style.css"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return load_run(write(tmp_path_factory.mktemp("runs") / "silicon"))


@pytest.fixture(scope="module")
def figures(run: Run) -> list[Figure]:
    assert run.history is not None
    curve = energy_volume_figure(run.curves)
    assert curve is not None
    found = [*learning_figures(run.history), *parity.parity_figures(run.predictions[0], {"Si": -0.8447}), curve]
    return found + [f for t in run.trajectories for f in dynamics(t).figures]


def colored(value: Any, key: str = "") -> Any:
    """Tokens replaced as the page does it, each checked to be a colour of the style sheet."""
    if isinstance(value, dict):
        return {k: colored(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [colored(v, key) for v in value]
    if isinstance(value, str) and value.startswith("@"):
        assert key.endswith(("color", "colorscale")), f"{key}: {value}"
        assert re.fullmatch(r"@[a-z]+(/\d+)?", value)
        assert f"--{value[1:].split('/')[0]}: #" in STYLE.read_text()
        return "#123456"
    return value


def test_every_figure_is_valid_plotly_and_its_colours_are_in_the_style_sheet(figures: list[Figure]) -> None:
    for item in figures:
        go.Figure(colored({"data": item.data, "layout": item.layout}))
    assert len({item.name for item in figures}) == len(figures) == 18


def test_the_colours_of_light_and_dark_are_the_same_set() -> None:
    light, dark = re.findall(r":root[^{]*\{([^}]*--page[^}]*)\}", STYLE.read_text())
    names = [set(re.findall(r"(--[a-z]+): (?:#|rgb)", block)) for block in (light, dark)]
    assert names[0] == names[1]


def test_a_logarithmic_axis_writes_its_numbers_in_full() -> None:
    assert figure.axis("meV", log_over=np.array([60.0, 800.0]))["tickformat"] == "~g"
    assert figure.axis("meV", log_over=np.array([1e-4, 800.0]))["dtick"] == 1
    assert "dtick" not in figure.axis("meV", log_over=np.array([70.0, 80.0]))
    assert figure.axis("meV", log_over=np.zeros(0))["type"] == "log"


def test_a_curve_is_thinned_evenly_and_keeps_its_ends() -> None:
    kept = figure.thin(100_001, 1000)
    assert kept.shape[0] == 1001
    assert (kept[0], kept[-1]) == (0, 100_000)
    assert np.ptp(np.diff(kept)) <= 1
    np.testing.assert_array_equal(figure.thin(5, 10), np.arange(5))


def test_numbers_that_are_none_become_gaps() -> None:
    assert figure.plain(np.array([1.0, np.nan, np.inf, 1 / 3])) == [1.0, None, None, 0.333333]


def test_the_parity_plot_shows_every_label_and_its_structure(run: Run) -> None:
    p = run.predictions[0]
    energy, forces, stress = parity.parity_figures(p, {"Si": -0.8447})
    traces = {trace["name"]: trace for trace in energy.data if trace["type"] == "scatter"}
    assert set(traces) == set(p.config_types)
    interstitial = int(np.flatnonzero(p.config_types == "interstitial")[0])
    point = traces["interstitial"]
    assert point["x"][0] == pytest.approx(p.energy_ref[interstitial] / 9 + 0.8447, abs=1e-5)
    assert point["y"][0] - point["x"][0] == pytest.approx(1e-3 * point["customdata"][0], abs=2e-5)
    assert point["text"] == [f"test.xyz.xz:{interstitial}, 9 atoms"]
    count = {f.name: sum(len(t["x"]) for t in f.data if t["type"] == "scatter") for f in (energy, forces, stress)}
    assert count == {"parity-test-energy": 56, "parity-test-forces": 3 * 445, "parity-test-stress": 9 * 56}
    last = next(t for t in forces.data if t["name"] == "interstitial")
    assert last["text"][-1] == f"test.xyz.xz:{interstitial}, Si 8, z"
    assert stress.data[0]["y"][0] == pytest.approx(EV_PER_A3_IN_GPA * p.stress[0, 0, 0], rel=1e-4)


def test_energies_stay_as_they_are_where_a_reference_is_missing(run: Run) -> None:
    p = run.predictions[0]
    energy = parity.parity_figures(p, {})[0]
    x = np.concatenate([t["x"] for t in energy.data if t["type"] == "scatter"])
    np.testing.assert_allclose(np.sort(x), np.sort(p.energy_ref / p.n_atoms), atol=1e-4)


def test_the_residual_histogram_counts_every_point(run: Run) -> None:
    for item in parity.parity_figures(run.predictions[0], {}):
        bars = next(t for t in item.data if t["type"] == "bar")
        assert sum(bars["y"]) == sum(len(t["x"]) for t in item.data if t["type"] == "scatter")


def test_a_large_set_is_sampled_the_same_way_each_time_and_keeps_its_outliers() -> None:
    residual = np.random.default_rng(3).normal(size=60_000)
    chosen = parity.sample(residual)
    assert chosen.shape == (12_000,)
    assert np.unique(chosen).shape == chosen.shape
    np.testing.assert_array_equal(chosen, parity.sample(residual))
    assert set(np.argsort(-np.abs(residual))[:1000]) <= set(chosen)
    many = predictions(np.random.default_rng(0), repeats=20)
    forces = parity.parity_figures(Predictions(split="test", **many), {})[1]
    assert sum(len(t["x"]) for t in forces.data if t["type"] == "scatter") == 12_000
    assert "12\u202f000 of 26\u202f700 points" in forces.remark


def test_density_is_zero_for_a_lone_point_and_one_in_a_crowd() -> None:
    x = np.concatenate([np.zeros(500), [10.0]])
    shade = parity.density(x, x)
    assert shade[0] == 1.0
    assert shade[-1] == 0.0


def test_birch_murnaghan_has_the_minimum_and_the_stiffness_it_is_given() -> None:
    V0, E0, B0, B1 = 20.5, -5.4, 88.3, 4.2
    h = 1e-3
    V = V0 + h * np.arange(-2, 3)
    E = birch_murnaghan(V, V0, E0, B0, B1)
    assert E[2] == pytest.approx(E0, abs=1e-12)
    curvature = (E[1] - 2 * E[2] + E[3]) / h**2
    assert V0 * curvature * EV_PER_A3_IN_GPA == pytest.approx(B0, rel=1e-4)

    def modulus(v: float) -> float:
        e = birch_murnaghan(v + 0.01 * np.arange(-1, 2), V0, E0, B0, B1)
        return float(v * (e[0] - 2 * e[1] + e[2]) / 0.01**2 * EV_PER_A3_IN_GPA)

    def pressure(v: float) -> float:
        e = birch_murnaghan(v + 0.01 * np.array([-1, 1]), V0, E0, B0, B1)
        return float(-(e[1] - e[0]) / 0.02 * EV_PER_A3_IN_GPA)

    slope = (modulus(V0 - 0.1) - modulus(V0 + 0.1)) / (pressure(V0 - 0.1) - pressure(V0 + 0.1))
    assert slope == pytest.approx(B1, rel=1e-2)


def test_the_difference_to_the_reference_is_drawn_where_volumes_are_shared(run: Run) -> None:
    item = energy_volume_figure(run.curves)
    assert item is not None
    gap = next(t for t in item.data if t["name"] == "model − reference")
    model, reference = run.curves
    np.testing.assert_allclose(gap["y"], 1e3 * (model.energy - reference.energy), rtol=1e-3)
    shifted = EnergyVolume("DFT", reference.volume * 1.01, reference.energy, reference.fit)
    alone = energy_volume_figure((model, shifted))
    assert alone is not None
    assert "model − reference" not in {t["name"] for t in alone.data}


def test_a_fit_is_drawn_over_the_range_that_was_fitted(run: Run) -> None:
    def ends(curve: EnergyVolume) -> list[float]:
        item = energy_volume_figure((curve,))
        assert item is not None
        fit = next(t for t in item.data if t["name"] == "model, fit")
        return [fit["x"][0], fit["x"][-1]]

    model = run.curves[0]
    assert ends(model) == pytest.approx([model.volume[0], model.volume[-1]], rel=1e-5)
    part = Record(model.fit.values | {"range_A3_per_atom": [18.0, 23.0]})
    assert ends(EnergyVolume("model", model.volume, model.energy, part)) == [18.0, 23.0]


def test_a_run_of_one_step_shows_points() -> None:
    steps = {"step": np.array([1.0]), "loss": np.array([2.0])}
    (loss,) = learning_figures(History(Record(), steps, {}, Record()))
    assert loss.data[0]["mode"] == "lines+markers"
    assert figure.line(np.arange(9.0), np.arange(9.0), "a", "@blue")["mode"] == "lines"


def test_the_constants_stand_side_by_side(run: Run) -> None:
    rows = {row.name: row for row in constants(run.curves)}
    assert rows["Bulk modulus B₀"].model == "90.2"
    assert rows["Bulk modulus B₀"].reference == "88.3"
    assert rows["Bulk modulus B₀"].difference == "+1.9 (+2.15 %)"
    assert [row.difference for row in constants(run.curves[:1])] == ["–"] * 5


def trajectory(slope: float, ensemble: str = "nve") -> Trajectory:
    lines = [Record(line) for line in thermo(np.random.default_rng(0), ensemble, 300.0, 4.0)]
    table = columns([line for line in lines if line.text("kind") == "step"])
    table["total_eV"] = -1000.0 + 216e-3 * slope * table["time_ps"]
    return Trajectory(ensemble, lines[0], table, lines[-1], np.zeros(0), {})


def test_drift_is_the_slope_of_the_total_energy_per_atom() -> None:
    assert drift(trajectory(0.05)) == pytest.approx(0.05, rel=1e-6)
    assert drift(trajectory(-2.0)) == pytest.approx(-2.0, rel=1e-6)
    kicked = trajectory(0.05)
    kicked.columns["total_eV"][:50] += 3.0  # the first tenth does not count
    assert drift(kicked) == pytest.approx(0.05, rel=1e-6)


def test_a_run_of_two_frames_has_no_drift_and_still_a_page() -> None:
    full = trajectory(0.05)
    short = Trajectory("nve", full.start, {k: v[:2] for k, v in full.columns.items()}, full.end, full.r, {})
    assert drift(short) is None
    assert [f.title for f in dynamics(short).figures] == ["Temperature", "Drift of the total energy", "Pressure"]


def test_total_energy_is_shown_where_it_is_conserved_and_potential_energy_where_not() -> None:
    assert "Drift of the total energy" in [f.title for f in dynamics(trajectory(0.1)).figures]
    warm = trajectory(0.1, "nvt")
    titles = [f.title for f in dynamics(warm).figures]
    shown = dynamics(warm).figures[titles.index("Potential energy")].data[0]["y"]
    potential = warm.columns["potential_eV"]
    np.testing.assert_allclose(shown, 1e3 * (potential - potential[0]) / 216, atol=1e-3)
    assert "Drift of the total energy" not in titles


def test_a_volume_that_moves_is_shown() -> None:
    run = trajectory(0.0, "npt")
    run.columns["volume_A3"] = np.full(1000, 4400.0)
    assert "Volume" not in [f.title for f in dynamics(run).figures]
    run.columns["volume_A3"] = 4400.0 + np.arange(1000.0)
    assert "Volume" in [f.title for f in dynamics(run).figures]


def test_every_pair_of_elements_has_a_curve_and_the_seventh_is_dashed() -> None:
    run = trajectory(0.0)
    r = np.linspace(0, 5, 50)
    pairs = Trajectory("nve", run.start, run.columns, run.end, r, {f"A-{i}": np.ones(50) for i in range(7)})
    curves = next(f for f in dynamics(pairs).figures if f.title == "Pair distribution").data
    looks = {(c["line"]["color"], c["line"]["dash"]) for c in curves}
    assert len(looks) == 7


def test_a_value_that_a_logarithmic_axis_cannot_show_is_a_gap() -> None:
    steps = {"step": np.arange(4.0), "loss": np.array([2.0, 0.0, -1.0, 1.0])}
    (loss,) = learning_figures(History(Record(), steps, {}, Record()))
    assert loss.data[0]["y"] == [2.0, None, None, 1.0]
