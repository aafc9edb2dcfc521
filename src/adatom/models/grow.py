"""Networks that learn of new elements and new sources of labels, and networks of one source out of several.

What an element is to a network stands in tables with a row for each (``Model.tables``), one source of labels after the
other. A grown network has new rows, and all else, old rows among it, bit by bit as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from adatom.elements import symbols
from adatom.errors import ConfigError, UnknownElementError
from adatom.models.base import Model

NOISE = 0.1  # of a new element's row, in units of the row that it is made from


def kin(number: int, known: Sequence[int]) -> int:
    """The known element that is nearest in the periodic table: by group first, then by period."""
    period, group = _place(number)

    def distance(z: int) -> tuple[float, int]:
        p, g = _place(z)
        return abs(g - group) + 1.5 * abs(p - period), z

    return min(known, key=distance)


def with_elements(network: Model, elements: Sequence[int], known: Sequence[int], seed: int = 0) -> Model:
    """A network that has also rows for ``elements``.

    The row of a new element, in every source, is that of its ``kin`` among the ``known`` ones plus a tenth of noise:
    so it begins as an atom that makes sense, and two new elements are not the same.

    Raises
    ------
    UnknownElementError
        The network keeps no rows for elements.
    """
    new = [z for z in elements if z not in known]
    if not new:
        return network
    if not network.tables:
        raise UnknownElementError(
            f"{type(network).__name__} cannot learn of {', '.join(symbols(new))}: it has no weights of single elements",
            wanted=f"structures of {', '.join(symbols(known))}",
            got=", ".join(symbols(elements)),
            remedy="fine-tune on structures of the elements it knows, or train another architecture",
        )
    config = network.config
    if config.elements is not None:
        config = config.model_copy(update={"elements": (*config.elements, *new)})
    random = torch.Generator().manual_seed(seed)
    sources = network.config.sources
    grown, places = _empty(network, config), {z: kin(z, known) for z in new}

    def rows(old: Tensor, fresh: Tensor) -> Tensor:
        fresh = fresh.clone()
        for s in range(sources):
            for z in network.table_elements:
                fresh[row(grown, z, s)] = old[row(network, z, s)]
            for z in new:
                like = old[row(network, places[z], s)]
                size = like.square().mean().sqrt()
                noise = torch.randn(like.shape, generator=random, dtype=torch.float64).to(like)
                fresh[row(grown, z, s)] = like + NOISE * size * noise
        return fresh

    return _filled(grown, network, rows)


def with_state(network: Model, charges: Sequence[float], spins: Sequence[float]) -> Model:
    """A network that was also trained on these total charges and multiplicities, where it says that it sees them.

    Neutral singlets are to it what they were.
    """
    config = network.config
    wanted = {"charges": _range(config.charges, charges, 0.0), "spins": _range(config.spins, spins, 1.0)}
    wanted = {name: value for name, value in wanted.items() if value != getattr(config, name)}
    if not wanted:
        return network
    made = _filled(_empty(network, config.model_copy(update=wanted)), network, lambda old, fresh: old)
    before = network.state_dict()
    with torch.no_grad():
        for name, value in made.named_parameters():
            if name not in before and name.endswith("state.out.weight"):
                value.zero_()  # of charged structures it knows nothing yet, and says nothing
    return made


def floored(network: Model, closest: Mapping[str, float]) -> Model:
    """The same network with a floor of distances (Å, as in ``{"H-O": 0.9}``, see ``nn.floor``); none where empty.

    On data that hold nothing nearer it says what it said: a floor can be given to a network that was trained without.
    """
    config = network.config.model_copy(update={"closest": dict(closest) or None})
    return _filled(_empty(network, config), network, lambda old, _: old)


def with_closest(network: Model, closest: Mapping[str, float]) -> Model:
    """A network that was also trained on pairs of atoms this close (Å, as in ``{"H-O": 0.9}``), and sees them.

    One whose distances have no floor keeps none.
    """
    known = network.config.closest
    if known is None:
        return network
    nearest = dict(known)
    for pair, distance in closest.items():
        nearest[pair] = min(nearest.get(pair, distance), distance)
    return network if nearest == known else floored(network, nearest)


def with_lowest(network: Model, lowest: Mapping[str, Any] | None) -> Model:
    """The same network with a floor of energies (``nn.depth``); None: with none. In its data it says what it said."""
    if network.config.lowest == lowest:
        return network
    config = network.config.model_copy(update={"lowest": lowest})
    return _filled(_empty(network, config), network, lambda old, _: old)


def _range(known: tuple[float, float] | None, values: Sequence[float], usual: float) -> tuple[float, float] | None:
    """The smallest range that holds the known one, by default the usual value, and some more."""
    if not values:
        return known
    every = [*(known or (usual, usual)), *values]
    return min(every), max(every)


def with_source(network: Model, like: int = 0) -> Model:
    """A network with one source more, whose rows begin as those of the source ``like``."""
    if not network.tables:
        raise ConfigError(
            f"{type(network).__name__} cannot hold labels of several sources: it has no weights of single elements",
            remedy="fine-tune without a source of its own, or choose another architecture",
        )
    config = network.config.model_copy(update={"sources": network.config.sources + 1})

    def rows(old: Tensor, fresh: Tensor) -> Tensor:
        count = len(network.table_elements)
        return torch.cat([old, old[like * count : (like + 1) * count]])

    return _filled(_empty(network, config), network, rows)


def of_source(network: Model, source: int) -> Model:
    """The network as it is for structures of one source, and for no other."""
    config = network.config.model_copy(update={"sources": 1})

    def rows(old: Tensor, fresh: Tensor) -> Tensor:
        count = len(network.table_elements)
        return old[source * count : (source + 1) * count]

    return _filled(_empty(network, config), network, rows)


def row(network: Model, number: int, source: int = 0) -> int:
    """Place of an element and source in the tables of a network."""
    return source * len(network.table_elements) + network.table_elements.index(number)


def _empty(network: Model, config: Any) -> Model:
    """A network of another configuration, of the same type and on the same device, its weights drawn at random."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = type(network)(config)  # type: ignore[call-arg]
    first = next(network.parameters())
    return made.to(device=first.device, dtype=first.dtype).train(network.training)


def _filled(made: Model, network: Model, rows: Any) -> Model:
    """Take over all weights: tables through ``rows``, the others as they are."""
    old: Mapping[str, Tensor] = network.state_dict()
    fresh = made.state_dict()
    tables = set(network.tables)
    state = {name: rows(old[name], value) if name in tables else old.get(name, value) for name, value in fresh.items()}
    made.load_state_dict(state)
    return made


def _place(number: int) -> tuple[int, int]:
    """Period and group of an element; lanthanides and actinides stand in group 3."""
    noble = [0, 2, 10, 18, 36, 54, 86, 118]
    period = next(p for p, last in enumerate(noble) if number <= last)
    place, length = number - noble[period - 1], noble[period] - noble[period - 1]
    if length == 2:
        return period, 1 if place == 1 else 18
    if length == 8:
        return period, place if place <= 2 else place + 10
    if length == 18 or place <= 2:
        return period, place
    return period, max(place - 14, 3)
