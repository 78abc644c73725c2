"""A Filesystem seen through another: the base of what shows one otherwise than it is."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from umlfs.filesystem import (
    NO_HANDLE,
    ROOT,
    Attr,
    Caller,
    Changes,
    DirSink,
    Entry,
    Filesystem,
    Invalidator,
    Lock,
    Opened,
    SetAttr,
    StatFs,
)


class View(Filesystem):
    """All of `inner` as it is; subclasses override what they show otherwise. Closing it closes `inner`."""

    def __init__(self, inner: Filesystem) -> None:
        self.inner = inner
        self.traits = inner.traits

    def running(self) -> AbstractAsyncContextManager[None]:
        return self.inner.running()

    @property
    def failure(self) -> OSError | None:
        return self.inner.failure

    @property
    def changes(self) -> Changes | None:
        return self.inner.changes

    def attach(self, invalidator: Invalidator) -> Filesystem:
        self.inner = self.inner.attach(invalidator)
        return self

    def disconnect(self) -> None:
        self.inner.disconnect()

    async def close(self) -> None:
        await self.inner.close()

    def remarks(self) -> list[str]:
        return self.inner.remarks()

    # Names ------------------------------------------------------------------------------------

    async def lookup(self, parent: int, name: bytes) -> Entry:
        return await self.inner.lookup(parent, name)

    def forget(self, ino: int, count: int) -> None:
        self.inner.forget(ino, count)

    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int, umask: int, caller: Caller) -> Entry:
        return await self.inner.mknod(parent, name, mode, rdev, umask, caller)

    async def mkdir(self, parent: int, name: bytes, mode: int, umask: int, caller: Caller) -> Entry:
        return await self.inner.mkdir(parent, name, mode, umask, caller)

    async def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Entry:
        return await self.inner.symlink(parent, name, target, caller)

    async def readlink(self, ino: int) -> bytes:
        return await self.inner.readlink(ino)

    async def link(self, ino: int, new_parent: int, new_name: bytes) -> Entry:
        return await self.inner.link(ino, new_parent, new_name)

    async def unlink(self, parent: int, name: bytes) -> None:
        await self.inner.unlink(parent, name)

    async def rmdir(self, parent: int, name: bytes) -> None:
        await self.inner.rmdir(parent, name)

    async def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> None:
        await self.inner.rename(parent, name, new_parent, new_name, flags)

    # Attributes -------------------------------------------------------------------------------

    async def getattr(self, ino: int, handle: int = NO_HANDLE) -> tuple[Attr, int]:
        return await self.inner.getattr(ino, handle)

    async def setattr(
        self, ino: int, changes: SetAttr, handle: int = NO_HANDLE, caller: Caller | None = None
    ) -> tuple[Attr, int]:
        return await self.inner.setattr(ino, changes, handle, caller)

    async def access(self, ino: int, mask: int, caller: Caller) -> None:
        await self.inner.access(ino, mask, caller)

    async def statfs(self, ino: int = ROOT) -> StatFs:
        return await self.inner.statfs(ino)

    async def getxattr(self, ino: int, name: bytes) -> bytes:
        return await self.inner.getxattr(ino, name)

    async def setxattr(self, ino: int, name: bytes, value: bytes, flags: int = 0) -> None:
        await self.inner.setxattr(ino, name, value, flags)

    async def listxattr(self, ino: int) -> list[bytes]:
        return await self.inner.listxattr(ino)

    async def removexattr(self, ino: int, name: bytes) -> None:
        await self.inner.removexattr(ino, name)

    # Files ------------------------------------------------------------------------------------

    async def open(self, ino: int, flags: int) -> Opened:
        return await self.inner.open(ino, flags)

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, umask: int, caller: Caller
    ) -> tuple[Entry, Opened]:
        return await self.inner.create(parent, name, mode, flags, umask, caller)

    async def read_into(self, ino: int, handle: int, offset: int, buffers: Sequence[memoryview]) -> int:
        return await self.inner.read_into(ino, handle, offset, buffers)

    async def write_from(
        self, ino: int, handle: int, offset: int, buffers: Sequence[memoryview], kill_set_id: bool = False
    ) -> int:
        return await self.inner.write_from(ino, handle, offset, buffers, kill_set_id)

    async def flush(self, ino: int, handle: int) -> None:
        await self.inner.flush(ino, handle)

    async def release(self, ino: int, handle: int) -> None:
        await self.inner.release(ino, handle)

    async def fsync(self, ino: int, handle: int, data_only: bool = False) -> None:
        await self.inner.fsync(ino, handle, data_only)

    async def fallocate(self, ino: int, handle: int, mode: int, offset: int, length: int) -> None:
        await self.inner.fallocate(ino, handle, mode, offset, length)

    async def lseek(self, ino: int, handle: int, offset: int, whence: int) -> int:
        return await self.inner.lseek(ino, handle, offset, whence)

    async def copy_file_range(
        self, ino: int, handle: int, offset: int, out_ino: int, out_handle: int, out_offset: int, length: int
    ) -> int:
        return await self.inner.copy_file_range(ino, handle, offset, out_ino, out_handle, out_offset, length)

    # Locks ------------------------------------------------------------------------------------

    async def getlk(self, ino: int, handle: int, owner: int, lock: Lock) -> Lock | None:
        return await self.inner.getlk(ino, handle, owner, lock)

    async def setlk(self, ino: int, handle: int, owner: int, lock: Lock, wait: bool = False) -> None:
        await self.inner.setlk(ino, handle, owner, lock, wait)

    async def flock(self, ino: int, handle: int, owner: int, kind: int, wait: bool = False) -> None:
        await self.inner.flock(ino, handle, owner, kind, wait)

    def unlock(self, ino: int, handle: int, owner: int, whole: bool = False) -> None:
        self.inner.unlock(ino, handle, owner, whole)

    # Directories ------------------------------------------------------------------------------

    async def opendir(self, ino: int) -> Opened:
        return await self.inner.opendir(ino)

    async def readdir(self, ino: int, handle: int, offset: int, add: DirSink, plus: bool = False) -> None:
        await self.inner.readdir(ino, handle, offset, add, plus)

    async def releasedir(self, ino: int, handle: int) -> None:
        await self.inner.releasedir(ino, handle)

    async def fsyncdir(self, ino: int, handle: int, data_only: bool = False) -> None:
        await self.inner.fsyncdir(ino, handle, data_only)

    async def syncfs(self) -> None:
        await self.inner.syncfs()
