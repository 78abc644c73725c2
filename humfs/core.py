"""The core of `HumFilesystem`: from inode numbers to inodes in memory, and who is still in use.

Everything here is synchronous and runs on the loop. A row takes a few microseconds; the host's file of an inode is
looked at once, when the inode is read into memory, since nobody else changes it while it is open. What may wait for
the host's disk goes to a thread: contents (see `humfs.files`), syncing, and a directory seen for the first time.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import stat
import time
from collections.abc import Iterator
from typing import Final

import trio

from humfs import store as sql
from humfs.durability import Durability
from humfs.host_caches import HostCaches
from humfs.inodes import ORPHANAGE, Inode, InodeCache
from humfs.journal import Change
from humfs.store import Row, require_sound
from humfs.volume import Volume
from umlfs.errors import UmlError, described
from umlfs.filesystem import FOREVER, ROOT, Attr, Entry, Traits
from umlfs.host.closing import Closer
from umlfs.host.syscalls import failure

log = logging.getLogger(__name__)

BYTES_PER_INODE: Final = 4096
"""There may be one inode for so many bytes of the filesystem: empty files take the host's space too."""
INODES_LEAST: Final = 1024
_SLOW_FREE: Final = 1 << 15
"""A file of so many blocks takes the host long enough to free for a thread."""
_SET_ID_GROUP: Final = stat.S_ISGID | stat.S_IXGRP

LABEL: Final = b"security.selinux"
"""Programs such as ls ask for it with each file, unless they hear once that there are none."""

ABSENT: Final = Entry(0, Attr(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), FOREVER)


