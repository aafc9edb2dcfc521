"""One file that holds a whole potential: safetensors, with a JSON card in its header. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as pack_tensors
from torch import Tensor

from adatom.elements import number, symbol
from adatom.errors import ConfigError, ModelFileError, SourceWarning
from adatom.models import MODELS, Model, read_model
from adatom.potential import Derivatives, Potential
from adatom.priors import PRIORS

FORMAT = 1
DTYPES = {"float32": torch.float32, "float64": torch.float64}  # of networks
_PICKLE_STARTS = (b"\x80", b"PK\x03\x04")  # a pickle stream; the zip archive that torch.save writes


def save(potential: Potential, path: str | Path) -> Path:
    """Write a potential to ``path``: all or nothing, also when the disk is full or the process dies meanwhile.

    ModelFileError when it cannot be written; a file that was there before is whole then.
    """
    tensors = {name: t.detach().cpu().contiguous() for name, t in potential.network.state_dict().items()}
    card = describe(potential) | {"tensors_sha256": _digest(tensors)}
    text = json.dumps(card, sort_keys=True)
    header = {"adatom": text, "adatom_sha256": hashlib.sha256(text.encode()).hexdigest()}
    try:
        return write_atomically(path, pack_tensors(tensors, header))
    except OSError as error:
        raise ModelFileError(
            "the model file could not be written",
            where=str(path),
            got=error.strerror or str(error),
            remedy="free disk space, or choose another folder",
        ) from error


def load(
    path: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None, source: str | None = None
) -> Potential:
    """Read a potential, of one source of labels where the file knows several: by default of the first, with a warning.

    Raises
    ------
    ModelFileError
        The file is missing, truncated, altered, a pickle, or from a later format.
    ConfigError
        There is no such source.
    """
    whole = load_whole(path, device, dtype)
    if len(whole.sources) > 1 and source is None:
        warnings.warn(
            f"{path} knows several levels of theory, {', '.join(whole.sources)}, and none was asked for: "
            f"{whole.sources[0]} is taken; say source='{whole.sources[0]}', or --source",
            SourceWarning,
            stacklevel=2,
        )
    return whole.of_source(source).eval()


def load_whole(path: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> Potential:
    """Read a potential with all its sources of labels: ``graph.source`` then says which one is asked.

    ModelFileError as in ``load``.
    """
    path = Path(path)
    card, tensors = _checked(path)
    potential = build(card, str(path))
    try:
        potential.network.load_state_dict(tensors)
    except RuntimeError as error:  # checksums were right: the file is whole, the code has changed
        raise ModelFileError(
            "the weights do not fit the network that this version of adatom builds from the card",
            where=str(path),
            wanted=f"a file of adatom {version('adatom')}",
            got=f"one of {card.get('versions', {}).get('adatom', 'unknown')}: {str(error).splitlines()[-1].strip()}",
            remedy="use the version that wrote the file",
        ) from error
    if dtype is not None:
        potential.network.to(dtype)
    return potential.to(device).eval()


def info(path: str | Path) -> dict[str, Any]:
    """The card of a whole file, without building the network; the errors are those of ``load``."""
    return _checked(Path(path))[0]


def describe(potential: Potential) -> dict[str, Any]:
    """Everything but the weights, as plain JSON values.

    What rebuilds the potential, and what its reader should know.
    """
    network = potential.network
    return potential.card | {
        "format": FORMAT,
        "architecture": _word(network),
        "config": network.config.model_dump(mode="json"),
        "claims": network.claims._asdict(),
        "cutoff_A": network.cutoff,
        "parameters": sum(p.numel() for p in network.parameters()),
        "dtype": str(potential.dtype).removeprefix("torch."),
        "elements": [symbol(z) for z in potential.elements],
        "units": {"energy": "eV", "length": "Å", "forces": "eV/Å", "stress": "eV/Å^3, tension positive"},
        **_references_card(potential),
        "scale_eV": float(potential.scale),
        "priors": [prior.config.model_dump(mode="json") for prior in potential.priors],  # type: ignore[union-attr, operator]
        "derivatives": potential.derivatives,
    }


def _references_card(potential: Potential) -> dict[str, Any]:
    """Reference energies by symbol; of several sources, by their names in order and then by symbol."""
    by_symbol = [
        {symbol(z): energy for z, energy in potential.references_of(k).items()}
        for k in range(max(len(potential.sources), 1))
    ]
    if not potential.sources:
        return {"references": by_symbol[0]}
    # a list of names: the header of a file is sorted by key
    names = list(potential.sources)
    return {"sources": names, "references": dict(zip(names, by_symbol, strict=True))}


def _read_references(card: dict[str, Any]) -> dict[int, float] | dict[str, dict[int, float]]:
    """What ``_references_card`` wrote."""

    def by_number(table: dict[str, float]) -> dict[int, float]:
        return {number(name): float(energy) for name, energy in table.items()}

    if not card.get("sources"):
        return by_number(card["references"])
    return {name: by_number(card["references"][name]) for name in card["sources"]}


def _word(network: Model) -> str:
    """By what word the table of architectures knows a network; ModelFileError where it does not."""
    for word, architecture in MODELS.items():
        if type(network) is architecture:
            return word
    raise ModelFileError(
        f"{type(network).__name__} is not among the architectures: a file of it could not be read again",
        wanted=f"one of {', '.join(MODELS)}",
        remedy="enter it into adatom.models.MODELS under a word of its own",
    )


def build(card: dict[str, Any], where: str | None = None) -> Potential:
    """A potential from its card, with weights as they are initialised.

    ModelFileError, which names ``where``, when this version cannot build what the card describes.
    """
    try:
        config = read_model(card["config"] | {"architecture": card["architecture"]})
        network = MODELS[config.architecture](config)
        priors = tuple(PRIORS[p["name"]](p) for p in card["priors"])
        references = _read_references(card)
        derivatives = TypeAdapter(Derivatives).validate_python(card["derivatives"])
        network.to(DTYPES[card["dtype"]])
        return Potential(network, references, card["scale_eV"], priors, derivatives, card)
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise ModelFileError(
            "the card describes a potential that this version of adatom cannot build",
            where=where,
            wanted=f"one of the architectures {', '.join(MODELS)} with a valid configuration",
            got=str(error),
            remedy="update adatom",
        ) from error


def write_atomically(path: str | Path, data: bytes) -> Path:
    """Write beside the target and move into place: a reader sees the old file or the new one, never a part of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return path


