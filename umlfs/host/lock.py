"""Locks on image files, such as the kernel's own ubd driver takes and honours.

The rule is the driver's: a lock over the whole file (`fcntl(F_SETLK)`), shared if opened for reading only, else
exclusive. Such a lock belongs to a process: two opens in one process do not exclude each other, and any close
of the file anywhere in the process drops it. So a lock here has two parts that cover the file together, and
either alone keeps everybody else out:

* a POSIX lock of all bytes but the last possible one, which tells those it keeps out our process id;
* an open file description lock of that last byte, which nothing but the closing of this very descriptor drops,
  and which also excludes other opens in this process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from umlfs.errors import UmlError
from umlfs.host.holder import described

_LAST: Final = 2**63 - 2
"""The offset of the byte that the open file description lock covers; inside every lock of a whole file."""

_FLOCK: Final = struct.Struct("@hhqqi0q")
"""struct flock: type, whence, start, length (0: to the end), pid."""

_REFUSED: Final = frozenset({errno.EAGAIN, errno.EACCES})

_held: dict[tuple[int, int], list[Lock]] = {}
"""All locks of this process by device and inode number."""
_mutex = threading.Lock()


class Lock:
    """A lock on an open file, held until `close`, which closes the file too."""

    def __init__(self, fd: int, path: str | Path, *, exclusive: bool) -> None:
        """Lock the file behind `fd`, which must be open for writing if `exclusive`.

        UmlError naming who holds it if it cannot be had at once. On an error `fd` stays the caller's.
        """
        self._fd = fd
        self._type = fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK
        stat = os.fstat(fd)
        self._key = (stat.st_dev, stat.st_ino)
        with _mutex:
            others = _held.setdefault(self._key, [])
            try:
                self._take(path, others)
            except BaseException:
                _drop_empty(self._key)
                raise
            others.append(self)

    def _take(self, path: str | Path, others: list[Lock]) -> None:
        if any(fcntl.F_WRLCK in (self._type, other._type) for other in others):
            raise _in_use(path, os.getpid())
        try:
            self._assert()
        except OSError as error:
            if error.errno not in _REFUSED:
                raise UmlError(f"{path}: cannot be locked: {error.strerror}", "open it without locks") from error
            holder = _holder(self._fd, self._type)
            if not others:
                fcntl.fcntl(self._fd, fcntl.F_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, 0, _LAST, 0))
            raise _in_use(path, holder) from None

    def _assert(self) -> None:
        """Take both parts (again); the POSIX lock first, as those kept out are told of the oldest."""
        fcntl.fcntl(self._fd, fcntl.F_SETLK, _FLOCK.pack(self._type, os.SEEK_SET, 0, _LAST, 0))
        fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, _LAST, 1, 0))
        fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(self._type, os.SEEK_SET, _LAST, 1, 0))

    def close(self) -> None:
        """Close the file and with it give up this lock; others of this process on the same file stay."""
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        with _mutex:
            _held[self._key].remove(self)
        close(fd)


def close(fd: int) -> None:
    """Close `fd`, locked or not, and take again what that drops: the POSIX locks that others of this process hold."""
    with _mutex:
        stat = os.fstat(fd)
        os.close(fd)
        for other in _held.get((stat.st_dev, stat.st_ino), ()):
            with contextlib.suppress(OSError):  # somebody was quicker: the other part stands
                other._assert()
        _drop_empty((stat.st_dev, stat.st_ino))


def _drop_empty(key: tuple[int, int]) -> None:
    if not _held.get(key):
        _held.pop(key, None)


def holder(fd: int, *, exclusive: bool) -> int | None:
    """The process that keeps others from locking the file behind `fd`; None if nobody does, -1 if it cannot be told.

    `exclusive`: who would be in the way of a writer.
    """
    try:
        pid = _holder(fd, fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK)
    except OSError:
        return None
    return pid


def _holder(fd: int, kind: int) -> int | None:
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(kind, os.SEEK_SET, 0, 0, 0))
    found, _, _, _, pid = _FLOCK.unpack(answer)
    if found == fcntl.F_UNLCK:
        return None
    return pid if pid > 0 else _description_holder(fd)


def _description_holder(fd: int) -> int:
    """The process that has an open file description lock on the file of `fd`; -1 if it does not show."""
    stat = os.fstat(fd)
    inode = f":{stat.st_ino} "
    for info in _descriptions():
        with contextlib.suppress(OSError):
            text = info.read_text()
            if "OFDLCK" in text and inode in text:
                return int(info.parts[2])
    return -1


def _descriptions() -> Iterator[Path]:
    with contextlib.suppress(OSError):
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                yield from Path("/proc", pid, "fdinfo").iterdir()


def _in_use(path: str | Path, pid: int | None) -> UmlError:
    if pid is None or pid < 0:
        return UmlError(f"{path}: in use by another process", "end that, or open it without locks")
    if pid == os.getpid():
        return UmlError(f"{path}: already in use by this process (pid {pid})", "use each image once, or without locks")
    who = described(pid)
    if who is None:
        return UmlError(
            f"{path}: in use by processes that the dead process {pid} left behind",
            f"end its process group with 'kill -KILL -- -{pid}', or open it without locks",
        )
    return UmlError(f"{path}: in use by {who}", "end that, or open it without locks")
