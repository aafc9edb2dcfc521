"""The waist of the house: a network, its references and its priors become energy, forces and stress."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import ase
import torch
from torch import Tensor, nn

from adatom.config import nearest
from adatom.elements import MAX_Z, symbols
from adatom.errors import ChargeError, ConfigError, UnknownElementError
from adatom.graph import Graph, Results, sum_by_owner, volumes
from adatom.memory import guard as memory_guard
from adatom.memory import require as require_memory
from adatom.memory import share as share_of_memory
from adatom.models.base import Model, NetworkOutput, element_rows
from adatom.models.grow import of_source
from adatom.models.layered import Layered
from adatom.neighbors import NEUTRAL, SINGLET, given_charge_and_spin
from adatom.priors.base import Prior
from adatom.stream import Steps
from adatom.stream import streamed as stream

STREAMED_ATOMS = 800  # on a CPU larger systems are streamed: they would not fit into cache
EAGER_CHUNK, COMPILED_CHUNK, CARD_CHUNK = 256, 96, 16_384  # atoms; on a CPU they fit into cache

References = Mapping[int, float] | Mapping[str, Mapping[int, float]]  # eV by atomic number, of one source or of several
Derivatives = Literal["gradient", "direct"]
Energies = Callable[[Graph], Tensor]  # (S,) eV
Derive = Callable[[Energies, Graph, bool, bool], Results]  # energies, graph, forces?, stress?


class Runner(Protocol):
    """Another way to energy and forces (and stress) of a graph than operation by operation: ``adatom.compile``."""

    def __call__(self, potential: Potential, graph: Graph, stress: bool) -> Results | None:
        """The same results, or None to leave them to ``Potential.eager``."""


class Potential(nn.Module):
    """Energy, forces and stress of atoms.

    E = sum_i [ scale * e_i + E0(Z_i) + priors_i ],   F = -dE/dr,   sigma = (1/V) dE/d(strain)

    with e_i from the network. Energies and geometry are float64, the network has a dtype of its own. With
    ``derivatives="direct"`` the network's part of forces and stress comes from its heads instead (times ``scale``), and
    they are no derivatives of the energy then.

    Parameters
    ----------
    network
        The architecture.
    references
        Energy of an isolated atom per atomic number, eV. Its keys are the elements this potential knows. Where labels
        came from several sources (levels of theory), one such table for each of them, by its name; ``graph.source``
        says by their order which one a structure is asked of.
    scale
        Unit of the network's output, eV.
    priors
        Physics added to the network.
    derivatives
        ``"gradient"`` or ``"direct"``.
    card
        What else a reader of the model file should know: plain JSON values.
    """

    def __init__(
        self,
        network: Model,
        references: References,
        scale: float = 1.0,
        priors: tuple[Prior, ...] = (),
        derivatives: Derivatives = "gradient",
        card: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.priors = nn.ModuleList(priors)
        self.derivatives: Derivatives = derivatives
        self.runner: Runner | None = None
        self.card: dict[str, Any] = dict(card or {})
        self.sources, tables = _by_source(references)
        if len(tables) != network.config.sources:
            raise ConfigError(
                "a network has rows for each source of labels, and a potential references",
                wanted=f"references of {network.config.sources} sources",
                got=f"{len(tables)}: {', '.join(self.sources) or 'of one without a name'}",
            )
        if len(tables) > 1 and not network.tables:
            raise ConfigError(
                f"{type(network).__name__} cannot tell sources of labels apart: it has no weights of single elements",
                wanted="labels of one source",
                got=", ".join(self.sources),
                remedy="train on one source at a time, or choose another architecture",
            )
        table = torch.full((len(tables), MAX_Z + 1), torch.nan, dtype=torch.float64)
        for own, energies in zip(table, tables, strict=True):
            for z, energy in energies.items():
                own[z] = energy
        self.register_buffer("references", table.flatten())
        self.register_buffer("scale", torch.tensor(float(scale), dtype=torch.float64))

    references: Tensor  # (sources * 119,)  eV, one source after the other; NaN where it does not know the element
    scale: Tensor  # ()  eV

    @property
    def cutoff(self) -> float:
        """Reach of the edges in Å."""
        return self.network.cutoff

    @property
    def elements(self) -> list[int]:
        """Atomic numbers this potential was made for; of several sources, those that any of them knows."""
        known = torch.isfinite(self.references.view(-1, MAX_Z + 1)).any(0)
        return [int(z) for z in known.nonzero().flatten()]

    def references_of(self, source: int = 0) -> dict[int, float]:
        """Reference energies of one source, eV by atomic number: its keys are the elements it knows."""
        table = self.references.view(-1, MAX_Z + 1)[source]
        return {int(z): float(table[z]) for z in torch.isfinite(table).nonzero().flatten()}

    def all_references(self) -> dict[int, float] | dict[str, dict[int, float]]:
        """Those of all sources, as a potential is made with them."""
        if not self.sources:
            return self.references_of()
        return {name: self.references_of(k) for k, name in enumerate(self.sources)}

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the network."""
        return next(self.network.parameters()).dtype

    def of_source(self, name: str | None = None) -> Potential:
        """What this potential says of structures of one source, as a potential of that source alone.

        By default the first source; a potential of one source without a name is returned as it is. ConfigError when
        there is no such source.
        """
        if not self.sources and name is None:
            return self
        if name is not None and name not in self.sources:
            near = nearest(name, self.sources)
            raise ConfigError(
                f"this potential knows no source '{name}'",
                where="source",
                wanted=f"one of {', '.join(self.sources)}" if self.sources else "no source: its labels had one origin",
                got=name,
                remedy=f"did you mean '{near}'?" if near else "leave it out" + (", or name one" * bool(self.sources)),
            )
        source = 0 if name is None else self.sources.index(name)
        card = self.card | {"source": self.sources[source]}
        return self.remade(of_source(self.network, source), self.references_of(source), card)

    def remade(
        self,
        network: Model,
        references: References,
        card: dict[str, Any] | None = None,
        closest: Mapping[str, float] | None = None,
    ) -> Potential:
        """A potential of another network and other references, all else as it is here, but for what priors make of
        distances (Å, ``{"H-O": 0.9}``) that it was also trained on.
        """
        other = Potential(
            network,
            references,
            float(self.scale),
            tuple(_as_prior(prior).taught(closest or {}) for prior in self.priors),
            self.derivatives,
            self.card if card is None else card,
        )
        return other.to(self.references.device).train(self.training)

    def check_elements(self, numbers: Tensor, where: str | None = None, source: int = 0) -> None:
        """UnknownElementError when a structure holds an element without reference: said before anything is computed."""
        own = self.references.view(-1, MAX_Z + 1)[source]
        missing = numbers[own.index_select(0, numbers).isnan()]
        if missing.numel():
            named = f", asked as {self.sources[source]}," if self.sources else ""
            raise UnknownElementError(
                f"this potential{named} does not know {', '.join(symbols(sorted(set(missing.tolist()))))}",
                where=where,
                wanted=f"structures of {', '.join(symbols(sorted(self.references_of(source))))}",
                got=", ".join(symbols(sorted(set(numbers.tolist())))),
                remedy="use a potential trained on these elements, or teach it: adatom finetune MODEL NEW_DATA",
            )

    def check_atoms(self, atoms: ase.Atoms, where: str | None = None, source: int = 0) -> None:
        """UnknownElementError or ChargeError when the potential was not made for this structure.

        Charge and multiplicity are asked of networks that embed them. A structure that says nothing is neutral, a
        singlet: an error where the training data held anything else.
        """
        numbers = torch.as_tensor(atoms.numbers, dtype=torch.int64, device=self.references.device)
        self.check_elements(numbers, where, source)
        network, config = self.network, self.network.config
        charge, spin = given_charge_and_spin(atoms)
        where = atoms.get_chemical_formula() if where is None else where
        if network.embeds_charge:
            _check_trained("total charge", "total_charge", charge, config.charges, NEUTRAL, where)
        if network.embeds_spin:
            _check_trained("spin multiplicity", "multiplicity", spin, config.spins, SINGLET, where)

    def forward(self, graph: Graph, forces: bool = True, stress: bool = False) -> Results:
        """Energy, forces and stress of a batch; what is not asked for comes back as NaN.

        Under ``torch.is_grad_enabled()`` and in training mode the results can be differentiated once more.
        Stress is NaN for structures that are not periodic in three directions: they have no volume.
        """
        with memory_guard(self.network, graph):
            body = self.streamable(graph) if forces or stress else None
            if body is None:
                require_memory(self.network, graph)
            if self.runner is not None and forces:
                found = self.runner(self, graph, stress)
                if found is not None:
                    return found
            return self.eager(graph, forces, stress) if body is None else self.streamed(body, graph, stress)

    def streamable(self, graph: Graph) -> Layered | None:
        """The layers through which a graph is better streamed than taken whole; None where it is not, or cannot be.

        On a CPU that is so as soon as it does not fit into cache, elsewhere when it does not fit into memory.
        """
        parts = list(self.network.children())
        if (
            graph.edges.shape[1] == 0
            or self.training
            or self.derivatives == "direct"
            or len(parts) != 1
            or not isinstance(parts[0], Layered)
        ):
            return None
        on_cpu = graph.positions.device.type == "cpu"
        worth = graph.numbers.shape[0] > STREAMED_ATOMS if on_cpu else share_of_memory(self.network, graph) > 0.8
        return parts[0] if worth else None

    def streamed(self, body: Layered, graph: Graph, stress: bool, steps: Steps | None = None) -> Results:
        """Energy and forces of a graph, chunk after chunk; ``steps`` are compiled ones."""
        on_cpu = graph.positions.device.type == "cpu"
        size = CARD_CHUNK if not on_cpu else EAGER_CHUNK if steps is None else COMPILED_CHUNK
        found = stream(body, self.scale, [_as_prior(prior) for prior in self.priors], graph, size, steps)
        atomic = found.energy + self.atomic_references(graph)
        virial = 0.5 * (found.virial + found.virial.transpose(1, 2))
        return Results(
            sum_by_owner(atomic, graph.owner, graph.cell.shape[0]),
            -found.slopes,
            by_volume(virial, graph) if stress else torch.full_like(graph.cell, torch.nan),
        )

    def eager(self, graph: Graph, forces: bool = True, stress: bool = False) -> Results:
        """As ``forward``, operation by operation."""
        if self.derivatives == "direct":
            with torch.set_grad_enabled(self.training and torch.is_grad_enabled()):
                return self.results(graph, forces, stress, self._derived)
        return self.results(graph, forces, stress, self._derived)

    def results(self, graph: Graph, forces: bool, stress: bool, derive: Derive) -> Results:
        """Results, with derivatives of energies taken by ``derive``."""
        return (
            derive(self.energies, graph, forces, stress)
            if self.derivatives == "gradient"
            else self._direct(graph, forces, stress, derive)
        )

    def _derived(self, energies: Energies, graph: Graph, forces: bool, stress: bool) -> Results:
        """Energies (S,) of a graph with forces and stress as their derivatives."""
        positions = graph.positions.detach().requires_grad_(forces)
        strain = torch.zeros_like(graph.cell, requires_grad=stress)
        with torch.enable_grad():
            energy = energies(
                strained(graph.replace(positions=positions), strain) if stress else graph.replace(positions=positions)
            )
            total = energy.sum()  # inside: a caller under no_grad would otherwise cut the graph here
        wanted = [t for t, asked in ((positions, forces), (strain, stress)) if asked]
        slopes = iter(
            torch.autograd.grad(total, wanted, create_graph=self.training, allow_unused=True)
            if wanted and total.requires_grad
            else [None] * len(wanted)
        )
        return Results(
            energy if self.training else energy.detach(),
            -_or_zero(next(slopes), positions) if forces else torch.full_like(graph.positions, torch.nan),
            by_volume(_or_zero(next(slopes), strain), graph) if stress else torch.full_like(graph.cell, torch.nan),
        )

    def atomic_energies(self, graph: Graph) -> Tensor:
        """Energy of each atom in eV, (N,), with references and priors. Their sum is the energy, unless it is pooled."""
        return self._sum_parts(graph, self.network(graph))

    def atomic_references(self, graph: Graph) -> Tensor:
        """Reference energy of each atom in eV, (N,)."""
        return self.references.index_select(0, element_rows(graph, max(len(self.sources), 1)))

    def features(self, graph: Graph) -> Tensor:
        """Invariant features of each atom, (N, C)."""
        output: NetworkOutput = self.network(graph)
        return output.features

    def _sum_parts(self, graph: Graph, output: NetworkOutput) -> Tensor:
        atomic = output.energy.to(torch.float64) * self.scale + self.atomic_references(graph)
        return atomic + self._prior_energies(graph)

    def _prior_energies(self, graph: Graph) -> Tensor:
        total = torch.zeros_like(graph.positions[:, 0])
        for prior in self.priors:
            total = total + prior(graph)
        return total

    def _prior_totals(self, graph: Graph) -> Tensor:
        return sum_by_owner(self._prior_energies(graph), graph.owner, graph.cell.shape[0])

    def energies(self, graph: Graph) -> Tensor:
        """Energy of each structure in eV, (S,); a plain function of positions and cell, to be differentiated."""
        return self._totals(graph, self.network(graph))

    def _totals(self, graph: Graph, output: NetworkOutput) -> Tensor:
        if output.pooled is None:
            return sum_by_owner(self._sum_parts(graph, output), graph.owner, graph.cell.shape[0])
        silent = output._replace(energy=torch.zeros_like(output.energy))
        parts = sum_by_owner(self._sum_parts(graph, silent), graph.owner, graph.cell.shape[0])
        return parts + output.pooled.to(torch.float64) * self.scale

    def _direct(self, graph: Graph, forces: bool, stress: bool, derive: Derive) -> Results:
        output: NetworkOutput = self.network(graph)
        if output.forces is None:
            raise ConfigError(
                f"{type(self.network).__name__} has no direct head",
                where="model.derivatives",
                wanted="a network that gives forces",
                got="energies alone",
                remedy="set derivatives to gradient, and schedule to single",
            )
        pushed = derive(self._prior_totals, graph, forces, stress)  # what priors add, heads need not learn
        silent = torch.full_like(graph.cell, torch.nan)
        return Results(
            self._totals(graph, output),
            output.forces.to(torch.float64) * self.scale + pushed.forces,  # NaN where not asked for
            silent if output.stress is None else output.stress.to(torch.float64) * self.scale + pushed.stress,
        )


