"""One file holds a potential: what is read is what was written, and what is not whole or not ours is refused."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ase.build import bulk, molecule
from safetensors.torch import load_file, save_file

import adatom
from adatom import model_file
from adatom.errors import ModelFileError
from adatom.graph import Graph, Results, collate
from adatom.models.mlanet import MLANet, MLANetConfig
from adatom.neighbors import graph_from_atoms
from adatom.potential import Potential
from adatom.priors.zbl import ZBL, ZBLConfig

REFERENCES = {1: -13.6, 8: -432.1, 14: -163.234567891234}


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, flag: Path) -> None:
        self.flag = str(flag)

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (self.flag,))


def made(form: str = "default", dtype: torch.dtype = torch.float32, channels: int = 8) -> Potential:
    torch.manual_seed(0)
    sizes = {"l_max": 2, "channels": channels, "heads": 2, "readout": 8, "cutoff": 4.3}
    config = MLANetConfig.parse({"form": form, "mean_neighbours": 12.3, **sizes})
    priors = (ZBL(ZBLConfig(reach=0.8)),) if form == "default" else ()
    card = {"min_distance_A": {"Si-Si": 1.9}, "data": {"fingerprint": "abc"}, "note": "Größe in Å"}
    return Potential(MLANet(config).to(dtype), REFERENCES, 0.37, priors, config.derivatives, card).eval()


def batch() -> Graph:
    crystal = bulk("Si", cubic=True)
    crystal.rattle(0.1, seed=0)
    return collate([graph_from_atoms(atoms, 4.3) for atoms in (crystal, molecule("H2O"))])


def same(a: Results, b: Results) -> bool:
    return all(torch.equal(x.nan_to_num(nan=1e9), y.nan_to_num(nan=1e9)) for x, y in zip(a, b, strict=True))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return model_file.save(made(), tmp_path / "model.adatom")


def refused(path: Path, said: str) -> ModelFileError:
    """Loading and reading the card are both refused, and the file is named."""
    for read in (model_file.load, model_file.info):
        with pytest.raises(ModelFileError, match=said) as caught:
            read(path)
        assert caught.value.where == str(path)
        assert caught.value.remedy
    return caught.value


# --- what is written is read ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["default", "paper"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_potential_comes_back_bit_by_bit(form: str, dtype: torch.dtype, tmp_path: Path) -> None:
    before = made(form, dtype)
    after = adatom.load(adatom.save(before, tmp_path / "model.adatom"))
    assert same(before(batch(), stress=True), after(batch(), stress=True))
    assert (after.dtype, after.derivatives, after.training) == (dtype, before.derivatives, False)
    assert (after.cutoff, after.elements) == (4.3, [1, 8, 14])
    assert float(after.references[14]) == REFERENCES[14], "all digits of a reference"
    assert after.card["note"] == "Größe in Å"


def test_a_potential_can_be_saved_and_loaded_any_number_of_times(path: Path, tmp_path: Path) -> None:
    again = model_file.save(model_file.load(path), tmp_path / "again.adatom")
    assert adatom.info(again) == adatom.info(path)
    before, after = load_file(path), load_file(again)
    assert set(before) == set(after)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_the_network_can_be_cast_when_it_is_loaded(path: Path) -> None:
    double = model_file.load(path, dtype=torch.float64)
    assert double.dtype == torch.float64
    single = model_file.load(path)
    a, b = (potential(batch()).forces for potential in (single, double))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-3 * float(b.abs().max()))


def test_the_card_says_what_rebuilds_the_potential(path: Path) -> None:
    card = adatom.info(path)
    wanted = {
        "format": 1, "architecture": "mlanet", "cutoff_A": 4.3, "dtype": "float32", "elements": ["H", "O", "Si"],
        "scale_eV": 0.37, "derivatives": "gradient", "min_distance_A": {"Si-Si": 1.9}, "data": {"fingerprint": "abc"},
    }  # fmt: skip
    assert {key: card[key] for key in wanted} == wanted
    assert card["config"]["mean_neighbours"] == 12.3
    assert card["claims"]["conservative"] is True
    assert card["references"]["Si"] == REFERENCES[14]
    assert card["priors"] == [{"name": "zbl", "reach": 0.8, "beyond": 1.25, "least": 0.0, "closest": None}]
    assert card["parameters"] == sum(p.numel() for p in made().network.parameters())
    assert "eV/Å^3" in card["units"]["stress"]


def test_the_file_is_plain_safetensors_that_anyone_can_read(path: Path) -> None:
    tensors = load_file(path)
    assert set(tensors) == set(made().network.state_dict())


def test_a_path_may_be_text_and_its_folder_is_made(tmp_path: Path) -> None:
    path = model_file.save(made(), str(tmp_path / "new" / "folder" / "model.adatom"))
    assert model_file.load(str(path)).cutoff == 4.3


# --- what is not whole ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [0, 1, 7, 8, 100, 0.5, -1])
def test_a_truncated_file_is_refused(path: Path, left: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * left) if isinstance(left, float) else left])
    with pytest.raises(ModelFileError, match="the model file is truncated, altered, or no adatom model") as caught:
        model_file.load(path)
    assert caught.value.where == str(path)


def test_a_file_with_something_behind_it_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(ModelFileError, match="the model file is truncated, altered"):
        model_file.load(path)


@pytest.mark.parametrize("place", [0.05, 0.5, 0.999])
def test_one_altered_bit_among_the_weights_is_noticed(path: Path, place: float) -> None:
    data = bytearray(path.read_bytes())
    start = 8 + struct.unpack("<Q", data[:8])[0]
    data[start + int(place * (len(data) - start))] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match="weights do not match their checksum"):
        model_file.load(path)


def test_exchanged_weights_are_noticed(path: Path) -> None:
    """The same numbers under other names."""
    with path.open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    tensors = load_file(path)
    twin = next((a, b) for a in tensors for b in tensors if a < b and tensors[a].shape == tensors[b].shape)
    tensors[twin[0]], tensors[twin[1]] = tensors[twin[1]], tensors[twin[0]]
    save_file(tensors, path, header["__metadata__"])
    with pytest.raises(ModelFileError, match="weights do not match their checksum"):
        model_file.load(path)


def test_an_altered_card_is_noticed(path: Path) -> None:
    data = path.read_bytes()
    assert data.count(b"0.37") == 1
    path.write_bytes(data.replace(b"0.37", b"0.38"))
    refused(path, "the card does not match its checksum")


def rewritten(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A file whose card was changed by someone who also renewed its checksum."""
    with path.open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    card = json.loads(header["__metadata__"]["adatom"])
    change(card)
    text = json.dumps(card, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    save_file(load_file(path), path, {"adatom": text, "adatom_sha256": digest})
    return path


def test_a_later_format_asks_for_an_update(path: Path) -> None:
    error = refused(rewritten(path, lambda card: card.update(format=99)), "written by a later adatom")
    assert error.got == "format 99"
    assert error.remedy == "update adatom"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"architecture": "transformer"}, "transformer"),
        ({"references": {"Xx": 1.0}}, "Xx"),
        ({"priors": [{"name": "gravity"}]}, "gravity"),
        ({"derivatives": "guessed"}, "guessed"),
        ({"config": {"heads": 3, "channels": 8}}, "multiple of heads"),
        ({"dtype": "float12"}, "float12"),
    ],
)
def test_a_card_that_this_version_cannot_build_is_refused(path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelFileError, match=said) as caught:
        model_file.load(rewritten(path, lambda card: card.update(change)))
    assert caught.value.where == str(path)