class Core:
    """What all operations share: the inodes of one volume, in memory and as rows, and when they become durable."""

    def __init__(self, volume: Volume, *, read_only: bool = False, atime: str = "relatime") -> None:
        """Serve `volume`, which is closed with the filesystem. `atime` is relatime, noatime or strictatime."""
        self.volume = volume
        self.store = volume.store
        self.host = volume.host
        acl = bool(self.store.meta["posix_acl"])
        self.traits = Traits(read_only=read_only, writeback=not read_only, kills_set_id=True, posix_acl=acl)
        self.read_only = read_only
        self.atime = "noatime" if read_only else atime
        self.cache = InodeCache()
        self.inodes = self.cache.inodes
        self.lookups: dict[int, int] = {}
        """What `forget` has to give back, of each number."""
        self.orphans: set[int] = set()
        """Inodes without a name that are still in use."""
        self.dirty: dict[int, Inode] = {}
        self.host_caches = HostCaches(volume.host)
        self.used_inodes = self.store.select("SELECT count(*) FROM inode")[0][0]
        self.inodes_max = max(INODES_LEAST, volume.superblock.total // BYTES_PER_INODE)
        self.durability = Durability(volume, self.flush)
        self.closer = Closer(self.durability.tasks)
        self.space_turn = trio.Lock()
        self.labelled = bool(self.store.select("SELECT 1 FROM xattr WHERE name = ? LIMIT 1", LABEL))
        """Some file has a SELinux label."""
        self.closed = False

    def running(self) -> contextlib.AbstractAsyncContextManager[None]:
        return self.durability.running()

    @property
    def failure(self) -> OSError | None:
        return self.durability.tasks.failure

    # Inodes -----------------------------------------------------------------------------------

    def node(self, ino: int) -> Inode:
        """The inode of that number. ESTALE if there is none."""
        inode = self.inodes.get(ino)
        return inode if inode is not None else self.load(ino)

    def load(self, ino: int) -> Inode:
        row = self.store.get(ino) if 0 < ino < 1 << 63 else None
        if row is None:
            raise failure(errno.ESTALE)
        if ino == ROOT:
            return self.remember(row, ROOT, b".")
        place = self.store.name_of(ino)
        parent, name = place if place is not None else (ORPHANAGE, b"%d" % ino)
        return self.remember(row, parent, name)

    def remember(self, row: Row, parent: int, name: bytes) -> Inode:
        """The inode of a row that was just read, found as `name` in `parent`."""
        inode = self.inodes.get(row.ino)
        if inode is not None:
            return inode
        require_sound(row)
        inode = Inode(row, parent, name)
        if inode.is_file:
            self.measure(inode, self.host.stat(inode))
        self.cache.add(inode)
        if len(self.inodes) > self.cache.most:
            self.put_out()
        return inode

    def put_out(self) -> None:
        surplus = list(self.cache.surplus())
        dirty = [inode for inode in surplus if inode.dirty]
        if dirty:
            self.store.put_inodes([inode.values() for inode in dirty])
            for inode in dirty:
                inode.dirty = False
                del self.dirty[inode.ino]

    def directory(self, ino: int) -> Inode:
        """The directory of that number, for names to be changed in. ENOTDIR, or ENOENT if it was removed."""
        inode = self.inodes.get(ino) or self.load(ino)
        if not inode.is_directory:
            raise failure(errno.ENOTDIR)
        if not inode.nlink:
            raise failure(errno.ENOENT)
        return inode

    def child(self, parent: int, name: bytes) -> Inode | None:
        """What `name` leads to, if anything."""
        row = self.store.find(parent, name)
        return None if row is None else self.inodes.get(row.ino) or self.remember(row, parent, name)

    def existing(self, parent: int, name: bytes) -> Inode:
        inode = self.child(parent, name)
        if inode is None:
            raise failure(errno.ENOENT)
        return inode

    def entry(self, inode: Inode) -> Entry:
        """Give the inode to the consumer; counts a lookup."""
        ino = inode.ino
        self.lookups[ino] = self.lookups.get(ino, 0) + 1
        return Entry(ino, inode.attr(), FOREVER, FOREVER)

    # Changes ----------------------------------------------------------------------------------

    async def before_change(self) -> None:
        """Before any change: EROFS if none are allowed, EIO or ENOSPC if they could not be kept."""
        durability = self.durability
        if durability.gate is not None:
            await durability.gate.wait()
        if self.read_only:
            raise failure(errno.EROFS)
        durability.check()
        if not self.store.in_transaction:
            await durability.begin()
        if not self.volume.marked:
            self.volume.mark()
            await durability.begin()

    def apply(self, *changes: Change) -> None:
        """Change rows. What the host has done already cannot be undone in general, so a failure ends all changes:
        the next open compares host and rows."""
        try:
            self.store.apply(*changes)
        except OSError as error:
            log.error("%s: %s", self.volume.root, error)
            self.durability.lost(error)
            raise
        self.durability.changed()

    def touch(self, inode: Inode, now: int) -> None:
        """Contents or names in it changed."""
        inode.mtime_ns = inode.ctime_ns = now
        self.mark_dirty(inode)

    def mark_dirty(self, inode: Inode) -> None:
        """Its row is to be written with the next commit."""
        if not inode.dirty:
            inode.dirty = True
            self.dirty[inode.ino] = inode
            self.durability.changed()

    def names_changed(self, directory: Inode, now: int) -> None:
        self.touch(directory, now)
        self.durability.names_changed(directory.ino)

    def flush(self) -> None:
        """Write what is only in memory to the rows."""
        if self.dirty:
            self.store.put_inodes([inode.values() for inode in self.dirty.values()])
            for inode in self.dirty.values():
                inode.dirty = False
            self.dirty.clear()

    def measure(self, inode: Inode, found: os.stat_result) -> None:
        """Take over size and space from the host's file."""
        if found.st_blocks != inode.blocks:
            self.volume.used += (found.st_blocks - inode.blocks) << 9
            inode.blocks = found.st_blocks
        elif found.st_size == inode.size:
            return
        if found.st_size != inode.size:
            inode.size = found.st_size
        if not self.read_only:
            self.mark_dirty(inode)

    def drop_set_id(self, inode: Inode) -> None:
        """As the kernel does when a file is written to; file capabilities go too."""
        mode = inode.mode & ~stat.S_ISUID
        if mode & _SET_ID_GROUP == _SET_ID_GROUP:
            mode &= ~stat.S_ISGID
        if mode != inode.mode:
            inode.mode = mode
            self.apply((sql.PUT_INODE, inode.values()))
        self.drop_capabilities(inode)

    def drop_capabilities(self, inode: Inode) -> None:
        if inode.xattrs and self.store.xattr(inode.ino, b"security.capability") is not None:
            self.remove_xattr(inode, b"security.capability")

    def remove_xattr(self, inode: Inode, name: bytes) -> None:
        value = self.store.xattr(inode.ino, name)
        if value is not None:
            self.apply((sql.DELETE_XATTR, (inode.ino, name)))
            self.volume.used -= len(name) + len(value)

    # The end of an inode ----------------------------------------------------------------------

    def in_use(self, inode: Inode) -> bool:
        return bool(inode.busy) or inode.ino in self.lookups

    def unlinked(self, inode: Inode) -> list[Change]:
        """The rows to change when the last name of `inode` is gone; its file, if it has one, is in the orphanage."""
        inode.nlink = 0
        inode.ctime_ns = time.time_ns()
        if self.in_use(inode):
            inode.parent, inode.name = ORPHANAGE, b"%d" % inode.ino
            self.orphans.add(inode.ino)
            return [(sql.PUT_INODE, inode.values())]
        return self.freed(inode)

    def freed(self, inode: Inode) -> list[Change]:
        """The rows to change when nobody uses `inode` any more. Its space is free."""
        ino = inode.ino
        self.volume.used -= inode.blocks << 9
        self.used_inodes -= 1
        self.inodes.pop(ino, None)
        self.dirty.pop(ino, None)
        self.orphans.discard(ino)
        fd = self.host.release(inode)
        if fd >= 0:
            self._close(fd, inode.blocks)
        changes: list[Change] = [(sql.DELETE_INODE, (ino,))]
        if inode.xattrs:
            self.volume.used -= sum(len(name) + len(value) for name, value in self.store.xattrs(ino))
            changes.append((sql.DELETE_XATTRS, (ino,)))
        return changes

    def _close(self, fd: int, blocks: int) -> None:
        """Close what may be the last descriptor of a file without names."""
        if blocks < _SLOW_FREE:
            os.close(fd)
        else:
            self.closer.close(fd)

    def free_orphan(self, ino: int) -> None:
        """Nobody uses an orphan any more."""
        try:
            inode = self.node(ino)
            if inode.busy:
                return  # the thread's end comes here again
            if not inode.is_directory:
                if inode.blocks >= _SLOW_FREE:
                    self.host.file(inode)  # so that freeing it is up to the close
                self.host.drop_orphan(inode)
            self.apply(*self.freed(inode))
        except OSError as error:
            log.warning("%s: orphan %d: %s", self.volume.root, ino, error)
            self.orphans.discard(ino)

    @contextlib.contextmanager
    def busy(self, inode: Inode) -> Iterator[None]:
        """A thread uses the inode's descriptor."""
        inode.busy += 1
        try:
            yield
        finally:
            inode.busy -= 1
            if not inode.busy and inode.ino in self.orphans and inode.ino not in self.lookups:
                self.free_orphan(inode.ino)

    def forget(self, ino: int, count: int) -> None:
        left = self.lookups.get(ino)
        if left is None:
            return
        if left > count:
            self.lookups[ino] = left - count
            return
        del self.lookups[ino]
        if ino in self.orphans:
            self.free_orphan(ino)

    def disconnect(self) -> None:
        self.lookups.clear()
        if not self.closed:
            for ino in list(self.orphans):
                self.free_orphan(ino)

    # The whole --------------------------------------------------------------------------------

    async def syncfs(self) -> None:
        """Contents too: the host's whole filesystem is synced."""
        await self._sync_contents()
        await self.durability.sync()

    async def _sync_contents(self) -> None:
        from humfs.volume import sync_tree

        await trio.to_thread.run_sync(sync_tree, self.host.directories.root)

    async def close(self, *, durable: bool = True) -> None:
        """The directory is noted as closed in order; everything is durable on return, unless that is not asked for.

        UmlError if it could not be: everything is given up nevertheless, and the next open compares it."""
        await self.durability.stop()
        if self.closed:
            return
        self.disconnect()
        self.closed = True
        await self.closer.drain()
        clean = self.durability.failure is None
        with trio.CancelScope(shield=True):
            error: OSError | None = None
            try:
                if clean:
                    self.flush()
                    self.store.commit()
            except OSError as failure:
                clean, error = False, failure
            try:
                await trio.to_thread.run_sync(functools.partial(self.volume.close, clean, durable=durable))
            except OSError as failure:
                error = error or failure
        if error is not None:
            raise UmlError(
                f"{self.volume.root}: not closed in order: {described(error)}", "the next use compares all of it"
            ) from error
