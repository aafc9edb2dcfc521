"""What an architecture is: a network that says what each atom contributes, and what it claims about itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from adatom.config import Config
from adatom.elements import MAX_Z
from adatom.errors import ChargeError
from adatom.graph import Graph, sum_by_owner, volumes


class NetworkOutput(NamedTuple):
    """What a network returns, in units of the potential's energy scale. None: this network has no such head."""

    energy: Tensor  # (N,)  additive per-atom energy
    features: Tensor  # (N, C)  invariant, for uncertainty and property heads
    pooled: Tensor | None = None  # (S,)  graph-level energy; replaces the sum over atoms
    forces: Tensor | None = None  # (N, 3)  direct head
    stress: Tensor | None = None  # (S, 3, 3)  direct head, per Å^3


class Facts(NamedTuple):
    """What an architecture may want to know of the training data."""

    elements: tuple[int, ...]  # atomic numbers, in order
    mean_neighbours: float  # edges of an atom within the cutoff
    charges: tuple[float, float] | None = None  # smallest and largest total charge, e; None: no structure says
    spins: tuple[float, float] | None = None  # smallest and largest multiplicity; None: no structure says
    closest: dict[str, float] | None = None  # shortest distance of each pair of elements, Å: {"H-O": 0.9}


class ModelConfig(Config):
    """Base of every architecture's configuration.

    An architecture narrows ``architecture``, ``form`` and ``size`` to the words it knows and adds fields of its own;
    its ``size`` sets those that are not given. Entries that are None are facts of the training data, filled in when
    they are not given.
    """

    architecture: str
    form: str = "default"
    size: str = "S"
    cutoff: PositiveFloat = Field(5.0, description="Å")
    derivatives: Literal["gradient", "direct"] = Field(
        "gradient", description="forces and stress: derivatives of the energy, or heads of their own"
    )
    elements: tuple[int, ...] | None = None
    mean_neighbours: PositiveFloat | None = None
    sources: PositiveInt = Field(1, description="origins of labels: each has rows of its own in tables of elements")
    charges: tuple[float, float] | None = None
    spins: tuple[float, float] | None = None
    closest: dict[str, float] | None = Field(
        None, description="shortest distance of each pair in the training data, Å: nearer nothing is seen to come"
    )
    lowest: dict[str, tuple[tuple[float, float], ...]] | None = Field(
        None, description="lowest energy of each element and layer in training, and its distance from the mean"
    )

    def completed(self, facts: Facts) -> Self:
        """The same configuration, what is None filled from the training data."""
        unknown = {name for name, value in self if value is None}
        return self.model_copy(update={name: fact for name, fact in facts._asdict().items() if name in unknown})

    def with_derivatives(self, derivatives: Literal["gradient", "direct"]) -> Self:
        """The same network with forces made in this way; ValidationError where this form does not offer it."""
        return type(self).model_validate(self.model_dump() | {"derivatives": derivatives})


class Claims(NamedTuple):
    """What an architecture promises; ``adatom verify`` measures each, and a claim that does not hold fails."""

    symmetry: Literal["O(3)", "learned"]
    reach: Literal["local", "global"]
    extensive: bool  # energy of parts far apart = sum of the parts; a supercell of n cells has n times the energy
    conservative: bool  # forces and stress are derivatives of the energy
    smooth: bool  # no jump as an atom crosses the cutoff
    grounded: bool = True  # a lone atom has exactly its reference energy


class Model(nn.Module, ABC):
    """Base of all architectures. ``config`` rebuilds the network; ``cutoff`` (Å) is the reach of its edges.

    ``embeds_charge`` and ``embeds_spin`` say whether total charge and multiplicity of a structure enter: a potential
    that was trained with them then asks for them. ``about`` says of each form in a line what it is good for.
    ``compiles`` is False where shapes within the network depend on the values of tensors.

    ``tables`` names the weights that hold a row for each element, one source of labels after the other: those through
    which a network learns of new elements and new sources (``models.grow``). ``table_elements`` are the atomic numbers
    of the rows of one source, in order.
    """

    Config: ClassVar[type[ModelConfig]]
    config: ModelConfig
    claims: Claims
    cutoff: float
    about: ClassVar[dict[str, str]] = {}
    compiles: ClassVar[bool] = True
    embeds_charge: bool = False
    embeds_spin: bool = False
    tables: tuple[str, ...] = ()
    table_elements: tuple[int, ...] = tuple(range(MAX_Z + 1))

    @abstractmethod
    def forward(self, graph: Graph) -> NetworkOutput:
        """Contribution of each atom; differentiable in ``graph.positions`` and ``graph.cell``."""


def element_rows(graph: Graph, sources: int) -> Tensor:
    """Row of each atom, (N,), in a table of all elements for one source of labels after the other."""
    if sources == 1:
        return graph.numbers  # whatever the graph says: there is one only
    return graph.numbers + (MAX_Z + 1) * graph.source.index_select(0, graph.owner)


def stress_from_virials(virials: Tensor, graph: Graph) -> Tensor:
    """Sum of atomic virials by the volume of each cell: (N, 3, 3) -> (S, 3, 3); zero where there is no volume.

    For direct heads: a supercell then has the stress of its cell. Cells without volume are no matter: a potential says
    NaN there.
    """
    volume = volumes(graph.cell).to(virials.dtype).view(-1, 1, 1)
    total = sum_by_owner(virials, graph.owner, graph.cell.shape[0])
    return torch.where(volume > 0, total / torch.where(volume > 0, volume, 1.0), 0.0)


def check_rows(what: str, values: Tensor, low: int, high: int) -> None:
    """ChargeError for values (S,) that a table of whole numbers from ``low`` to ``high`` has no row for."""
    if bool(((values != values.round()) | (values < low) | (values > high)).any()):
        raise ChargeError(
            f"this network has no row for a {what} in its table",
            wanted=f"whole numbers from {low} to {high}",
            got=", ".join(f"{float(value):g}" for value in values[:8]),
            remedy="correct the structure, or use a form without tables",
        )
