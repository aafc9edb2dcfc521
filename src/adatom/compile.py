"""From eager to compiled: one program for energy, forces and stress, checked against float64 before it is used.

Derivatives are taken inside of what is compiled (``torch.func.grad_and_value`` under ``torch.compile``), so that a
training step is one program too, with the derivatives of forces by the parameters. Any number of atoms, neighbours and
structures fits the same program. A program that does not agree with float64, or cannot be made, is dropped with a
warning, and everything goes on as before, only slower.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import time
import types
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from adatom.errors import AdatomError, CompileWarning, ConfigError
from adatom.graph import Graph, Results, sum_by_owner
from adatom.model_file import load as load_eager
from adatom.models.layered import Layered
from adatom.nn import moments, slots
from adatom.potential import Energies, Potential, by_volume, strained
from adatom.stream import Steps

Mode = Literal["auto", "on", "off"]
PATIENCE = 20.0  # s of eager work after which "auto" compiles: about what compiling takes, so at worst twice the time
FIXED = [field.name for field in dataclasses.fields(Graph) if field.name != "positions"]
CHECKS = 2  # graphs of different sizes on which a program is compared
FORGIVEN = 8.0  # times the rounding of eager float32
EPSILONS = 10.0  # of rounding, where everything cancels: forces in a perfect crystal
ROUNDING, ROUNDING_OF_GRADIENTS = 1e-5, 1e-4  # relative, whatever eager does; sums of gradients cancel
# radial functions are written to memory once: by default each of their many readers computes every sine again
OPTIONS: dict[str, Any] = {"realize_opcount_threshold": 6}
# a molecule takes 80 calls of matrix products: 0.59 instead of 0.72 ms when C++ makes them
ON_CPU: dict[str, Any] = {"cpp_wrapper": True}
BACKEND: dict[str, Any] = {"backend": "inductor"}


def compiled(potential: Potential, mode: Mode = "auto") -> Potential:
    """The same potential, from now on through the compiler: ``potential`` itself, changed in place.

    ``"on"`` compiles at the first graph, ``"auto"`` when 20 s were spent without, ``"off"`` never. Compiling takes half
    a minute to a minute and a half, once for evaluation and once for training; what was compiled before on this machine
    is found again (``$ADATOM_CACHE`` or ``~/.cache/adatom``) and takes a third of that. Networks that the compiler
    cannot take whole stay as they are.

    Raises
    ------
    ConfigError
        No such mode.
    """
    if mode not in ("auto", "on", "off"):
        raise ConfigError(
            "no such way of compiling", where="compile", wanted="auto, on or off", got=repr(mode), remedy="choose one"
        )
    potential.runner = Compiler(0.0 if mode == "on" else PATIENCE) if mode != "off" else None
    return potential


def load(
    path: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    compile: Mode = "auto",
    source: str | None = None,
) -> Potential:
    """A potential from its file, on a device; ``dtype`` is that of the network, None keeps the one it was saved with.

    ``compile`` as in ``compiled``. ``source`` is the level of theory, where the model knows several: by default the
    first, with a warning. ModelFileError for anything that is not a whole model file of this package, ConfigError where
    there is no such source.
    """
    return compiled(load_eager(path, device, dtype, source), compile)


class Kind(NamedTuple):
    """What one program is for."""

    training: bool
    stress: bool
    dtype: torch.dtype
    device: str


class Program:
    """One compiled function and what is known of it."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.function = _compile(_evaluate, f"adatom_{kind.training:d}{kind.stress:d}_{id(self)}", kind.device)
        self.checked: set[tuple[int, ...]] = set()
        self.seconds = 0.0  # wall time of the first call: tracing, compiling, running once

    def __call__(self, potential: Potential, graph: Graph) -> Results:
        """Results of a padded graph."""
        with torch.set_grad_enabled(self.kind.training):
            return Results(*self.function(potential, graph, self.kind.stress))


