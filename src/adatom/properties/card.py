"""The property card of a structure: everything that applies to it, one file each, and a page of all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import ase
import numpy as np
from ase.calculators.calculator import BaseCalculator

from adatom.config import nearest
from adatom.errors import AdatomError, ConfigError
from adatom.model_file import write_atomically
from adatom.neighbors import given_charge_and_spin
from adatom.potential import Potential
from adatom.properties.crystal import at_rest
from adatom.properties.defects import vacancies
from adatom.properties.dimers import dimers
from adatom.properties.elastic import elastic
from adatom.properties.eos import energy_volume
from adatom.properties.expansion import expansion
from adatom.properties.phonons import phonons
from adatom.properties.surfaces import surfaces
from adatom.properties.vibrations import vibrations
from adatom.report.properties import write_card
from adatom.sim.calculator import Calculator, has_volume
from adatom.sim.guard import potentials_of
from adatom.sim.relax import Relaxation, as_calculator, relax

Kind = Literal["crystal", "molecule", "slab"]
Compute = Callable[[ase.Atoms, BaseCalculator], dict[str, Any]]
Progress = Callable[[str, str], None]  # property, and what became of it: "begins", "done", or the reason why not

LEFT_OUT = "left_out"
REACH = 6.0  # Å, of dimers
FMAX, SMAX_GPA = 1e-3, 0.02  # eV/Å, GPa: where derivatives of the energy are taken


class Property(NamedTuple):
    """One entry of a card: of which structures it can be said, and how it is computed from one at rest."""

    name: str
    of: frozenset[Kind]
    compute: Compute


_CRYSTAL, _MOLECULE, _ALL = frozenset[Kind]({"crystal"}), frozenset[Kind]({"molecule"}), frozenset[Kind](
    {"crystal", "molecule", "slab"}
)  # fmt: skip
PROPERTIES: tuple[Property, ...] = (
    Property("eos", _CRYSTAL, lambda atoms, engine: energy_volume(atoms, engine).to_record()),
    Property("elastic", _CRYSTAL, lambda atoms, engine: elastic(atoms, engine).to_record()),
    Property("phonons", _CRYSTAL, lambda atoms, engine: phonons(atoms, engine).to_record()),
    Property("expansion", _CRYSTAL, lambda atoms, engine: expansion(atoms, engine).to_record()),
    Property("vacancy", _CRYSTAL, lambda atoms, engine: vacancies(atoms, engine).to_record()),
    Property("surface", _CRYSTAL, lambda atoms, engine: surfaces(atoms, engine).to_record()),
    Property("vibrations", _MOLECULE, lambda atoms, engine: vibrations(atoms, engine).to_record()),
    Property("dimers", _ALL, lambda atoms, engine: _pairs(atoms, engine)),
)
NAMES = tuple(entry.name for entry in PROPERTIES)


@dataclass(frozen=True)
class Card:
    """What was computed, what had been before, and what was left out for which reason."""

    folder: Path
    page: Path
    computed: tuple[str, ...]
    kept: tuple[str, ...]
    left_out: dict[str, str]


def property_card(
    atoms: ase.Atoms,
    calculator: BaseCalculator | Potential | str | Path,
    folder: str | Path,
    only: Sequence[str] | None = None,
    *,
    model: str = "",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Card:
    """Relax a structure, compute its properties, write ``folder/NAME.json`` for each and ``folder/report.html``.

    A property whose file is there already, of the same model and structure, is kept: a card that was interrupted goes
    on. One that cannot be computed is left out, and the page says why.

    Parameters
    ----------
    atoms
        A crystal, a molecule or a slab; its periodicity says which.
    calculator
        A calculator, a potential, or a model file.
    only
        Names of ``PROPERTIES``; by default all that apply.
    model
        What the page calls the model.
    overwrite
        Replace files of another model or structure, which are an error otherwise.

    Raises
    ------
    ConfigError
        There is no such property, or none applies; a file of another model or structure is in the way.
    UnknownElementError, ChargeError
        The potential was not made for this structure.
    SimulationError
        The structure does not come to rest: it would be no use to go on.
    """
    engine = as_calculator(calculator)
    if isinstance(engine, Calculator):
        engine.potential.check_atoms(atoms)
    folder, kind = Path(folder), kind_of(atoms)
    wanted = _chosen(only, kind)
    told = progress or (lambda name, what: None)
    stamp = {"model": model, "formula": atoms.get_chemical_formula(), "of": fingerprint(atoms, engine)}
    _refuse_others(folder, stamp["of"], overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    told("relaxation", "begins")
    rest = _at_rest(atoms, engine, kind)
    _write(folder, "relaxation", rest.to_record() | stamp)
    told("relaxation", "done")
    computed, kept, left_out = [], [], {}
    for entry in wanted:
        if (folder / f"{entry.name}.json").exists():
            kept.append(entry.name)
            told(entry.name, "kept")
            continue
        told(entry.name, "begins")
        try:
            record = entry.compute(rest.atoms.copy(), engine)
        except AdatomError as error:
            left_out[entry.name] = " ".join(str(error).split())
            told(entry.name, left_out[entry.name])
            continue
        _write(folder, entry.name, record | stamp)
        computed.append(entry.name)
        told(entry.name, "done")
        write_card(folder)  # as far as it goes: a long card can be read before it is done
    if left_out:
        _write(folder, LEFT_OUT, {"property": LEFT_OUT, "reasons": left_out} | stamp)
    else:
        (folder / f"{LEFT_OUT}.json").unlink(missing_ok=True)
    return Card(folder, write_card(folder), tuple(computed), tuple(kept), left_out)


def kind_of(atoms: ase.Atoms) -> Kind:
    """A crystal is periodic in three directions, a molecule in none; all between is a slab."""
    if has_volume(atoms):
        return "crystal"
    return "slab" if np.any(atoms.pbc) else "molecule"


def fingerprint(atoms: ase.Atoms, calculator: BaseCalculator) -> str:
    """Of a structure and of the potentials that speak of it: who has the same says the same.

    Of a calculator of another package its name and its plain parameters are known.
    """
    digest = hashlib.sha256(type(calculator).__name__.encode())
    for potential in potentials_of(calculator):
        for name, tensor in potential.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().numpy().tobytes())
    plain = {key: value for key, value in calculator.parameters.items() if isinstance(value, bool | int | float | str)}
    digest.update(repr(sorted(plain.items())).encode())
    for array in (
        atoms.numbers, atoms.get_masses(), atoms.positions.round(9), atoms.cell.array.round(9), atoms.pbc,
    ):  # fmt: skip
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(repr(given_charge_and_spin(atoms)).encode())
    return digest.hexdigest()[:16]


def _chosen(only: Sequence[str] | None, kind: Kind) -> list[Property]:
    """The entries asked for, in their order; ConfigError for a name that is none, and where nothing is left."""
    for name in only or ():
        if name not in NAMES:
            near = nearest(name, NAMES)
            raise ConfigError(
                f"no property of a card is called '{name}'",
                where="only",
                wanted=f"some of {', '.join(NAMES)}",
                got=name,
                remedy=f"did you mean '{near}'?" if near else "name one of these",
            )
    fitting = [entry for entry in PROPERTIES if kind in entry.of and (not only or entry.name in only)]
    if not fitting:
        raise ConfigError(
            f"none of these can be said of a {kind}",
            where="only",
            wanted=f"some of {', '.join(entry.name for entry in PROPERTIES if kind in entry.of)}",
            got=", ".join(only or ()),
            remedy="set cell and pbc of the structure, or ask for others",
        )
    return fitting


def _refuse_others(folder: Path, of: str, overwrite: bool) -> None:
    """ConfigError where a folder holds the card of another model or structure; removed with ``overwrite``."""
    for path in sorted(folder.glob("*.json")):
        try:
            known = json.loads(path.read_text(encoding="utf-8")).get("of")
        except (ValueError, AttributeError):
            known = None
        if known == of:
            continue
        if not overwrite:
            raise ConfigError(
                "this folder holds figures of another model or another structure",
                where=str(path),
                remedy="give another folder with --out, or --overwrite",
            )
        if path.stem in {*NAMES, "relaxation", LEFT_OUT}:
            path.unlink()


def _at_rest(atoms: ase.Atoms, engine: BaseCalculator, kind: Kind) -> Relaxation:
    if kind == "crystal":
        return at_rest(atoms, engine, FMAX, SMAX_GPA)
    return relax(atoms, engine, fmax=FMAX).require_converged()


def _pairs(atoms: ase.Atoms, engine: BaseCalculator) -> dict[str, Any]:
    """Dimers of the elements of this structure alone; a calculator of another package does not say how far it sees."""
    reach = None if isinstance(engine, Calculator) else REACH
    return dimers(engine, elements=sorted(set(atoms.get_chemical_symbols())), reach_A=reach).to_record()


def _write(folder: Path, name: str, record: dict[str, Any]) -> None:
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / f"{name}.json", text.encode())
