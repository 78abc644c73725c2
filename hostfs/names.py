"""Names: lookup, and everything that makes, moves or removes one."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import Final

from hostfs.aside import SetAside
from hostfs.entries import Entries
from hostfs.inodes import Inode
from hostfs.ownership import Ownership
from hostfs.resolver import PATH, Resolver, proc_path
from hostfs.settings import Settings
from umlfs.filesystem import Caller, Entry, NameOperations
from umlfs.host import syscalls
from umlfs.host.names import check_name
from umlfs.host.syscalls import failure

RENAME_EXCHANGE: Final = 2
INLINE_SYMLINK: Final = 60
"""A target of fewer bytes is in the inode on ext4, and elsewhere as a rule; longer ones may have to be read."""


class Names(NameOperations):
    """The operations on names; see `Filesystem` for each."""

    def __init__(
        self, resolver: Resolver, settings: Settings, entries: Entries, ownership: Ownership, aside: SetAside
    ) -> None:
        self._resolver = resolver
        self._settings = settings
        self._entries = entries
        self._ownership = ownership
        self._aside = aside
        self._nodes = resolver.table.nodes
        self._table = resolver.table
        self._descriptors = resolver.descriptors

    async def lookup(self, parent: int, name: bytes) -> Entry:
        check_name(name)
        directory = self._nodes.get(parent)
        if directory is None:
            raise failure(errno.ESTALE)
        if directory.pseudo or self._aside.has(directory, name):
            return self._entries.absent
        try:
            fd = directory.fd
            if fd < 0:
                fd = await self._resolver.reach(directory)
            else:
                directory.used = True
            try:
                found = self._entries.stat(directory, fd, name)
            except BlockingIOError:
                found = await self._entries.stat_name(directory, name)
        except FileNotFoundError:
            return self._entries.absent
        except PermissionError:
            if not self._settings.snapshot:
                raise
            return self._entries.absent
        inode = self._entries.found(directory, name, found)
        if inode.fd < 0 and inode.kind == stat.S_IFDIR and not self._settings.stateless:
            self._keep(inode)
        return self._entries.entry(inode, found)

    def _keep(self, inode: Inode) -> None:
        """A directory that was looked up may become somebody's current one, of which nothing more is heard: hold it, as
        far as that takes no waiting, so that it stays when the host renames it."""
        with contextlib.suppress(OSError):
            self._resolver.open(inode, False)

    async def mkdir(self, parent: int, name: bytes, mode: int, umask: int, caller: Caller) -> Entry:
        directory, fd = await self._place(parent, name)
        os.mkdir(name, mode & 0o777, dir_fd=fd)
        try:
            below, access = self._resolver.open_directory(fd, name, True)
        except OSError:
            os.rmdir(name, dir_fd=fd)
            raise
        try:
            found = self._ownership.adopt(below, os.fstat(below), fd, mode, caller)
        except OSError:
            os.close(below)
            os.rmdir(name, dir_fd=fd)
            raise
        inode = self._entries.born(directory, name, found)
        inode.cached_until = directory.cached_until
        self._descriptors.hold(inode, below, access)
        return self._entries.entry(inode, found)

    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int, umask: int, caller: Caller) -> Entry:
        directory, fd = await self._place(parent, name)
        os.mknod(name, mode & ~0o7000, rdev, dir_fd=fd)
        return self._adopted(directory, fd, name, mode, caller)

    async def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Entry:
        directory, fd = await self._place(parent, name)
        if not target or b"\0" in target:
            raise failure(errno.EINVAL if target else errno.ENOENT)
        os.symlink(target, name, dir_fd=fd)
        return self._adopted(directory, fd, name, 0o777, caller)

    async def _place(self, parent: int, name: bytes) -> tuple[Inode, int]:
        """The directory in which `name` is to change, and its descriptor."""
        check_name(name)
        self._settings.check_writable()
        directory = self._resolver.node(parent)
        self._aside.check(directory, name)
        return directory, await self._resolver.reach(directory)

    def _adopted(self, directory: Inode, fd: int, name: bytes, mode: int, caller: Caller) -> Entry:
        try:
            found = self._ownership.adopt_named(fd, name, mode, caller)
        except OSError:
            os.unlink(name, dir_fd=fd)
            raise
        return self._entries.entry(self._entries.born(directory, name, found), found)

    async def readlink(self, ino: int) -> bytes:
        inode = self._resolver.node(ino)
        if inode.kind != stat.S_IFLNK:
            raise failure(errno.EINVAL)
        fd = inode.fd if inode.fd >= 0 else await self._resolver.reach(inode)
        if os.fstat(fd).st_size < INLINE_SYMLINK or inode.key[0] in self._resolver.devices.in_memory:
            return os.readlink(b"", dir_fd=fd)
        return await self._resolver.in_thread(fd, lambda copy: os.readlink(b"", dir_fd=copy))

    async def link(self, ino: int, new_parent: int, new_name: bytes) -> Entry:
        check_name(new_name)
        self._settings.check_writable()
        inode, directory = self._resolver.node(ino), self._resolver.node(new_parent)
        self._aside.check(directory, new_name)
        fd, place = await self._resolver.reach_both(inode, directory)
        os.link(proc_path(fd), new_name, dst_dir_fd=place, follow_symlinks=True)
        found = os.stat(new_name, dir_fd=place, follow_symlinks=False)
        return self._entries.entry(self._entries.found(directory, new_name, found), found)

    # Removal ----------------------------------------------------------------------------------

    async def unlink(self, parent: int, name: bytes) -> None:
        directory, fd = await self._place(parent, name)
        found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        inode = self._secure(directory, fd, name, found)
        os.unlink(name, dir_fd=await self._resolver.reach(directory))
        self._removed(inode, directory, name, found.st_nlink == 1)

    async def rmdir(self, parent: int, name: bytes) -> None:
        directory, fd = await self._place(parent, name)
        found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        inode = self._secure(directory, fd, name, found)
        os.rmdir(name, dir_fd=await self._resolver.reach(directory))
        self._removed(inode, directory, name, True)

    def _secure(self, directory: Inode, fd: int, name: bytes, found: os.stat_result) -> Inode | None:
        """Before `name` goes: the inode it is, if the consumer knows it, with a descriptor to live on by.

        That may cost any other descriptor: reach the directory again.
        Files are opened even if there are hard links: no name of those need be known to us.
        """
        inode = self._entries.known(found)
        if inode is None or inode.fd >= 0:
            return inode
        try:
            if inode.kind == stat.S_IFDIR:
                below, access = self._resolver.open_directory(fd, name, True)
            else:
                below, access = self._resolver.open_name(fd, name, PATH, True), 0
        except OSError:
            return inode  # what it was opened for may still succeed
        if self._resolver.verified(inode, directory, below):
            self._descriptors.hold(inode, below, access)
        return inode

    def _removed(self, inode: Inode | None, directory: Inode, name: bytes, last: bool) -> None:
        """`name`, which was `inode`, is gone; with `last` no other name is left on the host."""
        if inode is None:
            return
        self._table.unname(inode, directory, name)
        if last:
            self._table.dead(inode)
        if last or inode.parent is None:
            self._descriptors.pin(inode)

    # Renaming ---------------------------------------------------------------------------------

    async def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> None:
        check_name(name)
        check_name(new_name)
        self._settings.check_writable()
        source, target = self._resolver.node(parent), self._resolver.node(new_parent)
        self._aside.check(source, name)
        self._aside.check(target, new_name)
        fd, new_fd = await self._resolver.reach_both(source, target)
        moved = os.stat(name, dir_fd=fd, follow_symlinks=False)
        inode = self._entries.known(moved)
        try:
            replaced = os.stat(new_name, dir_fd=new_fd, follow_symlinks=False)
        except FileNotFoundError:
            self._move(fd, name, new_fd, new_name, flags)
        else:
            victim = self._entries.known(replaced)
            if os.path.samestat(moved, replaced):
                self._move(fd, name, new_fd, new_name, flags)
                return  # two names of one file: both stay
            if flags & RENAME_EXCHANGE:
                self._move(fd, name, new_fd, new_name, flags)
                self._renamed(victim, target, new_name, source, name)
            else:
                self._secure(target, new_fd, new_name, replaced)
                fd, new_fd = await self._resolver.reach_both(source, target)
                self._move(fd, name, new_fd, new_name, flags)
                last = replaced.st_nlink == 1 or stat.S_ISDIR(replaced.st_mode)
                self._removed(victim, target, new_name, last)
        self._renamed(inode, source, name, target, new_name)

    @staticmethod
    def _move(fd: int, name: bytes, new_fd: int, new_name: bytes, flags: int) -> None:
        if flags:
            syscalls.rename(fd, name, new_fd, new_name, flags)
        else:
            os.rename(name, new_name, src_dir_fd=fd, dst_dir_fd=new_fd)

    def _renamed(self, inode: Inode | None, source: Inode, name: bytes, target: Inode, new_name: bytes) -> None:
        if inode is not None:
            self._table.move(inode, source, name, target, new_name)