class Compiler:
    """Runs a potential compiled where that is possible and known to be right.

    Parameters
    ----------
    patience
        Seconds of eager work before anything is compiled.
    training
        True leaves evaluation as it is, for the few validations between thousands of steps.
    """

    def __init__(self, patience: float, training: bool = False) -> None:
        self.patience, self.training = patience, training
        self.spent = 0.0  # s, eagerly
        self.dropped = ""  # why, where compiling was given up
        self.programs: dict[Kind, Program] = {}
        self.steps: Steps | None = None  # of what is streamed
        self._steps_on = ""  # the device they were made for
        self._last: tuple[list[Tensor], list[int], Graph] | None = None  # fields, their versions, and the graph widened

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy of a potential compiles anew: programs hold on to the weights they were made for."""
        return type(self)(self.patience, self.training)

    def __call__(self, potential: Potential, graph: Graph, stress: bool) -> Results | None:
        """Results, or None where eager is the way."""
        if self.dropped or (self.training and not potential.training) or not _suits(potential, graph):
            return None
        body = potential.streamable(graph)
        if body is not None:
            if self.spent < self.patience and self.steps is None:
                start = time.monotonic()
                results = potential.streamed(body, graph, stress)
                self.spent += time.monotonic() - start
                return results
            return self._streamed(potential, body, graph, stress)
        kind = Kind(potential.training, stress, potential.dtype, graph.positions.device.type)
        if kind._replace(stress=True) in self.programs:  # one program is enough: the strain costs little
            kind = kind._replace(stress=True)
        if self.spent < self.patience and kind not in self.programs:
            return self._eagerly(potential, graph, stress)
        return self._run(potential, graph, kind, stress)

    @property
    def seconds(self) -> float:
        """Wall time that was spent on compiling."""
        streaming = 0.0 if self.steps is None else sum(step.seconds for step in self.steps if isinstance(step, Checked))
        return sum(program.seconds for program in self.programs.values()) + streaming

    def _run(self, potential: Potential, graph: Graph, kind: Kind, stress: bool) -> Results | None:
        """Results of the program for this kind, made and checked if need be; None when it is dropped."""
        padded = self._widened(graph)
        size = (*padded.slots.shape, padded.edges.shape[1], padded.cell.shape[0])
        try:
            program = self.programs.get(kind) or Program(kind)
            if len(program.checked) < CHECKS and size not in program.checked:
                found, seconds = self._first(program, potential, padded)
                program.checked.add(size)
                program.seconds = max(program.seconds, seconds)
                self.programs[kind] = program
            else:
                found = program(potential, padded)
        except Exception as error:
            if _is_of_the_user(error):
                raise
            self._drop(error)
            return None
        structures = graph.cell.shape[0]
        tension = found.stress[:structures] if stress else torch.full_like(graph.cell, torch.nan)
        return Results(found.energy[:structures], found.forces, tension)

    def _widened(self, graph: Graph) -> Graph:
        """The graph without sizes of one; only positions differ from step to step of a simulation."""
        fixed = [getattr(graph, name) for name in FIXED]
        if self._last is not None:
            before, versions, wide = self._last
            if all(
                new is old and new._version == version
                for new, old, version in zip(fixed, before, versions, strict=True)
            ):
                return wide.replace(positions=graph.positions.contiguous())
        wide = _without_ones(graph)
        self._last = (fixed, [tensor._version for tensor in fixed], wide)
        return wide

    def _streamed(self, potential: Potential, body: Layered, graph: Graph, stress: bool) -> Results | None:
        device = graph.positions.device.type
        if self.steps is None or self._steps_on != device:
            self._steps_on = device
            self.steps = Steps(*(Checked(step, device) for step in Steps()))
        try:
            return potential.streamed(body, graph, stress, self.steps)
        except Exception as error:
            if _is_of_the_user(error):
                raise
            self._drop(error)
            return None

    def _eagerly(self, potential: Potential, graph: Graph, stress: bool) -> Results:
        start = time.monotonic()
        results = potential.eager(graph, stress=stress)
        self.spent += time.monotonic() - start
        return results

    def _first(self, program: Program, potential: Potential, graph: Graph) -> tuple[Results, float]:
        """Results at a size not seen before, compared with eager float64."""
        start = time.monotonic()
        with _compiling():
            found = program(potential, graph)
            seconds = time.monotonic() - start
            difference = disagreement(potential, graph, program)
        if difference:
            raise DisagreementError(difference)
        return found, seconds

    def _drop(self, error: Exception) -> None:
        """Say why once, and stay eager."""
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        self.dropped = " ".join(lines[:3])[:300]
        self.programs, self.steps = {}, None
        missing = " (a C++ compiler is needed, such as g++ or clang)" if "compiler" in self.dropped.lower() else ""
        warnings.warn(
            f"compiling was given up, all goes on uncompiled: {self.dropped}{missing}; compile='off' says nothing",
            CompileWarning,
            stacklevel=2,
        )


class Checked:
    """A compiled step of streaming; its first calls with each module are compared with eager float64."""

    def __init__(self, function: Callable[..., Any], device: str) -> None:
        self.eager = function
        self.function = _compile(function, f"adatom_{function.__name__}_{id(self)}", device)
        self.calls: Counter[tuple[str, int, str]] = Counter()
        self.seconds = 0.0

    def __call__(self, module: nn.Module, *inputs: Any) -> Any:
        """What the step says of a chunk."""
        dtype = next((str(p.dtype) for p in module.parameters()), "")
        key = (type(module).__name__, getattr(module, "number", -1), dtype)
        if self.calls[key] >= CHECKS:
            return self.function(module, *inputs)
        start = time.monotonic()
        with _compiling():
            found = self.function(module, *inputs)
        if self.calls[key] == 0:
            self.seconds += time.monotonic() - start
        self.calls[key] += 1
        self._check(module, inputs, found)
        return found

    def _check(self, module: nn.Module, inputs: tuple[Any, ...], found: Any) -> None:
        exact = copy.deepcopy(module).double()
        wide = tree_map(lambda t: t.double() if t.is_floating_point() else t, inputs)
        wanted, eager = tree_leaves(self.eager(exact, *wide)), tree_leaves(self.eager(module, *inputs))
        for number, (want, near, got) in enumerate(zip(wanted, eager, tree_leaves(found), strict=True)):
            wrong = float((got - want).norm())
            allowed = max(FORGIVEN * float((near - want).norm()), ROUNDING * float(want.norm()), _least(got))
            if not wrong <= allowed and bool(want.isfinite().all()):
                raise DisagreementError(
                    f"compiled code is wrong about output {number} of {self.eager.__name__} by {wrong:.2g} "
                    f"of {float(want.norm()):.2g}"
                )


def _least(values: Tensor) -> float:
    """What rounding alone makes of values that cancel to nothing."""
    return EPSILONS * torch.finfo(values.dtype).eps * values.numel() ** 0.5 if values.is_floating_point() else 0.0


def _is_of_the_user(error: Exception) -> bool:
    """Whether an error says something of the structure or of the machine, not of compiled code."""
    text = str(error).lower()
    return isinstance(error, AdatomError | torch.OutOfMemoryError) or "can't allocate memory" in text


class DisagreementError(Exception):
    """A compiled program says something else than eager code."""


# --- what is compiled -------------------------------------------------------------------------------------------------


def _evaluate(potential: Potential, graph: Graph, stress: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Energy, forces and stress as one function of a graph, for the compiler."""
    return tuple(potential.results(graph, True, stress, _derived))  # type: ignore[return-value]


