"""A potential that nobody trained: an architecture is held to its claims with weights that nobody chose."""

from __future__ import annotations

from typing import Any

import torch

from adatom.models import MODELS, forms, read_model
from adatom.models.base import Facts
from adatom.potential import Potential
from adatom.priors.zbl import ZBL

REFERENCES = {1: -13.6, 8: -432.0, 14: -163.0}  # eV: H, O and Si
NEIGHBOURS = 20.0
SCALE = 0.5  # eV


def untrained(architecture: str, seed: int = 0, **settings: Any) -> Potential:
    """A potential for H, O and Si as training would begin with it, short-range repulsion included.

    Parameters
    ----------
    architecture
        Its word in ``MODELS``.
    seed
        Of the weights.
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
    config = read_model(values).completed(Facts(tuple(sorted(REFERENCES)), NEIGHBOURS, (-1.0, 1.0), (1.0, 3.0)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = MODELS[config.architecture](config)
    return Potential(network, REFERENCES, SCALE, (ZBL(),), config.derivatives)
