"""A potential that nobody trained: an architecture is held to its claims with weights that nobody chose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from adatom import model_file
from adatom.errors import ConfigError
from adatom.models import MODELS, forms, read_model
from adatom.models.base import Facts
from adatom.potential import Potential
from adatom.priors.zbl import ZBL

REFERENCES = {1: -13.6, 8: -432.0, 14: -163.0}  # eV: H, O and Si
NEIGHBOURS = 20.0
SCALE = 0.5  # eV


def untrained(
    architecture: str, seed: int = 0, elements: Sequence[int] = tuple(REFERENCES), **settings: Any
) -> Potential:
    """A potential as training would begin with it, short-range repulsion included.

    Parameters
    ----------
    architecture
        Its word in ``MODELS``.
    seed
        Of the weights.
    elements
        Atomic numbers; H, O and Si where nothing is said.
    settings
        Entries of its configuration: form, size, ...

    Raises
    ------
    ConfigError
        No such architecture, form, size or entry; the nearest name is offered.
    """
    values = {"architecture": architecture, **settings}
    if "form" not in values and architecture in MODELS:
        values["form"] = forms(architecture)[0]
    config = read_model(values).completed(Facts(tuple(sorted(elements)), NEIGHBOURS, (-1.0, 1.0), (1.0, 3.0)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = MODELS[config.architecture](config)
    references = {z: REFERENCES.get(z, 0.0) for z in elements}
    return Potential(network, references, SCALE, (ZBL(),), config.derivatives)


def file_or_untrained(
    verb: str,
    model: Path | None,
    architecture: str | None,
    settings: dict[str, str | None],
    source: str | None = None,
    **of: Any,
) -> Potential:
    """The potential of a file, or an untrained one of an architecture; ConfigError unless it is one of both.

    ``verb`` is what the command line was told to do with it, ``source`` the level of theory of a file that knows
    several, ``of`` what else `untrained` takes.
    """
    given: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
    if (model is None) == (architecture is None) or (architecture is None and given):
        raise ConfigError(
            f"{verb} takes a model file, or an architecture with its form and size",
            wanted=f"adatom {verb} MODEL, or adatom {verb} --architecture NAME [--form F] [--size S]",
            got=", ".join([str(model or "no model file"), f"architecture {architecture}", *given.values()]),
            remedy="give one of both",
        )
    return (
        model_file.load(str(model), source=source) if architecture is None else untrained(architecture, **of, **given)
    )
