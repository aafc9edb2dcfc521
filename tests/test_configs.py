"""Every recipe in configs/ is read and trains."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import pytest
from rich.console import Console

from adatom.config import read_yaml
from adatom.train.config import TrainConfig
from adatom.train.run import train

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.fixture(scope="module")
def few_cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first frames of our own silicon set."""
    lines = lzma.decompress((ROOT / "data/si_pbe_gpaw/train.xyz.xz").read_bytes()).decode().splitlines()
    kept: list[str] = []
    while len(kept) < 12 * 10:
        kept += lines[len(kept) : len(kept) + int(lines[len(kept)]) + 2]
    path = tmp_path_factory.mktemp("data") / "few.xyz"
    path.write_text("\n".join(kept) + "\n")
    return path


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.stem)
def test_recipe_trains_for_two_steps(recipe: Path, few_cells: Path, tmp_path: Path) -> None:
    values = read_yaml(recipe)
    values["data"] |= {"train": [str(few_cells)], "test": [], "split": {"valid": 2}}
    values["limits"] = {"steps": 2}
    run = train(TrainConfig.parse(values, where=str(recipe)), tmp_path, console=Console(quiet=True))
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if r["kind"] == "valid"][-1] == 2
    assert (run / "model.adatom").stat().st_size > 0


def test_there_is_a_recipe_for_every_size() -> None:
    sizes = {TrainConfig.load(path).model.size for path in RECIPES}
    assert sizes == {"S", "M", "L"}
