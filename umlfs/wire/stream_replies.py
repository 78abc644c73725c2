"""FUSE answers as the one who asked reads them. No sockets.

Whoever answers is not trusted: an answer to nothing, of a length that cannot be, with a name that is none or a number
out of range is a `ProtocolError`.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from umlfs.buffers import part, total
from umlfs.filesystem import FOREVER, NAME_MAX, Attr, Entry, Opened, StatFs
from umlfs.wire import fuse as wire

ERRNO_MAX: Final = 511
"""The kernel takes numbers below 512 only."""
_TYPES: Final = frozenset(
    {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFBLK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK}
)
_HEADER: Final = wire.OUT_HEADER.size


class ProtocolError(Exception):
    """An answer that means nothing."""


@dataclass(slots=True, eq=False)
class Pending:
    """A request that waits for its answer."""

    limit: int
    """The most bytes that the answer's contents may have."""
    into: Sequence[memoryview] = ()
    """Where they go; else they are gathered in `data`."""
    data: bytearray = field(default_factory=bytearray)
    error: int = 0
    """The errno of the answer."""
    size: int = 0
    """The bytes of contents so far."""
    done: bool = False

    def take(self, piece: memoryview) -> None:
        """The next bytes of the contents."""
        if self.into:
            at = 0
            for target in part(self.into, self.size, len(piece)):
                target[:] = piece[at : at + len(target)]
                at += len(target)
        else:
            self.data += piece
        self.size += len(piece)

    def abandon(self) -> None:
        """Nobody waits any more: the buffers are not to be touched from now on."""
        if self.into:
            self.limit = max(self.limit, total(self.into))
            self.into = ()


class ReplyDecoder:
    """Takes answers apart that come in pieces of any size."""

    def __init__(self) -> None:
        self.pending: dict[int, Pending] = {}
        """What was asked and is not answered, by its unique number."""
        self._head = bytearray()
        self._current: Pending | None = None
        self._left = 0

    def feed(self, data: memoryview) -> list[Pending]:
        """Take the next bytes: what was completed by them. ProtocolError."""
        completed = []
        while data:
            if self._current is None:
                missing = _HEADER - len(self._head)
                self._head += data[:missing]
                data = data[missing:]
                if len(self._head) < _HEADER:
                    break
                self._begin()
            assert self._current is not None
            piece = data[: self._left]
            if piece:
                self._current.take(piece)
                data = data[len(piece) :]
                self._left -= len(piece)
            if not self._left:
                self._current.done = True
                completed.append(self._current)
                self._current = None
        return completed

    def _begin(self) -> None:
        length, error, unique = wire.OUT_HEADER.unpack(self._head)
        self._head.clear()
        pending = self.pending.pop(unique, None)
        if pending is None:
            raise ProtocolError(f"an answer to nothing ({unique})")
        if not -ERRNO_MAX <= error <= 0:
            raise ProtocolError(f"the error {error}")
        self._left = length - _HEADER
        if not 0 <= self._left <= (0 if error else pending.limit):
            raise ProtocolError(f"an answer of {length} bytes")
        pending.error = -error
        self._current = pending


# The contents of answers ----------------------------------------------------------------------


def _fields(layout_size: int, data: bytes | bytearray | memoryview, start: int = 0) -> None:
    if len(data) < start + layout_size:
        raise ProtocolError(f"an answer of {len(data) - start} bytes instead of {layout_size}")


def _attr(values: Sequence[int]) -> Attr:
    (ino, size, blocks, atime, mtime, ctime, atime_ns, mtime_ns, ctime_ns, mode, nlink, uid, gid, rdev, blksize, _) = (
        values
    )
    if max(atime_ns, mtime_ns, ctime_ns) >= wire.SECOND or max(size, blocks) > wire.OFFSET_MAX:
        raise ProtocolError("attributes that cannot be")
    if stat.S_IFMT(mode) not in _TYPES or mode >> 16:
        raise ProtocolError(f"the mode {mode:o}")
    times = (
        atime * wire.SECOND + atime_ns,
        mtime * wire.SECOND + mtime_ns,
        ctime * wire.SECOND + ctime_ns,
    )
    device = wire.device_in(rdev) if rdev else 0
    return Attr(ino, mode, nlink, uid, gid, device, size, blocks, *times, blksize or 4096)


