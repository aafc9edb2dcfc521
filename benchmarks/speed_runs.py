"""What the runs of ``speed.py`` say: the last figure of each system, structure and task, and names for people."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from table import FORCES, records
from table import SETS as SET_TITLES
from table import chosen as chosen_accuracy

Record = dict[str, Any]
Key = tuple[str, str, str]  # system, structure, task
CODE = ("eager", "compiled")
STRUCTURES = {
    "ethanol": "ethanol, 9", "aspirin": "aspirin, 21", "water192": "water, 192", "water1536": "water, 1,536",
    "water12288": "water, 12,288", "slab": "slab, 41 elements", "silicon64": "silicon, 64",
    "silicon512": "silicon, 512", "silicon1000": "silicon, 1,000", "silicon4096": "silicon, 4,096",
    "silicon32768": "silicon, 32,768", "silicon97336": "silicon, 97,336",
}  # fmt: skip
ARCHITECTURES = {"nemp": "NEMP", "mlanet": "MLANet", "allscaip": "AllScAIP"}
PEERS = {
    "symmetrix-128x0e+128x1o": "Symmetrix-XL, MACE 128x0e+128x1o",
    "mace-32x0e": "MACE 32x0e", "mace-64x0e": "MACE 64x0e", "mace-128x0e": "MACE 128x0e",
    "mace-128x0e+128x1o": "MACE 128x0e+128x1o",
    "nequip-l1-2x32": "NequIP l=1, 2 layers of 32", "nequip-l1": "NequIP l=1, 3 layers of 32",
    "nequip-l2-3x16": "NequIP l=2, 3 layers of 16", "nequip-l2": "NequIP l=2, 4 layers of 32",
    "allegro": "Allegro l=1, 2 layers", "sevenn-l1": "SevenNet l=1, 3 layers of 32",
    "sevenn-0": "SevenNet-0 (l=2, 5 layers of 128)", "chgnet": "CHGNet",
    "fairchem-allscaip-sm": "AllScAIP sm of fairchem",
}  # fmt: skip
NAMES = {
    f"{a}-{size}-{form}": f"{title} {size}" + ("" if form == "default" else ", paper form")
    for a, title in ARCHITECTURES.items()
    for form in ("default", "paper")
    for size in "SML"
} | PEERS
# every system that a page may show, ours first
TITLES = {f"{name}-{code}": (title, code) for name, title in NAMES.items() for code in CODE}
# data set of the accuracy table -> structure of the same kind
SETS = {"mlearn_si": "silicon64", "rmd17_ethanol": "ethanol", "rmd17_aspirin": "aspirin", "water": "water192"}


class Point(NamedTuple):
    """Error and cost of one network."""

    system: str
    error: float  # meV/Å
    us_per_atom: float


def runs() -> list[Record]:
    """All runs, the oldest first."""
    return records("speed")


def chosen(everything: list[Record]) -> dict[Key, Record]:
    """The last figure of each system, structure and task on a CPU; a reason only where there is no figure."""
    found: dict[Key, Record] = {}
    for run in everything:
        if run["machine"]["device"] != "cpu":
            continue
        for r in run["records"]:
            key = (r["system"], r["structure"], r["task"])
            if "seconds" in r or "seconds" not in found.get(key, {}):
                found[key] = r
    return found


def label(system: str) -> tuple[str, str]:
    """Its name and its code, for a table."""
    return TITLES[system]


def is_ours(system: str) -> bool:
    """Whether it is an architecture of this package."""
    return system.split("-")[0] in ARCHITECTURES


def atoms_of(structure: str) -> int:
    """Number of atoms of a structure that is repeated."""
    return int(re.sub(r"\D", "", structure))


def same_size(record: Record) -> str:
    """The system whose speed is that of a record of the accuracy table, without its code."""
    settings = record["settings"]
    if record["system"] == "mace":
        return f"mace-{settings['num_channels']}x0e"
    model = settings["model"]
    if record["system"] == "nequip":
        return f"nequip-l{model['l_max']}-{model['num_layers']}x{model['num_features']}"
    return f"{record['system']}-{model['size']}-{model['form']}"


def costs(table: dict[Key, Record]) -> dict[str, list[Point]]:
    """Error and cost of all that was trained, set by set."""
    found: dict[str, list[Point]] = {}
    for (name, _), record in chosen_accuracy(records("accuracy")).items():
        for code in CODE if name in SETS else ():
            system = f"{same_size(record)}-{code}"
            r = table.get((system, SETS[name], "forces"), {})
            if "seconds" in r:
                point = Point(system, record["test"][FORCES], r["us_per_atom"])
                found.setdefault(SET_TITLES[name], []).append(point)
    return {title: found[title] for title in SET_TITLES.values() if title in found}
