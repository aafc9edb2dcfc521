"""What a potential knew before it was fine-tuned: kept in mind by replay, and measured on a probe."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ase
import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from adatom.data.dataset import Budget, Dataset
from adatom.data.read import Structure
from adatom.errors import ConfigError
from adatom.potential import Potential
from adatom.statistics import shift_references
from adatom.train.evaluate import predict
from adatom.train.finetune import ForgettingConfig, ReplayConfig, energies_of
from adatom.train.generic import generic

FIGURES = {  # of errors, with what a table calls them
    "energy_rmse_meV_per_atom": "E rmse, meV/atom",
    "forces_rmse_meV_per_A": "F rmse, meV/Å",
    "stress_rmse_GPa": "stress rmse, GPa",
}
BOUND_ON = ("energy_rmse_meV_per_atom", "forces_rmse_meV_per_A")
SHARE = 0.3  # of replay
FORGOT = "errors on the probe grew"  # why a run was stopped
REPLAYED, PROBED = 1, 2  # seeds of generic structures


def replayed(
    config: ReplayConfig,
    start: Potential,
    source: int,
    atoms: int,
    elements: Sequence[int],
    periodic: bool,
    apart: bool,
) -> list[Structure]:
    """Old structures for a training set of ``atoms`` atoms: ``config.share`` of all atoms is theirs then.

    Parameters
    ----------
    start
        The potential before training, whose references are those of the new labels.
    source
        Which of its sources the old labels are of.
    elements
        Those that the old potential knew.
    periodic
        Whether the new structures are: prototypes are crystals then, where the file holds no samples.
    apart
        Whether old and new labels are of other elements, or of two sources: they cannot contradict one another then.
    """
    share = share_of(config, apart)
    wanted = math.ceil(share / (1 - share) * atoms)
    if wanted == 0:
        return []
    if not config.files:
        systems = generic(start.card, elements, wanted, REPLAYED, periodic=periodic)
        return labelled(start, systems, source, "replay")
    structures = config.read()
    order = np.random.default_rng(REPLAYED).permutation(len(structures))
    chosen: list[Structure] = []
    for k in order:
        if wanted <= 0:
            break
        chosen.append(structures[k])
        wanted -= len(structures[k].atoms)
    return levelled(chosen, start, source)


def share_of(config: ReplayConfig, apart: bool) -> float:
    """The share of replay in an epoch.

    Two levels of theory say two things of one structure: taught as one they leave a potential in between. So without
    being asked only what cannot contradict is replayed.
    """
    if config.share is not None:
        return config.share
    return SHARE if apart or config.files else 0.0


def labelled(potential: Potential, systems: Sequence[ase.Atoms], source: int, name: str) -> list[Structure]:
    """Structures with what a potential says of them as labels."""
    nothing = [
        Structure(atoms, 0.0, np.zeros((len(atoms), 3)), np.zeros((3, 3)), f"{name}:{k}", name)
        for k, atoms in enumerate(systems)
    ]
    dataset = Dataset(nothing, potential.cutoff, source)
    said = predict(potential, dataset, Budget(atoms=256), potential.references.device).predicted
    forces = said.forces.split([len(atoms) for atoms in systems])
    return [
        replace(s, energy=float(e), forces=f.numpy(), stress=t.numpy())
        for s, e, f, t in zip(nothing, said.energy, forces, said.stress, strict=True)
    ]


def levelled(structures: Sequence[Structure], start: Potential, source: int) -> list[Structure]:
    """The same structures, energies moved by a constant for each element so that they fit the potential's references.

    Old labels stand on the references of the old level of theory; what is to be kept is how they differ, not where
    they stand.
    """
    for s in structures:
        start.check_atoms(s.atoms, s.name, source)
    known = [k for k, s in enumerate(structures) if np.isfinite(s.energy)]
    if not known or start.sources:
        return list(structures)
    predicted = energies_of(start, Dataset(structures, start.cutoff), known, source)
    numbers = [structures[k].atoms.numbers for k in known]
    moved = shift_references({}, numbers, [structures[k].energy - e for k, e in zip(known, predicted, strict=True)])
    return [replace(s, energy=s.energy - moved.total(s.atoms.numbers)) for s in structures]  # NaN stays NaN


@dataclass
class Probe:
    """Errors on what a potential knew, before and after.

    With labelled old structures these are errors. On generic structures there are only changes of what the potential
    says; they are added in quadrature to the errors that its card states: sqrt(e^2 + change^2).
    """

    dataset: Dataset
    config: ForgettingConfig
    before: dict[str, float]
    stated: bool  # ``before`` are the errors that the card states
    device: torch.device
    after: dict[str, float] = field(default_factory=dict)
    kept: list[Tensor] = field(default_factory=list)  # the last weights inside of the bound

    @classmethod
    def of(
        cls,
        config: ForgettingConfig,
        start: Potential,
        source: int,
        elements: Sequence[int],
        periodic: bool,
        device: torch.device,
    ) -> Probe:
        """Before training. ConfigError for a bound on what is not known."""
        if config.files:
            structures = levelled(config.read(), start, source)
            dataset = Dataset(structures, start.cutoff, source)
            before = _figures(predict(start, dataset, Budget(atoms=256), device).errors())
            return cls(dataset, config, before, False, device)
        systems = generic(start.card, elements, 0, PROBED, config.structures, periodic)
        dataset = Dataset(labelled(start, systems, source, "probe"), start.cutoff, source)
        errors = start.card.get("errors", {})
        stated = _figures(errors.get("test") or errors.get("valid") or {})
        if config.bound is not None and not stated:
            raise ConfigError(
                "the model file states no errors, so that nobody can say by how much they grow",
                where="finetune.forgetting.bound",
                wanted="old test data",
                remedy="give it with --probe old_test.xyz, or leave the bound out",
            )
        return cls(dataset, config, stated, True, device)

    def look(self, potential: Potential) -> dict[str, Any]:
        """Errors now; as a record for the log."""
        found = _figures(predict(potential, self.dataset, Budget(atoms=256), self.device).errors())
        self.after = found
        if self.stated and self.before:
            self.after = {name: math.hypot(self.before.get(name, 0.0), change) for name, change in found.items()}
        return self.after | {"ratio": self.ratio()}

    def ratio(self) -> float | None:
        """The largest factor by which an error of energies or forces has grown."""
        ratios = [
            self.after[name] / self.before[name]
            for name in BOUND_ON
            if name in self.after and self.before.get(name, 0.0) > 0
        ]
        return max(ratios) if ratios else None

    def judge(self, weights: list[Tensor], ratio: float) -> tuple[list[Tensor], str]:
        """After a look, the weights to go on with: these, or the last within the bound, and the reason to stop then."""
        bound = self.config.bound
        if bound is None or ratio <= bound:
            self.kept = [t.clone() for t in weights] if bound is not None else []
            return weights, ""
        return [t.clone() for t in self.kept or weights], f"{FORGOT} {ratio:.2f} times, beyond {bound:g}"

    def weights(self, live: list[Tensor]) -> dict[str, list[Tensor]]:
        """What a checkpoint must hold."""
        if self.config.bound is None:
            return {}
        self.kept = self.kept or [t.clone() for t in live]
        return {"kept": self.kept}

    def record(self, reason: str) -> dict[str, Any]:
        """For the metrics of a run that ended for this reason."""
        return {
            "structures": len(self.dataset),
            "labels": "the model's own, on generic structures" if self.stated else "of files",
            "before": self.before or None,
            "after": self.after,
            "ratio": self.ratio(),
            "bound": self.config.bound,
            "stopped": reason.startswith(FORGOT),
        }


def _figures(errors: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float(value) for name in FIGURES if (value := errors.get(name)) is not None and math.isfinite(value)}


def forgetting_table(record: Mapping[str, Any]) -> Table:
    """What was forgotten, for the terminal."""
    own = record["labels"] != "of files"
    told = f"{record['structures']} generic structures" if own else f"{record['structures']} old structures"
    table = Table(title=f"Forgotten ({told})", title_justify="left")
    for heading in ("", "before", "after", "ratio"):
        table.add_column(heading, justify="right" if heading else "left")
    before = record["before"] or {}
    for name, heading in FIGURES.items():
        if name in record["after"]:
            old, now = before.get(name), record["after"][name]
            ratio = f"{now / old:.2f}" if old else "–"
            table.add_row(heading, "–" if old is None else f"{old:.2f}", f"{now:.2f}", ratio)
    if own:
        table.caption = (
            "before: errors that the model file states; after: with the change of what it says added in quadrature"
            if before
            else "after: the change of what the model says; its file states no errors"
        )
    return table
