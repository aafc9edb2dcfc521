"""The pictures of ``docs/speed.md``."""

from __future__ import annotations

from typing import Any

from speed_runs import ARCHITECTURES, NAMES, Key, Record, atoms_of, costs, is_ours
from table import DOCS

# system without its code -> colour; what is not here is not drawn
LINES = {
    "nemp-S-default": "#2ca02c", "mlanet-S-default": "#1f77b4", "allscaip-S-default": "#9467bd",
    "mace-64x0e": "#f4a3a3", "mace-128x0e+128x1o": "#d62728", "symmetrix-128x0e+128x1o": "#7f0000",
    "nequip-l1": "#ffbb55", "nequip-l2": "#e8740c", "allegro": "#a8aa12", "sevenn-0": "#17becf", "chgnet": "#777777",
    "fairchem-allscaip-sm": "#d09be0",
}  # fmt: skip
KINDS = {
    "nemp": "#2ca02c", "mlanet": "#1f77b4", "allscaip": "#9467bd", "mace": "#d62728", "nequip": "#ff7f0e",
}  # fmt: skip
KIND_NAMES = ARCHITECTURES | {"mace": "MACE", "nequip": "NequIP"}
STYLES = {"compiled": "-", "eager": "--"}
Axis = Any


def pictures(table: dict[Key, Record]) -> None:
    """Draw cost and memory against size, and error against cost."""
    import matplotlib as mpl  # drawing alone needs it

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams |= {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10.5}
    against_size(plt, table)
    against_error(plt, table)


def against_size(plt: Any, table: dict[Key, Record]) -> None:
    """µs/atom and memory, for water and for silicon; eager code is dashed."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 9), layout="constrained", sharex="col", sharey="row")
    for column, kind in enumerate(("water", "silicon")):
        for row, what in enumerate(("us_per_atom", "peak_MiB")):
            panel(axes[row, column], table, kind, what)
        axes[0, column].set_title(kind)
        axes[1, column].set_xlabel("atoms")
    axes[0, 0].set_ylabel("energy and forces, µs/atom")
    axes[1, 0].set_ylabel("peak memory of the process, MiB")
    shown = {s.rpartition("-")[0] for s, name, task in table if task == "forces" and name.startswith(("water", "sil"))}
    lines = [
        plt.Line2D([], [], color=colour, lw=2, label=NAMES[name]) for name, colour in LINES.items() if name in shown
    ]
    lines += [plt.Line2D([], [], color="black", ls=style, lw=1.2, label=code) for code, style in STYLES.items()]
    figure.legend(handles=lines, loc="outside lower center", ncols=4, fontsize=8.5, frameon=False)
    figure.savefig(DOCS / "speed.png", dpi=110)
    plt.close(figure)


def panel(axis: Axis, table: dict[Key, Record], kind: str, what: str) -> None:
    """One quantity of one kind of structure."""
    from matplotlib.ticker import LogLocator, NullLocator

    for name, colour in LINES.items():
        for code, style in STYLES.items():
            points = sorted(
                (r["atoms"], r[what])
                for (s, structure, task), r in table.items()
                if s == f"{name}-{code}" and task == "forces" and structure.startswith(kind) and what in r
            )
            if points:
                width = 1.9 if is_ours(name) else 1.2
                axis.plot(*zip(*points, strict=True), style, color=colour, marker="o", ms=4, lw=width, zorder=1 + width)
    axis.set(xscale="log", yscale="log")
    axis.grid(alpha=0.25)
    ticks = sorted({atoms_of(s) for _, s, _ in table if s.startswith(kind)})
    if ticks:
        axis.set_xlim(ticks[0] / 1.5, ticks[-1] * 1.5)
    # 512 and 1,000 stand too close to be both written
    axis.set_xticks(ticks, ["" if n == 1000 < ticks[-1] else f"{n:,}" for n in ticks])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter("{x:,g}")


def against_error(plt: Any, table: dict[Key, Record]) -> None:
    """Force error against cost, a panel for each set; compiled code is filled."""
    from matplotlib.ticker import LogLocator, NullLocator

    found = costs(table)
    if not found:
        return
    figure, axes = plt.subplots(
        1, len(found), figsize=(max(3.3 * len(found), 8.0), 4.0), layout="constrained", squeeze=False
    )
    for axis, (title, points) in zip(axes[0], found.items(), strict=True):
        for system in sorted({p.system.rpartition("-")[0] for p in points}):
            mine = sorted((p for p in points if p.system.rpartition("-")[0] == system), key=lambda p: -p.us_per_atom)
            colour = KINDS[system.split("-")[0]]
            axis.plot([p.us_per_atom for p in mine], [p.error for p in mine], "-", color=colour, lw=1.2, alpha=0.7)
            for p in mine:
                face = colour if p.system.endswith("compiled") else "white"
                axis.plot(p.us_per_atom, p.error, "o", ms=8, mec=colour, mfc=face, mew=1.6, zorder=3)
        low, high = (f(p.us_per_atom for p in points) for f in (min, max))
        top = 1.12 * max(p.error for p in points)
        axis.set(xscale="log", title=title, xlabel="µs/atom", xlim=(low / 1.6, high * 1.6), ylim=(0, top))
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 60 * low else (1.0, 3.0)))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter("{x:,g}")
        axis.grid(alpha=0.25)
    axes[0, 0].set_ylabel("force RMSE on the test set, meV/Å")
    dots = [plt.Line2D([], [], marker="o", ls="", ms=8, color=c, label=KIND_NAMES[k]) for k, c in KINDS.items()]
    dots += [
        plt.Line2D([], [], marker="o", ls="", ms=8, mec="black", mfc=face, mew=1.6, label=code)
        for code, face in (("compiled", "black"), ("eager", "white"))
    ]
    figure.legend(handles=dots, loc="outside lower center", ncols=len(dots), frameon=False)
    figure.savefig(DOCS / "speed_error.png", dpi=110)
    plt.close(figure)
