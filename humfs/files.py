"""Contents: reading, writing, and the space that files take.

There are no handles: `open` answers ENOSYS, and a file is used through a descriptor that its inode holds for now.
Space is counted as the host allocates it, so holes are free; near the limit a write goes page by page.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

import trio

from humfs.core import Core
from humfs.inodes import Inode
from humfs.names import Names
from umlfs.blocks import sparse
from umlfs.blocks.page_cache import INLINE_WRITE, read_now
from umlfs.blocks.sparse import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE
from umlfs.buffers import part, total
from umlfs.filesystem import Caller, Entry, FileOperations, Opened
from umlfs.host import syscalls
from umlfs.host.names import check_name
from umlfs.host.syscalls import failure

T = TypeVar("T")
Buffers = Sequence[memoryview]

PAGE: Final = 4096
SLACK: Final = 64 * 1024
"""What the host may allocate for a write beyond its pages: its own maps of a fragmented file."""

_MODES: Final = frozenset({0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE})
_DAY: Final = 24 * 3600 * 10**9
_TMPFS: Final = 0x0102_1994
_OFFSET_MAX: Final = (1 << 63) - 1


def _write_pages(fd: int, data: bytes, offset: int, room: int) -> int:
    """Write as much of `data` as takes no more than `room` new bytes from the host; returns how much that is.

    A page that would take more is given back: it was a hole, and is one again.
    """
    before = os.fstat(fd)
    done = 0
    while done < len(data):
        at = offset + done
        part = data[done : done + PAGE - at % PAGE]
        count = os.pwrite(fd, part, at)
        if count != len(part) or (os.fstat(fd).st_blocks - before.st_blocks) << 9 > room:
            syscalls.fallocate(fd, PUNCH_HOLE | KEEP_SIZE, at - at % PAGE, PAGE)
            size = max(before.st_size, at)
            if os.fstat(fd).st_size > size:
                os.ftruncate(fd, size)
            break
        done += count
    return done


def _holes(fd: int, start: int, end: int) -> list[tuple[int, int]]:
    """Offset and length of the holes between `start` and `end`."""
    found: list[tuple[int, int]] = []
    size = os.fstat(fd).st_size
    while start < min(end, size):
        hole = os.lseek(fd, start, os.SEEK_HOLE)
        try:
            data = os.lseek(fd, hole, os.SEEK_DATA)
        except OSError:
            data = end
        if hole < end:
            found.append((hole, min(data, end) - hole))
        start = data
    if end > size:
        found.append((max(start, size), end - max(start, size)))
    return found


class Files(FileOperations):
    """The operations on files; see `Filesystem` for each."""

    def __init__(self, core: Core, names: Names) -> None:
        self._core = core
        self._inodes = core.inodes
        self._names = names

    @functools.cached_property
    def _nowait(self) -> int:
        """How to read without waiting: a tmpfs never waits, and knows no flag that says so."""
        return 0 if syscalls.filesystem_type(self._core.host.directories.root) == _TMPFS else os.RWF_NOWAIT

    async def open(self, ino: int, flags: int) -> Opened:
        raise failure(errno.ENOSYS)

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, umask: int, caller: Caller
    ) -> tuple[Entry, Opened]:
        await self._core.before_change()
        check_name(name)
        if not flags & os.O_EXCL:
            there = self._core.child(self._core.directory(parent).ino, name)
            if there is not None:
                return await self._open_existing(there, flags)
        inode, fd = self._names.make(parent, name, stat.S_IFREG | mode & 0o7777, 0, umask, caller)
        self._core.host.hold(inode, fd)
        return self._core.entry(inode), Opened(keep_cache=True)

    async def _open_existing(self, inode: Inode, flags: int) -> tuple[Entry, Opened]:
        if not inode.is_file:
            raise failure(errno.EISDIR if inode.is_directory else errno.EINVAL)
        if flags & os.O_TRUNC:
            os.ftruncate(fd := self._core.host.file(inode), 0)
            self._core.touch(inode, time.time_ns())
            self._core.measure(inode, os.fstat(fd))
        return self._core.entry(inode), Opened(keep_cache=True)

    async def flush(self, ino: int, handle: int) -> None:
        raise failure(errno.ENOSYS)

    async def release(self, ino: int, handle: int) -> None:
        pass

    def _file(self, ino: int) -> Inode:
        """The regular file of that number: EISDIR or EINVAL for anything else, which nobody reads here."""
        inode = self._inodes.get(ino) or self._core.load(ino)
        if not inode.is_file:
            raise failure(errno.EISDIR if inode.is_directory else errno.EINVAL)
        return inode

    async def _in_thread(self, inode: Inode, work: Callable[[int], T]) -> T:
        """`work` in a thread, on a descriptor for reading and writing."""
        return await self._on(self._core.host.file(inode), inode, work)

    async def _on(self, fd: int, inode: Inode, work: Callable[[int], T]) -> T:
        """`work` in a thread, on the descriptor `fd` of the inode."""
        with self._core.busy(inode):
            return await trio.to_thread.run_sync(work, fd)

    @contextlib.contextmanager
    def _reserved(self, size: int) -> Iterator[None]:
        """What a thread is about to take counts as used meanwhile."""
        self._core.volume.used += size
        try:
            yield
        finally:
            self._core.volume.used -= size

    # Contents ---------------------------------------------------------------------------------

    async def read_into(self, ino: int, handle: int, offset: int, buffers: Buffers) -> int:
        inode = self._file(ino)
        self._accessed(inode)
        fd = self._core.host.readable(inode)
        done = read_now(fd, buffers, offset, self._nowait)
        if done is None:
            done = 0
        elif done == sum(map(len, buffers)) or offset + done >= inode.size:
            return done
        rest = part(buffers, done, total(buffers) - done)
        return done + await self._on(fd, inode, lambda fd: sparse.read_into(fd, offset + done, rest))

    def _accessed(self, inode: Inode) -> None:
        """Move the access time on, as the policy says."""
        if self._core.atime == "noatime":
            return
        now = time.time_ns()
        at = inode.atime_ns
        if self._core.atime == "strictatime" or at <= inode.mtime_ns or at <= inode.ctime_ns or now - at > _DAY:
            inode.atime_ns = now
            self._core.mark_dirty(inode)

    async def write_from(self, ino: int, handle: int, offset: int, buffers: Buffers, kill_set_id: bool = False) -> int:
        await self._core.before_change()
        inode = self._file(ino)
        size = sum(map(len, buffers))
        if kill_set_id:
            self._core.drop_set_id(inode)
        elif inode.xattrs:
            self._core.drop_capabilities(inode)
        if self._core.volume.used + size + SLACK > self._core.volume.superblock.total:
            done = await self._write_near_limit(inode, b"".join(buffers), offset)
        elif size <= INLINE_WRITE:
            done = sparse.write_some(self._core.host.file(inode), offset, buffers)
        else:
            with self._reserved(size):
                done = await self._in_thread(inode, lambda fd: sparse.write_some(fd, offset, buffers))
        self._written(inode)
        return done

    def _written(self, inode: Inode) -> None:
        self._core.touch(inode, time.time_ns())
        self._core.measure(inode, os.fstat(self._core.host.file(inode)))

    async def _write_near_limit(self, inode: Inode, data: bytes, offset: int) -> int:
        """ENOSPC if not even the first byte has room."""
        async with self._core.space_turn:
            room = max(0, self._core.volume.superblock.total - self._core.volume.used)
            done = await self._in_thread(inode, lambda fd: _write_pages(fd, data, offset, room))
            self._core.measure(inode, os.fstat(self._core.host.file(inode)))
        if not done and data:
            raise failure(errno.ENOSPC)
        return done

    async def fsync(self, ino: int, handle: int, data_only: bool = False) -> None:
        inode = self._core.node(ino)
        if inode.is_directory:
            await self._core.durability.sync()
            return
        if inode.is_file:
            await self._in_thread(inode, os.fdatasync if data_only else os.fsync)
        await self._core.durability.sync()

    # Space ------------------------------------------------------------------------------------

    async def fallocate(self, ino: int, handle: int, mode: int, offset: int, length: int) -> None:
        await self._core.before_change()
        inode = self._file(ino)
        if mode not in _MODES:
            raise failure(errno.EOPNOTSUPP)
        if offset < 0 or length <= 0:
            raise failure(errno.EINVAL)
        if offset + length > _OFFSET_MAX:
            raise failure(errno.EFBIG)
        self._core.drop_capabilities(inode)
        if mode & PUNCH_HOLE or self._core.volume.used + length + SLACK <= self._core.volume.superblock.total:
            with self._reserved(0 if mode & PUNCH_HOLE else length):
                await self._in_thread(inode, lambda fd: syscalls.fallocate(fd, mode, offset, length))
        else:
            await self._allocate_near_limit(inode, mode, offset, length)
        self._written(inode)

    async def _allocate_near_limit(self, inode: Inode, mode: int, offset: int, length: int) -> None:
        """Allocate, and give it back if it was too much."""
        async with self._core.space_turn:
            room = self._core.volume.superblock.total - self._core.volume.used
            if not await self._in_thread(inode, lambda fd: _allocate(fd, mode, offset, length, room)):
                raise failure(errno.ENOSPC)
            self._core.measure(inode, os.fstat(self._core.host.file(inode)))

    async def lseek(self, ino: int, handle: int, offset: int, whence: int) -> int:
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise failure(errno.EINVAL)
        inode = self._file(ino)
        if not 0 <= offset < inode.size:
            raise failure(errno.ENXIO)
        if inode.blocks << 9 >= inode.size:
            # No holes, or none worth the look at the disk's map.
            return offset if whence == os.SEEK_DATA else inode.size
        return await self._on(self._core.host.readable(inode), inode, lambda fd: os.lseek(fd, offset, whence))

    async def copy_file_range(
        self, ino: int, handle: int, offset: int, out_ino: int, out_handle: int, out_offset: int, length: int
    ) -> int:
        await self._core.before_change()
        inode, out = self._file(ino), self._file(out_ino)
        length = min(length, max(0, inode.size - offset), 1 << 30)
        if not length:
            return 0
        if self._core.volume.used + length + SLACK > self._core.volume.superblock.total:
            raise failure(errno.EXDEV)  # the consumer then reads and writes, which stops exactly at the limit
        self._core.drop_set_id(out)
        source = os.dup(self._core.host.readable(inode))
        try:
            with self._reserved(length):
                copied = await self._in_thread(
                    out, lambda fd: os.copy_file_range(source, fd, length, offset, out_offset)
                )
        finally:
            os.close(source)
        self._written(out)
        return copied

    async def truncate(self, inode: Inode, size: int) -> None:
        """Set the size of a file; what is freed is there again at once."""
        if not stat.S_ISREG(inode.mode):
            raise failure(errno.EISDIR if inode.is_directory else errno.EINVAL)
        if inode.blocks >= 1 << 15:
            await self._in_thread(inode, lambda fd: os.ftruncate(fd, size))
        else:
            os.ftruncate(self._core.host.file(inode), size)
        self._written(inode)


def _allocate(fd: int, mode: int, offset: int, length: int, room: int) -> bool:
    """fallocate; False, and all as it was, if it takes more than `room` new bytes."""
    before = os.fstat(fd)
    if length > room + (before.st_blocks << 9):
        return False
    holes = _holes(fd, offset, offset + length)
    try:
        syscalls.fallocate(fd, mode, offset, length)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    else:
        if (os.fstat(fd).st_blocks - before.st_blocks) << 9 <= room:
            return True
    for start, size in holes:
        syscalls.fallocate(fd, PUNCH_HOLE | KEEP_SIZE, start, size)
    if os.fstat(fd).st_size != before.st_size:
        os.ftruncate(fd, before.st_size)
    return False