def _by_source(references: References) -> tuple[tuple[str, ...], list[Mapping[int, float]]]:
    """Names of the sources (none where there is one without a name), and their tables."""
    named = {key: table for key, table in references.items() if isinstance(key, str) and isinstance(table, Mapping)}
    if named:
        return tuple(named), list(named.values())
    return (), [{int(z): float(energy) for z, energy in references.items()}]  # type: ignore[arg-type]


def _check_trained(
    what: str, key: str, value: float | None, trained: tuple[float, float] | None, default: float, where: str
) -> None:
    """ChargeError for a charge or multiplicity that is missing or outside of the trained range."""
    low, high = trained or (default, default)
    if value is None and low == high == default:
        return
    if value is None:
        raise ChargeError(
            f"this potential was trained with {what}, and the structure does not give it",
            where=where,
            wanted=f"a {what} from {low:g} to {high:g}",
            got="none",
            remedy=f"set atoms.info['{key}'], or {key}=... in the second line of the extended XYZ file",
        )
    if not low <= value <= high:
        known = f"{what} from {low:g} to {high:g}" if trained else f"data that say nothing of the {what}: {default:g}"
        raise ChargeError(
            f"this potential was not trained on a {what} of {value:g}",
            where=where,
            wanted=known,
            got=f"{value:g}",
            remedy="use a potential trained on such systems, or train on data that hold them",
        )


