"""What there is to choose from: every architecture in every form, with its promises and its sizes.

All of it is read off the networks themselves, so no table can promise what the code does not claim.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from pydantic import ValidationError

from adatom.models import MODELS, Model, forms, read_model, sizes
from adatom.models.base import Claims, Facts

# parameters of some networks grow with the elements (here H, C, N and O), some see charges only where there are any
FACTS = Facts((1, 6, 7, 8), 20.0, (0.0, 0.0), (1.0, 1.0))


class Entry(NamedTuple):
    """One form of one architecture."""

    architecture: str
    form: str
    claims: Claims
    derivatives: tuple[str, ...]  # how it can make forces, its own way first
    sees: tuple[str, ...]  # of "charge" and "spin"
    parameters: dict[str, int]  # by size
    about: str


def overview() -> list[Entry]:
    """All forms of all architectures in ``MODELS``, in their order."""
    return [_entry(architecture, form) for architecture in MODELS for form in forms(architecture)]


def entry_cells(entry: Entry) -> list[str]:
    """The cells of ``HEADINGS`` for one entry."""
    claims = entry.claims
    return [
        entry.architecture,
        entry.form,
        claims.symmetry,
        claims.reach,
        _yes(claims.extensive),
        _yes(claims.conservative),
        _yes(claims.smooth),
        ", ".join(entry.derivatives),
        ", ".join(entry.sees) or "–",
        ", ".join(f"{size} {_short(count)}" for size, count in entry.parameters.items()),
        entry.about,
    ]


HEADINGS = (
    "architecture", "form", "symmetry", "reach", "extensive", "conservative", "smooth", "forces", "sees",
    "parameters", "good for",
)  # fmt: skip


def markdown() -> str:
    """The table for the documentation."""
    rows = [list(HEADINGS), ["---"] * len(HEADINGS), *map(entry_cells, overview())]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def _entry(architecture: str, form: str) -> Entry:
    networks = {size: _network(architecture, form, size) for size in sizes(architecture)}
    first = next(iter(networks.values()))
    own = first.config.derivatives
    return Entry(
        architecture,
        form,
        first.claims,
        (own, *(other for other in ("gradient", "direct") if other != own and _offers(first, other))),
        tuple(name for name, sees in (("charge", first.embeds_charge), ("spin", first.embeds_spin)) if sees),
        {size: sum(p.numel() for p in network.parameters()) for size, network in networks.items()},
        first.about.get(form, ""),
    )


def _network(architecture: str, form: str, size: str) -> Model:
    """A network without memory for its weights, where it can be made so."""
    config = read_model({"architecture": architecture, "form": form, "size": size}).completed(FACTS)
    try:
        with torch.device("meta"):
            return MODELS[architecture](config)
    except (TypeError, RuntimeError):  # it reads constants of its own back while it is built
        return MODELS[architecture](config)


def _offers(network: Model, derivatives: str) -> bool:
    values = network.config.model_dump() | {"derivatives": derivatives}
    try:
        type(network.config).model_validate(values)
    except ValidationError:
        return False
    return True


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _short(count: int) -> str:
    """1234567 -> 1.2M."""
    if count < 1000:
        return str(count)
    value, unit = (count / 1e3, "k") if count < 999_500 else (count / 1e6, "M")
    return f"{value:.1f}{unit}" if value < 10 else f"{value:.0f}{unit}"
