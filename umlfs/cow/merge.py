"""Merging a COW file with its backing file: into a new image, or in place.

What is copied are extents, inside the kernel where it can: holes stay holes. Runs too short to be worth a system
call each are gathered in memory.
"""

from __future__ import annotations

import enum
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Final

from umlfs.blocks import sparse
from umlfs.blocks.raw import LockedFile, open_file
from umlfs.cow.backing import Backing, find, is_remote, look_at, require_match, require_other
from umlfs.cow.bitmap import Bitmap
from umlfs.cow.file import identity, load_bitmap, read_header, require_not_merging, write_marker, write_mtime
from umlfs.cow.header import SECTOR, Header
from umlfs.errors import UmlError
from umlfs.host.newfile import is_special, new_file

Progress = Callable[[int, int], None]
"""Is told how many bytes of the device are done, and of how many."""

_SHORT: Final = 64 * 1024
"""A run shorter than this is read together with its neighbours."""
_STEP: Final = 16 << 20
"""A longer run is copied in steps."""
_WRITE_OUT: Final = 32 << 20
"""So much is copied before the disk begins to write it, so that the fsync at the end has little left to do."""
_WINDOW: Final = 1 << 17
"""At most so much is gathered in memory."""
_PIECES: Final = 500
"""At most so many runs are gathered: one system call takes twice as many buffers."""


class Where(enum.Enum):
    """What holds a range."""

    COW = "cow"
    BACKING = "backing"
    NOWHERE = "nowhere"
    """It is a hole and reads as zeroes."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The bytes `[start, end)` of the device, all in one place."""

    start: int
    end: int
    where: Where

    @property
    def length(self) -> int:
        return self.end - self.start


@dataclass(slots=True)
class _Sources:
    """A COW file and its backing file, open."""

    cow: int
    backing: int
    header: Header
    bitmap: Bitmap

    def pieces(self, own_only: bool = False) -> Iterator[Piece]:
        """The whole device in order, or only what the COW file holds of it."""
        for first, end, own in self.bitmap.runs(0, self.header.sectors):
            if not own and own_only:
                continue
            fd, base, where = (
                (self.cow, self.header.data_offset, Where.COW) if own else (self.backing, 0, Where.BACKING)
            )
            low, high = base + first * SECTOR, base + min(end * SECTOR, self.header.size)
            for start, stop, has_data in sparse.segments(fd, low, high):
                yield from _steps(start - base, stop - base, where if has_data else Where.NOWHERE)

    def copy(self, piece: Piece, target: int) -> None:
        """Copy one piece that is somewhere. What would lie past the end of the COW file is left as it is."""
        if piece.where is Where.BACKING:
            return sparse.copy(self.backing, target, piece.start, piece.start, piece.length)
        offset = piece.start + self.header.data_offset
        sparse.copy(self.cow, target, offset, piece.start, min(piece.length, os.fstat(self.cow).st_size - offset))


def _steps(start: int, end: int, where: Where) -> Iterator[Piece]:
    """Cut a piece so that progress can be seen."""
    while start < end:
        stop = min(end, start + _STEP)
        yield Piece(start, stop, where)
        start = stop


# Into a new image -----------------------------------------------------------------------------


def merge(
    cow: str, new: str, *, backing: str | None = None, replace: bool = True, progress: Progress | None = None
) -> None:
    """Write what the COW file `cow` shows over its backing file to a new image, durable on return.

    `backing` overrides where the header says the backing file is; its size and mtime must be the header's. An
    existing `new` is replaced when all is done, and left alone on an error; without `replace` it is a
    FileExistsError. A block device is written to. OSError; UmlError if a file is in use for writing, or anything is
    wrong with the COW file.
    """
    with ExitStack() as opened:
        sources = _open(opened, cow, backing)
        _require_third(new, sources)
        if is_special(new):
            target = open_file(new)
            opened.callback(target.close)
            _to_device(sources, target, new, progress)
            return
        if os.path.exists(new):
            opened.callback(open_file(new).close)  # nobody uses what is about to be replaced
        mode = 0o600 | os.fstat(sources.cow).st_mode & 0o666
        with new_file(new, mode, replace=replace) as fd:
            os.ftruncate(fd, sources.header.size)
            _copy_all(sources, fd, progress)


