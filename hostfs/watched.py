"""A directory of the host that tells what others do in it, for consumers whose programs want to know (`notify`)."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import AsyncIterator, Iterator, Sequence

from hostfs.host_changes import HostChanges, Place
from hostfs.resolver import Resolver
from umlfs.filesystem import NO_HANDLE, ROOT, Attr, Caller, DirSink, Entry, Filesystem, Opened, SetAttr
from umlfs.lifetime import Tasks
from umlfs.views.view import View


class Watched(View):
    """`inner`, whose directories are watched from when the consumer learns of them: before that none of its programs
    can wait for anything there. That a name is not there it is to ask anew each time."""

    def __init__(self, inner: Filesystem, resolver: Resolver) -> None:
        """`resolver` is that of `inner`. OSError: EMFILE if the user has too many inotify instances."""
        super().__init__(inner)
        self._resolver = resolver
        self._nodes = resolver.table.nodes
        self._table = resolver.table
        self._tasks = Tasks("hostfs, telling what others change")
        self._changes = HostChanges(resolver)

    @property
    def changes(self) -> HostChanges:
        return self._changes

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self.inner.running(), self._tasks.running():
            await self._watch(ROOT)
            self._tasks.start(self._changes.run)
            yield

    @property
    def failure(self) -> OSError | None:
        return self._tasks.failure or self.inner.failure

    async def close(self) -> None:
        self._changes.close()
        await super().close()

    def remarks(self) -> list[str]:
        if not self._changes.refused:
            return super().remarks()
        return [
            "the limit fs.inotify.max_user_watches is reached: changes in some directories are not announced",
            *super().remarks(),
        ]

    # Telling ----------------------------------------------------------------------------------

    async def _watch(self, ino: int) -> None:
        directory = self._nodes.get(ino)
        if directory is None or directory.pseudo or self._changes.watches(directory):
            return
        with contextlib.suppress(OSError):
            await self._resolver.reach(directory)
            self._changes.watch(directory)

    async def _noted(self, parent: int, name: bytes, entry: Entry) -> Entry:
        self._changes.note(parent, name, entry.ino)
        if stat.S_ISDIR(entry.attr.mode):
            await self._watch(entry.ino)
        return entry

    async def lookup(self, parent: int, name: bytes) -> Entry:
        entry = await self.inner.lookup(parent, name)
        return await self._noted(parent, name, entry) if entry.ino else Entry(0, entry.attr)

    async def readdir(self, ino: int, handle: int, offset: int, add: DirSink, plus: bool = False) -> None:
        parent, directories = ino, list[int]()

        def noting(name: bytes, offset: int, ino: int, mode: int, entry: Entry | None) -> bool:
            taken = add(name, offset, ino, mode, entry)
            if taken and entry is not None:
                self._changes.note(parent, name, entry.ino)
                if stat.S_ISDIR(mode):
                    directories.append(entry.ino)
            return taken

        await self.inner.readdir(parent, handle, offset, noting if plus else add, plus)
        for directory in directories:
            await self._watch(directory)

    # The consumer's own changes ---------------------------------------------------------------

    def _own_name(self, parent: int, name: bytes) -> contextlib.AbstractContextManager[None]:
        return self._changes.own(*self._places(parent, name))

    def _places(self, parent: int, name: bytes) -> Iterator[Place]:
        directory = self._nodes.get(parent)
        if directory is not None:
            yield directory, name

    def _own_file(self, ino: int) -> contextlib.AbstractContextManager[None]:
        inode = self._nodes.get(ino)
        return self._changes.own(*(() if inode is None else self._table.names(inode)))

    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int, umask: int, caller: Caller) -> Entry:
        with self._own_name(parent, name):
            return await self._noted(parent, name, await self.inner.mknod(parent, name, mode, rdev, umask, caller))

    async def mkdir(self, parent: int, name: bytes, mode: int, umask: int, caller: Caller) -> Entry:
        with self._own_name(parent, name):
            return await self._noted(parent, name, await self.inner.mkdir(parent, name, mode, umask, caller))

    async def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Entry:
        with self._own_name(parent, name):
            return await self._noted(parent, name, await self.inner.symlink(parent, name, target, caller))

    async def link(self, ino: int, new_parent: int, new_name: bytes) -> Entry:
        with self._own_name(new_parent, new_name), self._own_file(ino):
            return await self._noted(new_parent, new_name, await self.inner.link(ino, new_parent, new_name))

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, umask: int, caller: Caller
    ) -> tuple[Entry, Opened]:
        with self._own_name(parent, name):
            entry, opened = await self.inner.create(parent, name, mode, flags, umask, caller)
            return await self._noted(parent, name, entry), opened

    async def unlink(self, parent: int, name: bytes) -> None:
        with self._own_name(parent, name):
            await self.inner.unlink(parent, name)
            self._changes.lost(parent, name)

    async def rmdir(self, parent: int, name: bytes) -> None:
        with self._own_name(parent, name):
            await self.inner.rmdir(parent, name)
            self._changes.lost(parent, name)

    async def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> None:
        with self._own_name(parent, name), self._own_name(new_parent, new_name):
            await self.inner.rename(parent, name, new_parent, new_name, flags)
            self._changes.lost(parent, name)
            self._changes.lost(new_parent, new_name)

    async def setattr(
        self, ino: int, changes: SetAttr, handle: int = NO_HANDLE, caller: Caller | None = None
    ) -> tuple[Attr, int]:
        with self._own_file(ino):
            return await self.inner.setattr(ino, changes, handle, caller)

    async def setxattr(self, ino: int, name: bytes, value: bytes, flags: int = 0) -> None:
        with self._own_file(ino):
            await self.inner.setxattr(ino, name, value, flags)

    async def removexattr(self, ino: int, name: bytes) -> None:
        with self._own_file(ino):
            await self.inner.removexattr(ino, name)

    async def open(self, ino: int, flags: int) -> Opened:
        if not flags & os.O_TRUNC:
            return await self.inner.open(ino, flags)
        with self._own_file(ino):
            return await self.inner.open(ino, flags)

    async def write_from(
        self, ino: int, handle: int, offset: int, buffers: Sequence[memoryview], kill_set_id: bool = False
    ) -> int:
        with self._own_file(ino):
            return await self.inner.write_from(ino, handle, offset, buffers, kill_set_id)

    async def fallocate(self, ino: int, handle: int, mode: int, offset: int, length: int) -> None:
        with self._own_file(ino):
            await self.inner.fallocate(ino, handle, mode, offset, length)

    async def copy_file_range(
        self, ino: int, handle: int, offset: int, out_ino: int, out_handle: int, out_offset: int, length: int
    ) -> int:
        with self._own_file(out_ino):
            return await self.inner.copy_file_range(ino, handle, offset, out_ino, out_handle, out_offset, length)
