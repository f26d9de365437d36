"""Cells of one journal: what was said last stays."""

from uaplib.cells import LABELS, compact
from uaplib.journal import Journal


def cell(source, victim, rate, task="label"):
    return {"source": source, "victim": victim, "task": task, "counts": rate}


def test_of_each_pair_and_task_the_last_word_stays_and_everything_else_goes(tmp_path):
    journal = Journal(tmp_path / "cells.jsonl")
    said = [
        ("a", cell("n", "v", 1)), ("b", cell("n", "v", 2)), ("b", cell("m", "v", 2)), ("c", cell("n", "w", 3)),
        ("b", cell("m", "v", 2)), ("d", cell("n", "v", 4, "depth")),
    ]  # fmt: skip
    for key, record in said:
        journal.add(key, record)
    before = Journal(tmp_path / "cells.jsonl").last(*LABELS)
    assert compact(journal) == 2
    after = Journal(tmp_path / "cells.jsonl")
    assert after.last(*LABELS) == before
    assert len((tmp_path / "cells.jsonl").read_text().splitlines()) == len(before) == 4
    assert compact(after) == 0
