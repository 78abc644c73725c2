"""FUSE requests about attributes, extended ones and permissions."""

from __future__ import annotations

import errno
import os
from typing import Final

from umlfs.filesystem import ACL_KILL_SGID, NAME_MAX, NO_HANDLE, Filesystem
from umlfs.fuse.request import Handler, caller
from umlfs.wire import fuse as wire
from umlfs.wire.fuse import Opcode

OVERLAY_NAMES: Final = b"trusted.overlay."
"""How the names begin of the marks that an overlay leaves in its layers."""
ACCESS_LISTS: Final = b"system.posix_acl_"


class AttributeRequests:
    """Those of one session."""

    def __init__(self, filesystem: Filesystem, *, lower_layer: bool = False) -> None:
        """With `lower_layer` the consumer has an overlay over it: see `Session`."""
        self._filesystem = filesystem
        self._layer_names = (OVERLAY_NAMES,) if lower_layer else ()
        self._no_lists = lower_layer and not filesystem.traits.posix_acl
        self.setxattr_in = wire.SETXATTR_IN
        """The layout that was agreed on for SETXATTR."""

    def handlers(self) -> dict[int, Handler]:
        return {
            Opcode.GETATTR: self.getattr,
            Opcode.SETATTR: self.setattr,
            Opcode.ACCESS: self.access,
            Opcode.SETXATTR: self.setxattr,
            Opcode.GETXATTR: self.getxattr,
            Opcode.LISTXATTR: self.listxattr,
            Opcode.REMOVEXATTR: self.removexattr,
        }

    async def getattr(self, header: wire.Header, body: bytes) -> bytes:
        flags, _, handle = wire.fields(wire.GETATTR_IN, body)
        return wire.attr_out(*await self._filesystem.getattr(header.node, handle if flags & 1 else NO_HANDLE))

    async def setattr(self, header: wire.Header, body: bytes) -> bytes:
        changes, handle = wire.setattr_in(body)
        done = await self._filesystem.setattr(header.node, changes, handle or NO_HANDLE, caller(header))
        return wire.attr_out(*done)

    async def access(self, header: wire.Header, body: bytes) -> bytes:
        mask, _ = wire.fields(wire.ACCESS_IN, body)
        if mask & ~(os.R_OK | os.W_OK | os.X_OK):
            raise wire.WireError(f"access mask {mask:#x}")
        await self._filesystem.access(header.node, mask, caller(header))
        return b""

    async def getxattr(self, header: wire.Header, body: bytes) -> bytes:
        size, _ = wire.fields(wire.GETXATTR_IN, body)
        name = self._attribute(body, wire.GETXATTR_IN.size)
        if name.startswith(self._layer_names):  # most of what an overlay asks: nobody else need be asked
            raise OSError(errno.ENODATA, "no mark of an overlay")
        if self._no_lists and name.startswith(ACCESS_LISTS):
            raise OSError(errno.EOPNOTSUPP, "no access lists")
        return sized(await self._filesystem.getxattr(header.node, name), size)

    async def listxattr(self, header: wire.Header, body: bytes) -> bytes:
        size, _ = wire.fields(wire.GETXATTR_IN, body)
        found = await self._filesystem.listxattr(header.node)
        found = [name for name in found if not self._is_hidden(name)]
        return sized(b"".join(name + b"\0" for name in found), size)

    def _is_hidden(self, name: bytes) -> bool:
        return name.startswith(self._layer_names) or (self._no_lists and name.startswith(ACCESS_LISTS))

    async def setxattr(self, header: wire.Header, body: bytes) -> bytes:
        layout = self.setxattr_in
        size, flags, *more = wire.fields(layout, body)
        name = self._attribute(body, layout.size)
        start = layout.size + len(name) + 1
        value = body[start : start + size]
        if len(value) != size or flags & ~(os.XATTR_CREATE | os.XATTR_REPLACE):
            raise wire.WireError(f"flags {flags:#x}, {len(value)} bytes of an attribute of {size}")
        if more and more[0] & wire.SETXATTR_ACL_KILL_SGID and self._filesystem.traits.posix_acl:
            flags |= ACL_KILL_SGID
        await self._filesystem.setxattr(header.node, name, value, flags)
        return b""

    async def removexattr(self, header: wire.Header, body: bytes) -> bytes:
        await self._filesystem.removexattr(header.node, self._attribute(body))
        return b""

    @staticmethod
    def _attribute(body: bytes, start: int = 0) -> bytes:
        """The name of an extended attribute."""
        name = wire.string(body, start)
        if not 0 < len(name) <= NAME_MAX:
            raise OSError(errno.ERANGE, "the name of an attribute")
        return name


def sized(value: bytes, size: int) -> bytes:
    """An extended attribute for a caller with room for `size` bytes; 0 asks how many there are. ERANGE."""
    if not size:
        return wire.size_out(len(value))
    if len(value) > size:
        raise OSError(errno.ERANGE, "extended attribute too long")
    return value
