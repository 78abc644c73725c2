"""FUSE requests that make, find and change names."""

from __future__ import annotations

import errno
import stat
from typing import Final

from umlfs.filesystem import Filesystem
from umlfs.fuse.request import Handler, caller
from umlfs.wire import fuse as wire
from umlfs.wire.fuse import Opcode

_RENAME_FLAGS: Final = 7
"""NOREPLACE, EXCHANGE and WHITEOUT."""


class NameRequests:
    """Those of one session."""

    def __init__(self, filesystem: Filesystem) -> None:
        self._filesystem = filesystem

    def handlers(self) -> dict[int, Handler]:
        return {
            Opcode.LOOKUP: self.lookup,
            Opcode.READLINK: self.readlink,
            Opcode.SYMLINK: self.symlink,
            Opcode.MKNOD: self.mknod,
            Opcode.MKDIR: self.mkdir,
            Opcode.UNLINK: self.unlink,
            Opcode.RMDIR: self.rmdir,
            Opcode.RENAME: self.rename,
            Opcode.RENAME2: self.rename2,
            Opcode.LINK: self.link,
        }

    async def lookup(self, header: wire.Header, body: bytes) -> bytes:
        return wire.entry_out(await self._filesystem.lookup(header.node, wire.name(body)))

    async def mknod(self, header: wire.Header, body: bytes) -> bytes:
        mode, rdev, umask, _ = wire.fields(wire.MKNOD_IN, body)
        name = wire.name(body, wire.MKNOD_IN.size)
        mode &= 0o177777
        if stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
            raise OSError(errno.EINVAL, "mknod of a directory or a symlink")
        by = caller(header)
        device = wire.device_in(rdev)
        return wire.entry_out(await self._filesystem.mknod(header.node, name, mode, device, umask & 0o777, by))

    async def mkdir(self, header: wire.Header, body: bytes) -> bytes:
        mode, umask = wire.fields(wire.MKDIR_IN, body)
        name = wire.name(body, wire.MKDIR_IN.size)
        mode, umask, by = stat.S_IMODE(mode), umask & 0o777, caller(header)
        return wire.entry_out(await self._filesystem.mkdir(header.node, name, mode, umask, by))

    async def symlink(self, header: wire.Header, body: bytes) -> bytes:
        name = wire.name(body)
        target = wire.string(body, len(name) + 1)
        return wire.entry_out(await self._filesystem.symlink(header.node, name, target, caller(header)))

    async def readlink(self, header: wire.Header, body: bytes) -> bytes:
        return await self._filesystem.readlink(header.node)

    async def link(self, header: wire.Header, body: bytes) -> bytes:
        (old,) = wire.fields(wire.LINK_IN, body)
        name = wire.name(body, wire.LINK_IN.size)
        return wire.entry_out(await self._filesystem.link(old, header.node, name))

    async def unlink(self, header: wire.Header, body: bytes) -> bytes:
        await self._filesystem.unlink(header.node, wire.name(body))
        return b""

    async def rmdir(self, header: wire.Header, body: bytes) -> bytes:
        await self._filesystem.rmdir(header.node, wire.name(body))
        return b""

    async def rename(self, header: wire.Header, body: bytes) -> bytes:
        (new_parent,) = wire.fields(wire.RENAME_IN, body)
        old, new = wire.names(body, wire.RENAME_IN.size)
        await self._filesystem.rename(header.node, old, new_parent, new)
        return b""

    async def rename2(self, header: wire.Header, body: bytes) -> bytes:
        new_parent, flags, _ = wire.fields(wire.RENAME2_IN, body)
        if flags & ~_RENAME_FLAGS:
            raise wire.WireError(f"rename flags {flags:#x}")
        old, new = wire.names(body, wire.RENAME2_IN.size)
        await self._filesystem.rename(header.node, old, new_parent, new, flags)
        return b""
