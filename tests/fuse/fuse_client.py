"""A Filesystem that is a FUSE client: every operation as the bytes a kernel sends, every answer read as it reads it.

With it, the checks of the contract prove a server of FUSE requests. The layouts are written down here once more, from
Linux `include/uapi/linux/fuse.h`, and not taken from the server's codec: a mistake there must not cancel out.
"""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Sequence
from typing import Protocol

from umlfs.filesystem import NO_HANDLE, NOW, ROOT, Attr, Caller, DirSink, Entry, Filesystem, Opened, SetAttr, StatFs

MAX_WRITE = 1 << 20
LISTING = 4096
LATER = 1 << 16
"""Room for a value of any length."""

_ATTR = struct.Struct("<QQQqqqIIIIIIIIII")
_ENTRY = struct.Struct("<QQQQII")
_VALID = struct.Struct("<QII")
_OPENED = struct.Struct("<QII")
_DIRENT = struct.Struct("<QQII")
_STATFS = struct.Struct("<QQQQQIII28x")
ENTRY_SIZE = _ENTRY.size + _ATTR.size
OFFERED = 0x7BFFFFFB
"""What Linux 6.1 offers in INIT."""


class Transport(Protocol):
    """What carries requests to a server."""

    async def transact(self, request: Sequence[bytes], room: Sequence[int]) -> bytes:
        """The answer to a request, in buffers of the sizes `room`."""

    def post(self, request: Sequence[bytes]) -> None:
        """Send a request that has no answer."""


def encode_device(number: int) -> int:
    major, minor = os.major(number), os.minor(number)
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)


def decode_device(number: int) -> int:
    return os.makedev((number >> 8) & 0xFFF, (number & 0xFF) | ((number >> 12) & 0xFFF00))


def _attr(data: bytes, start: int) -> Attr:
    ino, size, blocks, atime, mtime, ctime, atime_ns, mtime_ns, ctime_ns, mode, nlink, uid, gid, rdev, blksize, _ = (
        _ATTR.unpack_from(data, start)
    )
    device = decode_device(rdev)
    accessed, modified, changed = atime * 10**9 + atime_ns, mtime * 10**9 + mtime_ns, ctime * 10**9 + ctime_ns
    return Attr(ino, mode, nlink, uid, gid, device, size, blocks, accessed, modified, changed, blksize)


def _entry(data: bytes, start: int = 0) -> Entry:
    ino, generation, entry_s, attr_s, entry_ns, attr_ns = _ENTRY.unpack_from(data, start)
    attr = _attr(data, start + _ENTRY.size)
    return Entry(ino, attr, entry_s * 10**9 + entry_ns, attr_s * 10**9 + attr_ns, generation)


def _opened(data: bytes, start: int = 0) -> Opened:
    handle, flags, _ = _OPENED.unpack_from(data, start)
    return Opened(handle, bool(flags & 2), bool(flags & 1), bool(flags & 16), bool(flags & 8))


def _time(nanoseconds: int | None) -> tuple[int, int]:
    return (0, 0) if nanoseconds in (None, NOW) else divmod(nanoseconds or 0, 10**9)


def encode_setattr(changes: SetAttr, handle: int) -> bytes:
    given = {
        0: changes.mode,
        1: changes.uid,
        2: changes.gid,
        3: changes.size,
        4: changes.atime_ns,
        5: changes.mtime_ns,
        6: handle or None,
        7: True if changes.atime_ns == NOW else None,
        8: True if changes.mtime_ns == NOW else None,
        10: changes.ctime_ns,
        11: changes.kill_set_id or None,
    }
    valid = sum(1 << bit for bit, value in given.items() if value is not None)
    times = [_time(value) for value in (changes.atime_ns, changes.mtime_ns, changes.ctime_ns)]
    seconds, nanoseconds = [time[0] for time in times], [time[1] for time in times]
    owner = changes.uid or 0, changes.gid or 0
    head = struct.pack("<IIQQQ", valid, 0, handle, changes.size or 0, 0)
    return head + struct.pack("<qqqIIIIIIII", *seconds, *nanoseconds, changes.mode or 0, 0, *owner, 0)


