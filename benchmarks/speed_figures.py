"""The pictures of ``docs/speed.md``."""

from __future__ import annotations

from typing import Any

from speed_runs import Key, Record, atoms_of, costs, is_ours, label
from table import DOCS

GREY = "#666666"
# system without its code -> colour; what is not here is not drawn
LINES = {
    "nemp-S-default": "#2ca02c", "mlanet-S-default": "#1f77b4", "allscaip-S-default": "#9467bd",
    "symmetrix-128x0e+128x1o": "#7f0000", "mace-64x0e": "#f08080", "mace-128x0e+128x1o": "#d62728",
    "nequip-l1": "#ffbb55", "nequip-l2": "#ff7f0e", "allegro": "#bcbd22", "sevenn-0": "#17becf", "chgnet": GREY,
    "fairchem-allscaip-sm": "#c5b0d5",
}  # fmt: skip
KINDS = {
    "nemp": "#2ca02c", "mlanet": "#1f77b4", "allscaip": "#9467bd", "mace": "#d62728", "nequip": "#ff7f0e",
}  # fmt: skip
Axis = Any


def pictures(table: dict[Key, Record]) -> None:
    """Draw cost and memory against size, and error against cost."""
    import matplotlib as mpl  # drawing alone needs it

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams |= {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10}
    figure, axes = plt.subplots(2, 2, figsize=(12, 8.4), layout="constrained", sharex="col")
    for column, kind in enumerate(("water", "silicon")):
        against_size(axes[0, column], table, kind, "us_per_atom")
        against_size(axes[1, column], table, kind, "peak_MiB")
        axes[0, column].set_title(kind)
        axes[1, column].set_xlabel("atoms")
    axes[0, 0].set_ylabel("energy and forces, µs/atom")
    axes[1, 0].set_ylabel("peak memory of the process, MiB")
    handles = {k: v for axis in axes.flat for v, k in zip(*axis.get_legend_handles_labels(), strict=True)}
    keys = sorted(handles, key=list(map(" ".join, _titles())).index)
    figure.legend([handles[k] for k in keys], keys, fontsize=8, loc="outside right upper", frameon=False)
    figure.savefig(DOCS / "speed.png", dpi=110)
    plt.close(figure)
    against_error(plt, table)


def _titles() -> list[tuple[str, str]]:
    return [label(f"{name}-{code}") for name in LINES for code in ("compiled", "eager")]


def against_size(axis: Axis, table: dict[Key, Record], kind: str, what: str) -> None:
    """One panel; eager code is dashed."""
    for name, colour in LINES.items():
        for code, style in (("compiled", "-"), ("eager", "--")):
            points = sorted(
                (r["atoms"], r[what])
                for (s, structure, task), r in table.items()
                if s == f"{name}-{code}" and task == "forces" and structure.startswith(kind) and what in r
            )
            if points:
                width = 1.9 if is_ours(name) else 1.1
                axis.plot(
                    *zip(*points, strict=True), style, color=colour, marker="o", ms=3.5, lw=width, zorder=1 + width,
                    label=" ".join(label(f"{name}-{code}")),
                )  # fmt: skip
    axis.set(xscale="log", yscale="log")
    axis.grid(alpha=0.25, which="major")
    axis.grid(alpha=0.1, which="minor")
    ticks = sorted({atoms_of(s) for _, s, _ in table if s.startswith(kind)})
    axis.set_xticks(ticks, [f"{n:,}" for n in ticks], rotation=30 if len(ticks) > 4 else 0)
    axis.minorticks_off()
    axis.yaxis.set_major_formatter("{x:,g}")


def against_error(plt: Any, table: dict[Key, Record]) -> None:
    """Force error against cost, a panel for each set; compiled code is filled, an arrow leads to it."""
    found = costs(table)
    if not found:
        return
    figure, axes = plt.subplots(1, len(found), figsize=(3.6 * len(found), 3.9), layout="constrained", squeeze=False)
    for axis, (title, points) in zip(axes[0], found.items(), strict=True):
        for point in points:
            name, code = label(point.system)
            colour = KINDS[point.system.split("-")[0]]
            axis.plot(
                point.us_per_atom, point.error, "o", ms=8, mec=colour, mfc=colour if code == "compiled" else "white",
                mew=1.6, zorder=3,
            )  # fmt: skip
        for system in sorted({p.system.rpartition("-")[0] for p in points}):
            mine = sorted((p for p in points if p.system.rpartition("-")[0] == system), key=lambda p: -p.us_per_atom)
            name, colour = label(mine[0].system)[0], KINDS[system.split("-")[0]]
            axis.plot([p.us_per_atom for p in mine], [p.error for p in mine], "-", color=colour, lw=1, alpha=0.6)
            place = (mine[0].us_per_atom, mine[0].error)
            axis.annotate(name, place, (7, 5), textcoords="offset points", fontsize=7.5, color=colour)
        axis.set(xscale="log", title=title, xlabel="energy and forces, µs/atom", ylim=(0, None))
        low, high = axis.get_xlim()
        axis.set_xlim(low / 1.3, high * 4)
        axis.xaxis.set_major_formatter("{x:,g}")
        axis.grid(alpha=0.25)
    axes[0, 0].set_ylabel("force RMSE on the test set, meV/Å")
    figure.savefig(DOCS / "speed_error.png", dpi=110)
    plt.close(figure)
