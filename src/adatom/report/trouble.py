"""Steps that were not taken, stood out, or did not fit into memory, and what the run did about them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from adatom.report.format import integer, number, plural
from adatom.report.record import Record

SHOWN = 40  # rows; what was taken all the same is left out first
NAMED = 3  # structures in a sentence
ANSWERS = {
    "skip": "step not taken",
    "roll back": "weights went back, learning rate lowered",
    "stop": "training stopped",
}
_MORE = re.compile(r"and \d+ more")  # what the log ends a long list of names with


@dataclass(frozen=True)
class TroubleRow:
    """One event; ``state`` is ``"bad"`` where a step was not taken, else ``"warn"``."""

    step: int | None
    what: str
    detail: str
    structures: tuple[str, ...]
    more: str  # "and 3 more" where not all are named
    answer: str
    state: str


def trouble_rows(records: Sequence[Record]) -> tuple[list[TroubleRow], int]:
    """Rows by step, and how many more there are: of too many, spikes are left out before anything else."""
    by_weight = sorted(records, key=lambda record: record.text("kind") == "spike")
    kept = sorted(by_weight[:SHOWN], key=lambda record: record.real("step") or 0.0)
    return [_row(record) for record in kept], len(records) - len(kept)


def trouble_told(record: Record) -> str:
    """One sentence on the whole run; empty where every step was taken."""
    skipped, back, said = record.record("steps_not_taken_for").numbers(), record.whole("rollbacks") or 0, []
    if skipped:
        worst = sorted(skipped, key=lambda name: -skipped[name])
        names = ", ".join(f"{name} ({plural(round(skipped[name]), 'time')})" for name in worst[:NAMED])
        more = f" and {len(worst) - NAMED} more" if len(worst) > NAMED else ""
        said.append(f"steps were not taken for {names}{more}")
    if back:
        said.append(f"the weights went back {plural(back, 'time')}")
    text = "; ".join(said)
    return text[:1].upper() + text[1:] + "." if text else ""


def _row(record: Record) -> TroubleRow:
    kind, step, names = record.text("kind"), record.whole("step"), record.texts("structures")
    more = names.pop() if names and _MORE.fullmatch(names[-1]) else ""
    if kind == "memory":
        what, detail, state = "memory ran out", "", "warn"
        answer = f"batches computed in parts of at most {integer(record.real('atoms_at_once'))} atoms"
    elif kind == "spike":
        what, answer, state = "spike", "step taken", "warn"
        detail = f"loss {number(record.real('loss'))}, gradient norm {number(record.real('gradient_norm'))}"
    else:
        what, detail, state = "not finite", record.text("reason"), "bad"
        answer = ANSWERS.get(record.text("answer"), record.text("answer"))
    return TroubleRow(step, what, detail, tuple(names), more, answer, state)
