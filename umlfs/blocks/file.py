"""A file or block device of the host, for tasks: what can be done at once is done at once, the rest in a thread.

A read first asks for what is in the page cache (`preadv2` with `RWF_NOWAIT`); a small write goes to the page cache
directly; everything that waits for a disk waits in a thread. A cancelled operation ends before its task goes on,
so that nothing touches the caller's buffers afterwards.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from functools import partial
from typing import Final

import trio

from umlfs.block import Extent, ExtentKind
from umlfs.blocks import sparse
from umlfs.blocks.page_cache import INLINE_WRITE, read_now
from umlfs.buffers import part, total
from umlfs.host import lock

MAX_EXTENTS: Final = 4096
"""After so many extents a map is cut off: it is a list in memory, and a hostile image may be all holes."""


class HostFile:
    """An open descriptor, owned. Errors are `OSError`; requests may run concurrently."""

    def __init__(self, fd: int, *, sync: bool = False) -> None:
        self._fd = fd
        self._sync = sync
        """Opened O_SYNC: every write waits for the disk."""
        self._lost: OSError | None = None
        """A flush failed: the host's kernel has dropped what it could not write, and tells only once."""
        self._flushing = trio.Lock()
        """One at a time: of two at once the kernel may tell only one that data was lost."""

    def fileno(self) -> int:
        """The descriptor; stays ours."""
        return self._fd

    def size(self) -> int:
        """The present size in bytes, of a block device too."""
        return os.lseek(self._fd, 0, os.SEEK_END)

    async def read_into(self, offset: int, buffers: Sequence[memoryview]) -> int:
        """Fill `buffers` in turn from `offset`; returns the bytes read, short only at the end of the file."""
        wanted = total(buffers)
        done = read_now(self._fd, buffers, offset) or 0
        if done == wanted:
            return done
        return done + await trio.to_thread.run_sync(
            sparse.read_into, self._fd, offset + done, part(buffers, done, wanted - done)
        )

    async def write_from(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """Write all of `buffers` at `offset`. Durable only after `flush`, unless opened with `sync`."""
        if self._sync or total(buffers) > INLINE_WRITE:
            await trio.to_thread.run_sync(sparse.write_from, self._fd, offset, buffers)
        else:
            sparse.write_from(self._fd, offset, buffers)

    async def flush(self) -> None:
        """Durable on return: everything written so far. Once it failed it fails for ever: something was lost."""
        async with self._flushing:
            if self._lost is None:
                try:
                    await trio.to_thread.run_sync(os.fdatasync, self._fd)
                except OSError as error:
                    self._lost = error
        if self._lost is not None:
            raise OSError(errno.EIO, f"an earlier flush failed: {self._lost.strerror}")

    async def punch(self, offset: int, length: int) -> None:
        """Give back the space of a range, which then reads as zeroes. EOPNOTSUPP."""
        await trio.to_thread.run_sync(sparse.punch, self._fd, offset, length)

    async def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeroes and keep its space. EOPNOTSUPP."""
        await trio.to_thread.run_sync(sparse.zero, self._fd, offset, length)

    async def write_zeroes(self, offset: int, length: int) -> None:
        """Write zeroes, which works everywhere."""
        await trio.to_thread.run_sync(sparse.write_zeroes, self._fd, offset, length)

    async def extents(self, offset: int, length: int) -> list[Extent]:
        """Where data and holes are in a range; cut off early after `MAX_EXTENTS`. What lies past the end is a hole."""
        return await trio.to_thread.run_sync(partial(_extents, self._fd, offset, length))

    def close(self) -> None:
        """Close the descriptor. Does not flush."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            lock.close(fd)


def _extents(fd: int, offset: int, length: int) -> list[Extent]:
    found = []
    for start, end, has_data in sparse.segments(fd, offset, offset + length):
        found.append(Extent(start, end - start, ExtentKind.DATA if has_data else ExtentKind.ZERO))
        if len(found) == MAX_EXTENTS:
            break
    return found
