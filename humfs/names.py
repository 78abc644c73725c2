"""Names: lookup, and everything that makes, moves or removes a name.

The host goes first, then the rows. A kill between the two is found at the next open: the host's directory has
changed, and the journal does not know of it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from typing import Final

from humfs import store as sql
from humfs.core import ABSENT, Core
from humfs.creation import add_inode, inherit, room_for_inode
from humfs.host import DIRECTORY_MODE, FILE_MODE
from humfs.inodes import DIRECTORY_BLOCKS, ORPHANAGE, Inode
from humfs.journal import Change
from humfs.reconcile import adopted
from umlfs.filesystem import Caller, Entry, NameOperations
from umlfs.host import syscalls
from umlfs.host.names import check_name
from umlfs.host.syscalls import failure

NOREPLACE: Final = 1
EXCHANGE: Final = 2
WHITEOUT: Final = 4

_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Names(NameOperations):
    """The operations on names; see `Filesystem` for each."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._store = core.store
        self._inodes = core.inodes

    async def lookup(self, parent: int, name: bytes) -> Entry:
        row = self._store.find(parent, name) if len(name) <= 255 else None
        if row is None:
            check_name(name)
            directory = self._core.node(parent)
            if not directory.is_directory:
                raise failure(errno.ENOTDIR)
            return ABSENT
        inode = self._inodes.get(row.ino)
        if inode is None:
            if parent not in self._core.host_caches:
                await self._core.host_caches.fill(parent, name)
            inode = self._core.remember(row, parent, name)
        return self._core.entry(inode)

    # Making -----------------------------------------------------------------------------------

    def make(
        self, parent: int, name: bytes, mode: int, rdev: int, umask: int, caller: Caller, target: bytes = b""
    ) -> tuple[Inode, int]:
        """Make a file of any type. Returns a descriptor too, of a regular file; else -1."""
        check_name(name)
        directory = self._core.directory(parent)
        room_for_inode(self._core, DIRECTORY_BLOCKS if stat.S_ISDIR(mode) else 0)
        mode, uid, gid, lists = inherit(self._core, directory, mode, umask, caller)
        place = self._core.host.directories.get(parent)
        fd = -1
        try:
            if stat.S_ISDIR(mode):
                os.mkdir(name, DIRECTORY_MODE, dir_fd=place)
            elif stat.S_ISLNK(mode):
                os.symlink(target, name, dir_fd=place)
            else:
                fd = os.open(name, _CREATE, FILE_MODE, dir_fd=place)
        except FileExistsError:
            self._adopt(directory, name, place)
            raise
        try:
            found = os.fstat(fd) if fd >= 0 else os.stat(name, dir_fd=place, follow_symlinks=False)
            return add_inode(self._core, directory, name, mode, rdev, found, (uid, gid), lists), fd
        except OSError:
            if fd >= 0:
                os.close(fd)
            with contextlib.suppress(OSError):
                (os.rmdir if stat.S_ISDIR(mode) else os.unlink)(name, dir_fd=place)
            raise

    def _adopt(self, directory: Inode, name: bytes, place: int) -> None:
        """The host has the name. If the rows do not, it was put there by hand just now: take it in."""
        if self._store.find(directory.ino, name) is not None:
            return
        found = os.stat(name, dir_fd=place, follow_symlinks=False)
        if found.st_dev != self._core.host.device:
            return
        meta = self._core.store.meta
        ino = self._core.store.next_ino
        self._core.store.next_ino += 1
        row = adopted(ino, found, meta["default_uid"], meta["default_gid"])
        if stat.S_ISDIR(found.st_mode):
            directory.nlink += 1
        self._core.apply(
            (sql.ADD_INODE, tuple(row)),
            (sql.ADD_NAME, (directory.ino, name, ino)),
            (sql.PUT_INODE, directory.values()),
        )
        self._core.used_inodes += 1
        self._core.volume.used += row.blocks << 9
        self._core.names_changed(directory, time.time_ns())

    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int, umask: int, caller: Caller) -> Entry:
        await self._core.before_change()
        if not stat.S_IFMT(mode):
            mode |= stat.S_IFREG
        if not (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)):
            rdev = 0
        inode, fd = self.make(parent, name, mode & 0o177777, rdev, umask, caller)
        os.close(fd)
        return self._core.entry(inode)

    async def mkdir(self, parent: int, name: bytes, mode: int, umask: int, caller: Caller) -> Entry:
        await self._core.before_change()
        inode, _ = self.make(parent, name, stat.S_IFDIR | mode & 0o7777, 0, umask, caller)
        return self._core.entry(inode)

    async def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Entry:
        await self._core.before_change()
        inode, _ = self.make(parent, name, stat.S_IFLNK | 0o777, 0, 0, caller, target)
        return self._core.entry(inode)

    async def readlink(self, ino: int) -> bytes:
        inode = self._core.node(ino)
        if not stat.S_ISLNK(inode.mode):
            raise failure(errno.EINVAL)
        return os.readlink(inode.name, dir_fd=self._core.host.place(inode))

    async def link(self, ino: int, new_parent: int, new_name: bytes) -> Entry:
        await self._core.before_change()
        check_name(new_name)
        inode = self._core.node(ino)
        directory = self._core.directory(new_parent)
        if inode.is_directory:
            raise failure(errno.EPERM)
        if not inode.nlink:
            raise failure(errno.ENOENT)
        source = os.dup(self._core.host.place(inode))
        try:
            place = self._core.host.directories.get(new_parent)
            os.link(inode.name, new_name, src_dir_fd=source, dst_dir_fd=place, follow_symlinks=False)
        except FileExistsError:
            self._adopt(directory, new_name, place)
            raise
        finally:
            os.close(source)
        now = time.time_ns()
        inode.nlink += 1
        inode.ctime_ns = now
        self._core.apply((sql.ADD_NAME, (new_parent, new_name, ino)), (sql.PUT_INODE, inode.values()))
        self._core.names_changed(directory, now)
        return self._core.entry(inode)

    # Removing ---------------------------------------------------------------------------------

    async def unlink(self, parent: int, name: bytes) -> None:
        await self._core.before_change()
        check_name(name)
        directory = self._core.directory(parent)
        inode = self._core.existing(parent, name)
        if inode.is_directory:
            raise failure(errno.EISDIR)
        place = self._core.host.directories.get(parent)
        self._core.host.unlink(inode, name, place, survives=self._survives(inode))
        self._core.apply((sql.DELETE_NAME, (parent, name)), *self._name_lost(inode, parent, name))
        self._core.names_changed(directory, time.time_ns())

    def _survives(self, inode: Inode) -> bool:
        """Whether it is still used once it has lost a name, which is its last."""
        return inode.nlink <= 1 and self._core.in_use(inode)

    def _name_lost(self, inode: Inode, parent: int, name: bytes) -> list[Change]:
        """The rows to change besides the name's when a file loses a name; `inode` is reached by another then."""
        if inode.nlink <= 1:
            return self._core.unlinked(inode)
        inode.nlink -= 1
        inode.ctime_ns = time.time_ns()
        if (inode.parent, inode.name) == (parent, name):
            for other in self._core.store.select("SELECT parent, name FROM dentry WHERE ino = ? LIMIT 2", inode.ino):
                if other != (parent, name):
                    inode.parent, inode.name = other
        return [(sql.PUT_INODE, inode.values())]

    async def rmdir(self, parent: int, name: bytes) -> None:
        await self._core.before_change()
        check_name(name)
        directory = self._core.directory(parent)
        inode = self._core.existing(parent, name)
        if not inode.is_directory:
            raise failure(errno.ENOTDIR)
        os.rmdir(name, dir_fd=self._core.host.directories.get(parent))
        directory.nlink -= 1
        self._core.apply(
            (sql.DELETE_NAME, (parent, name)), (sql.PUT_INODE, directory.values()), *self._directory_lost(inode)
        )
        self._core.names_changed(directory, time.time_ns())

    def _directory_lost(self, inode: Inode) -> list[Change]:
        self._core.host.directories.drop(inode.ino)
        self._core.volume.changed.discard(inode.ino)
        self._core.host_caches.drop(inode.ino)
        return self._core.unlinked(inode)

    # Moving -----------------------------------------------------------------------------------

    async def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> None:
        await self._core.before_change()
        check_name(name)
        check_name(new_name)
        if flags & ~(NOREPLACE | EXCHANGE | WHITEOUT) or (flags & EXCHANGE and flags & (NOREPLACE | WHITEOUT)):
            raise failure(errno.EINVAL)
        source, target = self._core.directory(parent), self._core.directory(new_parent)
        moved = self._core.existing(parent, name)
        replaced = self._core.child(new_parent, new_name)
        if flags & EXCHANGE:
            if replaced is None:
                raise failure(errno.ENOENT)
            self._exchange(source, name, moved, target, new_name, replaced)
            return
        if replaced is not None and flags & NOREPLACE:
            raise failure(errno.EEXIST)
        if replaced is moved:
            return  # two names of one file: both stay
        self._move(source, name, moved, target, new_name, replaced)
        if flags & WHITEOUT:
            _, fd = self.make(parent, name, stat.S_IFCHR, 0, 0, Caller())
            os.close(fd)

    def _both(self, source: Inode, target: Inode) -> tuple[int, int]:
        """Descriptors of both directories; the first is the caller's to close."""
        fd = os.dup(self._core.host.directories.get(source.ino))
        try:
            return fd, self._core.host.directories.get(target.ino)
        except OSError:
            os.close(fd)
            raise

    def _exchange(
        self, source: Inode, name: bytes, moved: Inode, target: Inode, new_name: bytes, replaced: Inode
    ) -> None:
        fd, new_fd = self._both(source, target)
        try:
            syscalls.rename(fd, name, new_fd, new_name, EXCHANGE)
        finally:
            os.close(fd)
        if moved is replaced:
            return
        now = time.time_ns()
        self._renamed(moved, source, name, target, new_name, now)
        self._renamed(replaced, target, new_name, source, name, now)
        self._core.apply(
            (sql.TURN_NAME, (replaced.ino, source.ino, name)),
            (sql.TURN_NAME, (moved.ino, target.ino, new_name)),
            *_links(source, target, moved.is_directory or replaced.is_directory),
        )

    def _move(
        self, source: Inode, name: bytes, moved: Inode, target: Inode, new_name: bytes, replaced: Inode | None
    ) -> None:
        now = time.time_ns()
        fd, new_fd = self._both(source, target)
        try:
            if replaced is None:
                # A name that was put there by hand is not to be replaced unseen.
                syscalls.rename(fd, name, new_fd, new_name, NOREPLACE)
            else:
                survives = not replaced.is_directory and self._survives(replaced)
                self._core.host.rename_over(fd, name, replaced, new_fd, new_name, survives=survives)
        except FileExistsError:
            self._adopt(target, new_name, new_fd)
            raise
        finally:
            os.close(fd)
        changes: list[Change] = []
        if replaced is not None:
            changes.append((sql.DELETE_NAME, (target.ino, new_name)))
            if replaced.is_directory:
                target.nlink -= 1
                changes += self._directory_lost(replaced)
            else:
                changes += self._name_lost(replaced, target.ino, new_name)
        self._renamed(moved, source, name, target, new_name, now)
        changes.append((sql.MOVE_NAME, (target.ino, new_name, source.ino, name)))
        self._core.apply(*changes, *_links(source, target, moved.is_directory))

    def _renamed(self, inode: Inode, source: Inode, name: bytes, target: Inode, new_name: bytes, now: int) -> None:
        """`inode` went from one name to another."""
        if inode.parent != ORPHANAGE and (inode.is_directory or (inode.parent, inode.name) == (source.ino, name)):
            inode.parent, inode.name = target.ino, new_name
        inode.ctime_ns = now
        self._core.mark_dirty(inode)
        if inode.is_directory and source is not target:
            source.nlink -= 1
            target.nlink += 1
        self._core.names_changed(source, now)
        self._core.names_changed(target, now)


def _links(source: Inode, target: Inode, changed: bool) -> list[Change]:
    """The rows of both directories, if their numbers of links changed."""
    return [(sql.PUT_INODE, directory.values()) for directory in (source, target)] if changed else []
