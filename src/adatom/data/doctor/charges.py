"""Total charges and spin multiplicities: given everywhere or nowhere, possible, and seen by the network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final

import numpy as np

from adatom.data.doctor.finding import Finding, Severity, about, files_of, listed
from adatom.data.read import Structure
from adatom.data.selection import Selection

USUAL: Final = {"charge": ("total charge", "total_charge", 0.0), "spin": ("multiplicity", "multiplicity", 1.0)}


def unseen(structures: Sequence[Structure], seen: Collection[str]) -> list[Finding]:
    """What is wrong with charges and multiplicities, given what a network sees of them.

    Several of them in the data of a network that sees none look like contradicting labels to it: a warning. Structures
    that say nothing beside others that do are an error, if the network sees it: nobody knows what they are.

    Parameters
    ----------
    seen
        Of ``"charge"`` and ``"spin"``.
    """
    found = []
    chosen = Selection.of(structures)  # numbers of all structures, and no objects: there may be millions
    for name, (what, key, default) in USUAL.items():
        given = chosen.charges if name == "charge" else chosen.spins
        silent = np.flatnonzero(np.isnan(given))
        values = np.unique(np.nan_to_num(given, nan=default)).tolist()
        told = ", ".join(f"{value:g}" for value in values[:8])
        if len(values) > 1 and name not in seen:
            message = f"the data hold structures of {what} {told}, and this model does not see it"
            remedy = f"choose a model that does (adatom models), or train on one {what} alone"
            found.append(Finding(f"unseen {name}", "warning", files_of(chosen.sample()), message, remedy))
        if name in seen and 0 < len(silent) < len(structures):
            message = f"{len(silent)} structures do not give their {what}, and others do"
            remedy = f"give {key} in every structure, {default:g} where it is that"
            names = tuple(chosen.names[int(k)] for k in silent)
            found.append(Finding(f"missing {name}", "error", listed(names), message, remedy, names))
    return found


def check_charges(structures: Sequence[Structure]) -> list[Finding]:
    """Charges and multiplicities by themselves: missing in part, broken, or against the parity of the electrons.

    N electrons, N = sum Z - q, and a multiplicity 2S + 1 = u + 1 with u unpaired ones belong together where N and u are
    both even or both odd.
    """
    found = [*_missing(structures), *_several(structures)]
    charged = [k for k, s in enumerate(structures) if _given(s, "charge") is not None]
    split = [k for k in charged if abs(float(_given(structures[k], "charge") or 0.0) % 1.0) > 1e-3]
    split = [k for k in split if abs(float(_given(structures[k], "charge") or 0.0) % 1.0) < 1.0 - 1e-3]
    if split:
        message = f"{len(split)} structures have a total charge that is no whole number"
        remedy = "check the field: a sum of atomic charges, or another quantity? name the right one under keys"
        found.append(about("charge", "warning", structures, split, message, remedy))
    spins = {k: m for k, s in enumerate(structures) if (m := _given(s, "spin")) is not None}
    broken = [k for k, m in spins.items() if m < 1.0 or abs(m - round(m)) > 1e-3]
    if broken:
        low = min(spins[k] for k in broken)
        message = f"{len(broken)} structures have a multiplicity that is none: {low:g}, and the least there is is 1"
        remedy = "a multiplicity is 2S + 1, the number of unpaired electrons plus 1: convert the field"
        found.append(about("multiplicity", "error", structures, broken, message, remedy))
    return [*found, *_parity(structures, {k: m for k, m in spins.items() if k not in set(broken)}, set(split))]


def _parity(structures: Sequence[Structure], spins: dict[int, float], split: set[int]) -> list[Finding]:
    wrong = []
    for k, multiplicity in spins.items():
        charge = _given(structures[k], "charge") or 0.0
        electrons = int(structures[k].atoms.numbers.sum()) - round(charge)
        if k not in split and (electrons + round(multiplicity)) % 2 == 0:
            wrong.append(k)
    if not wrong:
        return []
    s = structures[wrong[0]]
    charge = _given(s, "charge") or 0.0
    electrons = int(s.atoms.numbers.sum()) - round(charge)
    message = (
        f"multiplicity and number of electrons do not belong together in {len(wrong)} of {len(spins)} structures: "
        f"{s.name}, {s.atoms.get_chemical_formula()} of charge {charge:g} has {electrons} electrons and cannot have "
        f"multiplicity {spins[wrong[0]]:g}"
    )
    remedy = "check charge and multiplicity (2S + 1, not 2S); give total_charge where it is not 0"
    severity: Severity = "error" if len(wrong) > 0.02 * len(spins) or len(wrong) > 1 else "warning"
    return [about("multiplicity", severity, structures, wrong, message, remedy)]


def _missing(structures: Sequence[Structure]) -> list[Finding]:
    found = []
    for name, (what, key, default) in USUAL.items():
        silent = [k for k, s in enumerate(structures) if key not in s.atoms.info]
        values = {float(s.atoms.info[key]) for s in structures if key in s.atoms.info}
        if values - {default} and 0 < len(silent) < len(structures):
            message = f"{len(silent)} of {len(structures)} structures do not give their {what}, and others do"
            remedy = f"give {key} in every structure, {default:g} where it is that"
            found.append(about(f"missing {name}", "warning", structures, silent, message, remedy))
    return found


def _several(structures: Sequence[Structure]) -> list[Finding]:
    found = []
    for name, (what, key, default) in USUAL.items():
        values = Counter(float(s.atoms.info.get(key, default)) for s in structures)
        if len(values) > 1:
            told = ", ".join(f"{value:g} ({n})" for value, n in sorted(values.items())[:10])
            message = f"structures of several values of the {what}: {told}"
            remedy = f"train a model that sees the {what} (adatom models tells which do)"
            found.append(Finding(f"several {name}s", "note", files_of(structures), message, remedy))
        elif values and (only := next(iter(values))) != default:
            message = f"every structure has {what} {only:g}"
            remedy = "nothing to do; a model trained on these knows no other"
            found.append(Finding(f"one {name}", "note", files_of(structures), message, remedy))
    return found


def _given(structure: Structure, name: str) -> float | None:
    value = structure.atoms.info.get(USUAL[name][1])
    return None if value is None or not np.isfinite(value) else float(value)


def charge_table(structures: Sequence[Structure]) -> list[dict[str, object]]:
    """How many structures have each total charge and multiplicity; None where it is not given."""
    counted = Counter((_given(s, "charge"), _given(s, "spin")) for s in structures)
    order = sorted(counted.items(), key=lambda item: -item[1])
    return [{"charge": q, "multiplicity": m, "structures": n} for (q, m), n in order]