class FuseClient(Filesystem):
    """A mount, through `transport`. Call `mount` before anything else."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._unique = itertools.count(2, 2)
        self.flags = 0
        """What the server took of what was offered."""

    def _header(self, opcode: int, node: int, length: int, caller: Caller | None) -> tuple[int, bytes]:
        unique = next(self._unique)
        who = caller or Caller()
        return unique, struct.pack("<IIQQIIIHH", 40 + length, opcode, unique, node, who.uid, who.gid, who.pid, 0, 0)

    async def ask(
        self, opcode: int, node: int, *body: bytes, room: Sequence[int] = (), caller: Caller | None = None
    ) -> bytes:
        """Send a request; the answer without its header, or OSError with the errno in it."""
        unique, header = self._header(opcode, node, sum(map(len, body)), caller)
        answer = await self._transport.transact([header, *body], [16, *room])
        length, error, echoed = struct.unpack_from("<IiQ", answer)
        assert length == len(answer)
        assert echoed == unique
        if error:
            assert -512 < error < 0
            assert length == 16
            raise OSError(-error, os.strerror(-error))
        return answer[16:]

    async def mount(self, offered: int = OFFERED) -> None:
        init = struct.pack("<IIIIII44x", 7, 38, 131072, offered, 0, 0)
        answer = await self.ask(26, 0, init[:64], room=[64])
        major, minor, _, self.flags, _, _, max_write, granularity, max_pages = struct.unpack_from("<IIIIHHIIH", answer)
        assert (major, minor, max_write, granularity, max_pages) == (7, 38, MAX_WRITE, 1, MAX_WRITE // 4096)
        assert not self.flags & ~offered

    async def close(self) -> None:
        """Unmount."""
        await self.ask(38, 0)

    # Names ------------------------------------------------------------------------------------

    async def _make(
        self, opcode: int, parent: int, body: bytes, names: Sequence[bytes], caller: Caller | None = None
    ) -> Entry:
        terminated = [name + b"\0" for name in names]
        return _entry(await self.ask(opcode, parent, body, *terminated, room=[ENTRY_SIZE], caller=caller))

    async def lookup(self, parent: int, name: bytes) -> Entry:
        return await self._make(1, parent, b"", [name])

    def forget(self, ino: int, count: int) -> None:
        _, header = self._header(2, ino, 8, None)
        self._transport.post([header, struct.pack("<Q", count)])

    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int, umask: int, caller: Caller) -> Entry:
        return await self._make(8, parent, struct.pack("<IIII", mode, encode_device(rdev), umask, 0), [name], caller)

    async def mkdir(self, parent: int, name: bytes, mode: int, umask: int, caller: Caller) -> Entry:
        return await self._make(9, parent, struct.pack("<II", mode, umask), [name], caller)

    async def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Entry:
        return await self._make(6, parent, b"", [name, target], caller)

    async def readlink(self, ino: int) -> bytes:
        return await self.ask(5, ino, room=[4095])

    async def link(self, ino: int, new_parent: int, new_name: bytes) -> Entry:
        return await self._make(13, new_parent, struct.pack("<Q", ino), [new_name])

    async def unlink(self, parent: int, name: bytes) -> None:
        await self.ask(10, parent, name + b"\0")

    async def rmdir(self, parent: int, name: bytes) -> None:
        await self.ask(11, parent, name + b"\0")

    async def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> None:
        names = name + b"\0", new_name + b"\0"
        if flags:
            await self.ask(45, parent, struct.pack("<QII", new_parent, flags, 0), *names)
        else:
            await self.ask(12, parent, struct.pack("<Q", new_parent), *names)

    # Attributes -------------------------------------------------------------------------------

    async def _attributes(self, opcode: int, ino: int, body: bytes, caller: Caller | None = None) -> tuple[Attr, int]:
        answer = await self.ask(opcode, ino, body, room=[_VALID.size + _ATTR.size], caller=caller)
        seconds, nanoseconds, _ = _VALID.unpack_from(answer)
        return _attr(answer, _VALID.size), seconds * 10**9 + nanoseconds

    async def getattr(self, ino: int, handle: int = NO_HANDLE) -> tuple[Attr, int]:
        return await self._attributes(3, ino, struct.pack("<IIQ", 1 if handle else 0, 0, handle))

    async def setattr(
        self, ino: int, changes: SetAttr, handle: int = NO_HANDLE, caller: Caller | None = None
    ) -> tuple[Attr, int]:
        return await self._attributes(4, ino, encode_setattr(changes, handle), caller)

    async def access(self, ino: int, mask: int, caller: Caller) -> None:
        await self.ask(34, ino, struct.pack("<II", mask, 0), caller=caller)

    async def statfs(self, ino: int = ROOT) -> StatFs:
        answer = await self.ask(17, ino, room=[80])
        blocks, free, available, files, files_free, _, name_max, block_size = _STATFS.unpack(answer)
        return StatFs(block_size, blocks, free, available, files, files_free, name_max)

    async def _sized(self, opcode: int, ino: int, name: bytes) -> bytes:
        answer = await self.ask(opcode, ino, struct.pack("<II", 0, 0), name, room=[8])
        (size, _) = struct.unpack("<II", answer)
        value = await self.ask(opcode, ino, struct.pack("<II", size or LATER, 0), name, room=[size or LATER])
        assert len(value) == size
        return value

    async def getxattr(self, ino: int, name: bytes) -> bytes:
        return await self._sized(22, ino, name + b"\0")

    async def setxattr(self, ino: int, name: bytes, value: bytes, flags: int = 0) -> None:
        extended = self.flags & 1 << 29
        head = struct.pack("<IIII", len(value), flags, 0, 0) if extended else struct.pack("<II", len(value), flags)
        await self.ask(21, ino, head, name + b"\0", value)

    async def listxattr(self, ino: int) -> list[bytes]:
        return (await self._sized(23, ino, b"")).split(b"\0")[:-1]

    async def removexattr(self, ino: int, name: bytes) -> None:
        await self.ask(24, ino, name + b"\0")

    # Files ------------------------------------------------------------------------------------

    async def open(self, ino: int, flags: int) -> Opened:
        return _opened(await self.ask(14, ino, struct.pack("<II", flags, 0), room=[16]))

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, umask: int, caller: Caller
    ) -> tuple[Entry, Opened]:
        body = struct.pack("<IIII", flags, mode, umask, 0)
        answer = await self.ask(35, parent, body, name + b"\0", room=[ENTRY_SIZE, 16], caller=caller)
        return _entry(answer), _opened(answer, ENTRY_SIZE)

    async def read_into(self, ino: int, handle: int, offset: int, buffers: Sequence[memoryview]) -> int:
        done = 0
        for buffer in buffers:
            for start in range(0, len(buffer), MAX_WRITE):
                part = buffer[start : start + MAX_WRITE]
                body = struct.pack("<QQIIQII", handle, offset + done, len(part), 0, 0, 0, 0)
                data = await self.ask(15, ino, body, room=_pages(len(part)))
                part[: len(data)] = data
                done += len(data)
                if len(data) < len(part):
                    return done
        return done

    async def write_from(
        self, ino: int, handle: int, offset: int, buffers: Sequence[memoryview], kill_set_id: bool = False
    ) -> int:
        done = 0
        for buffer in buffers:
            for start in range(0, len(buffer), MAX_WRITE):
                part = buffer[start : start + MAX_WRITE]
                flags = 4 if kill_set_id else 0
                body = struct.pack("<QQIIQII", handle, offset + done, len(part), flags, 0, 0, 0)
                count = int.from_bytes((await self.ask(16, ino, body, bytes(part), room=[8]))[:4], "little")
                done += count
                if count < len(part):
                    return done
        return done

    async def flush(self, ino: int, handle: int) -> None:
        await self.ask(25, ino, struct.pack("<QIIQ", handle, 0, 0, 0))

    async def release(self, ino: int, handle: int) -> None:
        await self.ask(18, ino, struct.pack("<QIIQ", handle, 0, 0, 0))

    async def fsync(self, ino: int, handle: int, data_only: bool = False) -> None:
        await self.ask(20, ino, struct.pack("<QII", handle, data_only, 0))

    async def fallocate(self, ino: int, handle: int, mode: int, offset: int, length: int) -> None:
        await self.ask(43, ino, struct.pack("<QqqII", handle, offset, length, mode, 0))

    async def lseek(self, ino: int, handle: int, offset: int, whence: int) -> int:
        answer = await self.ask(46, ino, struct.pack("<QQII", handle, offset, whence, 0), room=[8])
        return int.from_bytes(answer, "little")

    async def copy_file_range(
        self, ino: int, handle: int, offset: int, out_ino: int, out_handle: int, out_offset: int, length: int
    ) -> int:
        body = struct.pack("<QQQQQQQ", handle, offset, out_ino, out_handle, out_offset, length, 0)
        (count, _) = struct.unpack("<II", await self.ask(47, ino, body, room=[8]))
        return int(count)

    # Directories ------------------------------------------------------------------------------

    async def opendir(self, ino: int) -> Opened:
        return _opened(await self.ask(27, ino, struct.pack("<II", 0, 0), room=[16]))

    async def readdir(self, ino: int, handle: int, offset: int, add: DirSink, plus: bool = False) -> None:
        while True:
            body = struct.pack("<QQIIQII", handle, offset, LISTING, 0, 0, 0, 0)
            listing = await self.ask(44 if plus else 28, ino, body, room=[LISTING])
            if not listing:
                return
            taken = True
            for name, following, number, kind, entry in parse_listing(listing, plus):
                taken = taken and add(name, following, number, kind << 12, entry)
                if taken:
                    offset = following
                elif entry is not None:
                    self.forget(entry.ino, 1)
            if not taken:
                return

    async def releasedir(self, ino: int, handle: int) -> None:
        await self.ask(29, ino, struct.pack("<QIIQ", handle, 0, 0, 0))

    async def fsyncdir(self, ino: int, handle: int, data_only: bool = False) -> None:
        await self.ask(30, ino, struct.pack("<QII", handle, data_only, 0))

    async def syncfs(self) -> None:
        await self.ask(50, ROOT, bytes(8))


def _pages(size: int) -> list[int]:
    """Buffers of a page, and one for the rest."""
    return [4096] * (size // 4096) + [size % 4096] * bool(size % 4096)


def parse_listing(data: bytes, plus: bool) -> list[tuple[bytes, int, int, int, Entry | None]]:
    """The entries in an answer to READDIR or READDIRPLUS: name, offset of the next, inode number, type, entry."""
    found: list[tuple[bytes, int, int, int, Entry | None]] = []
    position = 0
    while position < len(data):
        assert position % 8 == 0
        entry = None
        if plus:
            entry = _entry(data, position) if any(data[position : position + 8]) else None
            position += ENTRY_SIZE
        ino, following, length, kind = _DIRENT.unpack_from(data, position)
        position += _DIRENT.size
        name = data[position : position + length]
        end = -(-(position + length) // 8) * 8
        assert data[position + length : end] == bytes(end - position - length)
        found.append((name, following, ino, kind, entry))
        position = end
    assert position == len(data)
    return found
