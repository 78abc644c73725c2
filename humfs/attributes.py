"""Attributes, extended attributes, and the state of the filesystem."""

from __future__ import annotations

import errno
import os
import stat
import time
from typing import Final

from humfs import acl
from humfs import store as sql
from humfs.core import LABEL, Core
from humfs.files import Files
from humfs.inodes import Inode
from humfs.journal import Change
from umlfs.filesystem import (
    ACL_KILL_SGID,
    FOREVER,
    NO_HANDLE,
    NOW,
    ROOT,
    Attr,
    AttributeOperations,
    Caller,
    SetAttr,
    StatFs,
)
from umlfs.host.syscalls import failure

BLOCK: Final = 4096
VALUE_MAX: Final = 64 * 1024
"""The longest value of an extended attribute, and all names and values of an inode together: Linux's own limit."""
XATTR_CREATE: Final = 1
XATTR_REPLACE: Final = 2

_NAMESPACES: Final = (b"user.", b"trusted.", b"security.")
_LISTS: Final = (acl.ACCESS, acl.DEFAULT)
_ID_MAX: Final = 0xFFFF_FFFE


class Attributes(AttributeOperations):
    """The operations on attributes, and on the whole; see `Filesystem` for each."""

    def __init__(self, core: Core, files: Files) -> None:
        self._core = core
        self._files = files
        self._inodes = core.inodes

    async def getattr(self, ino: int, handle: int = NO_HANDLE) -> tuple[Attr, int]:
        inode = self._inodes.get(ino) or self._core.load(ino)
        return inode.attr(), FOREVER

    async def setattr(
        self, ino: int, changes: SetAttr, handle: int = NO_HANDLE, caller: Caller | None = None
    ) -> tuple[Attr, int]:
        await self._core.before_change()
        inode = self._core.node(ino)
        if changes.size is not None:
            if changes.kill_set_id:
                self._core.drop_set_id(inode)
            else:
                self._core.drop_capabilities(inode)
            await self._files.truncate(inode, changes.size)
        lists: list[Change] = []
        before = inode.values()
        if changes.uid is not None or changes.gid is not None:
            self._chown(inode, changes)
        if changes.mode is not None:
            lists = self._chmod(inode, changes.mode & 0o7777)
        self._set_times(inode, changes, inode.values() != before or bool(lists))
        if lists or inode.values() != before:
            self._core.apply((sql.PUT_INODE, inode.values()), *lists)
        return inode.attr(), FOREVER

    def _chown(self, inode: Inode, changes: SetAttr) -> None:
        for number in (changes.uid, changes.gid):
            if number is not None and not 0 <= number <= _ID_MAX:
                raise failure(errno.EINVAL)
        if changes.uid is not None:
            inode.uid = changes.uid
        if changes.gid is not None:
            inode.gid = changes.gid
        if not inode.is_directory:
            self._core.drop_set_id(inode)

    def _chmod(self, inode: Inode, mode: int) -> list[Change]:
        """Set the permission bits; returns the rows to change of an access control list that goes with them."""
        inode.mode = stat.S_IFMT(inode.mode) | mode
        value = self._core.store.xattr(inode.ino, acl.ACCESS) if inode.xattrs else None
        if value is None:
            return []
        return [(sql.PUT_XATTR, (inode.ino, acl.ACCESS, acl.encode(acl.with_mode(acl.decode(value), mode))))]

    @staticmethod
    def _set_times(inode: Inode, changes: SetAttr, changed: bool) -> None:
        now = time.time_ns()
        if changes.atime_ns is not None:
            inode.atime_ns = now if changes.atime_ns == NOW else changes.atime_ns
        if changes.mtime_ns is not None:
            inode.mtime_ns = now if changes.mtime_ns == NOW else changes.mtime_ns
        if changes.ctime_ns is not None:
            inode.ctime_ns = changes.ctime_ns
        elif changed or changes.atime_ns is not None or changes.mtime_ns is not None:
            inode.ctime_ns = now

    async def access(self, ino: int, mask: int, caller: Caller) -> None:
        """By owner, group and permission bits alone: supplementary groups and lists are the consumer's to know."""
        inode = self._core.node(ino)
        if caller.uid == 0:
            if mask & os.X_OK and not inode.is_directory and not inode.mode & 0o111:
                raise failure(errno.EACCES)
            return
        shift = 6 if caller.uid == inode.uid else 3 if caller.gid == inode.gid else 0
        if mask & ~(inode.mode >> shift) & 7:
            raise failure(errno.EACCES)

    # Extended attributes ----------------------------------------------------------------------

    async def getxattr(self, ino: int, name: bytes) -> bytes:
        inode = self._inodes.get(ino) or self._core.load(ino)
        value = self._core.store.xattr(ino, name) if inode.xattrs else None
        if value is None:
            raise failure(errno.ENODATA if self._has(name) else errno.EOPNOTSUPP)
        return value

    def _has(self, name: bytes) -> bool:
        """Whether attributes of this name can be expected at all."""
        if name in _LISTS:
            return self._core.traits.posix_acl
        if name == LABEL:
            return self._core.labelled
        return name.startswith(_NAMESPACES)

    async def listxattr(self, ino: int) -> list[bytes]:
        inode = self._core.node(ino)
        return [name for name, _ in self._core.store.xattrs(ino)] if inode.xattrs else []

    async def setxattr(self, ino: int, name: bytes, value: bytes, flags: int = 0) -> None:
        await self._core.before_change()
        if name in _LISTS and not self._core.traits.posix_acl:
            raise failure(errno.EOPNOTSUPP)
        self.put_xattr(self._core.node(ino), name, value, flags)

    def put_xattr(self, inode: Inode, name: bytes, value: bytes, flags: int = 0) -> None:
        """`setxattr`, without waiting."""
        _check_xattr(inode, name)
        self._core.labelled = self._core.labelled or name == LABEL
        there = self._core.store.xattr(inode.ino, name) if inode.xattrs else None
        if flags & XATTR_CREATE and there is not None:
            raise failure(errno.EEXIST)
        if flags & XATTR_REPLACE and there is None:
            raise failure(errno.ENODATA)
        if name in _LISTS:
            value = self._take_list(inode, name, value)
            if flags & ACL_KILL_SGID:
                inode.mode &= ~stat.S_ISGID
            if not value:
                inode.ctime_ns = time.time_ns()
                self._core.remove_xattr(inode, name)
                self._core.apply((sql.PUT_INODE, inode.values()))
                return
        self._room_for_value(inode, name, value, there)
        inode.xattrs = 1
        inode.ctime_ns = time.time_ns()
        self._core.apply((sql.PUT_XATTR, (inode.ino, name, value)), (sql.PUT_INODE, inode.values()))
        self._core.volume.used += len(value) - len(there) if there is not None else len(name) + len(value)

    def _room_for_value(self, inode: Inode, name: bytes, value: bytes, there: bytes | None) -> None:
        if len(value) > VALUE_MAX:
            raise failure(errno.E2BIG)
        others = sum(len(a) + len(b) for a, b in self._core.store.xattrs(inode.ino) if a != name) if inode.xattrs else 0
        if others + len(name) + len(value) > VALUE_MAX + 256:
            raise failure(errno.ENOSPC)
        if self._core.volume.used + len(value) - len(there or b"") > self._core.volume.superblock.total:
            raise failure(errno.ENOSPC)

    def _take_list(self, inode: Inode, name: bytes, value: bytes) -> bytes:
        """Check an access control list and bring the permission bits in step; empty if there is nothing to keep."""
        try:
            entries = acl.decode(value)
        except ValueError:
            raise failure(errno.EINVAL) from None
        if name == acl.DEFAULT:
            if entries and not inode.is_directory:
                raise failure(errno.EACCES)
            return acl.encode(entries) if entries else b""
        if not entries:
            return b""
        inode.mode = inode.mode & ~0o777 | acl.mode_of(entries)
        return b"" if acl.is_minimal(entries) else acl.encode(entries)

    async def removexattr(self, ino: int, name: bytes) -> None:
        await self._core.before_change()
        inode = self._core.node(ino)
        _check_xattr(inode, name)
        if not inode.xattrs or self._core.store.xattr(ino, name) is None:
            raise failure(errno.ENODATA)
        self._core.remove_xattr(inode, name)
        inode.ctime_ns = time.time_ns()
        self._core.mark_dirty(inode)

    # The whole --------------------------------------------------------------------------------

    async def statfs(self, ino: int = ROOT) -> StatFs:
        self._core.node(ino)
        total = self._core.volume.superblock.total // BLOCK
        free = max(0, self._core.volume.superblock.total - self._core.volume.used) // BLOCK
        host = os.statvfs(self._core.host.directories.root)
        available = min(free, host.f_bavail * host.f_frsize // BLOCK)
        files_free = max(0, self._core.inodes_max - self._core.used_inodes)
        return StatFs(BLOCK, total, free, available, self._core.inodes_max, files_free)


def _is_known(name: bytes) -> bool:
    return name.startswith(_NAMESPACES) or name in _LISTS


def _check_xattr(inode: Inode, name: bytes) -> None:
    """EOPNOTSUPP for a namespace that is not kept, ERANGE for a name too long, EPERM where Linux allows no user's."""
    if len(name) > 255:
        raise failure(errno.ERANGE)
    if not _is_known(name) or name in _NAMESPACES:
        raise failure(errno.EOPNOTSUPP)
    if name.startswith(b"user.") and not (inode.is_file or inode.is_directory):
        raise failure(errno.EPERM)
