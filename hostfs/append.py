"""A Filesystem whose existing data can only grow."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Sequence

from hostfs.view import View
from umlfs.filesystem import NO_HANDLE, Attr, Caller, Entry, Opened, SetAttr
from umlfs.sparse import KEEP_SIZE

_EXCHANGE = 2


def _refused() -> OSError:
    return OSError(errno.EPERM, os.strerror(errno.EPERM))


class AppendOnly(View):
    """Files can be created and written at their end. Changing what is in them, removing or replacing them is EPERM;
    shortening them is accepted and does nothing, as with the kernel's `hostfs=DIR,append`. Names may change, and
    empty directories go."""

    async def _size(self, ino: int, handle: int) -> int:
        return (await self.inner.getattr(ino, handle))[0].size

    async def write_from(
        self, ino: int, handle: int, offset: int, buffers: Sequence[memoryview], kill_set_id: bool = False
    ) -> int:
        if offset < await self._size(ino, handle):
            raise _refused()
        return await self.inner.write_from(ino, handle, offset, buffers, kill_set_id)

    async def setattr(
        self, ino: int, changes: SetAttr, handle: int = NO_HANDLE, caller: Caller | None = None
    ) -> tuple[Attr, int]:
        if changes.size is not None and changes.size < await self._size(ino, handle):
            changes = dataclasses.replace(changes, size=None)
        return await self.inner.setattr(ino, changes, handle, caller)

    async def open(self, ino: int, flags: int) -> Opened:
        return await self.inner.open(ino, flags & ~os.O_TRUNC)

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, umask: int, caller: Caller
    ) -> tuple[Entry, Opened]:
        return await self.inner.create(parent, name, mode, flags & ~os.O_TRUNC, umask, caller)

    async def fallocate(self, ino: int, handle: int, mode: int, offset: int, length: int) -> None:
        if mode & ~KEEP_SIZE:
            raise _refused()
        await self.inner.fallocate(ino, handle, mode, offset, length)

    async def copy_file_range(
        self, ino: int, handle: int, offset: int, out_ino: int, out_handle: int, out_offset: int, length: int
    ) -> int:
        if out_offset < await self._size(out_ino, out_handle):
            raise _refused()
        return await self.inner.copy_file_range(ino, handle, offset, out_ino, out_handle, out_offset, length)

    async def unlink(self, parent: int, name: bytes) -> None:
        raise _refused()

    async def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> None:
        if not flags & _EXCHANGE:
            entry = await self._found(new_parent, new_name)
            if entry is not None:
                self.inner.forget(entry.ino, 1)
                raise _refused()
        await self.inner.rename(parent, name, new_parent, new_name, flags)

    async def _found(self, parent: int, name: bytes) -> Entry | None:
        try:
            entry = await self.inner.lookup(parent, name)
        except FileNotFoundError:
            return None
        return entry if entry.ino else None
