"""Journals: results that took long to compute, one JSON line each, found again by their keys."""

import contextlib
import errno
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from uaplib.files import write_atomically

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

_BEGIN = b'{"key": "'  # how every line begins


class Journal:
    """Records by their keys, in memory and, where there is a path, in a file, to which every new one is added.

    A line of the file is `{"key": KEY, ...}` with the fields of the record. The same key, or the same names under
    another key, may come again: what is said last counts. A last line that a kill has torn counts for nothing, and is
    cut off when the next record is added.

    Several processes may add to one file, each by one write at its end, and compact it: on systems that have `fcntl`
    and on disks that can lock files, nothing of theirs is lost. Elsewhere lines may be lost to a process that compacts
    the file, or that cuts off a torn line, at the same moment. What others add is seen when the file is opened again.

    Raises ValueError for a file of another kind, which stays as it is.
    """

    def __init__(self, path: str | Path | None = None):
        self.path = Path(path) if path else None
        there = self.path and self.path.exists()
        self._hold([each[1:] for each in self._read(self.path.read_bytes())] if there else [])

    @property
    def records(self) -> Mapping[str, dict]:
        """The records by their keys; of several with one key, the last."""
        return MappingProxyType(self._records)

    def get(self, key: str) -> dict | None:
        """Return the last record with this key, or None."""
        return self._records.get(key)

    def last(self, *names: str) -> dict[tuple, tuple[str, dict]]:
        """Return the last key and record for each combination of values that the named fields have.

        The order is that of the first line about each. Raises ValueError for a record that lacks one of the fields.
        """
        found = {}
        for key, record in self._lines:
            if missing := set(names) - record.keys():
                raise ValueError(
                    f"{self.path} holds other records, or those of an earlier version: {key} has no "
                    f"{', '.join(sorted(missing))}; name another file"
                )
            found[tuple(record[name] for name in names)] = key, record
        return found

    def add(self, key: str, record: Mapping[str, Any]) -> None:
        """Keep a record, JSON-safe. Warns when the file cannot be written, which is then as it was."""
        line = json.dumps({"key": key} | dict(record)).encode() + b"\n"
        self._lines.append((key, dict(record)))
        self._records[key] = self._lines[-1][1]
        if not self.path:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._locked() as file:
                self._append(file, line)
        except OSError as error:  # the record is worth more than its line
            warnings.warn(f"a record is not kept in {self.path}: {error.strerror or error}", stacklevel=2)

    def compact(self, keep: Callable[[str, dict], bool]) -> int:
        """Remove the records for which `keep(key, record)` is false, and return how many have gone.

        The file is read again, for others may have added to it, and replaced by the new one: a reader sees the old or
        the new.
        """
        if not self.path or not self.path.exists():
            lines, kept = self._lines, [line for line in self._lines if keep(*line)]
        else:
            with self._locked() as file:
                lines = self._read(_at(file, 0).read())
                kept = [each for each in lines if keep(*each[1:])]
                if len(kept) < len(lines):
                    content = b"".join(line for line, _, _ in kept)
                    write_atomically(self.path, lambda temporary: temporary.write_bytes(content))
        self._hold([each[-2:] for each in kept])
        return len(lines) - len(kept)

    def _hold(self, lines: list[tuple[str, dict]]) -> None:
        """Keep keys and records in memory, in the order of the file."""
        self._lines, self._records = lines, dict(lines)

    def _split(self, content: bytes) -> tuple[bytes, bytes]:
        """The whole lines, and what is torn. Raises ValueError when this is no journal."""
        if content.strip() and not content.lstrip().startswith(b"{"):
            raise ValueError(f"{self.path} holds something else than records of uaplib; name another file")
        end = content.rfind(b"\n") + 1
        torn = content[end:]
        if not torn.startswith(_BEGIN) and not _BEGIN.startswith(torn):
            raise ValueError(f"{self.path} does not end as a file of records does; name another file")
        return content[:end], torn

    def _read(self, content: bytes) -> list[tuple[bytes, str, dict]]:
        """Every whole line with its key and its record."""
        whole, _ = self._split(content)
        lines = enumerate(whole.splitlines(keepends=True), 1)
        return [(line, *self._parsed(line, number)) for number, line in lines if line.strip()]

    def _parsed(self, line: bytes, number: int) -> tuple[str, dict]:
        with contextlib.suppress(ValueError, KeyError, AttributeError, TypeError):
            record = json.loads(line)
            key = record.pop("key")
            if isinstance(key, str):
                return key, record
        raise ValueError(f"{self.path}, line {number}, is no record of uaplib")

    def _append(self, file: BinaryIO, line: bytes) -> None:
        """Write a line after the last whole one; where that fails, nothing of it stays."""
        end = self._cut(file)
        try:
            if os.write(file.fileno(), line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            file.truncate(end)
            raise

    def _cut(self, file: BinaryIO) -> int:
        """Cut off what is torn after the last whole line, and return where that ends."""
        end = file.seek(0, os.SEEK_END)
        if not end or _at(file, end - 1).read(1) == b"\n":
            return end
        whole, _ = self._split(_at(file, 0).read())
        return file.truncate(len(whole))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        """The file, open for reading and for adding at its end, and nobody else's as long as the block lasts."""
        while True:
            with open(self.path, "a+b", buffering=0) as file:
                _lock(file)
                if os.path.samestat(os.fstat(file.fileno()), os.stat(self.path)):  # else it was replaced meanwhile
                    yield file
                    return


def _lock(file: BinaryIO) -> None:
    """Wait until the file is ours, where it can be locked; it is given back when it is closed."""
    if fcntl:
        with contextlib.suppress(OSError):  # not every disk in a network has locks
            fcntl.flock(file, fcntl.LOCK_EX)


def _at(file: BinaryIO, position: int) -> BinaryIO:
    file.seek(position)
    return file
