"""A log of several machines: each appends its lines, with its name before them."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final

MOST: Final = 4 << 20
"""Bytes of the file; then it becomes `FILE.old`, in the place of the one before."""
LINE_MAX: Final = 4096
"""Bytes of a line. A longer one is cut into several."""


class CommonLog:
    """The file, for one of those that write to it."""

    def __init__(self, path: Path, name: str) -> None:
        """OSError if it cannot be opened."""
        self._path = path
        self._prefix = f"{name}: ".encode()
        self._rest = b""
        self._fd = self._open()

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def write(self, data: bytes) -> None:
        """Append the lines that end in `data`. A full disk loses them, as it does when the file was removed with its
        directory: that must not stop the machine."""
        *lines, rest = (self._rest + data).split(b"\n")
        if len(rest) > LINE_MAX:
            lines, rest = [*lines, rest], b""
        self._rest = rest
        if not lines:
            return
        with contextlib.suppress(OSError):
            self._turn_over()
            text = b"".join(self._prefix + line.rstrip(b"\r") + b"\n" for line in lines)
            os.write(self._fd, text)

    def _turn_over(self) -> None:
        """Begin the file anew if it is full, or if another has done so."""
        if os.fstat(self._fd).st_size > MOST:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            if self._is_current():
                os.rename(self._path, f"{self._path}.old")
        if not self._is_current():
            fd = self._open()
            os.close(self._fd)
            self._fd = fd

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._fd))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        self.write(b"\n" if self._rest else b"")
        os.close(self._fd)