def _checked(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Card and weights of a file whose checksums hold."""
    data = _read_bytes(path)
    card = _card_of(data, path)
    try:
        tensors = load_tensors(data)
    except SafetensorError as error:
        raise _damaged(path, str(error)) from error
    if _digest(tensors) != card.pop("tensors_sha256", None):
        raise _damaged(path, "the weights do not match their checksum")
    return card, tensors


def _read_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            start = file.read(9)
            # a safetensors file begins with the length of its header, eight bytes that can look like anything, and "{"
            if start.startswith(_PICKLE_STARTS) and start[8:] != b"{":
                raise ModelFileError(
                    "this is a pickle (or a torch.save archive): loading one can run any code, so it was not opened",
                    where=str(path),
                    wanted="a model file written by adatom",
                    remedy="save the potential with adatom, or ask its author for an adatom file",
                )
            return start + file.read()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ModelFileError("no such model file", where=str(path), remedy="check the path") from error


def _card_of(data: bytes, path: Path) -> dict[str, Any]:
    """The card in the header of a safetensors file, its checksum verified."""
    length = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else 0
    if not 0 < length <= len(data) - 8:
        raise _damaged(path, "the header is cut off or is no safetensors header")
    try:
        header = json.loads(data[8 : 8 + length])["__metadata__"]
        text, digest = header["adatom"], header["adatom_sha256"]
        if hashlib.sha256(text.encode()).hexdigest() != digest:
            raise _damaged(path, "the card does not match its checksum")
        card: dict[str, Any] = json.loads(text)
        written = int(card["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, "the header holds no adatom card") from error
    if written > FORMAT:
        raise ModelFileError(
            "the file was written by a later adatom",
            where=str(path),
            wanted=f"format {FORMAT} or earlier",
            got=f"format {written}",
            remedy="update adatom",
        )
    return card


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}\n".encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


def _damaged(path: Path, detail: str) -> ModelFileError:
    return ModelFileError(
        "the model file is truncated, altered, or no adatom model",
        where=str(path),
        wanted="a whole file as adatom wrote it",
        got=detail,
        remedy="copy the file again, or train again from the run folder's last checkpoint",
    )
