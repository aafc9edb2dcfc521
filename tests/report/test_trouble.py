"""Steps that were not taken, on the page: step, what, structures, answer."""

from __future__ import annotations

import json
import re
from pathlib import Path

from adatom.report import write_report
from adatom.report.load import load_run
from adatom.report.record import Record
from adatom.report.trouble import SHOWN, trouble_rows, trouble_told
from report.fake_run import tuned, write
from report.test_page import own_text

FILES = {"log.jsonl", "metrics.json"}


def test_rows_come_by_step_and_say_what_was_done(tmp_path: Path) -> None:
    history = load_run(tuned(write(tmp_path, FILES))).history
    assert history is not None
    rows, left_out = trouble_rows(history.trouble)
    assert left_out == 0
    assert [(row.step, row.what, row.answer) for row in rows] == [
        (96, "not finite", "step not taken"),
        (310, "memory ran out", "batches computed in parts of at most 1\u202f200 atoms"),
        (1450, "spike", "step taken"),
        (2710, "not finite", "weights went back, learning rate lowered"),
    ]
    assert rows[0].structures == ("train.xyz.xz:17", "train.xyz.xz:203")
    assert rows[0].detail == "first in network.layers.0.attention (Attention)"
    assert (len(rows[2].structures), rows[2].more) == (8, "and 3 more")


def test_of_too_many_rows_spikes_are_left_out_first() -> None:
    spikes = [Record({"kind": "spike", "step": k}) for k in range(2 * SHOWN)]
    rows, left_out = trouble_rows([*spikes, Record({"kind": "not finite", "step": 3 * SHOWN, "answer": "skip"})])
    assert (len(rows), left_out) == (SHOWN, SHOWN + 1)
    assert rows[-1].what == "not finite"


def test_a_sentence_names_the_worst_structures_first() -> None:
    skipped = {"a:1": 1, "a:2": 5, "a:3": 2, "a:4": 1}
    told = trouble_told(Record({"steps_not_taken_for": skipped, "rollbacks": 2}))
    assert told == (
        "Steps were not taken for a:2 (5 times), a:3 (2 times), a:1 (1 time) and 1 more; the weights went back 2 times."
    )
    assert trouble_told(Record({})) == ""


def test_a_resumed_run_replaces_the_trouble_it_repeats(tmp_path: Path) -> None:
    event = {"kind": "not finite", "step": 7, "structures": ["a:1"], "answer": "skip"}
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(e) + "\n" for e in (event, {"kind": "start"}, event)))
    history = load_run(tmp_path).history
    assert history is not None
    assert len(history.trouble) == 1


def test_names_of_structures_cannot_become_markup(tmp_path: Path) -> None:
    folder = tuned(write(tmp_path, FILES))
    evil = "<script>alert(1)</script>"
    for name in FILES:
        (folder / name).write_text((folder / name).read_text().replace("train.xyz.xz:17", evil))
    text = own_text(write_report(folder))
    section = re.search(r'<section id="trouble".*?</section>', text, flags=re.DOTALL)
    assert section is not None
    assert section[0].count("alert(1)") == 3  # the sentence and two rows
    assert "<script>" not in section[0]