def _open(opened: ExitStack, cow: str, given: str | None) -> _Sources:
    file = open_file(cow, read_only=True)
    opened.callback(file.close)
    header = read_header(file.fileno(), cow)
    _require_local(cow, header, given)
    require_not_merging(cow, header)
    backing = _backing(cow, header, file, given)
    require_match(cow, header, backing)
    below = open_file(backing.path, read_only=True)
    opened.callback(below.close)
    bitmap = load_bitmap(file.fileno(), header, cow)
    opened.callback(bitmap.close)
    return _Sources(file.fileno(), below.fileno(), header, bitmap)


def _require_local(cow: str, header: Header, given: str | None) -> None:
    if given is None and is_remote(os.fsdecode(header.backing)):
        raise UmlError(
            f"{cow}: its backing device {os.fsdecode(header.backing)} is not a file",
            f"serve the COW file (uml serve nbd cow:{shlex.quote(cow)}) and copy that",
        )


def _backing(cow: str, header: Header, file: LockedFile, given: str | None) -> Backing:
    own = identity(file.fileno())
    if given is None:
        return find(cow, header, own)
    backing = look_at(given)
    require_other(cow, backing, own)
    return backing


def _require_third(new: str, sources: _Sources) -> None:
    try:
        found = os.stat(new)
    except FileNotFoundError:
        return
    for fd, name in ((sources.cow, "COW file"), (sources.backing, "backing file")):
        if identity(fd) == (found.st_dev, found.st_ino):
            raise UmlError(f"{new}: is the {name} itself", "name another file, or merge in place")


def _to_device(sources: _Sources, target: LockedFile, path: str, progress: Progress | None) -> None:
    size, room = sources.header.size, target.size()
    if room < size:
        raise UmlError(f"{path}: has {room} bytes, the image {size}", "name a larger device")
    _erase(target.fileno(), 0, size)
    _copy_all(sources, target.fileno(), progress)
    os.fsync(target.fileno())


def _erase(fd: int, offset: int, length: int) -> None:
    """Make a range read as zeroes, by a hole if that can be."""
    for attempt in (sparse.punch, sparse.zero):
        try:
            return attempt(fd, offset, length) if length else None
        except OSError as error:
            if error.errno not in sparse.UNSUPPORTED:
                raise
    sparse.write_zeroes(fd, offset, length)


def _copy_all(sources: _Sources, target: int, progress: Progress | None) -> None:
    """Copy everything to a target that reads as zeroes."""
    gathered: list[Piece] = []
    started = 0
    for piece in sources.pieces():
        if gathered and not _adjoins(gathered, piece):
            _copy_gathered(sources, target, gathered)
            gathered = []
        if piece.where is not Where.NOWHERE:
            if piece.length < _SHORT:
                gathered.append(piece)
            else:
                sources.copy(piece, target)
        if piece.start - started >= _WRITE_OUT:
            sparse.start_writing(target, started, piece.start - started)
            started = piece.start
        if progress:
            progress(piece.end, sources.header.size)
    if gathered:
        _copy_gathered(sources, target, gathered)


def _adjoins(gathered: list[Piece], piece: Piece) -> bool:
    """Whether a piece is gathered with those before it."""
    short = piece.length < _SHORT and piece.where is not Where.NOWHERE
    near = piece.start == gathered[-1].end and piece.end - gathered[0].start <= _WINDOW
    return short and near and len(gathered) < _PIECES


def _copy_gathered(sources: _Sources, target: int, pieces: list[Piece]) -> None:
    """Copy neighbours at once: all of the backing file's range, over it what the COW file has."""
    if len(pieces) == 1:
        return sources.copy(pieces[0], target)
    start, end = pieces[0].start, pieces[-1].end
    content = memoryview(bytearray(end - start))
    beside = memoryview(bytearray(_SHORT))
    scattered = [
        content[piece.start - start : piece.end - start] if piece.where is Where.COW else beside[: piece.length]
        for piece in pieces
    ]
    sparse.read_into(sources.backing, start, [content])
    sparse.read_into(sources.cow, start + sources.header.data_offset, scattered)
    sparse.write_all(target, content, start)


