"""FUSE requests to a `Filesystem`: one `FuseSession` for each mount, whatever carries the requests.

A request is two lists of buffers: what the kernel wrote, and where the answer goes. File contents are read
straight into the buffers of the answer and written straight from those of the request; all else is small.
The kernel on the other side is hostile: what it gets wrong is answered with an errno.
"""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING, Final

from umlfs.buffers import Buffers, after, scatter, total
from umlfs.filesystem import Filesystem
from umlfs.fuse.attributes import AttributeRequests
from umlfs.fuse.files import CONTENTS_MAX, MAX_PAGES, FileRequests
from umlfs.fuse.locks import LockRequests, LockWaits
from umlfs.fuse.names import NameRequests
from umlfs.fuse.request import Handler, Mover
from umlfs.statistics import Statistics
from umlfs.wire import fuse as wire
from umlfs.wire.fuse import Init, Opcode

if TYPE_CHECKING:
    from umlfs.fuse.announcements import Announcements

log = logging.getLogger(__name__)

MAX_BACKGROUND: Final = 64
"""Readahead and writeback requests that the kernel may have under way at once."""

_CHANGES: Final = frozenset(
    {
        Opcode.SETATTR,
        Opcode.SYMLINK,
        Opcode.MKNOD,
        Opcode.MKDIR,
        Opcode.UNLINK,
        Opcode.RMDIR,
        Opcode.RENAME,
        Opcode.RENAME2,
        Opcode.LINK,
        Opcode.WRITE,
        Opcode.SETXATTR,
        Opcode.REMOVEXATTR,
        Opcode.CREATE,
        Opcode.FALLOCATE,
        Opcode.COPY_FILE_RANGE,
    }
)
_NO_ANSWER: Final = frozenset({Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT})

_HEADER: Final = wire.OUT_HEADER.size
_ROOM: Final[dict[int, int]] = {
    **dict.fromkeys((Opcode.GETATTR, Opcode.SETATTR), _HEADER + wire.ATTR_OUT_SIZE),
    **dict.fromkeys(
        (Opcode.LOOKUP, Opcode.SYMLINK, Opcode.MKNOD, Opcode.MKDIR, Opcode.LINK), _HEADER + wire.ENTRY_OUT_SIZE
    ),
    **dict.fromkeys((Opcode.OPEN, Opcode.OPENDIR), _HEADER + wire.OPEN_OUT_SIZE),
    Opcode.GETLK: _HEADER + wire.LOCK_OUT.size,
    **dict.fromkeys((Opcode.WRITE, Opcode.COPY_FILE_RANGE), _HEADER + wire.SIZE_OUT_SIZE),
    Opcode.CREATE: _HEADER + wire.ENTRY_OUT_SIZE + wire.OPEN_OUT_SIZE,
    Opcode.INIT: _HEADER + wire.INIT_OUT_SIZE,
}
"""The room that an answer takes at least: without it nothing is begun that the kernel would not hear of."""


