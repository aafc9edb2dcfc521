"""Everything that decides a training run."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from adatom.config import Config, Switch
from adatom.data.dataset import Budget
from adatom.data.read import Keys, Units
from adatom.data.split import Split
from adatom.models import AnyModelConfig
from adatom.priors.zbl import ZBLConfig
from adatom.train.finetune import FinetuneConfig, with_model_of_file
from adatom.train.interrupt import duration
from adatom.train.loggers import LoggerName
from adatom.train.loss import LossConfig
from adatom.train.optimize import OptimizerConfig


class SourceConfig(Config):
    """Files of one origin."""

    train: tuple[str, ...] = ()
    valid: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    keys: Keys = Keys()
    units: Units = Units()
    references: dict[str, float] = Field({}, description="energy per element in eV; what is missing is fitted")


class DataConfig(SourceConfig):
    """Where structures come from. Sets that are not given as files are split off the training files.

    Labels of several levels of theory go under ``sources``, by name, with files, keys, units and references of each:
    one model learns them all, and is asked for one of them.
    """

    split: Split = Split()
    sources: dict[str, SourceConfig] = Field({}, description="instead of train, valid, ...: those of each source")

    @model_validator(mode="after")
    def _some_files(self) -> DataConfig:
        """Files of one source, or of several."""
        if self.sources and any(getattr(self, name) != field.default for name, field in _SOURCE.items()):
            raise ValueError(f"with sources, {', '.join(_SOURCE)} are those of each source: write them there")
        lacking = [name for name, source in self.by_source() if not source.train]
        if lacking:
            of = f" of the source '{lacking[0]}'" if self.sources else ""
            raise ValueError(f"train{of}: name at least one file")
        return self

    def by_source(self) -> list[tuple[str, DataConfig]]:
        """Name and files of each source; of one without a name, itself."""
        if not self.sources:
            return [("", self)]
        own = [(name, {entry: getattr(source, entry) for entry in _SOURCE}) for name, source in self.sources.items()]
        return [(name, DataConfig.model_construct(split=self.split, sources={}, **entries)) for name, entries in own]


_SOURCE = SourceConfig.model_fields


class Limits(Config):
    """When training ends: whichever comes first. The learning rate falls along the one that is nearest to its end."""

    epochs: PositiveInt | None = None
    steps: PositiveInt | None = None
    minutes: PositiveFloat | None = None
    clock: Literal["wall", "cpu"] = "wall"

    @model_validator(mode="after")
    def _bounded(self) -> Limits:
        if self.epochs is None and self.steps is None and self.minutes is None:
            raise ValueError("give at least one of epochs, steps and minutes")
        return self


class StageConfig(Config):
    """What one stage of two does in its own way; None: see ``stages_of``."""

    lr: PositiveFloat | None = None
    final_lr: float | None = Field(None, gt=0.0, le=1.0, description="fraction of lr at the end of the stage")
    warmup_steps: NonNegativeInt | None = None
    loss: LossConfig | None = None


class StagesConfig(Config):
    """The two stages of ``schedule: direct-then-conservative``."""

    share: float = Field(0.6, gt=0.0, lt=1.0, description="of every limit, spent on the direct head")
    direct: StageConfig = StageConfig()
    conservative: StageConfig = StageConfig()


class TrainConfig(Config):
    """One training run; ``adatom train`` reads it from YAML."""

    name: str = "run"
    data: DataConfig
    model: AnyModelConfig
    priors: tuple[ZBLConfig, ...] = (ZBLConfig(least=3.0),)
    finetune: FinetuneConfig | None = Field(None, description="start from a model file; model and priors are its own")
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: Literal["single", "direct-then-conservative"] = Field(
        "single", description="direct-then-conservative: train a direct head, swap it for the gradient, fine-tune"
    )
    stages: StagesConfig = StagesConfig()
    batch: Budget = Budget(atoms=64)
    limits: Limits = Limits(epochs=200)
    validate_every: PositiveInt = Field(1, description="epochs between validations")
    keep: Literal["last", "best"] | None = Field(
        None,
        description="averaged weights to keep; None: the last of a cosine, else those of the lowest validation loss",
    )
    patience: PositiveInt | None = Field(None, description="validations without improvement before training stops")
    checkpoint_minutes: PositiveFloat = 2.0
    samples: NonNegativeInt = Field(
        16, description="training structures kept in the model file, for fine-tuning without the data; 0: none"
    )
    anchors: NonNegativeInt = Field(
        0, description="isolated dimers of each pair of elements that the network is told to add nothing to"
    )
    seed: int = 0
    precision: Literal["float32", "float64"] = "float32"
    matmul: Literal["float32", "tf32", "bf16"] = Field(
        "float32",
        description="rounding of what float32 matrix products multiply, where the device can: docs/training.md",
    )
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: PositiveInt = Field(1, description="processes on each node, of a GPU or CPU core each")
    nodes: PositiveInt = Field(1, description="machines; more than one need torchrun or srun")
    workers: NonNegativeInt = Field(0, description="processes beside each of these that prepare batches")
    max_time: str | None = Field(
        None, description="save and stop after this time, as 90m or 23:50:00, with an exit code to be started again by"
    )
    detect: bool = Field(False, description="stop at the first number that is none, and name layer and operation")
    compile: Switch = Field(
        "auto", description="training steps as compiled code, checked against float64; auto: where the run is long"
    )
    threads: PositiveInt | None = Field(None, description="CPU threads of each process; None leaves torch's choice")
    loggers: tuple[LoggerName, ...] = Field((), description="copies of log.jsonl for tensorboard and wandb")

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        """The run folder stands in the folder of runs, not somewhere else."""
        if name in ("", ".", "..") or any(sign in name for sign in "/\\\0"):
            raise ValueError("the name of a run is that of its folder: a plain one, without / and not . or ..")
        return name

    @model_validator(mode="before")
    @classmethod
    def _of_the_file(cls, values: Any) -> Any:
        """Model and priors of a fine-tuning are those of its file."""
        return with_model_of_file(values)

    @field_validator("max_time", mode="before")
    @classmethod
    def _time(cls, given: Any) -> str | None:
        """YAML reads 23:50:00 as a number of seconds, to the base of sixty."""
        if given is None:
            return None
        text = f"{given}s" if isinstance(given, (int, float)) else str(given)
        duration(text)  # a ValueError says how to write it
        return text

    @property
    def seconds_at_most(self) -> float | None:
        """``max_time`` in seconds."""
        return None if self.max_time is None else duration(self.max_time)

    @model_validator(mode="after")
    def _anchored_at_first(self) -> TrainConfig:
        """Anchors are learned when a network is new: later, replay keeps them in mind."""
        if self.finetune is not None and self.anchors:
            raise ValueError("anchors are for a network that begins anew: leave them out with finetune")
        return self

    @model_validator(mode="after")
    def _two_stages(self) -> TrainConfig:
        """Two stages need a network with both kinds of forces; settings of stages need stages."""
        if self.schedule == "single":
            if self.stages != StagesConfig():
                raise ValueError("stages are those of schedule: direct-then-conservative, and schedule is single")
            return self
        try:
            for derivatives in ("direct", "gradient"):
                self.model.with_derivatives(derivatives)  # type: ignore[arg-type]  # mypy widens the words of the tuple
        except ValidationError as error:
            which = f"{self.model.architecture} of the form {self.model.form}"
            raise ValueError(
                f"schedule {self.schedule} needs a network with a direct head and one without, and {which} has no "
                f"{derivatives} forces: set schedule to single, or choose another form"
            ) from error
        if self.model.derivatives == "direct":
            raise ValueError(f"schedule {self.schedule} ends with the gradient: leave model.derivatives out")
        return self

    @property
    def keep_best(self) -> bool:
        """Whether the weights of the lowest validation loss are kept.

        Not after a cosine by default: a small validation set is noisy enough to choose weights of a quarter of the way,
        when the learning rate was still high (LOG.md).
        """
        if self.keep is not None:
            return self.keep == "best"
        return self.patience is not None or self.optimizer.schedule == "plateau"
