"""Write ``docs/speed.md`` and its pictures from the runs of ``speed.py``.

python benchmarks/speed_page.py            # the page
python benchmarks/speed_page.py --pictures # and the pictures; needs matplotlib
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from speed_figures import pictures
from speed_runs import CODE, STRUCTURES, TITLES, Key, Record, chosen, costs, label, runs
from table import DOCS, records, rows

WATER = "water192"
SIZES = {  # columns of the tables
    "molecules and water": ("ethanol", "aspirin", "water192", "water1536", "water12288", "slab"),
    "silicon": ("silicon64", "silicon512", "silicon1000", "silicon4096", "silicon32768", "silicon97336"),
}
# what is wanted: (ours, peer, structure, task, ratio)
WANTED = (
    ("nemp-S-default", "nequip-l2", WATER, "forces", 60),
    ("nemp-S-default", "symmetrix-128x0e+128x1o", WATER, "forces", 4),
    ("mlanet-S-default", "nequip-l2", WATER, "forces", 15),
    ("allscaip-S-default", "fairchem-allscaip-sm", "silicon1000", "forces", 5),
    ("allscaip-S-paper", "fairchem-allscaip-sm", "silicon1000", "forces", 5),
    ("nemp-S-default", "mace-128x0e+128x1o", WATER, "training", 10),
    ("mlanet-S-default", "mace-128x0e+128x1o", WATER, "training", 4),
)
FLAT, FLAT_FROM = 0.15, 1000


def page() -> str:
    """The text of the page."""
    everything = runs()
    table = chosen(everything)
    parts = [INTRODUCTION, "## A box of water\n", water_table(table), WATER_TEXT]
    parts += ["## Wanted, and reached\n", verdict(everything, table)]
    parts += ["## Cost against size\n", "![µs/atom and memory against the number of atoms](speed.png)\n", SIZE_TEXT]
    for title, names in SIZES.items():
        parts += [f"### µs/atom, energy and forces: {title}\n", matrix(table, names, "forces", "us_per_atom")]
    for title, names in SIZES.items():
        parts += [f"### Peak memory in MiB, energy and forces: {title}\n", matrix(table, names, "forces", "peak_MiB")]
    trained = ("ethanol", "aspirin", "water192", "slab", "silicon64", "silicon512")
    parts += ["### µs/atom, a training step\n", matrix(table, trained, "training", "us_per_atom")]
    if any(task == "stress" for _, _, task in table):
        names = tuple(n for n in STRUCTURES if any(k[1:] == (n, "stress") for k in table))
        parts += ["### µs/atom, energy, forces and stress\n", matrix(table, names, "stress", "us_per_atom")]
    parts += ["## Error against cost\n", "![force error against cost](speed_error.png)\n", ERROR_TEXT]
    parts += [error_table(table), *cards(everything), "## What ran\n", runs_table(everything), versions(everything)]
    parts += [absences(everything), COMMANDS]
    return "\n".join(parts).rstrip() + "\n"


def figure(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def water_table(table: dict[Key, Record]) -> str:
    """Everything about the box of 192 atoms, the cheapest first."""
    found = [s for s in TITLES if (s, WATER, "forces") in table and "seconds" in table[s, WATER, "forces"]]
    body = []
    for system in sorted(found, key=lambda s: table[s, WATER, "forces"]["seconds"]):
        r, trained = table[system, WATER, "forces"], table.get((system, WATER, "training"), {})
        body.append([
            *label(system), figure(r["us_per_atom"]), figure(1e3 * r["seconds"]), f"{86.4e-3 / r['seconds']:.2g}",
            figure(trained["us_per_atom"]) if "seconds" in trained else "–", figure(r["peak_MiB"]),
        ])  # fmt: skip
    return rows(["system", "code", "µs/atom", "ms", "ns/day at 1 fs", "training step, µs/atom", "peak MiB"], body)


def matrix(table: dict[Key, Record], names: tuple[str, ...], task: str, what: str) -> str:
    """Systems by structures."""
    body = []
    for system in TITLES:
        cells = [table.get((system, name, task), {}) for name in names]
        if any(what in cell for cell in cells):
            body.append([*label(system), *(figure(c[what]) if what in c else "–" for c in cells)])
    return rows(["system", "code", *(STRUCTURES[name] for name in names)], body)


def verdict(everything: list[Record], table: dict[Key, Record]) -> str:
    """What was asked for and what was measured, ratios within one run only."""
    lines = [line for wanted in WANTED for line in ratios(everything, *wanted)]
    for system in ("nemp-S-default", "mlanet-S-default"):
        lines += [line for code in CODE for line in flatness(table, f"{system}-{code}")]
    for name, r in ((m["system"], m) for m in _memory() if m["mode"] == "forces" and "default" in m["system"]):
        lines.append(f"- Memory exponent of AllScAIP ({name}), up to {r['rows'][-1]['atoms']:,} atoms:"
                     f" {r['exponent']:.2f}; wanted: at most 1.1. {_kept(r['exponent'] <= 1.1)}")  # fmt: skip
    return "\n".join(lines) + "\n" if lines else "Nothing to compare yet.\n"


def ratios(everything: list[Record], ours: str, peer: str, structure: str, task: str, wanted: int) -> Iterator[str]:
    """The cheapest code of ours against each code of a peer, in the last run that holds both."""
    doing = {"forces": "energy and forces", "training": "a training step"}[task]
    for code in CODE:
        for run in reversed(everything):
            found = {r["system"]: r for r in run["records"] if (r["structure"], r["task"]) == (structure, task)}
            mine = [found[s] for s in (f"{ours}-{c}" for c in CODE) if "seconds" in found.get(s, {})]
            theirs = found.get(f"{peer}-{code}", {})
            if not mine or "seconds" not in theirs:
                continue
            best = min(mine, key=lambda r: r["seconds"])
            ratio = theirs["seconds"] / best["seconds"]
            yield (
                f"- {' '.join(label(best['system']))} against {' '.join(label(theirs['system']))}, {doing} of"
                f" {STRUCTURES[structure]}: 1/{ratio:.3g}; wanted: at most 1/{wanted}. {_kept(ratio >= wanted)}"
            )
            break


def flatness(table: dict[Key, Record], system: str) -> Iterator[str]:
    """How much the cost of an atom changes from a thousand to a hundred thousand atoms of silicon."""
    cells = [table.get((system, name, "forces"), {}) for name in SIZES["silicon"]]
    large = [c for c in cells if "seconds" in c and c["atoms"] >= FLAT_FROM]
    if len(large) < 2:
        return
    costs_ = [c["us_per_atom"] for c in large]
    change = max(costs_) / min(costs_) - 1.0
    last = large[-1]
    yield (
        f"- {' '.join(label(system))}, silicon from {large[0]['atoms']:,} to {last['atoms']:,} atoms: {min(costs_):.0f}"
        f" to {max(costs_):.0f} µs/atom, {change:.0%} apart; wanted: 15 % up to 100,000."
        f" {_kept(change <= FLAT and last['atoms'] > 9e4)} Peak memory at {last['atoms']:,} atoms:"
        f" {last['peak_MiB'] / 1024:.1f} GiB."
    )


def _kept(kept: bool) -> str:
    return "Kept." if kept else "**Missed.**"


def _memory() -> list[Record]:
    found: Any = records("memory")
    return found["results"] if found else []


def error_table(table: dict[Key, Record]) -> str:
    """Force error of what was trained for four minutes, and the cost of the same networks."""
    body = [
        [title, *label(point.system), f"{point.error:.1f}", figure(point.us_per_atom)]
        for title, points in costs(table).items()
        for point in sorted(points, key=lambda p: p.us_per_atom)
    ]
    return rows(["set", "system", "code", "forces RMSE meV/Å", "µs/atom"], body)


def cards(everything: list[Record]) -> list[str]:
    """What was measured on GPUs: the last run on each card."""
    latest = {run["machine"]["card"]: run for run in everything if "card" in run["machine"]}
    parts = []
    for card, run in latest.items():
        body = [
            [*label(r["system"]), STRUCTURES[r["structure"]], r["task"], figure(r["us_per_atom"]),
             figure(1e6 * r["seconds"]), figure(r["peak_MiB"])]
            for r in run["records"] if "seconds" in r
        ]  # fmt: skip
        heading = ["system", "code", "structure", "task", "µs/atom", "µs", "peak MiB of tensors"]
        parts += [f"## On {card}\n", f"Medians between device events, {run['date']}.\n", rows(heading, body)]
    return parts


def runs_table(everything: list[Record]) -> str:
    """One line for each run."""
    body = [
        [str(n), run["date"], run["commit"], run["machine"].get("card", run["machine"]["cpu"]),
         f"{run['load']['mean']:.1f}, at most {run['load']['largest']:.1f}",
         str(len({r["system"] for r in run["records"]})), str(sum("seconds" in r for r in run["records"])), run["note"]]
        for n, run in enumerate(everything, start=1)
    ]  # fmt: skip
    return rows(["run", "date", "commit", "machine", "load", "systems", "figures", "note"], body)


def versions(everything: list[Record]) -> str:
    """Of every package that ran, in a line."""
    found = {f"{name} {number}" for run in everything for v in run["versions"].values() for name, number in v.items()}
    return f"Versions: {', '.join(sorted(found))}.\n"


def absences(everything: list[Record]) -> str:
    """What was left out of the runs, and why: of each system and reason the structures."""
    table = chosen(everything)
    found: dict[tuple[str, str], list[str]] = {}
    for (system, structure, task), r in table.items():
        if "skipped" in r:
            where = STRUCTURES[structure] + ("" if task == "forces" else f" ({task})")
            found.setdefault((system, r["skipped"]), []).append(where)
    lines = [f"- {' '.join(label(s))}: {', '.join(where)}: {why}" for (s, why), where in found.items()]
    measured = {r["system"] for run in everything for r in run["records"] if "seconds" in r}
    absent = {name: why for run in everything for name, why in run["absent"].items() if name not in measured}
    lines += [f"- {name}: {why}" for name, why in absent.items()]
    return "Left out, and why:\n\n" + "\n".join(lines) + "\n" if lines else ""


INTRODUCTION = """\
# Speed and memory

