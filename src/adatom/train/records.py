"""What a run writes down of itself: what it began with, and what makes it the run it is."""

from __future__ import annotations

import hashlib
import platform
import sys
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from adatom.data.doctor import Finding
from adatom.data.read import fingerprint
from adatom.data.selection import Selection
from adatom.elements import symbol
from adatom.potential import Potential
from adatom.statistics import References
from adatom.train.config import TrainConfig
from adatom.train.parallel import Team
from adatom.train.sets import Sets


def start_record(config: TrainConfig, potential: Potential, team: Team) -> dict[str, Any]:
    """The line of the log that a session begins with."""
    return {
        "kind": "start",
        "time": time.time(),
        "architecture": config.model.architecture,
        "size": config.model.size,
        "schedule": config.schedule,
        "parameters": sum(p.numel() for p in potential.network.parameters()),
        "device": str(team.device),
        "processes": team.size,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
    }


def identity(config: TrainConfig, sets: Sets) -> dict[str, Any]:
    """The resolved configuration with fingerprints of the three sets in place of files, which may have moved."""
    values = config.model_dump(mode="json")
    parts = sets.parts()
    settings = {name: value for name, value in values["data"].items() if name not in parts}  # first: the likelier cause
    for own in settings["sources"].values():
        for part in parts:
            del own[part]
    values |= {"data": settings | {part: fingerprint(structures) for part, structures in parts.items()}}
    start = config.finetune
    if start is None:
        return values
    files = (*start.replay.files, *start.forgetting.files)  # the model is kept in the run folder, as it was
    return values | {"finetune_files": [_content(Path(file)) for file in files]}


def _content(path: Path) -> str:
    """SHA-256 of a file; of a folder, which is a store, that of its index."""
    path = path / "index.json" if path.is_dir() else path
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "gone"


def data_card(sets: Sets) -> dict[str, Any]:
    """What a model file says of the data it was trained on."""
    return {
        "fingerprint": fingerprint(sets.train),
        "structures": {part: len(structures) for part, structures in sets.parts().items()},
        "files": sorted({Path(f.file).name for files in sets.found.values() for f in files}),
    }


def data_record(sets: Sets, references: dict[str, References], card: dict[str, Any]) -> dict[str, Any]:
    """What ``data.json`` holds."""
    files = [
        {
            "file": f.file, "split": part, "frames": f.frames, "atoms": f.atoms, "labelled": dict(f.labelled),
            **{f"{label}_key": f.key(label) for label in ("energy", "forces", "stress")},
        }
        for part, found in sets.found.items()
        for f in found
    ]  # fmt: skip
    parts = {part: Selection.of(structures) for part, structures in sets.parts().items()}
    elements: Counter[str] = Counter()
    for chosen in parts.values():
        elements.update({symbol(z): atoms for z, atoms in chosen.elements.items()})
    return {
        "files": files,
        "splits": card["structures"],
        "elements": dict(elements),
        "config_types": {part: dict(chosen.config_type_counts()) for part, chosen in parts.items()},
        "references": {} if len(references) > 1 else _references_record(next(iter(references.values()))),
        "references_by_source": {name: _references_record(own) for name, own in references.items() if name},
        "findings": [
            {"severity": f.severity, "kind": f.kind, "where": f.where, "message": f.message, "remedy": f.remedy}
            for f in [*sets.findings, *_remarks(sets, references)]
        ],
        "fingerprint": card["fingerprint"],
    }


def _references_record(references: References) -> dict[str, Any]:
    return {
        symbol(z): {"energy_eV": energy, "source": references.source[z]} for z, energy in references.energies.items()
    }


def _remarks(sets: Sets, references: dict[str, References]) -> list[Finding]:
    """What reading and the fit of the references have to say, as findings."""
    remarks = [(f.file, remark) for found in sets.found.values() for f in found for remark in f.remarks]
    remarks += [(f"references {name}".strip(), remark) for name, own in references.items() for remark in own.remarks]
    return [Finding("remark", "note", where, remark, "") for where, remark in remarks]


def versions() -> dict[str, str]:
    """Of Python, and of the packages that figures depend on."""
    packages = ("adatom", "torch", "numpy", "ase", "vesin")
    return {"python": sys.version.split()[0]} | {name: version(name) for name in packages}
