"""Every error a user can meet: it says where, what was wanted, what came, and the way out."""

from __future__ import annotations


class AdatomError(Exception):
    """Base of all errors raised on purpose.

    Parameters
    ----------
    problem
        What is wrong, in one sentence.
    where
        File, record and field, e.g. ``"train.xyz, frame 12, field 'forces'"``.
    wanted, got
        What was expected and what was found.
    remedy
        What the user can do about it.
    """

    def __init__(
        self,
        problem: str,
        *,
        where: str | None = None,
        wanted: str | None = None,
        got: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.problem, self.where, self.wanted, self.got, self.remedy = problem, where, wanted, got, remedy
        lines = [problem]
        for label, text in (("where", where), ("wanted", wanted), ("got", got), ("remedy", remedy)):
            if text is not None:
                lines.append(f"  {label + ':':8}{text}")
        super().__init__("\n".join(lines))


class ConfigError(AdatomError):
    """A configuration has an unknown key, a value of the wrong kind, or two values that contradict each other."""


class DataError(AdatomError):
    """A structure file cannot be used: unreadable, empty, truncated, or physically impossible."""


class LabelError(DataError):
    """A label that the loss needs is missing, not a number, or of the wrong shape."""


class LeakError(DataError):
    """A test structure stands in the training set."""


class StoreError(DataError):
    """A store of packed structures is unfinished, altered, truncated, or of another format version."""


class WorkerError(AdatomError):
    """A process that prepares batches died."""


class GeometryError(AdatomError):
    """Positions or cell that no neighbour list can be made of: NaN, a zero-volume periodic cell, atoms on one spot."""


class UnknownElementError(AdatomError):
    """The potential was never trained on an element of this structure."""


class ChargeError(AdatomError):
    """Total charge or spin multiplicity is missing, or none that the potential was trained on."""


class MemoryLimitError(AdatomError):
    """A structure needs more memory than there is."""


class CompileWarning(UserWarning):
    """Compiled code could not be made, or was wrong: what runs is the same, only slower."""


class SourceWarning(UserWarning):
    """A model knows several levels of theory, and nobody said which one is meant."""


class ModelFileError(AdatomError):
    """A model file is truncated, altered, of a later format, or not a model file at all."""


class LockError(AdatomError):
    """Another process writes where this one wants to."""


class CheckpointError(AdatomError):
    """A checkpoint could not be written or does not belong to this run."""


class TrainingError(AdatomError):
    """Training cannot go on: the loss is no longer a number."""


class SimulationError(AdatomError):
    """A simulation left physical ground and was stopped."""
