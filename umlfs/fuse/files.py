"""FUSE requests about open files, their contents, and listings."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from umlfs.buffers import Buffers, part, scatter, take, total
from umlfs.filesystem import Filesystem
from umlfs.fuse.request import Handler, Mover, caller
from umlfs.statistics import Statistics
from umlfs.wire import fuse as wire
from umlfs.wire.fuse import Opcode

MAX_PAGES: Final = 256
"""Pages of contents in one request; the kernel takes less where its ring is smaller."""
PAGE: Final = 4096
CONTENTS_MAX: Final = MAX_PAGES * PAGE
"""The largest READ and WRITE that the kernel was told it may send."""
LISTING_MAX: Final = 64 * 1024
"""The longest answer to READDIR. Linux asks for a page; a longer one would keep others waiting."""
COPY_MAX: Final = 1 << 30
"""The most that one COPY_FILE_RANGE copies; the kernel goes on from there."""

_OPEN_FLAGS: Final = (1 << 31) - 1
"""What fits open(2)'s flags."""


class FileRequests:
    """Those of one session."""

    def __init__(self, filesystem: Filesystem, statistics: Statistics, *, read_only: bool) -> None:
        """`statistics` is told of the contents moved."""
        self._filesystem = filesystem
        self._statistics = statistics
        self._read_only = read_only

    def handlers(self) -> dict[int, Handler]:
        return {
            Opcode.OPEN: self.open,
            Opcode.CREATE: self.create,
            Opcode.FLUSH: self.flush,
            Opcode.RELEASE: self.release,
            Opcode.FSYNC: self.fsync,
            Opcode.FALLOCATE: self.fallocate,
            Opcode.LSEEK: self.lseek,
            Opcode.COPY_FILE_RANGE: self.copy_file_range,
            Opcode.OPENDIR: self.opendir,
            Opcode.RELEASEDIR: self.releasedir,
            Opcode.FSYNCDIR: self.fsyncdir,
        }

    def movers(self) -> dict[int, Mover]:
        return {
            Opcode.READ: self.read,
            Opcode.WRITE: self.write,
            Opcode.READDIR: self.readdir,
            Opcode.READDIRPLUS: self.readdir,
        }

    async def open(self, header: wire.Header, body: bytes) -> bytes:
        flags, _ = wire.fields(wire.OPEN_IN, body)
        if self._read_only and flags & (os.O_ACCMODE | os.O_TRUNC):
            raise OSError(errno.EROFS, "read-only")
        return wire.open_out(await self._filesystem.open(header.node, flags & _OPEN_FLAGS))

    async def create(self, header: wire.Header, body: bytes) -> bytes:
        flags, mode, umask, _ = wire.fields(wire.CREATE_IN, body)
        name = wire.name(body, wire.CREATE_IN.size)
        mode, flags, umask = stat.S_IMODE(mode), flags & _OPEN_FLAGS, umask & 0o777
        entry, opened = await self._filesystem.create(header.node, name, mode, flags, umask, caller(header))
        return wire.entry_out(entry) + wire.open_out(opened)

    async def read(self, header: wire.Header, request: Buffers, space: Buffers) -> int:
        handle, offset, size, *_ = wire.fields(wire.READ_IN, wire.body(request))
        wire.check_offsets(offset)
        if size > CONTENTS_MAX:
            raise wire.WireError(f"a read of {size} bytes")
        count = await self._filesystem.read_into(header.node, handle, offset, part(space, 0, size))
        self._statistics.read_bytes += count
        return count

    async def write(self, header: wire.Header, request: Buffers, space: Buffers) -> int:
        handle, offset, size, flags, *_ = wire.fields(wire.WRITE_IN, take(request, wire.WRITE_IN.size))
        wire.check_offsets(offset)
        if size > CONTENTS_MAX or total(request) != size:
            raise wire.WireError(f"a write of {size} bytes with {total(request)}")
        kill = bool(flags & wire.WRITE_KILL_SUIDGID)
        count = await self._filesystem.write_from(header.node, handle, offset, request, kill)
        self._statistics.written_bytes += count
        scatter(wire.size_out(count), space)
        return wire.SIZE_OUT_SIZE

    async def flush(self, header: wire.Header, body: bytes) -> bytes:
        handle, _, _, owner = wire.fields(wire.FLUSH_IN, body)
        if not self._filesystem.traits.locks:
            await self._filesystem.flush(header.node, handle)
            return b""
        self._filesystem.unlock(header.node, handle, owner)
        await self._flush(header.node, handle)
        return b""

    async def _flush(self, ino: int, handle: int) -> None:
        """Without a word where there is nothing to flush: the kernel is to go on telling us when a file is closed."""
        try:
            await self._filesystem.flush(ino, handle)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise

    async def release(self, header: wire.Header, body: bytes) -> bytes:
        handle, _, flags, owner = wire.fields(wire.RELEASE_IN, body)
        if flags & wire.RELEASE_FLOCK_UNLOCK:
            self._filesystem.unlock(header.node, handle, owner, whole=True)
        await self._filesystem.release(header.node, handle)
        return b""

    async def fsync(self, header: wire.Header, body: bytes) -> bytes:
        handle, flags, _ = wire.fields(wire.FSYNC_IN, body)
        await self._filesystem.fsync(header.node, handle, bool(flags & wire.FSYNC_DATA_ONLY))
        return b""

    async def fallocate(self, header: wire.Header, body: bytes) -> bytes:
        handle, offset, length, mode, _ = wire.fields(wire.FALLOCATE_IN, body)
        wire.check_offsets(offset + length)
        await self._filesystem.fallocate(header.node, handle, mode, offset, length)
        return b""

    async def lseek(self, header: wire.Header, body: bytes) -> bytes:
        handle, offset, whence, _ = wire.fields(wire.LSEEK_IN, body)
        wire.check_offsets(offset)
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise wire.WireError(f"lseek from {whence}")
        return wire.lseek_out(await self._filesystem.lseek(header.node, handle, offset, whence))

    async def copy_file_range(self, header: wire.Header, body: bytes) -> bytes:
        handle, offset, out, out_handle, out_offset, length, flags = wire.fields(wire.COPY_FILE_RANGE_IN, body)
        wire.check_offsets(offset, out_offset)
        if flags:
            raise wire.WireError(f"copy_file_range flags {flags:#x}")
        length = min(length, COPY_MAX)
        return wire.size_out(
            await self._filesystem.copy_file_range(header.node, handle, offset, out, out_handle, out_offset, length)
        )

    # Directories ------------------------------------------------------------------------------

    async def opendir(self, header: wire.Header, body: bytes) -> bytes:
        return wire.open_out(await self._filesystem.opendir(header.node))

    async def readdir(self, header: wire.Header, request: Buffers, space: Buffers) -> int:
        handle, offset, size, *_ = wire.fields(wire.READ_IN, wire.body(request))
        wire.check_offsets(offset)
        plus = header.opcode == Opcode.READDIRPLUS
        room = min(size, total(space), LISTING_MAX)
        in_one = bool(space) and len(space[0]) >= room
        target = space[0][:room] if in_one else memoryview(bytearray(room))
        listing = wire.Listing(target, plus)
        try:
            await self._filesystem.readdir(header.node, handle, offset, listing.add, plus)
        except OSError:
            # The kernel must hear of what was taken: lookups were counted. It meets the error when it goes on.
            if not listing.size:
                raise
        if not in_one:
            scatter(target[: listing.size], space)
        return listing.size

    async def releasedir(self, header: wire.Header, body: bytes) -> bytes:
        handle, *_ = wire.fields(wire.RELEASE_IN, body)
        await self._filesystem.releasedir(header.node, handle)
        return b""

    async def fsyncdir(self, header: wire.Header, body: bytes) -> bytes:
        handle, flags, _ = wire.fields(wire.FSYNC_IN, body)
        await self._filesystem.fsyncdir(header.node, handle, bool(flags & wire.FSYNC_DATA_ONLY))
        return b""