def _derived(energies: Energies, graph: Graph, forces: bool, stress: bool) -> Results:
    """Energies with their derivatives, the twin of what ``Potential.eager`` does with autograd."""

    def total(positions: Tensor, strain: Tensor) -> tuple[Tensor, Tensor]:
        moved = graph.replace(positions=positions)
        energy = energies(strained(moved, strain) if stress else moved)
        return energy.sum(), energy

    derive = torch.func.grad_and_value(total, argnums=(0, 1) if stress else (0,), has_aux=True)
    slopes, (_, energy) = derive(graph.positions, torch.zeros_like(graph.cell))
    silent = torch.full_like(graph.cell, torch.nan)
    return Results(energy, -slopes[0], by_volume(slopes[1], graph) if stress else silent)


def _compile(function: Callable[..., Any], name: str, device: str) -> Callable[..., Any]:
    """A compiled function with code of its own: torch counts, and limits, recompilations by code object."""
    for differentiated in (*slots.DIFFERENTIATED, *moments.DIFFERENTIATED):
        torch.compiler.allow_in_graph(differentiated)
    own = types.FunctionType(function.__code__.replace(co_name=name), function.__globals__, name)
    options = OPTIONS | (ON_CPU if device == "cpu" else {}) if BACKEND["backend"] == "inductor" else None
    made: Callable[..., Any] = torch.compile(own, fullgraph=True, dynamic=True, options=options, **BACKEND)
    return made


@contextmanager
def _compiling() -> Iterator[None]:
    """Settings while torch compiles: a cache that outlives the process, and sizes that are equal by chance only."""
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir
    from torch.fx.experimental import _config as shapes

    # torch's own choice is a folder that goes with the next boot; one that the user chose stays
    if os.environ.get("TORCHINDUCTOR_CACHE_DIR") in (None, default_cache_dir()):
        cache = Path(os.environ.get("ADATOM_CACHE") or Path.home() / ".cache" / "adatom")
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache / "compiled")
    before = shapes.use_duck_shape
    shapes.use_duck_shape = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own parts about one another
            yield
    finally:
        shapes.use_duck_shape = before


