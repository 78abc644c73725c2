"""Terminal logs, in the format of the tty logging that UML kernels once had: what was said and typed, and when.

Each record is a header of 24 bytes in the machine's byte order, and `len` bytes of data:

    int op; u32 tty; int len; int direction; u32 sec; u32 usec
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

import trio

HEADER: Final = struct.Struct("=iIiiII")
LENGTH_MAX: Final = 1 << 20
"""No record that we read holds more: whatever says so is no such log."""

logger = logging.getLogger(__name__)


class Operation(IntEnum):
    """What happened."""

    OPEN = 1
    CLOSE = 2
    WRITE = 3
    EXEC = 4


class Direction(IntEnum):
    """Which way the bytes of a WRITE went; 0 in other records."""

    NONE = 0
    READ = 1
    """The guest read them: they were typed."""
    WRITTEN = 2


@dataclass(frozen=True, slots=True)
class Record:
    """One record."""

    operation: Operation
    tty: int
    """Which terminal: here `Line.device`."""
    direction: Direction
    nanoseconds: int
    """When, since 1970; the format holds microseconds."""
    data: bytes = b""

    def encode(self) -> bytes:
        """The bytes of it."""
        seconds, rest = divmod(self.nanoseconds, 1_000_000_000)
        fields = (self.operation, self.tty, len(self.data), self.direction, seconds & 0xFFFFFFFF, rest // 1000)
        return HEADER.pack(*fields) + self.data


def records(data: bytes) -> Iterator[Record]:
    """The records of a log, as far as they are whole (a log may end anywhere). ValueError for what is none."""
    while len(data) >= HEADER.size:
        operation, tty, length, direction, seconds, microseconds = HEADER.unpack_from(data)
        if not 0 <= length <= LENGTH_MAX or microseconds >= 1_000_000:
            raise ValueError("not a terminal log")
        if len(data) < HEADER.size + length:
            return
        content, data = data[HEADER.size : HEADER.size + length], data[HEADER.size + length :]
        nanoseconds = seconds * 1_000_000_000 + microseconds * 1000
        yield Record(Operation(operation), tty, Direction(direction), nanoseconds, content)


class TtyLog:
    """The log of one line, appended to. Every call waits until the file has it, without blocking the event loop."""

    def __init__(self, path: Path, tty: int) -> None:
        """OSError if the file cannot be opened."""
        self._path = path
        self._tty = tty
        self._complained = False
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._turn = trio.Lock()

    def close(self) -> None:
        os.close(self._fd)

    async def opened(self) -> None:
        """The line is there."""
        await self._add(Operation.OPEN, Direction.NONE, struct.pack("=I", 0))

    async def closed(self) -> None:
        """The line is no more."""
        await self._add(Operation.CLOSE, Direction.NONE, b"")

    async def wrote(self, direction: Direction, data: bytes) -> None:
        """Something was said or typed."""
        await self._add(Operation.WRITE, direction, data)

    async def _add(self, operation: Operation, direction: Direction, data: bytes) -> None:
        record = Record(operation, self._tty, direction, time.time_ns(), data).encode()
        async with self._turn:
            try:
                await trio.to_thread.run_sync(_write_all, self._fd, record)
            except OSError as error:
                if not self._complained:
                    logger.warning("%s: the terminal log has gaps: %s", self._path, error.strerror)
                self._complained = True


def _write_all(fd: int, data: bytes) -> None:
    """Append all of `data` or nothing: what follows half a record could not be read."""
    before = os.fstat(fd).st_size
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(fd, rest) :]
    except OSError:
        with contextlib.suppress(OSError):  # a device
            os.ftruncate(fd, before)
        raise
