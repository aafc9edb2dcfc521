"""Fine-tuning: a potential that exists becomes the start of a run.

What changes at once, before any training: reference energies are solved for the new labels, and new elements, charges
and sources of labels get weights of their own. What is trained after that: all weights, those of early layers more
slowly; or all but frozen ones; or low-rank changes of matrices alone. The loop, the loss and the run folder are those
of any training.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import nn

from adatom import model_file
from adatom.config import Config, nearest
from adatom.data.dataset import Budget, Dataset, batches
from adatom.data.read import Keys, Structure, Units, read
from adatom.elements import symbols
from adatom.errors import ChargeError, ConfigError
from adatom.models.base import Model
from adatom.models.grow import row, with_closest, with_elements, with_lowest, with_source, with_state
from adatom.neighbors import given_charge_and_spin
from adatom.nn import lora
from adatom.potential import Potential
from adatom.statistics import References, shift_references
from adatom.train.closest import closest_pairs

START = "start.adatom"  # in the run folder: the potential before its first step
# Muon moves all directions of a matrix alike, those too that hold what is known: it forgets more and learns less
OPTIMIZER = {"name": "adamw", "lr": 0.004, "warmup_steps": 50}  # what is not given
GROWS = {"elements", "charges", "spins", "sources"}  # entries of a network that fine-tuning can change
LAYER = re.compile(r"(?:layers|rounds|blocks|readouts|direct|coefficients)\.(\d+)\.")


class LoRAConfig(Config):
    """Low-rank changes of the matrices of all layers; what has no matrix, and tables of elements, stay as they are."""

    rank: PositiveInt = 8
    alpha: PositiveFloat | None = Field(None, description="strength of the changes; None: the rank")
    also: tuple[str, ...] = Field((), description="weights that are trained whole beside them, by name")


class OldFiles(Config):
    """Labelled structures that the model was made for."""

    files: tuple[str, ...] = ()
    keys: Keys = Keys()
    units: Units = Units()

    def read(self) -> list[Structure]:
        """All but free atoms."""
        return [s for s in read(self.files, self.keys, self.units)[0] if not s.isolated]


class ReplayConfig(OldFiles):
    """What keeps the old in mind while the new is learned."""

    share: float | None = Field(
        None, ge=0.0, lt=1.0, description="of the atoms of an epoch; None: 0.3 where old and new cannot contradict"
    )
    files: tuple[str, ...] = Field((), description="without, generic structures as the old model sees them")


class ForgettingConfig(OldFiles):
    """How forgetting is measured, and how much of it there may be."""

    files: tuple[str, ...] = Field((), description="without, generic structures as the old model saw them")
    bound: float | None = Field(None, gt=1.0, description="training stops when errors on them grow beyond this ratio")
    structures: PositiveInt = Field(32, description="generic structures, where no files are given")


class FinetuneConfig(Config):
    """Where a run starts from, and how the new is put upon the old."""

    model: str = Field(description="a model file")
    references: Literal["solve", "keep"] = Field(
        "solve", description="reference energies: for the new labels, or as is"
    )
    freeze: tuple[str, ...] = Field((), description="weights that stay as they are: embedding, layers.0, readouts, ...")
    layer_decay: float = Field(
        0.8, gt=0.0, le=1.0, description="learning rate of a layer, as a fraction of that of the layer after it"
    )
    lora: LoRAConfig | None = None
    replay: ReplayConfig = ReplayConfig()
    forgetting: ForgettingConfig = ForgettingConfig()
    source: str | None = Field(None, description="name of the new labels, where the old level of theory is kept beside")
    old_source: str = Field("first", description="name of the old ones, where they have none yet")


def with_model_of_file(values: Any) -> Any:
    """Plain values of a training configuration, ``model`` and ``priors`` filled from the file to start from.

    ConfigError for a ``model`` that is not the one of the file: its cutoff, sizes and elements are built into weights.
    """
    start = values.get("finetune") if isinstance(values, dict) else None
    path = start.get("model") if isinstance(start, dict) else getattr(start, "model", None)
    if not isinstance(path, str):
        return values
    card = model_file.info(path)
    own = card["config"] | {"architecture": card["architecture"]}
    asked = values.get("model") or {}
    asked = asked if isinstance(asked, dict) else asked.model_dump(mode="json")
    unlike = [name for name, value in asked.items() if name not in GROWS and own.get(name) != _plain(value)]
    if unlike:
        raise ConfigError(
            "a model that is fine-tuned stays what it is: this is built into its weights",
            where=", ".join(f"model.{name}" for name in unlike),
            wanted=", ".join(f"{name} {own.get(name, 'nothing')}" for name in unlike),
            got=", ".join(f"{name} {asked[name]}" for name in unlike),
            remedy="leave model out of the configuration, or train a new model",
        )
    grown = {name: value for name, value in asked.items() if name in GROWS}
    optimizer = values.get("optimizer") or {}
    optimizer = OPTIMIZER | optimizer if isinstance(optimizer, dict) else optimizer
    return values | {"model": own | grown, "priors": card["priors"], "optimizer": optimizer}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


class Begun(NamedTuple):
    """A potential ready for its first step, and what was done to it."""

    potential: Potential
    references: References  # of the new labels
    source: int  # of the new labels
    new: tuple[int, ...]  # elements
    remarks: tuple[str, ...]


def begin(config: FinetuneConfig, dataset: Dataset, given: Mapping[int, float], dtype: torch.dtype) -> Begun:
    """The potential of ``config.model``, its references solved for the labels of ``dataset``, and grown to hold it.

    Raises
    ------
    ModelFileError
        There is no such model, or it is damaged.
    UnknownElementError, ChargeError
        The network cannot learn of an element, a charge or a multiplicity.
    ConfigError
        The source has a name that is taken; references are kept, and an element has none.
    DataError
        No labelled structure holds a new element.
    """
    old = model_file.load_whole(config.model, dtype=dtype)
    known = old.elements
    new = tuple(z for z in dataset.elements if z not in known)
    network = _charged(with_elements(old.network, dataset.elements, known), dataset)
    closest = closest_pairs(dataset)
    network = with_lowest(with_closest(network, closest), None)  # measured anew at the end
    tables = [old.references_of(k) for k in range(max(len(old.sources), 1))]
    names, source = _place_of_source(config, old)
    if source == len(tables):
        network = with_source(network)
        tables.append(dict(tables[0]))
    for z in new:
        tables[source].setdefault(z, 0.0)
    references: Any = dict(zip(names, tables, strict=True)) if names else tables[0]
    grown = old.remade(network, references, closest=closest)
    for structure in dataset.structures:
        grown.check_atoms(structure.atoms, structure.name, source)
    solved = _solved(config, grown, dataset, source, {z: e for z, e in tables[source].items() if z not in new}, given)
    if len(names) > max(len(old.sources), 1):  # what the new labels say nothing of is known at the old level alone
        energies = {z: e for z, e in solved.energies.items() if z in set(dataset.elements)}
        solved = References(energies, {z: solved.source[z] for z in energies}, solved.remarks)
    tables[source] = dict(solved.energies)
    references = dict(zip(names, tables, strict=True)) if names else tables[0]
    remarks = (*solved.remarks, *_kept(config, solved, dataset))
    return Begun(grown.remade(network, references), solved, source, new, remarks)


def _place_of_source(config: FinetuneConfig, old: Potential) -> tuple[tuple[str, ...], int]:
    """Names of the sources of the model to come, and which one the new labels are of."""
    if config.source is None and len(old.sources) > 1:
        raise ConfigError(
            "this model knows several sources of labels, and the new ones may be of any",
            where="finetune.source",
            wanted=f"one of {', '.join(old.sources)}, or a new name",
            got="none",
            remedy="name it with --source",
        )
    if config.source is None or config.source in old.sources:
        return old.sources, old.sources.index(config.source) if config.source else 0
    names = old.sources or (config.old_source,)
    if config.source in names:
        raise ConfigError(
            "two sources of labels have one name",
            where="finetune.source",
            wanted="two names",
            got=f"'{config.source}' for the old labels and for the new ones",
            remedy="give one of them another name, with --source or --set finetune.old_source=NAME",
        )
    return (*names, config.source), len(names)


def _charged(network: Model, dataset: Dataset) -> Model:
    """The network with the charges and multiplicities of the data in its range."""
    said = [given_charge_and_spin(s.atoms) for s in dataset.structures]
    charges, spins = ([value for value in column if value is not None] for column in zip(*said, strict=True))
    if not network.embeds_charge and len(set(charges)) > 1:
        raise ChargeError(
            f"{type(network).__name__} does not see total charges, and the new data hold several: to it they would "
            "contradict one another",
            wanted="structures of one total charge",
            got=", ".join(f"{value:g}" for value in sorted(set(charges))[:8]),
            remedy="fine-tune on one charge at a time, or train an architecture that sees them (adatom models)",
        )
    return with_state(network, charges if network.embeds_charge else [], spins if network.embeds_spin else [])


def _solved(
    config: FinetuneConfig,
    grown: Potential,
    dataset: Dataset,
    source: int,
    old: dict[int, float],
    given: Mapping[int, float],
) -> References:
    """References of the new labels."""
    if config.references == "keep":
        missing = [z for z in dataset.elements if z not in old and z not in given]
        if missing:
            raise ConfigError(
                f"references are kept, and the model has none of {', '.join(symbols(missing))}",
                where="finetune.references",
                remedy="set it to solve, or give these under data.references",
            )
        energies = {**old, **given}
        return References(energies, {z: "given" if z in given else "model" for z in energies})
    structures = dataset.structures
    bound = [k for k, s in enumerate(structures) if np.isfinite(s.energy) and not s.isolated]
    seen = {int(z) for k in bound for z in structures[k].atoms.numbers}
    # a free atom says nothing of bound ones, but it may be all there is
    free = [k for k, s in enumerate(structures) if s.isolated and int(s.atoms.numbers[0]) not in seen]
    use = [*bound, *(k for k in free if np.isfinite(structures[k].energy))]
    residuals = np.full(len(structures), np.nan)
    residuals[use] = [structures[k].energy for k in use]
    residuals[use] -= energies_of(grown, dataset, use, source)
    return shift_references(old, [s.atoms.numbers for s in structures], residuals, given)


def _kept(config: FinetuneConfig, solved: References, dataset: Dataset) -> list[str]:
    """What is to be said of elements that the new data lack."""
    absent = sorted(set(solved.energies) - set(dataset.elements))
    if not absent or config.source is not None or config.references == "keep":
        return []
    return [
        f"{', '.join(symbols(absent))}: not in the new data, the reference energy stays that of the old level of theory"
    ]


@torch.no_grad()
def energies_of(potential: Potential, dataset: Dataset, indices: Sequence[int], source: int = 0) -> list[float]:
    """Energies in eV of some structures, in their order."""
    was_training = potential.training
    potential.eval()
    found: dict[int, float] = {}
    wanted = set(indices)
    for batch in batches(dataset, Budget(atoms=256), shuffle=False):
        chosen = [k for k in batch if k in wanted]
        if not chosen:
            continue
        graph, _ = dataset.batch(chosen)
        graph = graph.replace(source=torch.full_like(graph.source, source)).to(potential.references.device)
        energy = potential(graph, forces=False).energy.cpu()
        found |= {k: float(e) for k, e in zip(chosen, energy, strict=True)}
    potential.train(was_training)
    return [found[k] for k in indices]


# --- what is trained --------------------------------------------------------------------------------------------------


def choose_weights(config: FinetuneConfig, potential: Potential, new: Sequence[int]) -> None:
    """Leave to training what ``config`` leaves to it: the others no longer ask for gradients.

    Rows of new elements are trained in any case, whatever is frozen. ConfigError for a name that no weight has, and
    when nothing is left.
    """
    network = potential.network
    sources = network.config.sources
    whole = dict(network.named_parameters())
    frozen = {name for pattern in config.freeze for name in _named(pattern, network, "finetune.freeze")}
    if config.lora is not None:
        also = {name for pattern in config.lora.also for name in _named(pattern, network, "finetune.lora.also")}
        rank = config.lora.rank
        for name, weight in whole.items():
            if name in frozen or name in also:
                continue
            if name in network.tables or not lora.worthwhile(weight, rank):
                frozen.add(name) if name in network.tables or weight.ndim < 2 else None
                continue
            lora.adapt(network, name, rank, config.lora.alpha or float(rank))
    for name in frozen:
        whole[name].requires_grad_(False)
    for name in network.tables if new else ():
        lora.set_apart(network, name, [row(network, z, s) for s in range(sources) for z in new])
    if not any(p.requires_grad for p in network.parameters()):
        raise ConfigError(
            "every weight is frozen: there is nothing to train",
            where="finetune.freeze",
            got=", ".join(config.freeze),
            remedy="freeze less, or solve the references alone: they are in start.adatom of the run folder",
        )


def _named(pattern: str, network: Model, where: str) -> list[str]:
    """Weights whose dotted name holds the parts of a pattern one after the other; ``embedding`` names any table."""
    names = [name for name, _ in network.named_parameters()]
    if pattern == "embedding":
        return list(network.tables)
    parts = pattern.split(".")
    found = [name for name in names if _holds(name.split("."), parts)]
    if not found:
        ways = [name.split(".") for name in names]
        known = {".".join(way[i:j]) for way in ways for i in range(len(way)) for j in (i + 1, i + 2)}
        near = nearest(pattern, sorted(known | {"embedding"}))
        tops = sorted({n.split(".")[1] for n in names if "." in n} | {"embedding"})
        raise ConfigError(
            f"no weight is called '{pattern}'",
            where=where,
            wanted=f"parts of names of weights, such as {', '.join(tops)}, layers.0",
            got=pattern,
            remedy=f"did you mean '{near}'?" if near else "name one of these",
        )
    return found


def _holds(name: list[str], parts: list[str]) -> bool:
    return any(name[k : k + len(parts)] == parts for k in range(len(name) - len(parts) + 1))


def learning_rates(network: nn.Module, decay: float) -> dict[str, float]:
    """Factor of the learning rate of each weight: one at the end of the network, less by ``decay`` a layer before.

    What is new, rows of elements and low-rank changes, has that of its layer, but rows of tables: they have one.
    """
    names = [name for name, _ in network.named_parameters()]
    numbers = [int(found[1]) if (found := LAYER.search(f"{name}.")) else None for name in names]
    deepest = max((n for n in numbers if n is not None), default=-1) + 1
    first = next((k for k, n in enumerate(numbers) if n is not None), 0)
    factors = {}
    for k, (name, number) in enumerate(zip(names, numbers, strict=True)):
        depth = number + 1 if number is not None else 0 if k < first else deepest
        factors[name] = 1.0 if name.endswith(".fresh") else decay ** (deepest - depth)
    return factors


def set_factors(optimizer: torch.optim.Optimizer, potential: nn.Module, factors: Mapping[str, float]) -> None:
    """Part the groups of an optimiser so that each has one ``lr_factor``; parameters without one have 1."""
    by_id = {id(p): factors.get(name, 1.0) for name, p in potential.named_parameters()}
    groups = []
    for group in optimizer.param_groups:
        parted: dict[float, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            parted.setdefault(by_id.get(id(parameter), 1.0), []).append(parameter)
        own = group.get("lr_factor", 1.0)
        groups += [{**group, "params": members, "lr_factor": own * factor} for factor, members in parted.items()]
    optimizer.param_groups[:] = groups


def merged(potential: Potential) -> Potential:
    """The potential with everything that was learned in its weights: one like any other."""
    lora.merge(potential.network)
    for parameter in potential.parameters():
        parameter.requires_grad_(True)
    return potential
