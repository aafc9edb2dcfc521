"""What a trajectory shows, in one go: pairs, structure factor, diffusion, vibrations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import ase
import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from adatom.config import Config
from adatom.errors import ConfigError, DataError
from adatom.properties.diffusion import Diffusion, DiffusionConfig, diffusion
from adatom.properties.rdf import RDF, Likeness, compare, rdf
from adatom.properties.structure_factor import StructureFactor, StructureFactorConfig, structure_factor
from adatom.properties.trajectory import trajectory
from adatom.properties.velocities import Velocities, VelocitiesConfig, velocities
from adatom.report.figure import plain, thin

Part = Literal["pairs", "structure", "diffusion", "velocities"]
PARTS: tuple[Part, ...] = ("pairs", "structure", "diffusion", "velocities")
MOTION_FRAMES = 40  # below, there is no motion to speak of


class AnalysisConfig(Config):
    """What to look at, and how; ``parts`` is all that the trajectory allows by default.

    Frames for g(r) and S(q) are taken evenly spaced, ``structure_frames`` at most: neighbours in time are alike.
    """

    parts: tuple[Part, ...] | None = None
    skip_ps: NonNegativeFloat = 0.0
    r_max: PositiveFloat = 8.0
    r_width: PositiveFloat = 0.05
    structure_frames: PositiveInt = 200
    structure: StructureFactorConfig = Field(default_factory=StructureFactorConfig)
    diffusion: DiffusionConfig = Field(default_factory=DiffusionConfig)
    velocities: VelocitiesConfig = Field(default_factory=VelocitiesConfig)


@dataclass(frozen=True)
class Analysis:
    """What was found; None for what was not looked at, and ``notes`` say why."""

    formula: str
    frames: int
    duration_ps: float | None
    pairs: RDF | None
    reference: RDF | None
    likeness: dict[str, Likeness]
    structure: StructureFactor | None
    diffusion: Diffusion | None
    velocities: Velocities | None
    notes: tuple[str, ...]

    def to_record(self) -> dict[str, Any]:
        """Plain values as the report reads them; ``skip_ps`` and the like are the caller's to add."""
        record: dict[str, Any] = {
            "property": "trajectory",
            "formula": self.formula,
            "frames": self.frames,
            "duration_ps": self.duration_ps,
            "notes": list(self.notes),
        }
        if self.pairs is not None:
            record["pairs"] = _curves(self.pairs) | {"frames": self.pairs.frames}
        if self.reference is not None:
            record["reference"] = _curves(self.reference) | {"frames": self.reference.frames}
            record["likeness"] = {pair: one.to_record() for pair, one in self.likeness.items()}
        for name, found in (
            ("structure", self.structure),
            ("diffusion", self.diffusion),
            ("velocities", self.velocities),
        ):
            if found is not None:
                record[name] = found.to_record()
        return record


def analyse(
    frames: Sequence[ase.Atoms],
    config: AnalysisConfig | None = None,
    *,
    reference: Sequence[ase.Atoms] = (),
    progress: Callable[[str], None] | None = None,
) -> Analysis:
    """Everything that frames of one simulation show; ``reference`` frames are laid beside g(r).

    ``progress`` is called with the name of each part before it is computed. Errors are those of the parts: DataError,
    GeometryError, ConfigError. Parts that were not asked for by name are left out, with a note, where the system is
    not periodic or the frames do not say when they were.
    """
    config = config or AnalysisConfig()
    if not frames:
        raise DataError("there are no frames to analyse", wanted="one at least", remedy="check the trajectory")
    parts, notes = _parts(frames, config)
    if reference and "pairs" not in parts:
        raise ConfigError(
            "reference frames are compared by g(r), which is not among the parts",
            where="analyse",
            got=", ".join(parts) or "no part at all",
            remedy="ask for pairs too, or leave the reference out",
        )
    say = progress or (lambda part: None)
    some = [frames[n] for n in thin(len(frames), max(config.structure_frames - 1, 1))]
    found: RDF | None = None
    theirs: RDF | None = None
    likeness: dict[str, Likeness] = {}
    if "pairs" in parts:
        say("pairs")
        found = rdf(some, config.r_max, config.r_width)
        if reference:
            theirs, likeness = compare(found, list(reference))
    waves: StructureFactor | None = None
    if "structure" in parts:
        say("structure")
        asked = config.structure
        waves = structure_factor(some, q_max=asked.q_max, width=asked.width, vectors=asked.vectors)
    spread, vibrations = _motion(frames, config, parts, say)
    times = [frames[n].info.get("time_ps") for n in (0, -1)]
    return Analysis(
        formula=frames[0].get_chemical_formula(),
        frames=len(frames),
        duration_ps=None if None in times else float(times[1]) - float(times[0]),
        pairs=found,
        reference=theirs,
        likeness=likeness,
        structure=waves,
        diffusion=spread,
        velocities=vibrations,
        notes=notes,
    )


def _motion(
    frames: Sequence[ase.Atoms], config: AnalysisConfig, parts: Sequence[Part], say: Callable[[str], None]
) -> tuple[Diffusion | None, Velocities | None]:
    """What needs frames in time."""
    spread: Diffusion | None = None
    vibrations: Velocities | None = None
    if not {"diffusion", "velocities"} & set(parts):
        return spread, vibrations
    motion = trajectory(frames)
    if "diffusion" in parts:
        say("diffusion")
        asked = config.diffusion
        spread = diffusion(
            motion, blocks=asked.blocks, fit_ps=asked.fit_ps,
            viscosity_mPas=asked.viscosity_mPas, temperature_K=asked.temperature_K,
        )  # fmt: skip
    if "velocities" in parts:
        say("velocities")
        vibrations = velocities(motion, lag_ps=config.velocities.lag_ps)
    return spread, vibrations


def _parts(frames: Sequence[ase.Atoms], config: AnalysisConfig) -> tuple[tuple[Part, ...], tuple[str, ...]]:
    """The parts to compute, and why others are left out."""
    if config.parts is not None:
        return config.parts, ()
    parts, notes = list(PARTS), []
    if not all(np.all(atoms.pbc) for atoms in frames):
        parts = [part for part in parts if part not in ("pairs", "structure")]
        notes.append("no g(r) and no S(q): the system is not periodic in three directions")
    why = None
    if not all("time_ps" in atoms.info for atoms in frames):
        why = "the frames do not say when they were (--interval FS)"
    elif len(frames) < MOTION_FRAMES:
        why = f"{len(frames)} frames are too few, {MOTION_FRAMES} are needed"
    if why is not None:
        parts = [part for part in parts if part not in ("diffusion", "velocities")]
        notes.append(f"no diffusion and no vibrations: {why}")
    return tuple(parts), tuple(notes)


def _curves(found: RDF) -> dict[str, Any]:
    return {
        "r_A": plain(found.r),
        "g": {pair: plain(values) for pair, values in found.g.items()},
        "coordination": {pair: plain(values) for pair, values in found.coordination.items()},
    }
