"""Attributes, extended attributes, and the state of the filesystem."""

from __future__ import annotations

import errno
import os

from hostfs.descriptors import WRITE
from hostfs.entries import Entries
from hostfs.handles import Handles
from hostfs.inodes import Inode
from hostfs.opening import Opener
from hostfs.ownership import Owners, change_mode, change_owner, drop_set_id
from hostfs.resolver import FORMAT, Resolver, proc_path
from hostfs.settings import Settings
from umlfs.filesystem import NO_HANDLE, NOW, ROOT, Attr, AttributeOperations, Caller, SetAttr, StatFs
from umlfs.host import syscalls
from umlfs.host.syscalls import UTIME_NOW, UTIME_OMIT, failure

_BIG_TRUNCATE = 1 << 24
"""A truncation that may free more than this many bytes takes the host long enough for a thread."""

HOST_ATTRIBUTES = (b"system.posix_acl_", b"security.selinux", b"security.apparmor", b"security.SMACK64")
"""Extended attributes by which the host's kernel judges access to its files: ours, and not a guest's. A guest's kernel
would neither obey nor keep them; told that there is no such thing here, `ls -l` asks once and not for each file."""


HOST_LABELS = tuple(name for name in HOST_ATTRIBUTES if name.startswith(b"security."))
"""Those of the host's security modules, which mean nothing elsewhere."""


def _check_shared(name: bytes, kept: tuple[bytes, ...]) -> None:
    """EOPNOTSUPP for an extended attribute that stays with the host."""
    if name.startswith(kept):
        raise failure(errno.EOPNOTSUPP)


def _timespec(nanoseconds: int | None) -> tuple[int, int]:
    if nanoseconds is None:
        return 0, UTIME_OMIT
    if nanoseconds == NOW:
        return 0, UTIME_NOW
    return syscalls.timespec(nanoseconds)


class Attributes(AttributeOperations):
    """The operations on attributes, and on the whole; see `Filesystem` for each."""

    def __init__(
        self, resolver: Resolver, settings: Settings, entries: Entries, opener: Opener, handles: Handles, owners: Owners
    ) -> None:
        self._owners = owners
        self._resolver = resolver
        self._settings = settings
        self._entries = entries
        self._opener = opener
        self._handles = handles
        self.kept_names: tuple[bytes, ...] = HOST_ATTRIBUTES
        """How names of extended attributes begin that are not shown."""
        self._nodes = resolver.table.nodes

    async def getattr(self, ino: int, handle: int = NO_HANDLE) -> tuple[Attr, int]:
        if handle:
            file = self._handles.get(handle)
            return self._entries.attr_of(file.inode, os.fstat(file.fd)), self._entries.valid(file.inode)
        inode = self._nodes.get(ino)
        if inode is None:
            raise failure(errno.ESTALE)
        if inode.fd >= 0:
            inode.used = True
            return self._entries.attr_of(inode, os.fstat(inode.fd)), self._entries.valid(inode)
        parent = inode.parent
        if parent is not None and parent.fd >= 0:
            parent.used = True
            try:
                found = self._entries.stat(parent, parent.fd, inode.name)
            except OSError:
                pass
            else:
                key = inode.key
                if found.st_ino == key[1] and found.st_dev == key[0] and found.st_mode & FORMAT == inode.kind:
                    return self._entries.attr_of(inode, found), self._entries.valid(inode)
        return self._entries.attr_of(inode, await self._stat_inode(inode)), self._entries.valid(inode)

    async def _stat_inode(self, inode: Inode) -> os.stat_result:
        if inode.pseudo and inode.parent is not None:
            return await self._entries.stat_name(inode.parent, inode.name)
        return os.fstat(await self._resolver.reach(inode))

    async def setattr(
        self, ino: int, changes: SetAttr, handle: int = NO_HANDLE, caller: Caller | None = None
    ) -> tuple[Attr, int]:
        self._settings.check_writable()
        inode = self._resolver.node(ino)
        if changes.size is not None:
            fd = await self._truncate(inode, handle, changes.size)
        elif handle:
            fd = self._handles.get(handle).fd
        else:
            fd = inode.fd if inode.fd >= 0 else await self._resolver.reach(inode)
        if changes.kill_set_id:
            drop_set_id(fd)
        if changes.uid is not None or changes.gid is not None:
            change_owner(fd, *self._owners.meant(changes.uid, changes.gid))
        if changes.mode is not None:
            change_mode(inode, fd, changes.mode & 0o7777)
        if changes.atime_ns is not None or changes.mtime_ns is not None:
            syscalls.utime(fd, _timespec(changes.atime_ns), _timespec(changes.mtime_ns))
        return self._entries.attr_of(inode, os.fstat(fd)), self._entries.valid(inode)

    async def _truncate(self, inode: Inode, handle: int, size: int) -> int:
        """Set the size; returns a descriptor, valid until the next await."""
        if size >> 63:
            raise failure(errno.EFBIG)
        fd = self._handles.get(handle).fd if handle else await self._opener.reach(inode, WRITE)
        if os.fstat(fd).st_size - size > _BIG_TRUNCATE:
            await self._resolver.in_thread(fd, lambda copy: os.ftruncate(copy, size))
            return self._handles.get(handle).fd if handle else await self._opener.reach(inode, WRITE)
        os.ftruncate(fd, size)
        return fd

    # Extended attributes ----------------------------------------------------------------------

    async def _reach_attributes(self, ino: int) -> str:
        inode = self._resolver.node(ino)
        if inode.pseudo:
            raise failure(errno.EOPNOTSUPP)
        return proc_path(inode.fd if inode.fd >= 0 else await self._resolver.reach(inode))

    async def getxattr(self, ino: int, name: bytes) -> bytes:
        _check_shared(name, self.kept_names)
        return os.getxattr(await self._reach_attributes(ino), name)

    async def setxattr(self, ino: int, name: bytes, value: bytes, flags: int = 0) -> None:
        self._settings.check_writable()
        _check_shared(name, self.kept_names)
        os.setxattr(await self._reach_attributes(ino), name, value, flags)

    async def listxattr(self, ino: int) -> list[bytes]:
        found = map(os.fsencode, os.listxattr(await self._reach_attributes(ino)))
        return [name for name in found if not name.startswith(self.kept_names)]

    async def removexattr(self, ino: int, name: bytes) -> None:
        self._settings.check_writable()
        _check_shared(name, self.kept_names)
        os.removexattr(await self._reach_attributes(ino), name)

    # The whole --------------------------------------------------------------------------------

    async def statfs(self, ino: int = ROOT) -> StatFs:
        inode = self._resolver.node(ino)
        found = os.statvfs(self._resolver.root.fd if inode.pseudo else await self._resolver.reach(inode))
        return StatFs(
            found.f_frsize,
            found.f_blocks,
            found.f_bfree,
            found.f_bavail,
            found.f_files,
            found.f_ffree,
            found.f_namemax,
        )

    async def syncfs(self) -> None:
        if self._resolver.devices.several:
            await self._resolver.in_thread(self._resolver.root.fd, lambda _: os.sync())
        else:
            await self._resolver.in_thread(self._resolver.root.fd, syscalls.syncfs)