def strained(graph: Graph, strain: Tensor) -> Graph:
    """Positions and cell under a small symmetric strain: r -> r (1 + eps)."""
    symmetric = 0.5 * (strain + strain.transpose(1, 2))
    per_atom = symmetric.index_select(0, graph.owner)  # (N, 3, 3)
    return graph.replace(
        positions=graph.positions + (graph.positions.unsqueeze(-2) @ per_atom).flatten(1),
        cell=graph.cell + graph.cell @ symmetric,
    )


def by_volume(slope: Tensor, graph: Graph) -> Tensor:
    """dE/d(strain) by the volume of each cell, (S, 3, 3) eV/Å^3; NaN where there is no volume."""
    volume = volumes(graph.cell).view(-1, 1, 1)
    return _where_volume(slope / torch.where(volume > 0, volume, 1.0), graph)


def _where_volume(stress: Tensor, graph: Graph) -> Tensor:
    """Stress of structures that are periodic in three directions, NaN for others.

    Chosen, not multiplied by NaN: a molecule in a batch of crystals would turn the gradient of the loss into NaN.
    """
    return torch.where(graph.pbc.all(dim=1).view(-1, 1, 1), stress, torch.nan)


def _as_prior(module: nn.Module) -> Prior:
    assert isinstance(module, Prior)
    return module


def _or_zero(slope: Tensor | None, like: Tensor) -> Tensor:
    """A derivative that does not exist because nothing depends on the variable (lone atoms) is zero."""
    return torch.zeros_like(like) if slope is None else slope
