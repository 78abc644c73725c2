"""Locks on image files, such as the kernel's own ubd driver takes and honours.

The rule is the driver's: a lock over the whole file (`fcntl(F_SETLK)`), shared if opened for reading only, else
exclusive. Such a lock belongs to a process: two opens in one process do not exclude each other, and any close
of the file anywhere in the process drops it. So a lock here has two parts that cover the file together, and
either alone keeps everybody else out:

* a POSIX lock of all bytes but the last possible one, which tells those it keeps out our process id;
* an open file description lock of that last byte, which nothing but the closing of this very descriptor drops,
  and which also excludes other opens in this process.

Who shares a disk with others that write it (`shared`) locks so much that it excludes whoever does not share it:

* a writer locks two bytes for itself, anywhere in an area far behind the end of any file: in the way of all that lock
  the whole file, and of no other writer, which has other bytes;
* a reader locks what is before that area, and the last byte, with everybody who reads.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import struct
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from umlfs.errors import UmlError
from umlfs.host.holder import described

_LAST: Final = 2**63 - 2
"""The offset of the byte that the open file description lock covers; inside every lock of a whole file."""
_AREA: Final = 1 << 62
"""Where the bytes begin that writers of a shared file lock: as many for POSIX locks, and then for the others."""
_AREA_SIZE: Final = 1 << 60
_CHOICES_MAX: Final = 3
"""How often a writer of a shared file chooses its bytes. Nobody else has them, unless the whole file is locked."""

_FLOCK: Final = struct.Struct("@hhqqi0q")
"""struct flock: type, whence, start, length (0: to the end), pid."""

_REFUSED: Final = frozenset({errno.EAGAIN, errno.EACCES})

_held: dict[tuple[int, int], list[FileLock]] = {}
"""All locks of this process by device and inode number."""
_mutex = threading.Lock()


class FileLock:
    """A lock on an open file, held until `close`, which closes the file too."""

    def __init__(self, fd: int, path: str | Path, *, exclusive: bool, shared: bool = False) -> None:
        """Lock the file behind `fd`, which must be open for writing if `exclusive`: as a writer. With `shared` writers
        and readers who say so too are not excluded, and no others are let in.

        UmlError naming who holds it if it cannot be had at once. On an error `fd` stays the caller's.
        """
        self._fd = fd
        self._shared = shared
        self._type = fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK
        self._ranges = _ranges(exclusive, shared)
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

    def _take(self, path: str | Path, others: list[FileLock]) -> None:
        if any(self._excludes(other) for other in others):
            raise _in_use(path, os.getpid(), shared=any(other._shared for other in others))
        for choice in range(1, _CHOICES_MAX + 1):
            try:
                return self._assert()
            except OSError as error:
                if error.errno not in _REFUSED:
                    raise UmlError(f"{path}: cannot be locked: {error.strerror}", "open it without locks") from error
                if not others:
                    (start, length), _ = self._ranges
                    fcntl.fcntl(self._fd, fcntl.F_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, start, length, 0))
                if self._is_shared_writer and choice < _CHOICES_MAX:
                    self._ranges = _ranges(True, True)
                    continue
                holder, shared = _blocker(self._fd, self._type, self._ranges)
                raise _in_use(path, holder, shared=shared) from None

    @property
    def _is_shared_writer(self) -> bool:
        return self._shared and self._type == fcntl.F_WRLCK

    def _excludes(self, other: FileLock) -> bool:
        """Whether it and `other` may not be held at once: one of them writes, and not both share."""
        return fcntl.F_WRLCK in (self._type, other._type) and not (self._shared and other._shared)

    def _assert(self) -> None:
        """Take both parts (again); the POSIX lock first, as those kept out are told of the oldest."""
        (start, length), (own, own_length) = self._ranges
        fcntl.fcntl(self._fd, fcntl.F_SETLK, _FLOCK.pack(self._type, os.SEEK_SET, start, length, 0))
        fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, own, own_length, 0))
        fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(self._type, os.SEEK_SET, own, own_length, 0))

    def close(self) -> None:
        """Close the file and with it give up this lock; others of this process on the same file stay."""
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        with _mutex:
            _held[self._key].remove(self)
        close(fd)


def _ranges(exclusive: bool, shared: bool) -> tuple[tuple[int, int], tuple[int, int]]:
    """Offset and length of the POSIX lock, and of the open file description lock."""
    if not shared:
        return (0, _LAST), (_LAST, 1)
    if not exclusive:
        return (0, _AREA), (_LAST, 1)
    place = _AREA + random.randrange(_AREA_SIZE)
    return (place, 1), (place + _AREA_SIZE, 1)


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
    return _blocker(fd, kind, [(0, 0)])[0]


def _blocker(fd: int, kind: int, ranges: Iterable[tuple[int, int]]) -> tuple[int | None, bool]:
    """The process that is in the way of a lock of one of `ranges`, as `holder` has it, and whether it shares the file
    with other writers."""
    for start, length in ranges:
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))
        found, _, at, _, pid = _FLOCK.unpack(answer)
        if found != fcntl.F_UNLCK:
            return (pid if pid > 0 else _description_holder(fd)), found == fcntl.F_WRLCK and _AREA <= at < _LAST
    return None, False


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


def _in_use(path: str | Path, pid: int | None, *, shared: bool) -> UmlError:
    """`shared`: whoever has it shares it with others that write."""
    way = "share it as they do: flag c of --ubd" if shared else "open it without locks"
    if pid is None or pid < 0:
        return UmlError(f"{path}: in use by another process", f"end that, or {way}")
    if pid == os.getpid():
        return UmlError(f"{path}: already in use by this process (pid {pid})", "use each image once, or without locks")
    who = described(pid)
    if who is None:
        return UmlError(
            f"{path}: in use by processes that the dead process {pid} left behind",
            f"end its process group with 'kill -KILL -- -{pid}', or {way}",
        )
    return UmlError(f"{path}: in use by {who}", f"end that, or {way}")
