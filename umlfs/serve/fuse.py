"""FUSE requests to a `Filesystem`: one `Session` for each mount, whatever carries the requests.

A request is two lists of buffers: what the kernel wrote, and where the answer goes. File contents are read
straight into the buffers of the answer and written straight from those of the request; all else is small.
The kernel on the other side is hostile: what it gets wrong is answered with an errno.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Awaitable, Callable
from typing import Final

from umlfs.filesystem import ACL_KILL_SGID, NAME_MAX, NO_HANDLE, Caller, Filesystem
from umlfs.serve import fuse_wire as wire
from umlfs.serve.buffers import Buffers, after, limit, put, size_of, take
from umlfs.serve.fuse_wire import Init, Opcode
from umlfs.serve.statistics import Statistics

log = logging.getLogger(__name__)

MAX_PAGES: Final = 256
"""Pages of contents in one request; the kernel takes less where its ring is smaller."""
PAGE: Final = 4096
CONTENTS_MAX: Final = MAX_PAGES * PAGE
"""The largest READ and WRITE that the kernel was told it may send."""
LISTING_MAX: Final = 64 * 1024
"""The longest answer to READDIR. Linux asks for a page; a longer one would keep others waiting."""
COPY_MAX: Final = 1 << 30
"""The most that one COPY_FILE_RANGE copies; the kernel goes on from there."""
MAX_BACKGROUND: Final = 64
"""Readahead and writeback requests that the kernel may have under way at once."""

Handler = Callable[[wire.Header, bytes], Awaitable[bytes]]
"""From header and body to the answer."""
Mover = Callable[[wire.Header, Buffers, Buffers], Awaitable[int]]
"""Reads the body, or contents, from the first buffers, and writes the answer into the second; returns its length."""

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

_OPEN_FLAGS: Final = (1 << 31) - 1
"""What fits open(2)'s flags."""
_RENAME_FLAGS: Final = 7
"""NOREPLACE, EXCHANGE and WHITEOUT."""

_HEADER: Final = wire.OUT_HEADER.size
_ROOM: Final[dict[int, int]] = {
    **dict.fromkeys((Opcode.GETATTR, Opcode.SETATTR), _HEADER + wire.ATTR_OUT_SIZE),
    **dict.fromkeys(
        (Opcode.LOOKUP, Opcode.SYMLINK, Opcode.MKNOD, Opcode.MKDIR, Opcode.LINK), _HEADER + wire.ENTRY_OUT_SIZE
    ),
    **dict.fromkeys((Opcode.OPEN, Opcode.OPENDIR), _HEADER + wire.OPEN_OUT_SIZE),
    **dict.fromkeys((Opcode.WRITE, Opcode.COPY_FILE_RANGE), _HEADER + wire.SIZE_OUT_SIZE),
    Opcode.CREATE: _HEADER + wire.ENTRY_OUT_SIZE + wire.OPEN_OUT_SIZE,
    Opcode.INIT: _HEADER + wire.INIT_OUT_SIZE,
}
"""The room that an answer takes at least: without it nothing is begun that the kernel would not hear of."""