@pytest.mark.parametrize("entry", ["format", "architecture", "config", "references", "tensors_sha256", "dtype"])
def test_a_card_that_lacks_an_entry_is_refused(path: Path, entry: str) -> None:
    with pytest.raises(ModelFileError):
        model_file.load(rewritten(path, lambda card: card.pop(entry)))


def test_weights_of_another_network_are_refused(path: Path) -> None:
    rewritten(path, lambda card: card["config"].update(channels=16))
    with pytest.raises(ModelFileError, match="do not fit"):
        model_file.load(path)


# --- what is not ours -------------------------------------------------------------------------------------------------


def pickled(trap: Trap, path: Path) -> None:
    path.write_bytes(pickle.dumps(trap))


def torch_saved(trap: Trap, path: Path) -> None:
    torch.save({"model": trap}, path)


def torch_saved_of_old(trap: Trap, path: Path) -> None:
    torch.save(trap, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("write", [pickled, torch_saved, torch_saved_of_old], ids=lambda w: w.__name__)
def test_a_pickle_is_refused_and_never_opened(tmp_path: Path, write: Callable[[Trap, Path], None]) -> None:
    path, flag = tmp_path / "model.adatom", tmp_path / "opened"
    write(Trap(flag), path)
    refused(path, "this is a pickle")
    assert not flag.exists()
    torch.load(path, weights_only=False) if write is not pickled else pickle.loads(path.read_bytes())
    assert flag.exists(), "the trap works"


def test_a_header_whose_length_begins_like_a_pickle_is_read(tmp_path: Path) -> None:
    """Its first byte is the length modulo 256: one file in 32 begins with 0x80, as pickles do."""
    path = tmp_path / "m.adatom"
    for spaces in range(0, 256, 8):
        model_file.save(made(), path)
        data = path.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        path.write_bytes(struct.pack("<Q", length + spaces) + data[8 : 8 + length] + b" " * spaces + data[8 + length :])
        if path.read_bytes()[0] == 0x80:
            break
    assert path.read_bytes()[0] == 0x80
    assert same(model_file.load(path)(batch()), made()(batch()))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_protocol_of_pickle_is_opened(tmp_path: Path, protocol: int) -> None:
    path, flag = tmp_path / "model.adatom", tmp_path / "opened"
    path.write_bytes(pickle.dumps({"a": [Trap(flag)], "b": "x" * 500}, protocol=protocol))
    with pytest.raises(ModelFileError):
        model_file.load(path)
    assert not flag.exists()


@pytest.mark.parametrize(
    "content", [b"", b"name: run\nmodel: {size: S}\n", b"\x00" * 64, b"\xff" * 64, bytes(range(256)) * 4]
)
def test_what_is_no_model_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.adatom"
    path.write_bytes(content)
    refused(path, "no adatom model")


def test_safetensors_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    refused(path, "no adatom model")
    save_file({"weight": torch.zeros(2)}, path, {"format": "pt"})
    refused(path, "no adatom model")


def test_a_file_that_is_not_there_and_a_folder_are_named(tmp_path: Path) -> None:
    refused(tmp_path / "none.adatom", "no such model file")
    refused(tmp_path, "no such model file")


# --- a disk that is full ----------------------------------------------------------------------------------------------


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_full_disk_leaves_the_last_good_file_and_no_part(
    path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    before = path.read_bytes()
    target = (os, "fsync") if fails == "fsync" else (Path, "replace")
    monkeypatch.setattr(*target, no_space)
    with pytest.raises(ModelFileError, match="No space left on device") as caught:
        model_file.save(made(channels=16), path)
    monkeypatch.undo()
    assert caught.value.where == str(path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]
    assert model_file.load(path).cutoff == 4.3


def test_a_real_limit_on_file_size_leaves_the_last_good_file(path: Path) -> None:
    """The write itself fails part of the way, as on a full disk."""
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    before = path.read_bytes()
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
        with pytest.raises(ModelFileError, match="could not be written"):
            model_file.save(made(), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_process_that_dies_while_writing_leaves_the_last_good_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        model_file.save(made(channels=16), path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_info_notices_a_file_that_was_cut_short(tmp_path: Path) -> None:
    path = model_file.save(made(), tmp_path / "whole.adatom")
    short = tmp_path / "short.adatom"
    short.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelFileError, match="truncated"):
        model_file.info(short)
