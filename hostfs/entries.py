"""From what the host says of a name to what the consumer is told: entries, attributes, owners of what is new."""

from __future__ import annotations

import errno
import os
import stat
from time import monotonic
from typing import Final

from hostfs.export import FORMAT, PATH, WARM_SECONDS, Export, proc_path
from hostfs.inodes import Inode
from umlfs.filesystem import Attr, Caller, Entry
from umlfs.host.syscalls import UNCHANGED, chown, failure, open_cached

SMALL_DIRECTORY: Final = 256 * 1024
"""A directory of up to this size (in bytes) is in the caches once something was created in it."""
_DEVICE_SHIFT: Final = 48
_INO_MASK: Final = (1 << 64) - 1


def check_name(name: bytes) -> None:
    """EINVAL unless `name` is one path component that leads downwards."""
    if not name or b"/" in name or b"\0" in name or name == b"." or name == b"..":
        raise failure(errno.EINVAL)


class Entries(Export):
    """What the operations on names and files share."""

    def _stat(self, directory: Inode, fd: int, name: bytes) -> os.stat_result:
        """What `name` in `directory` is. BlockingIOError if the disk may have to be waited for."""
        if directory.warm > monotonic() or directory.key[0] in self._in_memory:
            return os.stat(name, dir_fd=fd, follow_symlinks=False)
        below = self._opened(open_cached, fd, name, PATH)
        try:
            return os.fstat(below)
        finally:
            os.close(below)

    async def _stat_name(self, directory: Inode, name: bytes) -> os.stat_result:
        fd = await self._reach(directory)
        try:
            return self._stat(directory, fd, name)
        except BlockingIOError:
            await self._warm(directory, name)
            return os.stat(name, dir_fd=await self._reach(directory), follow_symlinks=False)

    def _found(self, directory: Inode, name: bytes, found: os.stat_result) -> Inode:
        """The inode that `name` in `directory` was just seen to be."""
        key = (found.st_dev, found.st_ino)
        inode = self._table.find(key, found.st_mode & FORMAT, found.st_nlink, directory, name)
        if key[0] != directory.key[0]:
            self._found_mount(directory, name, inode)
        return inode

    def _found_mount(self, directory: Inode, name: bytes, inode: Inode) -> None:
        """Something is mounted there. What the host's kernel makes up is not for guests."""
        device = inode.key[0]
        if device not in self._pseudo:
            fd = self._opened(self._open_waiting, directory.fd, name, PATH)
            try:
                self._examine(fd)
            finally:
                os.close(fd)
        inode.pseudo = self._pseudo.get(device, False)

    def _attr(self, found: os.stat_result) -> Attr:
        ino = found.st_ino
        if found.st_dev != self._device:
            ino = self._mixed_ino(found.st_dev, ino)
        return Attr(
            ino,
            found.st_mode,
            found.st_nlink,
            found.st_uid,
            found.st_gid,
            found.st_rdev,
            found.st_size,
            found.st_blocks,
            found.st_atime_ns,
            found.st_mtime_ns,
            found.st_ctime_ns,
            found.st_blksize,
        )

    def _mixed_ino(self, device: int, ino: int) -> int:
        """An inode number of another device, told apart from the root's by its high bits."""
        index = self._devices.setdefault(device, len(self._devices))
        return (ino ^ index << _DEVICE_SHIFT) & _INO_MASK

    def _attr_of(self, inode: Inode, found: os.stat_result) -> Attr:
        attr = self._attr(found)
        if inode.pseudo:
            attr.mode &= ~0o222
            attr.size = attr.blocks = 0
            attr.nlink = 2 if inode.kind == stat.S_IFDIR else 1
        return attr

    def _entry(self, inode: Inode, found: os.stat_result) -> Entry:
        """The answer for `inode`; counts one lookup."""
        inode.lookups += 1
        attr = self._attr_of(inode, found) if inode.pseudo else self._attr(found)
        return Entry(inode.node, attr, self._valid, self._valid)

    def _born(self, directory: Inode, name: bytes, found: os.stat_result) -> Inode:
        """The inode of what was created just now: another's before, if its key was known."""
        former = self._keys.get((found.st_dev, found.st_ino))
        if former is not None:
            self._table.dead(former)
        now = monotonic()
        if directory.warm > now or os.fstat(directory.fd).st_size <= SMALL_DIRECTORY:
            directory.warm = now + WARM_SECONDS
        return self._found(directory, name, found)

    # Owners and modes -------------------------------------------------------------------------

    def _adopt(self, fd: int, found: os.stat_result, directory: int, mode: int, caller: Caller) -> os.stat_result:
        """Give what was created just now (open as `fd`) the owner and the mode it was asked for.

        It was created without set-id bits, lest they ever stand with the wrong owner.
        """
        changed = False
        if self._privileged and (found.st_uid != caller.uid or found.st_gid != caller.gid):
            gid = caller.gid
            if found.st_gid != self._egid or os.fstat(directory).st_mode & stat.S_ISGID:
                gid = UNCHANGED  # the directory's
            chown(fd, caller.uid, gid)
            changed = True
        if not stat.S_ISLNK(found.st_mode):
            wanted = mode & 0o7777
            if stat.S_ISDIR(found.st_mode):
                wanted |= found.st_mode & stat.S_ISGID
            if wanted & (self._umask | 0o7000) and wanted != found.st_mode & 0o7777:
                os.chmod(proc_path(fd), wanted)
                changed = True
        return os.fstat(fd) if changed else found

    def _adopt_named(self, directory: int, name: bytes, mode: int, caller: Caller) -> os.stat_result:
        """`_adopt` for what has no descriptor. What replaced it meanwhile is left alone."""
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        owned = not self._privileged or (found.st_uid == caller.uid and found.st_gid == caller.gid)
        if owned and (stat.S_ISLNK(found.st_mode) or not mode & (self._umask | 0o7000)):
            return found
        fd = self._opened(self._open_waiting, directory, name, PATH)
        try:
            found = os.fstat(fd)
            if found.st_uid != os.geteuid() or found.st_nlink != 1:
                return found
            return self._adopt(fd, found, directory, mode, caller)
        finally:
            os.close(fd)
