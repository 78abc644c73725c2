"""A Filesystem whose existing data can only grow."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Sequence

from umlfs.blocks.sparse import KEEP_SIZE
from umlfs.filesystem import NO_HANDLE, Attr, Caller, Entry, Filesystem, Opened, SetAttr
from umlfs.host.syscalls import failure
from umlfs.views.view import View

_EXCHANGE = 2


def _uncached(opened: Opened, flags: int) -> Opened:
    """A consumer would keep what it wrote where it believes to have written it."""
    return opened if flags & os.O_ACCMODE == os.O_RDONLY else dataclasses.replace(opened, direct=True)


class AppendOnly(View):
    """Existing data can only grow. As with the kernel's `hostfs=DIR,append`, what is written to a file that was there
    goes to its end, wherever the writer believes to be, and shortening is accepted and does nothing; a file just
    created can be written anywhere, until it is opened again. Removing and replacing files, and punching holes, is
    EPERM. Names may change, and empty directories go.

    `inner` must use handles, write to the end through those of `open`, and not let its consumer gather writes.
    """

    def __init__(self, inner: Filesystem) -> None:
        super().__init__(inner)
        self._created: set[int] = set()
        """Handles of files that did not exist when they were opened."""

    def disconnect(self) -> None:
        super().disconnect()
        self._created.clear()

    async def write_from(
        self, ino: int, handle: int, offset: int, buffers: Sequence[memoryview], kill_set_id: bool = False
    ) -> int:
        if not handle:
            raise failure(errno.EBADF)  # only a handle is known to append
        return await self.inner.write_from(ino, handle, offset, buffers, kill_set_id)

    async def setattr(
        self, ino: int, changes: SetAttr, handle: int = NO_HANDLE, caller: Caller | None = None
    ) -> tuple[Attr, int]:
        if changes.size is not None and changes.size < (await self.inner.getattr(ino, handle))[0].size:
            changes = dataclasses.replace(changes, size=None)
        return await self.inner.setattr(ino, changes, handle, caller)

    async def open(self, ino: int, flags: int) -> Opened:
        return _uncached(await self.inner.open(ino, flags & ~os.O_TRUNC), flags)

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, umask: int, caller: Caller
    ) -> tuple[Entry, Opened]:
        try:
            entry, opened = await self.inner.create(parent, name, mode, flags | os.O_EXCL, umask, caller)
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
            entry, opened = await self.inner.create(parent, name, mode, flags & ~os.O_TRUNC, umask, caller)
            return entry, _uncached(opened, flags)
        self._created.add(opened.handle)
        return entry, opened

    async def release(self, ino: int, handle: int) -> None:
        self._created.discard(handle)
        await self.inner.release(ino, handle)

    async def fallocate(self, ino: int, handle: int, mode: int, offset: int, length: int) -> None:
        if mode & ~KEEP_SIZE:
            raise failure(errno.EPERM)
        await self.inner.fallocate(ino, handle, mode, offset, length)

    async def copy_file_range(
        self, ino: int, handle: int, offset: int, out_ino: int, out_handle: int, out_offset: int, length: int
    ) -> int:
        if out_handle not in self._created:
            raise failure(errno.EOPNOTSUPP)  # so the consumer reads and writes
        return await self.inner.copy_file_range(ino, handle, offset, out_ino, out_handle, out_offset, length)

    async def unlink(self, parent: int, name: bytes) -> None:
        raise failure(errno.EPERM)

    async def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> None:
        if not flags & _EXCHANGE:
            entry = await self._found(new_parent, new_name)
            if entry is not None:
                self.inner.forget(entry.ino, 1)
                raise failure(errno.EPERM)
        await self.inner.rename(parent, name, new_parent, new_name, flags)

    async def _found(self, parent: int, name: bytes) -> Entry | None:
        try:
            entry = await self.inner.lookup(parent, name)
        except FileNotFoundError:
            return None
        return entry if entry.ino else None