# In place -------------------------------------------------------------------------------------


def merge_in_place(cow: str, *, backing: str | None = None, progress: Progress | None = None) -> None:
    """Write what the COW file `cow` holds into its backing file, and empty it. Durable on return.

    Every other COW file over that backing file is worthless from the first byte on. Killed at any point and
    run again, it ends in the same: that it runs is noted in the COW file, which until then nobody else
    opens. Otherwise as `merge`.
    """
    with ExitStack() as opened:
        file = open_file(cow)
        opened.callback(file.close)
        header = read_header(file.fileno(), cow)
        _require_local(cow, header, backing)
        path = _backing(cow, header, file, backing).path
        target = open_file(path)
        opened.callback(target.close)
        header = _begin(cow, file, header, path, target)
        bitmap = load_bitmap(file.fileno(), header, cow)
        opened.callback(bitmap.close)
        _copy_own(_Sources(file.fileno(), target.fileno(), header, bitmap), progress)
        mtime = _stamp(target.fileno(), header)
        os.fsync(target.fileno())
        _empty(file.fileno(), header, mtime)


def _begin(cow: str, file: LockedFile, header: Header, path: str, target: LockedFile) -> Header:
    """Note in the COW file that a merge runs, unless one was interrupted that is to be gone on with."""
    found = look_at(path)
    inode = identity(target.fileno())[1]
    if header.merging == inode and found.size == header.size:
        return header
    require_match(cow, header, found)
    if not header.has_room_for_marker:
        raise UmlError(f"{cow}: the path of its backing file is too long to merge in place", "merge into a new file")
    write_marker(file.fileno(), header, inode)
    return replace(header, merging=inode)


def _copy_own(sources: _Sources, progress: Progress | None) -> None:
    """Copy what the COW file holds to the backing file."""
    gathered: list[Piece] = []
    for piece in sources.pieces(own_only=True):
        if gathered and (piece.end - gathered[0].start > _WINDOW or piece.where is Where.NOWHERE):
            _scatter(sources, gathered)
            gathered = []
        if piece.where is Where.NOWHERE:
            _erase(sources.backing, piece.start, piece.length)
        elif piece.length < _SHORT:
            gathered.append(piece)
        else:
            sources.copy(piece, sources.backing)
        if progress:
            progress(piece.end, sources.header.size)
    if gathered:
        _scatter(sources, gathered)


def _scatter(sources: _Sources, pieces: list[Piece]) -> None:
    """Read a stretch of the COW file at once, and write the pieces of it to the backing file."""
    start = pieces[0].start
    content = memoryview(bytearray(pieces[-1].end - start))
    sparse.read_into(sources.cow, start + sources.header.data_offset, [content])
    for piece in pieces:
        sparse.write_all(sources.backing, content[piece.start - start : piece.end - start], piece.start)


def _stamp(fd: int, header: Header) -> int:
    """See to it that the backing file's mtime is another than before, in seconds; gives it.

    Other COW files over it would still count as valid if all this happened within one second.
    """
    found = os.fstat(fd)
    if int(found.st_mtime_ns // 10**9) == header.mtime:
        with suppress(PermissionError):  # not ours, only writable
            os.utime(fd, ns=(found.st_atime_ns, found.st_mtime_ns + 10**9))
    return int(os.fstat(fd).st_mtime_ns // 10**9)


def _empty(fd: int, header: Header, mtime: int) -> None:
    """Make the COW file one without changes over the backing file as it is now. The mark of the merge goes last."""
    os.ftruncate(fd, header.bitmap_offset)
    os.ftruncate(fd, header.file_size)
    os.fsync(fd)
    write_mtime(fd, header, mtime)
    write_marker(fd, header, None)
