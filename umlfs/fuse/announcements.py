"""FUSE requests of the announcer, which are told by its group, and answered without the filesystem."""

from __future__ import annotations

import errno
import secrets
from typing import Final

from umlfs.filesystem import Filesystem
from umlfs.fuse.announcer import HANDLE, Announcer
from umlfs.fuse.request import Handler
from umlfs.wire import fuse as wire
from umlfs.wire.fuse import Opcode

_GID_MIN: Final = 1 << 31
_GID_MAX: Final = (1 << 32) - 2

_HARMLESS: Final = frozenset(
    {
        Opcode.READLINK,
        Opcode.STATFS,
        Opcode.OPENDIR,
        Opcode.RELEASEDIR,
        Opcode.READDIR,
        Opcode.READDIRPLUS,
        Opcode.ACCESS,
        Opcode.GETXATTR,
        Opcode.LISTXATTR,
        Opcode.INIT,
        Opcode.DESTROY,
        Opcode.SYNCFS,
    }
)
"""What anybody may ask, answered as to anybody."""


def new_gid() -> int:
    """A group that nobody else is in: it is drawn by lot."""
    return secrets.randbelow(_GID_MAX - _GID_MIN) + _GID_MIN


class Announcements:
    """Those of one session."""

    def __init__(self, filesystem: Filesystem, gid: int) -> None:
        """`filesystem` has changes to tell; the announcer is in the group `gid`, and nobody else."""
        changes = filesystem.changes
        assert changes is not None
        self.gid = gid
        self.announcer = Announcer(filesystem, changes)
        self._handlers: dict[int, Handler] = {
            Opcode.LOOKUP: self._lookup,
            Opcode.GETATTR: self._getattr,
            Opcode.SETATTR: self._getattr,
            Opcode.MKNOD: self._maker(wire.MKNOD_IN.size),
            Opcode.MKDIR: self._maker(wire.MKDIR_IN.size),
            Opcode.SYMLINK: self._maker(0),
            Opcode.UNLINK: self._remove,
            Opcode.RMDIR: self._remove,
            Opcode.RENAME: self._renamer(wire.RENAME_IN.size),
            Opcode.RENAME2: self._renamer(wire.RENAME2_IN.size),
            Opcode.OPEN: self._open,
            Opcode.FLUSH: self._nothing,
            Opcode.RELEASE: self._nothing,
        }

    def asked_by(self, header: wire.Header) -> bool:
        """Whether a request is the announcer's."""
        return header.gid == self.gid

    def handler(self, header: wire.Header) -> Handler | None:
        """Who answers a request instead of the filesystem; None for requests that are not the announcer's."""
        if not self.asked_by(header) or header.opcode in _HARMLESS:
            return None
        return self._handlers.get(header.opcode, self._refuse)

    def releaser(self, release: Handler) -> Handler:
        """`release`, but for the announcer's files: the kernel does not say who closes a file."""

        async def released(header: wire.Header, body: bytes) -> bytes:
            handle, *_ = wire.fields(wire.RELEASE_IN, body)
            return b"" if handle == HANDLE else await release(header, body)

        return released

    async def _lookup(self, header: wire.Header, body: bytes) -> bytes:
        return wire.entry_out(await self.announcer.lookup(header.node, wire.name(body)))

    async def _getattr(self, header: wire.Header, body: bytes) -> bytes:
        return wire.attr_out(*await self.announcer.getattr(header.node))

    def _maker(self, start: int) -> Handler:
        async def make(header: wire.Header, body: bytes) -> bytes:
            return wire.entry_out(await self.announcer.make(header.node, wire.name(body, start)))

        return make

    async def _remove(self, header: wire.Header, body: bytes) -> bytes:
        self.announcer.remove(header.node, wire.name(body))
        return b""

    def _renamer(self, start: int) -> Handler:
        async def rename(header: wire.Header, body: bytes) -> bytes:
            new_parent, *_ = wire.fields(wire.RENAME_IN, body)
            old, new = wire.names(body, start)
            self.announcer.rename(header.node, old, new_parent, new)
            return b""

        return rename

    async def _open(self, header: wire.Header, body: bytes) -> bytes:
        return wire.open_out(self.announcer.open())

    async def _nothing(self, header: wire.Header, body: bytes) -> bytes:
        return b""

    async def _refuse(self, header: wire.Header, body: bytes) -> bytes:
        raise OSError(errno.EPERM, "the announcer changes nothing")
