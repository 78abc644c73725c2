"""The session of a mount on the host: `FuseSession`, and what only a host's kernel and its users need."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

from umlfs.filesystem import ROOT, Filesystem
from umlfs.fuse.announcements import Announcements
from umlfs.fuse.announcer import Announcer
from umlfs.fuse.attributes import sized
from umlfs.fuse.session import FuseSession
from umlfs.wire import fuse as wire
from umlfs.wire.fuse import Opcode

STATUS: Final = b"user.umlfs.status"
"""The extended attribute of a mount's root that tells of the mount."""

_NOBODY: Final = -1
_LOCKS: Final = frozenset({Opcode.GETLK, Opcode.SETLK, Opcode.SETLKW})


class _OfProcess(Announcements):
    """The announcer is known by its process: an ordinary user cannot give it a group of its own."""

    def __init__(self, filesystem: Filesystem, pid: int) -> None:
        super().__init__(filesystem, gid=_NOBODY)
        self.pid = pid

    def asked_by(self, header: wire.Header) -> bool:
        return header.pid == self.pid


class MountSession(FuseSession):
    """The server's side of a mount on the host."""

    def __init__(self, filesystem: Filesystem, status: Callable[[int], bytes]) -> None:
        """`status` is what reading `STATUS` of the root gives, by the number of requests answered so far."""
        super().__init__(filesystem)
        self._status = status
        self._get_attribute = self._handlers[Opcode.GETXATTR]
        self._handlers[Opcode.GETXATTR] = self._getxattr
        if filesystem.traits.writeback:
            # The filesystem knows nothing of what the kernel has yet to write: the file is one piece of data.
            del self._handlers[Opcode.LSEEK]
        self._ended = False
        self._announced: _OfProcess | None = None

    def announced_by(self, pid: int) -> Announcer:
        """What answers the announcer from now on, which is the process `pid`."""
        announcements = _OfProcess(self.filesystem, pid)
        self.quick_answer = None  # it does not know who asks
        self.take_announcements(announcements)
        self._announced = announcements
        return announcements.announcer

    def announcer_ended(self) -> None:
        """Its number may be another process's from now on."""
        if self._announced is not None:
            self._announced.pid = _NOBODY

    def end_locks(self) -> None:
        """Nobody is to wait for a lock any longer, nor to begin: ENOLCK, as when a server of NFS has gone."""
        self._ended = True
        self.lock_waits.interrupt_all()

    async def _getxattr(self, header: wire.Header, body: bytes) -> bytes:
        size, _ = wire.fields(wire.GETXATTR_IN, body)
        if header.node == ROOT and wire.string(body, wire.GETXATTR_IN.size) == STATUS:
            self.statistics.requests -= 1  # it is not counted
            return sized(self._status(self.statistics.requests + 1), size)
        try:
            return await self._get_attribute(header, body)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
            # Upon ENOSYS the kernel would never ask again, not for the status either.
            raise OSError(errno.EOPNOTSUPP, "no attributes") from None

    def _check(self, opcode: int, room: int, *, announced: bool = False) -> None:
        super()._check(opcode, room, announced=announced)
        if self._ended and opcode in _LOCKS:
            raise OSError(errno.ENOLCK, "the mount ends")

    def _errno(self, failure: OSError) -> int:
        return errno.ENOLCK if self._ended and failure.errno == errno.EINTR else super()._errno(failure)