class FuseSession:
    """The server's side of one mount of `filesystem`."""

    def __init__(
        self,
        filesystem: Filesystem,
        *,
        read_only: bool = False,
        lower_layer: bool = False,
        statistics: Statistics | None = None,
        announcements: Announcements | None = None,
        lock_waits: LockWaits | None = None,
    ) -> None:
        """With `read_only` every change is answered EROFS, whatever the filesystem would do.

        With `lower_layer` the consumer mounts an overlay over it. The marks of other overlays in it are not that
        one's, so there are none; nor are there access lists that nobody's kernel would enforce (`ls -l` then asks
        once, and not for each file). `announcements` answers what tells the kernel's programs of changes.
        """
        self.filesystem = filesystem
        self.read_only = read_only or filesystem.traits.read_only
        self.statistics = Statistics() if statistics is None else statistics
        """The session counts bytes, whoever carries the requests counts these."""
        self.mounted = False
        """INIT was answered, and DESTROY did not follow."""
        self._attributes = AttributeRequests(filesystem, lower_layer=lower_layer)
        self.lock_waits = LockWaits() if lock_waits is None else lock_waits
        files = FileRequests(filesystem, self.statistics, read_only=self.read_only)
        self._handlers: dict[int, Handler] = {
            **NameRequests(filesystem).handlers(),
            **self._attributes.handlers(),
            **files.handlers(),
            **LockRequests(filesystem, self.lock_waits).handlers(),
            Opcode.INIT: self._init,
            Opcode.DESTROY: self._destroy,
            Opcode.STATFS: self._statfs,
            Opcode.SYNCFS: self._syncfs,
        }
        self._movers: dict[int, Mover] = files.movers()
        self.quick_answer = filesystem.quick_answers(
            self,
            lower_layer=lower_layer,
            read_only=self.read_only,
            others=-1 if announcements is None else announcements.gid,
        )
        """Answers what can be answered at once, if anything does; the rest is for `handle`."""
        self._announcements: Announcements | None = None
        if announcements is not None:
            self.take_announcements(announcements)

    def take_announcements(self, announcements: Announcements) -> None:
        """Have these answer what tells the kernel's programs of changes. Once."""
        self._announcements = announcements
        self._handlers[Opcode.RELEASE] = announcements.releaser(self._handlers[Opcode.RELEASE])

    async def handle(self, request: Buffers, answer: Buffers) -> int:
        """Do one request; returns how many bytes of `answer` were written. Raises nothing but cancellation.

        Both lists are used up.
        """
        unique = error = length = 0
        payload = b""
        room = total(answer)
        try:
            header = wire.header(request)
            unique, opcode = header.unique, header.opcode
            if opcode in _NO_ANSWER:
                self._forget(header, wire.body(request))
                return 0
            announced = self._announcements and self._announcements.handler(header)
            self._check(opcode, room, announced=announced is not None)
            if (handler := announced or self._handlers.get(opcode)) is not None:
                payload = await handler(header, wire.body(request))
                length = len(payload)
                if _HEADER + length > room:
                    raise OSError(errno.ERANGE, "no room for the answer")
            elif (mover := self._movers.get(opcode)) is not None:
                length = await mover(header, request, after(answer, _HEADER))
            else:
                raise OSError(errno.ENOSYS, f"opcode {opcode}")
        except OSError as failure:
            error = self._errno(failure)
        except wire.WireError as failure:
            log.debug("bad request: %s", failure)
            error = errno.EINVAL
        except Exception:
            log.exception("a request failed")
            error = errno.EIO
        if room < _HEADER:
            return 0
        if error:
            payload, length = b"", 0
        scatter(wire.OUT_HEADER.pack(_HEADER + length, -error, unique) + payload, answer)
        return _HEADER + length

    def _check(self, opcode: int, room: int, *, announced: bool = False) -> None:
        """Whether a request may be begun at all. What is only `announced` changes nothing."""
        if room < _ROOM.get(opcode, _HEADER):
            raise wire.WireError(f"room for an answer of {room} bytes")
        if not self.mounted and opcode != Opcode.INIT:
            raise OSError(errno.EIO, "not mounted")
        if self.filesystem.failure is not None:
            raise OSError(errno.EIO, "the filesystem failed")
        if self.read_only and opcode in _CHANGES and not announced:
            raise OSError(errno.EROFS, "read-only")

    def disconnect(self) -> None:
        """The kernel is gone: everything that it held is given back."""
        self.mounted = False
        self.filesystem.disconnect()

    def _errno(self, failure: OSError) -> int:
        """What the kernel is told of an error."""
        # The kernel takes numbers below 512 only; larger ones are its own.
        number = failure.errno or errno.EIO
        return number if 0 < number < 512 else errno.EIO

    # The mount --------------------------------------------------------------------------------

    async def _init(self, header: wire.Header, body: bytes) -> bytes:
        major, minor, readahead, offered = wire.init_in(body)
        if major > wire.MAJOR:
            return wire.init_again_out()
        if (major, minor) < (wire.MAJOR, wire.MINOR_MIN):
            raise OSError(errno.EPROTO, f"FUSE {major}.{minor}")
        if self.mounted:
            self.disconnect()
        taken = self._wanted() & offered
        self._attributes.setxattr_in = wire.SETXATTR_IN if taken & Init.SETXATTR_EXT else wire.SETXATTR_SHORT_IN
        self.mounted = True
        return wire.init_out(taken, min(readahead, CONTENTS_MAX), CONTENTS_MAX, MAX_PAGES, MAX_BACKGROUND)

    def _wanted(self) -> Init:
        traits = self.filesystem.traits
        wanted = (
            Init.ASYNC_READ
            | Init.BIG_WRITES
            | Init.DO_READDIRPLUS
            | Init.ASYNC_DIO
            | Init.PARALLEL_DIROPS
            | Init.MAX_PAGES
            | Init.CACHE_SYMLINKS
            | Init.SETXATTR_EXT
            | Init.INIT_EXT
        )
        if traits.writeback and not self.read_only:
            wanted |= Init.WRITEBACK_CACHE
        if traits.shared:
            wanted |= Init.AUTO_INVAL_DATA
        if traits.locks:
            wanted |= Init.POSIX_LOCKS | Init.FLOCK_LOCKS
        if traits.kills_set_id:
            wanted |= Init.HANDLE_KILLPRIV_V2
        if traits.direct_maps:
            wanted |= Init.DIRECT_IO_ALLOW_MMAP
        if traits.posix_acl:
            wanted |= Init.POSIX_ACL | Init.DONT_MASK
        return wanted

    async def _destroy(self, header: wire.Header, body: bytes) -> bytes:
        self.disconnect()
        return b""

    async def _statfs(self, header: wire.Header, body: bytes) -> bytes:
        return wire.statfs_out(await self.filesystem.statfs(header.node))

    async def _syncfs(self, header: wire.Header, body: bytes) -> bytes:
        await self.filesystem.syncfs()
        return b""

    def _forget(self, header: wire.Header, body: bytes) -> None:
        if not self.mounted:
            return
        if header.opcode == Opcode.INTERRUPT:
            self.lock_waits.interrupt(*wire.fields(wire.INTERRUPT_IN, body))
        elif header.opcode == Opcode.FORGET:
            (count,) = wire.fields(wire.FORGET_IN, body)
            self.filesystem.forget(header.node, count)
        elif header.opcode == Opcode.BATCH_FORGET:
            for node, count in wire.forgets(body):
                self.filesystem.forget(node, count)
