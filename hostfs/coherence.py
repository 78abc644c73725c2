"""Operations under leases: what is told is written down, and how long it holds follows from that.

Without an invalidator (a guest has none) every method is the plain one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import trio

from hostfs.attributes import Attributes
from hostfs.directories import Directories
from hostfs.export import Cache
from hostfs.files import Files
from hostfs.inodes import Inode
from hostfs.leases import LEASE_NS, Lease, Leases
from hostfs.names import Names
from umlfs.filesystem import (
    NO_HANDLE,
    Attr,
    Caller,
    DirSink,
    Entry,
    Invalidator,
    Opened,
    SetAttr,
)


class Coherent(Names, Attributes, Files, Directories):
    """The operations, leasing what they tell to a consumer that can be told of changes."""

    _leases: Leases | None = None
    _trouble: str | None = None

    def attach(self, invalidator: Invalidator) -> None:
        """Lease from now on, unless `cache` is other than AUTO. To be called from within trio.

        Files get handles then: what a reader holds open stays, whatever becomes of its name on the host.
        """
        if self._cache is not Cache.AUTO or self._leases is not None:
            return
        self._stateless = False
        try:
            self._leases = Leases(self._nodes, invalidator)
        except OSError as error:
            self._trouble = (
                f"the host's changes are seen after a second, not at once: {error.strerror}"
                " (the limit is fs.inotify.max_user_instances)"
            )
            return
        trio.lowlevel.spawn_system_task(self._leases.run)

    def disconnect(self) -> None:
        super().disconnect()
        if self._leases is not None:
            self._leases.close()
            self._leases = None

    def remarks(self) -> list[str]:
        if self._trouble is not None:
            return [self._trouble]
        if self._leases is not None and self._leases.refused:
            return [
                f"the limit fs.inotify.max_user_watches is reached: {len(self._leases)} directories are watched, the"
                " host's changes to others are seen after a second"
            ]
        return []

    async def _leased(self, leases: Leases, ino: int) -> Lease | None:
        """The lease of the directory `ino`, taken before anything in it is looked at."""
        directory = self._nodes.get(ino)
        if directory is None or directory.pseudo:
            return None
        lease = leases.of(directory)
        if lease is None:
            await self._reach(directory)
            lease = leases.give(directory)
        return lease

    # Telling ----------------------------------------------------------------------------------

    def _entry(self, inode: Inode, found: os.stat_result) -> Entry:
        entry = super()._entry(inode, found)
        if self._leases is not None and not inode.pseudo:
            self._leases.tell_entry(inode, entry)
        return entry

    async def lookup(self, parent: int, name: bytes) -> Entry:
        leases = self._leases
        if leases is None:
            return await super().lookup(parent, name)
        lease = await self._leased(leases, parent)
        entry = await super().lookup(parent, name)
        if lease is not None and not entry.ino and leases.tell_absent(lease, name):
            return Entry(0, entry.attr, LEASE_NS)
        return entry

    async def readdir(self, ino: int, handle: int, offset: int, add: DirSink, plus: bool = False) -> None:
        if self._leases is not None and plus:
            await self._leased(self._leases, ino)
        await super().readdir(ino, handle, offset, add, plus)

    def _changes_seen(self) -> int:
        return 0 if self._leases is None else self._leases.changes_seen

    async def getattr(self, ino: int, handle: int = NO_HANDLE) -> tuple[Attr, int]:
        attr, valid = await super().getattr(ino, handle)
        return attr, self._lifetime(ino, attr, valid)

    async def setattr(
        self, ino: int, changes: SetAttr, handle: int = NO_HANDLE, caller: Caller | None = None
    ) -> tuple[Attr, int]:
        attr, valid = await super().setattr(ino, changes, handle, caller)
        return attr, self._lifetime(ino, attr, valid)

    def _lifetime(self, ino: int, attr: Attr, valid: int) -> int:
        inode = self._nodes.get(ino)
        if self._leases is None or inode is None or inode.pseudo:
            return valid
        return self._leases.tell_attr(inode, attr, valid)

    async def open(self, ino: int, flags: int) -> Opened:
        opened = await super().open(ino, flags)
        if self._leases is not None:
            opened.keep_cache = self._leases.covers(self._node(ino))
        return opened

    async def read_into(self, ino: int, handle: int, offset: int, buffers: Sequence[memoryview]) -> int:
        if self._leases is not None and (inode := self._nodes.get(ino)) is not None:
            self._leases.reading(inode)
        return await super().read_into(ino, handle, offset, buffers)

    # The consumer's own changes ---------------------------------------------------------------

    async def write_from(
        self, ino: int, handle: int, offset: int, buffers: Sequence[memoryview], kill_set_id: bool = False
    ) -> int:
        leases = self._leases
        inode = self._nodes.get(ino)
        place = None if leases is None or inode is None else leases.writing(inode)
        if leases is None or place is None:
            return await super().write_from(ino, handle, offset, buffers, kill_set_id)
        try:
            return await super().write_from(ino, handle, offset, buffers, kill_set_id)
        finally:
            leases.wrote(place)

    def _born(self, directory: Inode, name: bytes, found: os.stat_result) -> Inode:
        self._changed(directory)
        return super()._born(directory, name, found)

    async def link(self, ino: int, new_parent: int, new_name: bytes) -> Entry:
        entry = await super().link(ino, new_parent, new_name)
        self._changed(self._nodes.get(new_parent))
        return entry

    async def unlink(self, parent: int, name: bytes) -> None:
        await super().unlink(parent, name)
        self._changed(self._nodes.get(parent), name)

    async def rmdir(self, parent: int, name: bytes) -> None:
        await super().rmdir(parent, name)
        self._changed(self._nodes.get(parent), name)

    def _changed(self, directory: Inode | None, *names: bytes) -> None:
        if self._leases is not None and directory is not None:
            self._leases.changed(directory, *names)

    async def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> None:
        await super().rename(parent, name, new_parent, new_name, flags)
        source, target = self._nodes.get(parent), self._nodes.get(new_parent)
        if self._leases is None or source is None or target is None:
            return
        for directory, place in ((source, name), (target, new_name)):
            self._leases.changed(directory, place)
            self._tell_moved(self._leases, directory, place)

    def _tell_moved(self, leases: Leases, directory: Inode, name: bytes) -> None:
        """Write down what the consumer makes of a name that it has moved there itself."""
        try:
            found = os.stat(name, dir_fd=directory.fd, follow_symlinks=False)
        except FileNotFoundError:
            return
        except OSError:
            leases.doubt(directory, name)
            return
        inode = self._keys.get((found.st_dev, found.st_ino))
        if inode is not None:
            leases.moved(directory, name, inode, found)
