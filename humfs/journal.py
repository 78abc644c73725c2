"""The journal: what was changed since the last commit, so that a killed server loses nothing.

Changes are gathered in one open transaction of SQLite, which a kill would undo while the files under `data/` have
changed already. So each operation also appends one line here, with a plain write: the host's kernel keeps that
when the process dies. (When the host itself loses power, what counts is the last commit that was synced.)

A line is

    CRC32 (SEQUENCE, ((STATEMENT, (PARAMETER, ...)), ...))

the CRC as eight hexadecimal digits over the rest of the line, which is Python literals: numbers, bytes and None.
Sequence numbers go up by one; the database knows the last one that it contains. The file is emptied after a commit.
"""

from __future__ import annotations

import ast
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

FILE: Final = "journal"

Value = int | bytes | None
Change = tuple[int, tuple[Value, ...]]
"""The number of a statement and its parameters."""


def encode(sequence: int, changes: tuple[Change, ...]) -> bytes:
    """One line."""
    body = repr((sequence, changes)).encode("ascii")
    return b"%08x %b\n" % (zlib.crc32(body), body)


def decode(line: bytes) -> tuple[int, tuple[Change, ...]]:
    """What a line says. ValueError if it is torn or not one."""
    checksum, _, body = line.rstrip(b"\n").partition(b" ")
    if len(checksum) != 8 or checksum != b"%08x" % zlib.crc32(body):
        raise ValueError("checksum")
    try:
        sequence, changes = ast.literal_eval(body.decode("ascii"))
        for statement, values in changes:
            if type(statement) is not int or not all(_is_value(value) for value in values):
                raise ValueError("types")
    except (SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(str(error)) from None
    if type(sequence) is not int:
        raise ValueError("sequence")
    return sequence, changes


def _is_value(value: object) -> bool:
    return value is None or type(value) in (int, bytes)


def read(path: Path, after: int) -> Iterator[tuple[int, tuple[Change, ...]]]:
    """The records that follow number `after` without a gap. Ends at the first line that is torn."""
    if not path.exists():
        return
    with open(path, "rb") as file:
        for line in file:
            try:
                sequence, changes = decode(line)
            except ValueError:
                return
            if sequence <= after:
                continue
            if sequence != after + 1:
                return
            yield sequence, changes
            after = sequence


class Journal:
    """The journal open for appending."""

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o600)
        self.size = os.fstat(self._fd).st_size

    def append(self, sequence: int, changes: tuple[Change, ...]) -> None:
        """Add a record. OSError if the host has no room, and then nothing was added."""
        line = encode(sequence, changes)
        written = os.write(self._fd, line)
        if written != len(line):
            os.ftruncate(self._fd, self.size)
            raise OSError(28, os.strerror(28))
        self.size += written

    def clear(self) -> None:
        """Empty it: all of it was committed."""
        if self.size:
            os.ftruncate(self._fd, 0)
            self.size = 0

    def close(self) -> None:
        os.close(self._fd)