class Session:
    """The server's side of one mount of `filesystem`."""

    def __init__(self, filesystem: Filesystem, *, read_only: bool = False) -> None:
        """With `read_only` every change is answered EROFS, whatever the filesystem would do."""
        self.filesystem = filesystem
        self.read_only = read_only or filesystem.traits.read_only
        self.statistics = Statistics()
        """The session counts bytes, whoever carries the requests counts these."""
        self.mounted = False
        """INIT was answered, and DESTROY did not follow."""
        self._setxattr_in = wire.SETXATTR_IN
        self._handlers: dict[int, Handler] = {
            Opcode.LOOKUP: self._lookup,
            Opcode.GETATTR: self._getattr,
            Opcode.SETATTR: self._setattr,
            Opcode.READLINK: self._readlink,
            Opcode.SYMLINK: self._symlink,
            Opcode.MKNOD: self._mknod,
            Opcode.MKDIR: self._mkdir,
            Opcode.UNLINK: self._unlink,
            Opcode.RMDIR: self._rmdir,
            Opcode.RENAME: self._rename,
            Opcode.RENAME2: self._rename2,
            Opcode.LINK: self._link,
            Opcode.OPEN: self._open,
            Opcode.STATFS: self._statfs,
            Opcode.RELEASE: self._release,
            Opcode.FSYNC: self._fsync,
            Opcode.SETXATTR: self._setxattr,
            Opcode.GETXATTR: self._getxattr,
            Opcode.LISTXATTR: self._listxattr,
            Opcode.REMOVEXATTR: self._removexattr,
            Opcode.FLUSH: self._flush,
            Opcode.INIT: self._init,
            Opcode.OPENDIR: self._opendir,
            Opcode.RELEASEDIR: self._releasedir,
            Opcode.FSYNCDIR: self._fsyncdir,
            Opcode.ACCESS: self._access,
            Opcode.CREATE: self._create,
            Opcode.DESTROY: self._destroy,
            Opcode.FALLOCATE: self._fallocate,
            Opcode.LSEEK: self._lseek,
            Opcode.COPY_FILE_RANGE: self._copy_file_range,
            Opcode.SYNCFS: self._syncfs,
        }
        self._movers: dict[int, Mover] = {
            Opcode.READ: self._read,
            Opcode.WRITE: self._write,
            Opcode.READDIR: self._readdir,
            Opcode.READDIRPLUS: self._readdir,
        }

    async def handle(self, request: Buffers, answer: Buffers) -> int:
        """Do one request; returns how many bytes of `answer` were written. Raises nothing but cancellation.

        Both lists are used up.
        """
        unique = error = length = 0
        payload = b""
        room = size_of(answer)
        try:
            header = wire.header(request)
            unique, opcode = header.unique, header.opcode
            if opcode in _NO_ANSWER:
                self._forget(header, wire.body(request))
                return 0
            self._check(opcode, room)
            if (handler := self._handlers.get(opcode)) is not None:
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
        put(answer, wire.OUT_HEADER.pack(_HEADER + length, -error, unique) + payload)
        return _HEADER + length

    def _check(self, opcode: int, room: int) -> None:
        """Whether a request may be begun at all."""
        if room < _ROOM.get(opcode, _HEADER):
            raise wire.WireError(f"room for an answer of {room} bytes")
        if not self.mounted and opcode != Opcode.INIT:
            raise OSError(errno.EIO, "not mounted")
        if self.read_only and opcode in _CHANGES:
            raise OSError(errno.EROFS, "read-only")

    def disconnect(self) -> None:
        """The kernel is gone: everything that it held is given back."""
        self.mounted = False
        self.filesystem.disconnect()

    @staticmethod
    def _errno(failure: OSError) -> int:
        # The kernel takes numbers below 512 only; larger ones are its own.
        number = failure.errno or errno.EIO
        return number if 0 < number < 512 else errno.EIO

    @staticmethod
    def _caller(header: wire.Header) -> Caller:
        return Caller(header.uid, header.gid, header.pid)

    # The mount --------------------------------------------------------------------------------

    async def _init(self, header: wire.Header, body: bytes) -> bytes:
        major, minor, readahead, offered = wire.fields(wire.INIT_IN, body)
        if major > wire.MAJOR:
            return wire.init_again_out()
        if (major, minor) < (wire.MAJOR, wire.MINOR_MIN):
            raise OSError(errno.EPROTO, f"FUSE {major}.{minor}")
        self.disconnect()
        taken = self._wanted() & offered
        self._setxattr_in = wire.SETXATTR_IN if taken & Init.SETXATTR_EXT else wire.SETXATTR_SHORT_IN
        self.mounted = True
        return wire.init_out(taken, min(readahead, CONTENTS_MAX), CONTENTS_MAX, MAX_PAGES, MAX_BACKGROUND)

    def _wanted(self) -> Init:
        traits = self.filesystem.traits
        wanted = (
            Init.ASYNC_READ
            | Init.BIG_WRITES
            | Init.DO_READDIRPLUS
            | Init.READDIRPLUS_AUTO
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
        if traits.kills_set_id:
            wanted |= Init.HANDLE_KILLPRIV_V2
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
        if header.opcode == Opcode.FORGET:
            (count,) = wire.fields(wire.FORGET_IN, body)
            self.filesystem.forget(header.node, count)
        elif header.opcode == Opcode.BATCH_FORGET:
            for node, count in wire.forgets(body):
                self.filesystem.forget(node, count)

    # Names ------------------------------------------------------------------------------------

    async def _lookup(self, header: wire.Header, body: bytes) -> bytes:
        return wire.entry_out(await self.filesystem.lookup(header.node, wire.name(body)))

    async def _mknod(self, header: wire.Header, body: bytes) -> bytes:
        mode, rdev, umask, _ = wire.fields(wire.MKNOD_IN, body)
        name = wire.name(body, wire.MKNOD_IN.size)
        mode &= 0o177777
        if stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
            raise OSError(errno.EINVAL, "mknod of a directory or a symlink")
        caller = self._caller(header)
        device = wire.device_in(rdev)
        return wire.entry_out(await self.filesystem.mknod(header.node, name, mode, device, umask & 0o777, caller))

    async def _mkdir(self, header: wire.Header, body: bytes) -> bytes:
        mode, umask = wire.fields(wire.MKDIR_IN, body)
        name = wire.name(body, wire.MKDIR_IN.size)
        mode, umask, caller = stat.S_IMODE(mode), umask & 0o777, self._caller(header)
        return wire.entry_out(await self.filesystem.mkdir(header.node, name, mode, umask, caller))

    async def _symlink(self, header: wire.Header, body: bytes) -> bytes:
        name = wire.name(body)
        target = wire.string(body, len(name) + 1)
        return wire.entry_out(await self.filesystem.symlink(header.node, name, target, self._caller(header)))

    async def _readlink(self, header: wire.Header, body: bytes) -> bytes:
        return await self.filesystem.readlink(header.node)

    async def _link(self, header: wire.Header, body: bytes) -> bytes:
        (old,) = wire.fields(wire.LINK_IN, body)
        name = wire.name(body, wire.LINK_IN.size)
        return wire.entry_out(await self.filesystem.link(old, header.node, name))

    async def _unlink(self, header: wire.Header, body: bytes) -> bytes:
        await self.filesystem.unlink(header.node, wire.name(body))
        return b""

    async def _rmdir(self, header: wire.Header, body: bytes) -> bytes:
        await self.filesystem.rmdir(header.node, wire.name(body))
        return b""

    async def _rename(self, header: wire.Header, body: bytes) -> bytes:
        (new_parent,) = wire.fields(wire.RENAME_IN, body)
        old, new = wire.names(body, wire.RENAME_IN.size)
        await self.filesystem.rename(header.node, old, new_parent, new)
        return b""

    async def _rename2(self, header: wire.Header, body: bytes) -> bytes:
        new_parent, flags, _ = wire.fields(wire.RENAME2_IN, body)
        if flags & ~_RENAME_FLAGS:
            raise wire.WireError(f"rename flags {flags:#x}")
        old, new = wire.names(body, wire.RENAME2_IN.size)
        await self.filesystem.rename(header.node, old, new_parent, new, flags)
        return b""

    # Attributes -------------------------------------------------------------------------------

    async def _getattr(self, header: wire.Header, body: bytes) -> bytes:
        flags, _, handle = wire.fields(wire.GETATTR_IN, body)
        return wire.attr_out(*await self.filesystem.getattr(header.node, handle if flags & 1 else NO_HANDLE))

    async def _setattr(self, header: wire.Header, body: bytes) -> bytes:
        changes, handle = wire.setattr_in(body)
        done = await self.filesystem.setattr(header.node, changes, handle or NO_HANDLE, self._caller(header))
        return wire.attr_out(*done)

    async def _access(self, header: wire.Header, body: bytes) -> bytes:
        mask, _ = wire.fields(wire.ACCESS_IN, body)
        if mask & ~(os.R_OK | os.W_OK | os.X_OK):
            raise wire.WireError(f"access mask {mask:#x}")
        await self.filesystem.access(header.node, mask, self._caller(header))
        return b""

    async def _getxattr(self, header: wire.Header, body: bytes) -> bytes:
        size, _ = wire.fields(wire.GETXATTR_IN, body)
        name = self._attribute(body, wire.GETXATTR_IN.size)
        return self._sized(await self.filesystem.getxattr(header.node, name), size)

    async def _listxattr(self, header: wire.Header, body: bytes) -> bytes:
        size, _ = wire.fields(wire.GETXATTR_IN, body)
        found = await self.filesystem.listxattr(header.node)
        return self._sized(b"".join(name + b"\0" for name in found), size)

    @staticmethod
    def _sized(value: bytes, size: int) -> bytes:
        """An extended attribute for a caller with room for `size` bytes; 0 asks how many there are."""
        if not size:
            return wire.size_out(len(value))
        if len(value) > size:
            raise OSError(errno.ERANGE, "extended attribute too long")
        return value

    async def _setxattr(self, header: wire.Header, body: bytes) -> bytes:
        layout = self._setxattr_in
        size, flags, *more = wire.fields(layout, body)
        name = self._attribute(body, layout.size)
        start = layout.size + len(name) + 1
        value = body[start : start + size]
        if len(value) != size or flags & ~(os.XATTR_CREATE | os.XATTR_REPLACE):
            raise wire.WireError(f"flags {flags:#x}, {len(value)} bytes of an attribute of {size}")
        if more and more[0] & wire.SETXATTR_ACL_KILL_SGID and self.filesystem.traits.posix_acl:
            flags |= ACL_KILL_SGID
        await self.filesystem.setxattr(header.node, name, value, flags)
        return b""

    async def _removexattr(self, header: wire.Header, body: bytes) -> bytes:
        await self.filesystem.removexattr(header.node, self._attribute(body))
        return b""

    @staticmethod
    def _attribute(body: bytes, start: int = 0) -> bytes:
        """The name of an extended attribute."""
        name = wire.string(body, start)
        if not 0 < len(name) <= NAME_MAX:
            raise OSError(errno.ERANGE, "the name of an attribute")
        return name

    # Files ------------------------------------------------------------------------------------

    async def _open(self, header: wire.Header, body: bytes) -> bytes:
        flags, _ = wire.fields(wire.OPEN_IN, body)
        if self.read_only and flags & (os.O_ACCMODE | os.O_TRUNC):
            raise OSError(errno.EROFS, "read-only")
        return wire.open_out(await self.filesystem.open(header.node, flags & _OPEN_FLAGS))

    async def _create(self, header: wire.Header, body: bytes) -> bytes:
        flags, mode, umask, _ = wire.fields(wire.CREATE_IN, body)
        name = wire.name(body, wire.CREATE_IN.size)
        mode, flags, umask = stat.S_IMODE(mode), flags & _OPEN_FLAGS, umask & 0o777
        entry, opened = await self.filesystem.create(header.node, name, mode, flags, umask, self._caller(header))
        return wire.entry_out(entry) + wire.open_out(opened)

    async def _read(self, header: wire.Header, request: Buffers, space: Buffers) -> int:
        handle, offset, size, *_ = wire.fields(wire.READ_IN, wire.body(request))
        wire.check_offsets(offset)
        if size > CONTENTS_MAX:
            raise wire.WireError(f"a read of {size} bytes")
        count = await self.filesystem.read_into(header.node, handle, offset, limit(space, size))
        self.statistics.read_bytes += count
        return count

    async def _write(self, header: wire.Header, request: Buffers, space: Buffers) -> int:
        handle, offset, size, flags, *_ = wire.fields(wire.WRITE_IN, take(request, wire.WRITE_IN.size))
        wire.check_offsets(offset)
        if size > CONTENTS_MAX or size_of(request) != size:
            raise wire.WireError(f"a write of {size} bytes with {size_of(request)}")
        kill = bool(flags & wire.WRITE_KILL_SUIDGID)
        count = await self.filesystem.write_from(header.node, handle, offset, request, kill)
        self.statistics.written_bytes += count
        put(space, wire.size_out(count))
        return wire.SIZE_OUT_SIZE

    async def _flush(self, header: wire.Header, body: bytes) -> bytes:
        handle, *_ = wire.fields(wire.FLUSH_IN, body)
        await self.filesystem.flush(header.node, handle)
        return b""

    async def _release(self, header: wire.Header, body: bytes) -> bytes:
        handle, *_ = wire.fields(wire.RELEASE_IN, body)
        await self.filesystem.release(header.node, handle)
        return b""

    async def _fsync(self, header: wire.Header, body: bytes) -> bytes:
        handle, flags, _ = wire.fields(wire.FSYNC_IN, body)
        await self.filesystem.fsync(header.node, handle, bool(flags & wire.FSYNC_DATA_ONLY))
        return b""

    async def _fallocate(self, header: wire.Header, body: bytes) -> bytes:
        handle, offset, length, mode, _ = wire.fields(wire.FALLOCATE_IN, body)
        wire.check_offsets(offset + length)
        await self.filesystem.fallocate(header.node, handle, mode, offset, length)
        return b""

    async def _lseek(self, header: wire.Header, body: bytes) -> bytes:
        handle, offset, whence, _ = wire.fields(wire.LSEEK_IN, body)
        wire.check_offsets(offset)
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise wire.WireError(f"lseek from {whence}")
        return wire.lseek_out(await self.filesystem.lseek(header.node, handle, offset, whence))

    async def _copy_file_range(self, header: wire.Header, body: bytes) -> bytes:
        handle, offset, out, out_handle, out_offset, length, flags = wire.fields(wire.COPY_FILE_RANGE_IN, body)
        wire.check_offsets(offset, out_offset)
        if flags:
            raise wire.WireError(f"copy_file_range flags {flags:#x}")
        length = min(length, COPY_MAX)
        return wire.size_out(
            await self.filesystem.copy_file_range(header.node, handle, offset, out, out_handle, out_offset, length)
        )

    # Directories ------------------------------------------------------------------------------

    async def _opendir(self, header: wire.Header, body: bytes) -> bytes:
        return wire.open_out(await self.filesystem.opendir(header.node))

    async def _readdir(self, header: wire.Header, request: Buffers, space: Buffers) -> int:
        handle, offset, size, *_ = wire.fields(wire.READ_IN, wire.body(request))
        wire.check_offsets(offset)
        plus = header.opcode == Opcode.READDIRPLUS
        room = min(size, size_of(space), LISTING_MAX)
        in_one = bool(space) and len(space[0]) >= room
        target = space[0][:room] if in_one else memoryview(bytearray(room))
        listing = wire.Listing(target, plus)
        try:
            await self.filesystem.readdir(header.node, handle, offset, listing.add, plus)
        except OSError:
            # The kernel must hear of what was taken: lookups were counted. It meets the error when it goes on.
            if not listing.size:
                raise
        if not in_one:
            put(space, target[: listing.size])
        return listing.size

    async def _releasedir(self, header: wire.Header, body: bytes) -> bytes:
        handle, *_ = wire.fields(wire.RELEASE_IN, body)
        await self.filesystem.releasedir(header.node, handle)
        return b""

    async def _fsyncdir(self, header: wire.Header, body: bytes) -> bytes:
        handle, flags, _ = wire.fields(wire.FSYNC_IN, body)
        await self.filesystem.fsyncdir(header.node, handle, bool(flags & wire.FSYNC_DATA_ONLY))
        return b""
