"""One file of a directory, for a place where a single file is mounted.

Its number stays the same whatever file is there, since a mount of it is never looked up again: whoever opens it gets
what the name leads to by then. What is open stays what it was. The contents are not cached.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Sequence
from typing import Final

from umlfs.filesystem import (
    NO_HANDLE,
    ROOT,
    Attr,
    Caller,
    Change,
    ChangeKind,
    Changes,
    DirSink,
    Entry,
    Filesystem,
    Lock,
    Opened,
    SetAttr,
)
from umlfs.views.changes import ShownChanges
from umlfs.views.view import View

FILE: Final = 2

Buffers = Sequence[memoryview]


def _failure(code: int) -> OSError:
    return OSError(code, os.strerror(code))


class OneFile(View):
    """A directory with nothing in it but `name` of `inner`'s root, which cannot be removed or renamed."""

    def __init__(self, inner: Filesystem, name: bytes) -> None:
        super().__init__(inner)
        self.name = name
        self._present = 0
        """The number in `inner` of what the name led to last; one lookup of it is ours."""
        self._handles: dict[int, int] = {}
        """The numbers of what is open."""

    @property
    def changes(self) -> Changes | None:
        changes = self.inner.changes
        return None if changes is None else ShownChanges(changes, self._shown)

    def _shown(self, change: Change) -> Iterable[Change]:
        """Another file of that name is to the consumer the same with other contents."""
        if change.kind in (ChangeKind.MODIFIED, ChangeKind.WRITTEN, ChangeKind.ATTRIBUTES):
            return [change] if (change.parent, change.name) == (ROOT, self.name) else []
        made = (
            (change.parent, change.name) if change.kind is ChangeKind.CREATED else (change.new_parent, change.new_name)
        )
        if made != (ROOT, self.name):
            return []
        return [Change(kind, ROOT, self.name, stat.S_IFREG) for kind in (ChangeKind.MODIFIED, ChangeKind.WRITTEN)]

    def disconnect(self) -> None:
        self._present = 0
        self._handles.clear()
        super().disconnect()

    # The file ---------------------------------------------------------------------------------

    async def _look(self) -> Entry:
        entry = await self.inner.lookup(ROOT, self.name)
        if not entry.ino:
            raise _failure(errno.ENOENT)
        if entry.ino == self._present:
            self.inner.forget(entry.ino, 1)
            return entry
        former, self._present = self._present, entry.ino
        self._forget(former)
        return entry

    def _forget(self, ino: int) -> None:
        if ino and ino != self._present and ino not in self._handles.values():
            self.inner.forget(ino, 1)

    async def _meant(self, ino: int, handle: int = NO_HANDLE) -> int:
        """The number in `inner`."""
        if ino == ROOT:
            return ROOT
        if ino != FILE:
            raise _failure(errno.ESTALE)
        return self._handles[handle] if handle in self._handles else (await self._look()).ino

    async def lookup(self, parent: int, name: bytes) -> Entry:
        if parent != ROOT:
            raise _failure(errno.ENOTDIR)
        if name != self.name:
            raise _failure(errno.ENOENT)
        entry = await self._look()
        return Entry(FILE, entry.attr, entry.entry_valid_ns, entry.attr_valid_ns)

    def forget(self, ino: int, count: int) -> None:
        """There is one number, and it stays."""

    async def getattr(self, ino: int, handle: int = NO_HANDLE) -> tuple[Attr, int]:
        return await self.inner.getattr(await self._meant(ino, handle), handle)

    async def setattr(
        self, ino: int, changes: SetAttr, handle: int = NO_HANDLE, caller: Caller | None = None
    ) -> tuple[Attr, int]:
        if ino == ROOT:
            raise _failure(errno.EPERM)
        return await self.inner.setattr(await self._meant(ino, handle), changes, handle, caller)

    async def readlink(self, ino: int) -> bytes:
        raise _failure(errno.EINVAL)

    async def getxattr(self, ino: int, name: bytes) -> bytes:
        return await self.inner.getxattr(await self._meant(ino), name)

    async def setxattr(self, ino: int, name: bytes, value: bytes, flags: int = 0) -> None:
        if ino == ROOT:
            raise _failure(errno.EPERM)
        await self.inner.setxattr(await self._meant(ino), name, value, flags)

    async def listxattr(self, ino: int) -> list[bytes]:
        return await self.inner.listxattr(await self._meant(ino))

    async def removexattr(self, ino: int, name: bytes) -> None:
        if ino == ROOT:
            raise _failure(errno.EPERM)
        await self.inner.removexattr(await self._meant(ino), name)

    async def open(self, ino: int, flags: int) -> Opened:
        meant = await self._meant(ino)
        opened = await self.inner.open(meant, flags)
        self._handles[opened.handle] = meant
        opened.direct = True
        return opened

    async def release(self, ino: int, handle: int) -> None:
        meant = self._handles.pop(handle, 0)
        await self.inner.release(meant, handle)
        self._forget(meant)

    async def read_into(self, ino: int, handle: int, offset: int, buffers: Buffers) -> int:
        return await self.inner.read_into(await self._meant(ino, handle), handle, offset, buffers)

    async def write_from(self, ino: int, handle: int, offset: int, buffers: Buffers, kill_set_id: bool = False) -> int:
        return await self.inner.write_from(await self._meant(ino, handle), handle, offset, buffers, kill_set_id)

    async def flush(self, ino: int, handle: int) -> None:
        await self.inner.flush(await self._meant(ino, handle), handle)

    async def fsync(self, ino: int, handle: int, data_only: bool = False) -> None:
        await self.inner.fsync(await self._meant(ino, handle), handle, data_only)

    async def fallocate(self, ino: int, handle: int, mode: int, offset: int, length: int) -> None:
        await self.inner.fallocate(await self._meant(ino, handle), handle, mode, offset, length)

    async def lseek(self, ino: int, handle: int, offset: int, whence: int) -> int:
        return await self.inner.lseek(await self._meant(ino, handle), handle, offset, whence)

    async def copy_file_range(
        self, ino: int, handle: int, offset: int, out_ino: int, out_handle: int, out_offset: int, length: int
    ) -> int:
        source, target = await self._meant(ino, handle), await self._meant(out_ino, out_handle)
        return await self.inner.copy_file_range(source, handle, offset, target, out_handle, out_offset, length)

    async def getlk(self, ino: int, handle: int, owner: int, lock: Lock) -> Lock | None:
        return await self.inner.getlk(await self._meant(ino, handle), handle, owner, lock)

    async def setlk(self, ino: int, handle: int, owner: int, lock: Lock, wait: bool = False) -> None:
        await self.inner.setlk(await self._meant(ino, handle), handle, owner, lock, wait)

    async def flock(self, ino: int, handle: int, owner: int, kind: int, wait: bool = False) -> None:
        await self.inner.flock(await self._meant(ino, handle), handle, owner, kind, wait)

    def unlock(self, ino: int, handle: int, owner: int, whole: bool = False) -> None:
        self.inner.unlock(self._handles.get(handle, 0), handle, owner, whole)

    # Its directory ----------------------------------------------------------------------------

    async def readdir(self, ino: int, handle: int, offset: int, add: DirSink, plus: bool = False) -> None:
        if ino != ROOT:
            raise _failure(errno.ENOTDIR)
        for position, name in enumerate((b".", b"..", self.name), 1):
            if position <= offset:
                continue
            if name != self.name:
                taken = add(name, position, ROOT, stat.S_IFDIR, None)
            else:
                entry = await self.lookup(ROOT, name)
                taken = add(name, position, entry.attr.ino, stat.S_IFMT(entry.attr.mode), entry if plus else None)
            if not taken:
                return

    def _refuse(self, name: bytes) -> OSError:
        return _failure(errno.EBUSY if name == self.name else errno.EPERM)

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, umask: int, caller: Caller
    ) -> tuple[Entry, Opened]:
        raise self._refuse(name)

    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int, umask: int, caller: Caller) -> Entry:
        raise self._refuse(name)

    async def mkdir(self, parent: int, name: bytes, mode: int, umask: int, caller: Caller) -> Entry:
        raise self._refuse(name)

    async def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Entry:
        raise self._refuse(name)

    async def link(self, ino: int, new_parent: int, new_name: bytes) -> Entry:
        raise self._refuse(new_name)

    async def unlink(self, parent: int, name: bytes) -> None:
        raise self._refuse(name)

    async def rmdir(self, parent: int, name: bytes) -> None:
        raise self._refuse(name)

    async def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> None:
        raise self._refuse(name)