def _suits(potential: Potential, graph: Graph) -> bool:
    """Whether a graph can go through a program: sizes of 0 and 1 are programs of their own, not worth the making."""
    return potential.network.compiles and graph.edges.shape[1] > 1 and graph.numbers.shape[0] > 1


def _without_ones(graph: Graph) -> Graph:
    """The same graph in plain memory, widened where a size is one: an empty structure, an empty column."""
    graph = graph.replace(**{name: field.contiguous() for name, field in vars(graph).items()})
    if graph.cell.shape[0] == 1:
        graph = graph.replace(
            cell=torch.cat([graph.cell, torch.zeros_like(graph.cell)]),
            pbc=torch.cat([graph.pbc, torch.zeros_like(graph.pbc)]),
            charge=graph.charge.repeat(2),
            spin=graph.spin.repeat(2),
            source=graph.source.repeat(2),
            table=torch.cat([graph.table, torch.full_like(graph.table, graph.numbers.shape[0])]),
        )
    if graph.table.shape[1] == 1:
        graph = graph.replace(table=_wider(graph.table, graph.numbers.shape[0]))
    if graph.slots.shape[1] == 1:
        graph = graph.replace(
            slots=_wider(graph.slots, graph.edges.shape[1]),
            neighbours=_wider(graph.neighbours, 0),
            back=_wider(graph.back, 0),
        )
    return graph


def _wider(table: Tensor, pad: int) -> Tensor:
    return torch.nn.functional.pad(table, (0, 1), value=pad)


# --- the check --------------------------------------------------------------------------------------------------------


def disagreement(potential: Potential, graph: Graph, program: Program) -> str:
    """What a program says wrongly about a graph, in words; nothing where all is right.

    Energies, forces, stresses, and in training the gradient of a random sum of them by every parameter, are compared
    with eager float64. They may be off by 8 times what eager code in the same precision is off, or 1e-5 of their size
    (gradients 1e-4).
    """
    stress = program.kind.stress
    exact = copy.deepcopy(potential)
    exact.runner = None
    exact.network.to(torch.float64)
    wanted = _spoken(exact, graph, exact.eager(graph, stress=stress))
    eager = _spoken(potential, graph, potential.eager(graph, stress=stress))
    found = _spoken(potential, graph, program(potential, graph))
    slopes = [want.norm() for name, want in wanted.items() if name not in LABELS]
    steepest = float(torch.stack(slopes).max()) if slopes else 0.0
    for name, want in wanted.items():
        size = float(want.norm())
        floor = ROUNDING * size if name in LABELS else ROUNDING_OF_GRADIENTS * max(size, 0.1 * steepest)
        least = EPSILONS * torch.finfo(potential.dtype).eps * float(potential.scale) * want.numel() ** 0.5
        allowed = max(FORGIVEN * float((eager[name] - want).norm()), floor, least)
        wrong = float((found[name] - want).norm())
        if not wrong <= allowed and bool(want.isfinite().all()):
            what = name if name in LABELS else f"the gradient by {name}"
            return f"compiled code is wrong about {what} by {wrong:.2g} of {float(want.norm()):.2g}"
    return ""


LABELS = ("energy", "forces", "stress")


def _spoken(potential: Potential, graph: Graph, results: Results) -> dict[str, Tensor]:
    """Results without references, and gradients by parameters of a random sum of them where they have any; float64."""
    found = {name: value.detach().nan_to_num().double() for name, value in zip(LABELS, results, strict=True)}
    references = potential.atomic_references(graph)
    found["energy"] = found["energy"] - sum_by_owner(references, graph.owner, graph.cell.shape[0])
    if not results.energy.requires_grad:
        return found
    random = torch.Generator().manual_seed(0)
    total = torch.zeros((), dtype=torch.float64, device=results.energy.device)
    for value in results:
        weight = torch.randn(value.shape, generator=random, dtype=torch.float64).to(value.device)
        total = total + (torch.where(value.isnan(), 0.0, value) * weight).sum()
    parameters = {n: p for n, p in potential.named_parameters() if p.requires_grad}
    slopes = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    for (name, parameter), slope in zip(parameters.items(), slopes, strict=True):
        found[name] = (torch.zeros_like(parameter) if slope is None else slope).detach().double()
    return found
