"""The lock on a humfs directory: one process has it open at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final

from umlfs.errors import UmlError
from umlfs.host.holder import described

FILE: Final = "lock"


class TreeLock:
    """Held from its making until `close`, or until the process ends, however it does."""

    def __init__(self, root: Path) -> None:
        """UmlError naming the process that has `root` open. Other opens in this process are kept out too."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._fd = os.open(root / FILE, flags, 0o600)
        except OSError as error:
            raise UmlError(f"{root}: {error.strerror}", "use a humfs directory that you may write to") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(self._fd, 20, 0).strip()
            os.close(self._fd)
            raise UmlError(f"{root}: {_user(int(text) if text.isdigit() else 0)}", "end that first") from None
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)
        except OSError as error:
            os.close(self._fd)
            raise UmlError(f"{root / FILE}: {error.strerror}", "mend that on the host, nothing is lost") from error

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
        os.close(self._fd)


def _user(pid: int) -> str:
    if pid == os.getpid():
        return f"already in use by this process (pid {pid})"
    return f"in use by {described(pid) or 'an unknown process'}"


def holder(root: Path) -> int | None:
    """The process that has `root` open; None if nobody has, 0 if it cannot be told."""
    try:
        fd = os.open(root / FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(fd, 20, 0).strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(fd)
    return None
