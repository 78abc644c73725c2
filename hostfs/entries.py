"""From what the host says of a name to what the consumer is told: entries and attributes."""

from __future__ import annotations

import os
import stat
from time import monotonic
from typing import Final

from hostfs.inodes import Inode
from hostfs.ownership import Owners
from hostfs.resolver import CACHED_SECONDS, FORMAT, PATH, Resolver
from umlfs.filesystem import Attr, Entry
from umlfs.host.syscalls import open_cached

SMALL_DIRECTORY: Final = 256 * 1024
"""A directory of up to this size (in bytes) is in the caches once something was created in it."""


_EPOCHS: Final = 1000
"""So many locks later an mtime may be told again."""


class Entries:
    """Looks at names, and makes inodes and answers of what is found there."""

    def __init__(self, resolver: Resolver, valid_ns: int, owners: Owners) -> None:
        """Answers may be believed for `valid_ns`."""
        self.owners = owners
        self._uids, self._gids = owners.uids, owners.gids
        self._resolver = resolver
        self._table = resolver.table
        self._devices = resolver.devices
        self._in_memory = resolver.devices.in_memory
        self._device = resolver.devices.root
        self.valid_ns = valid_ns
        self.absent = Entry(0, Attr(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), valid_ns)
        """The answer for a name that is not there."""

    # Looking ----------------------------------------------------------------------------------

    def stat(self, directory: Inode, fd: int, name: bytes) -> os.stat_result:
        """What `name` in `directory` (open as `fd`) is. BlockingIOError if the disk may have to be waited for."""
        if directory.cached_until > monotonic() or directory.key[0] in self._in_memory:
            return os.stat(name, dir_fd=fd, follow_symlinks=False)
        below = self._resolver.descriptors.open_with(open_cached, fd, name, PATH)
        try:
            return os.fstat(below)
        finally:
            os.close(below)

    async def stat_name(self, directory: Inode, name: bytes) -> os.stat_result:
        """`stat` that waits for the disk."""
        fd = await self._resolver.reach(directory)
        try:
            return self.stat(directory, fd, name)
        except BlockingIOError:
            await self._resolver.fill_caches(directory, name)
            return os.stat(name, dir_fd=await self._resolver.reach(directory), follow_symlinks=False)

    # Inodes -----------------------------------------------------------------------------------

    def known(self, found: os.stat_result) -> Inode | None:
        """The inode that has these attributes, if the consumer knows it."""
        return self._table.keys.get((found.st_dev, found.st_ino))

    def found(self, directory: Inode, name: bytes, found: os.stat_result) -> Inode:
        """The inode that `name` in `directory` was just seen to be."""
        key = (found.st_dev, found.st_ino)
        inode = self._table.find(key, found.st_mode & FORMAT, found.st_nlink, directory, name)
        if key[0] != directory.key[0]:
            self._found_mount(directory, name, inode)
        return inode

    def _found_mount(self, directory: Inode, name: bytes, inode: Inode) -> None:
        """Something is mounted there. What the host's kernel makes up is not for guests."""
        device = inode.key[0]
        if device not in self._devices.pseudo:
            fd = self._resolver.open_name(directory.fd, name, PATH, True)
            try:
                self._devices.examine(fd)
            finally:
                os.close(fd)
        inode.pseudo = self._devices.pseudo.get(device, False)

    def born(self, directory: Inode, name: bytes, found: os.stat_result) -> Inode:
        """The inode of what was created just now: another's before, if its key was known."""
        former = self.known(found)
        if former is not None:
            self._table.dead(former)
        now = monotonic()
        if directory.cached_until > now or os.fstat(directory.fd).st_size <= SMALL_DIRECTORY:
            directory.cached_until = now + CACHED_SECONDS
        return self.found(directory, name, found)

    # Answers ----------------------------------------------------------------------------------

    def attr(self, found: os.stat_result) -> Attr:
        """The attributes as the host has them."""
        ino = found.st_ino
        if found.st_dev != self._device:
            ino = self._devices.shown_ino(found.st_dev, ino)
        return Attr(
            ino,
            found.st_mode,
            found.st_nlink,
            self._uids.get(found.st_uid, found.st_uid),
            self._gids.get(found.st_gid, found.st_gid),
            found.st_rdev,
            found.st_size,
            found.st_blocks,
            found.st_atime_ns,
            found.st_mtime_ns,
            found.st_ctime_ns,
            found.st_blksize,
        )

    def attr_of(self, inode: Inode, found: os.stat_result) -> Attr:
        """The attributes as they are shown: a mount of the host's kernel seems empty, and the mtime of what is locked
        is some nanoseconds later after each lock."""
        attr = self.attr(found)
        if inode.locked:
            # Others wrote before they let go of the lock, and may have left size and mtime as they were: clocks are
            # coarse. Told another one, the consumer drops what it has cached of the contents.
            attr.mtime_ns += inode.locked % _EPOCHS
        if inode.pseudo:
            attr.mode &= ~0o222
            attr.size = attr.blocks = 0
            attr.nlink = 2 if inode.kind == stat.S_IFDIR else 1
        return attr

    def entry(self, inode: Inode, found: os.stat_result) -> Entry:
        """The answer for `inode`; counts one lookup."""
        inode.lookups += 1
        attr = self.attr_of(inode, found) if inode.pseudo or inode.locked else self.attr(found)
        return Entry(inode.node, attr, self.valid_ns, self.valid(inode))

    def valid(self, inode: Inode) -> int:
        """For how long (ns) attributes of `inode`, about to be told, may be believed: what is locked is asked for at
        each read."""
        if inode.locked:
            return 0
        inode.answered_at = monotonic()
        return self.valid_ns
