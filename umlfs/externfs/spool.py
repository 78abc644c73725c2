"""Contents of any length, by way of a temporary file without a name."""

from __future__ import annotations

import errno
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import IO, Final

from umlfs.externfs.contents import Contents
from umlfs.host.syscalls import failure

GATHERED_MAX: Final = 1 << 30
"""Bytes that are taken of a guest before they are looked at."""


class Spooled(Contents):
    """What an iterator yields, made as far as it is read. The size is not known before."""

    direct = True

    def __init__(self, pieces: Iterator[bytes], on_close: Callable[[], None] | None = None) -> None:
        self._pieces: Iterator[bytes] | None = pieces
        self._on_close = on_close
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._length = 0
        self._lock = threading.Lock()

    def size(self) -> int:
        with self._lock:
            self._make(1 << 62)
            return self._length

    def read(self, offset: int, length: int) -> bytes:
        with self._lock:
            self._make(offset + length)
            self._file.seek(offset)
            return self._file.read(length)

    def _make(self, end: int) -> None:
        if self._length >= end or self._pieces is None:
            return
        self._file.seek(self._length)
        while self._length < end:
            piece = next(self._pieces, None)
            if piece is None:
                self._finish()
                return
            self._file.write(piece)
            self._length += len(piece)

    def _finish(self) -> None:
        self._pieces = None
        if self._on_close is not None:
            self._on_close()
            self._on_close = None

    def close(self) -> None:
        with self._lock:
            self._finish()
            self._file.close()


class Gathered(Contents):
    """What is written, handed over as a file when it is committed."""

    def __init__(self, commit: Callable[[IO[bytes]], None], size_max: int = GATHERED_MAX) -> None:
        self._commit = commit
        self._size_max = size_max
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._dirty = False
        self._lock = threading.Lock()

    def size(self) -> int:
        with self._lock:
            return self._file.seek(0, 2)

    def read(self, offset: int, length: int) -> bytes:
        with self._lock:
            self._file.seek(offset)
            return self._file.read(length)

    def write(self, offset: int, data: bytes) -> None:
        if offset + len(data) > self._size_max:
            raise failure(errno.EFBIG)
        with self._lock:
            self._file.seek(offset)
            self._file.write(data)
            self._dirty = True

    def truncate(self, size: int) -> None:
        if size > self._size_max:
            raise failure(errno.EFBIG)
        with self._lock:
            self._file.truncate(size)
            self._dirty = True

    def commit(self) -> None:
        with self._lock:
            if self._dirty:
                self._dirty = False
                self._file.flush()
                self._file.seek(0)
                self._commit(self._file)

    def close(self) -> None:
        with self._lock:
            self._file.close()
