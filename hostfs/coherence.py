"""A directory of the host for a consumer that can be told of changes: what it believes for long is leased.

It wraps the plain filesystem, and is there for mounts on the host alone: a guest cannot be told of anything.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Sequence

from hostfs.directories import Directories
from hostfs.inodes import Inode
from hostfs.leases import LEASE_NS, Lease, Leases
from hostfs.resolver import Resolver
from umlfs.filesystem import (
    NO_HANDLE,
    Attr,
    Caller,
    DirSink,
    Entry,
    Filesystem,
    Invalidator,
    Opened,
    SetAttr,
)
from umlfs.lifetime import Tasks
from umlfs.views.view import View


class Coherent(View):
    """`inner`, leasing what it tells. What the consumer may believe is written down as the answer leaves.

    While it runs, `inner` runs. Outside, nothing is leased.
    """

    def __init__(
        self, inner: Filesystem, resolver: Resolver, directories: Directories, invalidator: Invalidator
    ) -> None:
        """`resolver` and `directories` are those of `inner`. OSError: EMFILE if the user has too many inotify
        instances."""
        super().__init__(inner)
        self._resolver = resolver
        self._table = resolver.table
        self._nodes = resolver.table.nodes
        self._tasks = Tasks("hostfs, telling of the host's changes")
        self.leases = Leases(self._nodes, invalidator)
        directories.changes_seen = lambda: self.leases.changes_seen

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self.inner.running(), self._tasks.running():
            self._tasks.start(self.leases.run)
            try:
                yield
            finally:
                self.leases.close()

    @property
    def failure(self) -> OSError | None:
        return self._tasks.failure or self.inner.failure

    def attach(self, invalidator: Invalidator) -> Filesystem:
        """Another consumer: leases begin anew."""
        self.leases.close()
        self.leases = Leases(self._nodes, invalidator)
        return self

    def disconnect(self) -> None:
        super().disconnect()
        self.leases.close()

    async def close(self) -> None:
        self.leases.close()
        await super().close()

    def remarks(self) -> list[str]:
        if self.leases.refused:
            return [
                f"the limit fs.inotify.max_user_watches is reached: {len(self.leases)} directories are watched, the"
                " host's changes to others are seen after a second"
            ]
        return super().remarks()

    async def _leased(self, ino: int) -> Lease | None:
        """The lease of the directory `ino`, taken before anything in it is looked at."""
        directory = self._nodes.get(ino)
        if directory is None or directory.pseudo:
            return None
        lease = self.leases.of(directory)
        if lease is None:
            await self._resolver.reach(directory)
            lease = self.leases.give(directory)
        return lease

    # Telling ----------------------------------------------------------------------------------

    def _granted(self, entry: Entry) -> Entry:
        """`entry` is about to be told."""
        inode = self._nodes.get(entry.ino)
        if inode is not None and not inode.pseudo:
            self.leases.grant_entry(inode, entry)
        return entry

    async def lookup(self, parent: int, name: bytes) -> Entry:
        lease = await self._leased(parent)
        entry = await self.inner.lookup(parent, name)
        if entry.ino:
            return self._granted(entry)
        if lease is not None and self.leases.grant_absent(lease, name):
            return Entry(0, entry.attr, LEASE_NS)
        return entry

    async def readdir(self, ino: int, handle: int, offset: int, add: DirSink, plus: bool = False) -> None:
        if not plus:
            await self.inner.readdir(ino, handle, offset, add)
            return

        def granted(name: bytes, offset: int, ino: int, mode: int, entry: Entry | None) -> bool:
            return add(name, offset, ino, mode, entry if entry is None else self._granted(entry))

        await self._leased(ino)
        await self.inner.readdir(ino, handle, offset, granted, plus)

    async def getattr(self, ino: int, handle: int = NO_HANDLE) -> tuple[Attr, int]:
        attr, valid = await self.inner.getattr(ino, handle)
        return attr, self._lifetime(ino, attr, valid)

    async def setattr(
        self, ino: int, changes: SetAttr, handle: int = NO_HANDLE, caller: Caller | None = None
    ) -> tuple[Attr, int]:
        attr, valid = await self.inner.setattr(ino, changes, handle, caller)
        return attr, self._lifetime(ino, attr, valid)

    def _lifetime(self, ino: int, attr: Attr, valid: int) -> int:
        inode = self._nodes.get(ino)
        return valid if inode is None or inode.pseudo else self.leases.grant_attr(inode, attr, valid)

    async def open(self, ino: int, flags: int) -> Opened:
        opened = await self.inner.open(ino, flags)
        opened.keep_cache = self.leases.covers(self._resolver.node(ino))
        return opened

    async def read_into(self, ino: int, handle: int, offset: int, buffers: Sequence[memoryview]) -> int:
        if (inode := self._nodes.get(ino)) is not None:
            self.leases.reading(inode)
        return await self.inner.read_into(ino, handle, offset, buffers)

    # The consumer's own changes ---------------------------------------------------------------

    async def write_from(
        self, ino: int, handle: int, offset: int, buffers: Sequence[memoryview], kill_set_id: bool = False
    ) -> int:
        inode = self._nodes.get(ino)
        place = None if inode is None else self.leases.writing(inode)
        if place is None:
            return await self.inner.write_from(ino, handle, offset, buffers, kill_set_id)
        try:
            return await self.inner.write_from(ino, handle, offset, buffers, kill_set_id)
        finally:
            self.leases.wrote(place)

    def _made(self, parent: int, entry: Entry) -> Entry:
        """The consumer has made a name in `parent`, and knows that the directory has changed."""
        self._changed(parent)
        return self._granted(entry)

    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int, umask: int, caller: Caller) -> Entry:
        return self._made(parent, await self.inner.mknod(parent, name, mode, rdev, umask, caller))

    async def mkdir(self, parent: int, name: bytes, mode: int, umask: int, caller: Caller) -> Entry:
        return self._made(parent, await self.inner.mkdir(parent, name, mode, umask, caller))

    async def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Entry:
        return self._made(parent, await self.inner.symlink(parent, name, target, caller))

    async def link(self, ino: int, new_parent: int, new_name: bytes) -> Entry:
        return self._made(new_parent, await self.inner.link(ino, new_parent, new_name))

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, umask: int, caller: Caller
    ) -> tuple[Entry, Opened]:
        entry, opened = await self.inner.create(parent, name, mode, flags, umask, caller)
        self._made(parent, entry)
        opened.keep_cache = self.leases.covers(self._resolver.node(entry.ino))
        return entry, opened

    async def unlink(self, parent: int, name: bytes) -> None:
        await self.inner.unlink(parent, name)
        self._changed(parent, name)

    async def rmdir(self, parent: int, name: bytes) -> None:
        await self.inner.rmdir(parent, name)
        self._changed(parent, name)

    def _changed(self, parent: int, *names: bytes) -> None:
        directory = self._nodes.get(parent)
        if directory is not None:
            self.leases.changed(directory, *names)

    async def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> None:
        await self.inner.rename(parent, name, new_parent, new_name, flags)
        source, target = self._nodes.get(parent), self._nodes.get(new_parent)
        if source is None or target is None:
            return
        for directory, place in ((source, name), (target, new_name)):
            self.leases.changed(directory, place)
            self._believe_moved(directory, place)

    def _believe_moved(self, directory: Inode, name: bytes) -> None:
        """Write down what the consumer makes of a name that it has moved there itself."""
        try:
            found = os.stat(name, dir_fd=directory.fd, follow_symlinks=False)
        except FileNotFoundError:
            return
        except OSError:
            self.leases.doubt(directory, name)
            return
        inode = self._table.keys.get((found.st_dev, found.st_ino))
        if inode is not None:
            self.leases.moved(directory, name, inode, found)