*Written by `benchmarks/speed_page.py` from `benchmarks/results/`; do not edit.*

What a pass through a network costs on one core: energy and forces of structures from 9 atoms to 100,000, and a training
step (the gradient of a force loss for all weights, without the optimizer). Every system is a process of its own on one
thread, in float32, with random weights and a cutoff of 5 Å (CHGNet: 6 Å, its own). The processes take turns, and the
least CPU time of seven calls and more counts (of three, where a call takes over 5 s). Structures are the same for all,
and so is what a call is: the neighbour list stands, unless it is said. Absolute times belong to the machine and to what
else it did; compare systems within this page.
"""
WATER_TEXT = """\
192 atoms at 1 g/cm³, a frame of path-integral dynamics, some 54 neighbours within 5 Å. *Eager* is PyTorch as written,
*compiled* what each package itself offers: `compile="on"` here, the compiled mode of MACE's calculator, NequIP's and
Allegro's AOTInductor export (their training step: `compile_mode: compile`, two copies of the structure and half the
time), the code that Symmetrix-XL generates for a model. Symmetrix-XL is called by its ASE calculator, whose neighbour
list stands; fairchem's AllScAIP searches its neighbours within the call. Ours hold the short-range repulsion that
recipes add.
"""
SIZE_TEXT = """\
Water is one frame, repeated; silicon is the crystal, rattled by 0.05 Å; the slab is the frame of `oc20_s2ef_sample`
with most elements, for networks that know all 41 of the set. Memory is the peak of the whole process, the libraries
included. A dash: left out, see the end of the page.
"""
ERROR_TEXT = """\
Errors are those of `accuracy.md`: four minutes of training on one core, the same test set for all. Costs are those of
networks of the same size, with random weights, on a structure of that set. The lower left corner is where to be;
filled points are compiled code.
"""
COMMANDS = """\
## Commands

```sh
python benchmarks/speed.py --data DIR --envs ENVS  # all of it takes hours; --systems and --structures choose
python benchmarks/speed_page.py --pictures
adatom bench --architecture nemp --atoms 64,512,4096
```

ENVS holds one environment for each peer: `benchmarks/systems/README.md`.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", action="store_true")
    if parser.parse_args().pictures:
        pictures(chosen(runs()))
    (DOCS / "speed.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