def attr(data: bytes | bytearray) -> Attr:
    """GETATTR, SETATTR."""
    _fields(wire.ATTR_OUT_SIZE, data)
    return _attr(wire.ATTR_OUT.unpack_from(data)[3:])


def entry(data: bytes | bytearray | memoryview, start: int = 0) -> Entry:
    """LOOKUP and what makes a name. The entry is the asker's alone, and holds for ever."""
    _fields(wire.ENTRY_OUT_SIZE, data, start)
    values = wire.ENTRY_OUT.unpack_from(data, start)
    if values[0] < 2:
        raise ProtocolError(f"the node {values[0]}")
    return Entry(values[0], _attr(values[6:]), FOREVER, FOREVER, values[1])


def opened(data: bytes | bytearray, start: int = 0) -> Opened:
    """OPEN, OPENDIR, CREATE."""
    _fields(wire.OPEN_OUT_SIZE, data, start)
    handle = wire.OPEN_OUT.unpack_from(data, start)[0]
    if not handle:
        raise ProtocolError("no handle")
    return Opened(handle, keep_cache=True)


def count(data: bytes | bytearray, most: int) -> int:
    """WRITE and COPY_FILE_RANGE (how much was done), GETXATTR and LISTXATTR (the size there is)."""
    _fields(wire.SIZE_OUT_SIZE, data)
    size: int = wire.SIZE_OUT.unpack_from(data)[0]
    if size > most:
        raise ProtocolError(f"{size} bytes of {most}")
    return size


def offset(data: bytes | bytearray) -> int:
    """LSEEK."""
    _fields(wire.LSEEK_OUT.size, data)
    found: int = wire.LSEEK_OUT.unpack_from(data)[0]
    if found > wire.OFFSET_MAX:
        raise ProtocolError(f"the offset {found}")
    return found


def statfs(data: bytes | bytearray) -> StatFs:
    """STATFS."""
    _fields(wire.STATFS_OUT.size, data)
    blocks, free, available, files, files_free, size, name_max, fragment, _ = wire.STATFS_OUT.unpack_from(data)
    return StatFs(fragment or size or 4096, blocks, free, available, files, files_free, name_max)


class Listed(NamedTuple):
    """An entry of READDIR or READDIRPLUS."""

    name: bytes
    offset: int
    """Where to go on after it."""
    ino: int
    mode: int
    entry: Entry | None


def listing(data: bytes | bytearray, *, plus: bool) -> list[Listed]:
    """READDIR, READDIRPLUS."""
    found = []
    position = 0
    while position < len(data):
        known = None
        if plus:
            _fields(wire.ENTRY_OUT_SIZE, data, position)
            if any(data[position : position + 8]):
                known = entry(data, position)
            position += wire.ENTRY_OUT_SIZE
        _fields(wire.DIRENT.size, data, position)
        ino, following, length, kind = wire.DIRENT.unpack_from(data, position)
        position += wire.DIRENT.size
        _fields(length, data, position)
        name = bytes(data[position : position + length])
        _check_listed(name, following, kind)
        found.append(Listed(name, following, ino, kind << 12, known))
        position += length + 7 & ~7
    return found


def _check_listed(name: bytes, following: int, kind: int) -> None:
    if not 0 < len(name) <= NAME_MAX or b"/" in name or b"\0" in name:
        raise ProtocolError(f"the name {name[:NAME_MAX]!r}")
    if following > wire.OFFSET_MAX or kind > 15:
        raise ProtocolError(f"the entry {following}, of type {kind}")
