"""The first screen: what this model is, and its figures that people ask for first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from adatom.report.dynamics import drift
from adatom.report.format import THIN, duration, fixed, integer, number, plural, signed, tidy
from adatom.report.load import Run
from adatom.report.tables import Errors, TypeRow, overall

VERDICTS = {  # verdict -> (icon, word, class): never colour alone
    "pass": ("✓", "pass", "good"),
    "fail": ("✕", "fail", "bad"),
    "not claimed": ("○", "not claimed", "quiet"),
    "not applicable": ("–", "not applicable", "quiet"),
}


@dataclass(frozen=True)
class Tile:
    """One headline figure; ``state`` is ``""``, ``"good"`` or ``"bad"``, and then ``value`` says so in words too."""

    label: str
    value: str
    unit: str
    note: str
    state: str = ""


def tiles(run: Run) -> list[Tile]:
    """The figures that the folder holds, in the order of the work: errors, solid, dynamics, checks, cost."""
    found = [*_errors(run), *_solid(run), _drift(run), _verified(run), _cost(run)]
    return [tile for tile in found if tile is not None]


def facts(run: Run) -> list[str]:
    """Short statements under the title: architecture, size, elements, cutoff, device, date."""
    card, start = run.card, run.history.start if run.history else None
    found = []
    for source in (card, start):
        if source is None:
            continue
        parameters, cutoff = source.real("parameters"), source.real("cutoff") or source.real("cutoff_A")
        architecture = source.values.get("architecture")
        found += [str(architecture)] if isinstance(architecture, str) else []
        found += [f"{integer(parameters)} parameters"] if parameters else []
        found += [f"cutoff {tidy(cutoff)} Å"] if cutoff else []
    elements = list(run.data.elements) if run.data else []
    found += [", ".join(elements)] if elements and len(elements) <= 12 else []
    found += [f"{len(elements)} elements"] if len(elements) > 12 else []
    if start is not None:
        threads = start.whole("threads")
        device = start.text("device")
        found += [f"{device}, {threads} thread{'s' if threads != 1 else ''}" if threads else device] if device else []
        found += [date(start.text("time"))] if "time" in start else []
    return list(dict.fromkeys(found))


def date(stamp: str) -> str:
    """Seconds since 1970 or an ISO time as ``2026-11-20 10:02 UTC``; any other text as it stands."""
    try:
        moment = datetime.fromtimestamp(float(stamp), UTC)
    except (ValueError, OverflowError, OSError):
        try:
            moment = datetime.fromisoformat(stamp)
        except ValueError:
            return stamp
    return moment.strftime("%Y-%m-%d %H:%M") + (" UTC" if moment.utcoffset() is not None else "")


def _errors(run: Run) -> list[Tile]:
    """Test errors as the metrics state them, else from the predictions."""
    test = run.metrics.record("test")
    sets: dict[str, TypeRow] = {p.split: overall(p) for p in run.predictions}
    split = "test" if test.values or "test" in sets else next(iter(sets), "test")
    row = sets.get(split)
    wanted: tuple[tuple[str, str, str, Errors | None], ...] = (
        ("Force error", "forces", "meV/Å", row.forces if row else None),
        ("Energy error", "energy", "meV/atom", row.energy if row else None),
        ("Stress error", "stress", "GPa", row.stress if row else None),
    )
    suffix = {"forces": "meV_per_A", "energy": "meV_per_atom", "stress": "GPa"}
    found = []
    for label, quantity, unit, computed in wanted:
        rmse = test.real(f"{quantity}_rmse_{suffix[quantity]}")
        mae = test.real(f"{quantity}_mae_{suffix[quantity]}")
        if rmse is None and computed is not None:
            rmse, mae = computed.rmse, computed.mae
        if rmse is not None:
            note = f"{split} RMSE" + (f" · MAE {number(mae)}" if mae is not None else "")
            found.append(Tile(label, number(rmse), unit, note))
    return found


def _solid(run: Run) -> list[Tile]:
    """Lattice constant and bulk modulus beside their reference."""
    fits = [curve.fit for curve in run.curves]
    reference = run.metrics.record("reference")
    found = []
    for label, key, unit, decimals in (
        ("Lattice constant", "lattice_constant_A", "Å", 3),
        ("Bulk modulus", "bulk_modulus_GPa", "GPa", 1),
    ):
        fit_key = "B0_GPa" if key == "bulk_modulus_GPa" else key
        ours, theirs = run.metrics.real(key), reference.real(key)
        ours = fits[0].real(fit_key) if ours is None and fits else ours
        theirs = fits[1].real(fit_key) if theirs is None and len(fits) > 1 else theirs
        if ours is None:
            continue
        note = ""
        if theirs:
            gap = signed(ours - theirs, decimals) if unit == "Å" else f"{signed(100 * (ours / theirs - 1), 1)}{THIN}%"
            note = f"reference {fixed(theirs, decimals)} · {gap}"
        found.append(Tile(label, fixed(ours, decimals), unit, note))
    return found


def _drift(run: Run) -> Tile | None:
    value = run.metrics.real("nve_drift_meV_per_atom_per_ps")
    nve = [t for t in run.trajectories if t.start.text("ensemble", t.name).lower() == "nve"]
    if value is None and nve:
        value = drift(nve[0])
    if value is None:
        return None
    atoms, step = (nve[0].start.whole("atoms"), nve[0].start.real("timestep_fs")) if nve else (None, None)
    note = " · ".join(part for part in (f"{atoms} atoms" if atoms else "", f"{tidy(step)} fs" if step else "") if part)
    return Tile("NVE drift", number(value, 2), "meV/atom/ps", note)


def _verified(run: Run) -> Tile | None:
    """Counts of the checks, or the bare verdict where only the metrics are there."""
    if run.verify is None:
        passed = run.metrics.flag("verify_passed")
        if passed is None:
            return None
        return Tile("Verification", "✓ passed" if passed else "✕ failed", "", "", "good" if passed else "bad")
    verdicts = [check.text("verdict") for check in run.verify.records("checks")]
    good, bad = verdicts.count("pass"), verdicts.count("fail")
    rest = len(verdicts) - good - bad
    value, unit = (f"✕ {bad}", "failed") if bad else (f"✓ {good}", "passed")
    note = f"of {good + bad} checks" + (f" · {rest} not claimed or applicable" if rest else "")
    return Tile("Verification", value, unit, note, "bad" if bad else "good")


def _cost(run: Run) -> Tile | None:
    seconds = run.metrics.real("train_seconds")
    if seconds is None and run.history is not None:
        seconds = run.history.end.real("seconds")
    if seconds is None:
        return None
    steps = run.history.steps.get("step") if run.history else None
    note = plural(round(float(steps[-1])), "step") if steps is not None and steps.size else ""
    return Tile("Training time", duration(seconds), "", note)
