"""What a machine's kernel said, and what we have to say of it, in a file that does not grow for ever."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

MOST: Final = 1 << 20
"""Bytes of the file; then the older half goes."""
LOGGERS: Final = ("umlfs", "hostfs", "humfs", "runtime")


class LogFile:
    """A file that keeps the last of what is written to it: between half of `MOST` and all of it."""

    def __init__(self, path: Path) -> None:
        """OSError if it cannot be made."""
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._size = 0

    def write(self, data: bytes) -> None:
        """Append `data`. A full disk loses it: that must not stop the machine."""
        with contextlib.suppress(OSError):
            if self._size + len(data) > MOST:
                kept = os.pread(self._fd, MOST // 2, max(0, self._size - MOST // 2))
                os.ftruncate(self._fd, 0)
                self._size = os.pwrite(self._fd, kept[kept.find(b"\n") + 1 :], 0)
            self._size += os.pwrite(self._fd, data[-MOST // 2 :], self._size)

    def close(self) -> None:
        os.close(self._fd)


class _Handler(logging.Handler):
    def __init__(self, log: LogFile) -> None:
        super().__init__(logging.WARNING)
        self.setFormatter(logging.Formatter("uml: %(name)s: %(message)s"))
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.write(self.format(record).encode(errors="backslashreplace") + b"\n")


@contextlib.contextmanager
def logging_to(log: LogFile) -> Iterator[None]:
    """Meanwhile warnings and errors of ours, with their tracebacks, are in `log` too."""
    handler = _Handler(log)
    for name in LOGGERS:
        logging.getLogger(name).addHandler(handler)
    try:
        yield
    finally:
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(handler)
