"""Journals: records by their keys, kills, foreign files, full disks, and several processes at once."""

import json
import os
import subprocess
import sys

import pytest

from uaplib import journal
from uaplib.journal import Journal


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "cells.jsonl"


def filled(path=None):
    found = Journal(path)
    found.add("a", {"source": "s", "victim": "v", "rate": 1})
    found.add("b", {"source": "s", "victim": "w", "rate": 2})
    return found


@pytest.mark.parametrize("kept", [True, False])
def test_records_are_found_by_their_keys(path, kept):
    found = filled(path if kept else None)
    for each in (found, Journal(path)) if kept else (found,):
        assert each.get("a") == {"source": "s", "victim": "v", "rate": 1}
        assert each.get("c") is None
        assert list(each.records) == ["a", "b"]
    assert path.exists() == kept


def test_a_line_is_the_key_and_the_record(path):
    filled(path)
    assert path.read_text().splitlines()[0] == '{"key": "a", "source": "s", "victim": "v", "rate": 1}'
    assert path.read_bytes().endswith(b"}\n")


def test_opening_writes_nothing(path):
    assert dict(Journal(path).records) == {}
    assert not path.parent.exists()


def test_what_is_said_last_about_a_key_counts(path):
    filled(path).add("a", {"source": "t", "victim": "v", "rate": 3})
    assert Journal(path).get("a")["rate"] == 3
    assert len(path.read_bytes().splitlines()) == 3


def test_the_last_word_about_names(path):
    found = filled(path)
    found.add("c", {"source": "s", "victim": "v", "rate": 4})
    found.add("a", {"source": "t", "victim": "v", "rate": 1})  # the same result by another name
    for each in (found, Journal(path)):
        last = {names: (key, record["rate"]) for names, (key, record) in each.last("source", "victim").items()}
        assert last == {("s", "v"): ("c", 4), ("s", "w"): ("b", 2), ("t", "v"): ("a", 1)}
        assert [key for key, _ in each.last("victim").values()] == ["a", "b"]


def test_records_without_a_name_that_is_asked_for(path):
    with pytest.raises(ValueError, match="cells.jsonl holds other records.* a has no seed; name another file"):
        filled(path).last("source", "seed")


def test_what_cannot_be_written_as_json_changes_nothing(path):
    found = filled(path)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        found.add("c", {"rate": object()})
    assert found.get("c") is None
    assert path.read_bytes() == before


@pytest.mark.parametrize("torn", [b"{", b'{"key', b'{"key": "c", "source": "s", "vic'])
def test_a_torn_line_counts_for_nothing_and_goes_with_the_next_record(path, torn):
    filled(path)
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    found = Journal(path)
    assert list(found.records) == ["a", "b"]
    assert path.read_bytes() == whole + torn  # it may be a line that another process is writing
    found.add("c", {"rate": 3})
    assert path.read_bytes() == whole + b'{"key": "c", "rate": 3}\n'


def test_a_line_that_is_torn_after_the_file_was_opened_goes_too(path):
    found = filled(path)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"key": "c", "sou')
    found.add("d", {"rate": 4})
    assert path.read_bytes() == whole + b'{"key": "d", "rate": 4}\n'


@pytest.mark.parametrize("empty", [b"\n", b"\n \n", b""])
def test_empty_lines_count_for_nothing(path, empty):
    filled(path)
    path.write_bytes(empty + path.read_bytes() + empty)
    assert list(Journal(path).records) == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"a note without an end", "holds something else than records"),
        (b"\x89PNG\r\n", "holds something else than records"),
        (b"key,value\n1,2", "holds something else than records"),
        (b'{"precious": 1}', "does not end as a file of records does"),
        (b'{"key": "a"}\n{"precious": 1}', "does not end as a file of records does"),
        (b"{}\n", "line 1, is no record"),
        (b'{"key": "a"}\n[1]\n', "line 2, is no record"),
        (b'{"key": "a"}\n\n{"key": 3}\n', "line 3, is no record"),
        (b'{"key": "a"}\n{"key": "b", \n', "line 2, is no record"),
        (b'{"key": "a"}\n"key"\n', "line 2, is no record"),
    ],
)
def test_a_file_of_another_kind_is_refused_and_stays_as_it_is(path, content, why):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"cells.jsonl,? {why}"):
        Journal(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("fails", ["short", "error"])
def test_on_a_full_disk_a_record_is_known_and_the_file_stays_as_it_was(path, monkeypatch, fails):
    found = filled(path)
    before, write = path.read_bytes(), os.write

    def full(file, content):
        written = write(file, content[:20])
        if fails == "error":
            raise OSError(28, "No space left on device")
        return written

    monkeypatch.setattr(journal.os, "write", full)
    with pytest.warns(UserWarning, match="a record is not kept in .*cells.jsonl: No space left on device") as warned:
        found.add("c", {"rate": 3})
    assert warned[0].filename == __file__
    assert found.get("c") == {"rate": 3}
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_a_warning(tmp_path):
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="a record is not kept"):
        Journal(tmp_path / "file" / "cells.jsonl").add("a", {})


@pytest.mark.parametrize("kept", [True, False])
def test_compacting_removes_what_is_not_to_be_kept(path, kept):
    found = filled(path if kept else None)
    found.add("c", {"rate": 3})
    lines = path.read_bytes().splitlines(keepends=True) if kept else []
    asked = []
    assert found.compact(lambda key, record: asked.append((key, record["rate"])) or key != "b") == 1
    assert asked == [("a", 1), ("b", 2), ("c", 3)]
    assert list(found.records) == ["a", "c"]
    assert list(found.last("rate")) == [(1,), (3,)]
    if kept:
        assert path.read_bytes() == lines[0] + lines[2]
        assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_compacting_when_nothing_goes_leaves_the_file_alone(path):
    found = filled(path)
    before = path.stat()
    assert found.compact(lambda key, record: True) == 0
    assert os.path.samestat(path.stat(), before)


def test_compacting_sees_and_keeps_what_others_have_added(path):
    found, other = filled(path), Journal(path)
    other.add("c", {"rate": 3})
    assert found.compact(lambda key, record: key != "a") == 1
    assert list(Journal(path).records) == list(found.records) == ["b", "c"]
    other.add("d", {"rate": 4})
    assert list(Journal(path).records) == ["b", "c", "d"]


def test_a_file_that_is_no_journal_any_more_is_not_compacted(path):
    found = filled(path)
    path.write_bytes(b"precious\n")
    with pytest.raises(ValueError, match="holds something else"):
        found.compact(lambda key, record: False)
    assert path.read_bytes() == b"precious\n"


ADD = """
import sys
from uaplib.journal import Journal
journal = Journal(sys.argv[1])
for number in range(150):
    journal.add(f"{sys.argv[2]}-{number}", {"text": sys.argv[2] * 3000})
"""


@pytest.mark.skipif(journal.fcntl is None, reason="no locks here")
def test_processes_that_add_and_compact_at_once_lose_nothing(path):
    found = filled(path)
    writers = [subprocess.Popen([sys.executable, "-c", ADD, str(path), name]) for name in "xyz"]
    while any(writer.poll() is None for writer in writers):
        found.add("gone", {"rate": 0})
        found.compact(lambda key, record: key != "gone")
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    kept = Journal(path).records
    assert kept.keys() == {"a", "b"} | {f"{name}-{number}" for name in "xyz" for number in range(150)}
    assert all(json.loads(line) for line in path.read_text().splitlines())
