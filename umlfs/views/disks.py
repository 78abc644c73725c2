"""A BlockDevice as a directory of files: `disk`, the whole of it, and `part1` … for its partitions.

Sizes are true to the byte, so that losetup, qemu, fsck and dd can use a device that is none of the host's.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import trio

from umlfs.block import BlockDevice
from umlfs.blocks.partitions import Partition, read_table
from umlfs.filesystem import (
    FOREVER,
    NO_HANDLE,
    NOW,
    ROOT,
    Attr,
    Caller,
    DirSink,
    Entry,
    Filesystem,
    Opened,
    SetAttr,
    StatFs,
    Traits,
)

DISK: Final = b"disk"
_KEEP_SIZE, _PUNCH_HOLE, _ZERO_RANGE = 1, 2, 16


@dataclass(slots=True)
class _File:
    """A range of the device under a name."""

    name: bytes
    offset: int
    size: int
    mtime_ns: int
    atime_ns: int


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


async def partitions(device: BlockDevice, beyond: list[Partition] | None = None) -> list[Partition]:
    """The partitions of `device`, by number; those that lead beyond its end go to `beyond`. OSError if it cannot be
    read."""
    reader = read_table(device.size, beyond)
    try:
        offset, length = next(reader)
        while True:
            start = offset - offset % device.block_size
            end = min(-(-(offset + length) // device.block_size) * device.block_size, device.size)
            data = bytearray(end - start)
            await device.read_into(start, [memoryview(data)])
            offset, length = reader.send(bytes(data[offset - start : offset - start + length]))
    except StopIteration as done:
        found: list[Partition] = done.value
        return found


class BlockFiles(Filesystem):
    """`device` as files that belong to this process's user. Nothing can be created, removed or resized."""

    def __init__(self, device: BlockDevice, table: Sequence[Partition]) -> None:
        """`table` is what the device is divided into; see `of`."""
        self._device = device
        self._unaligned = trio.Lock()
        """Held where blocks are read, changed and written back."""
        now = time.time_ns()
        ranges = [(DISK, 0, device.size), *((b"part%d" % one.number, one.offset, one.length) for one in table)]
        self._files = {
            ROOT + 1 + index: _File(name, offset, size, now, now) for index, (name, offset, size) in enumerate(ranges)
        }
        self._names = {file.name: ino for ino, file in self._files.items()}
        self._since = now
        self._uid, self._gid = os.geteuid(), os.getegid()
        self.traits = Traits(read_only=device.read_only)

    @classmethod
    async def of(cls, device: BlockDevice) -> BlockFiles:
        """The files of `device`, with a look at its partition table. OSError if that cannot be read."""
        return cls(device, await partitions(device))

    async def close(self) -> None:
        """Flush the device, then close it."""
        try:
            if not self._device.read_only:
                await self._device.flush()
        finally:
            await self._device.close()

    # Names and attributes ---------------------------------------------------------------------

    def _file(self, ino: int) -> _File:
        file = self._files.get(ino)
        if file is None:
            raise _error(errno.EISDIR if ino == ROOT else errno.ESTALE)
        return file

    def _attr(self, ino: int) -> Attr:
        if ino == ROOT:
            return Attr(ino, stat.S_IFDIR | 0o500, 2, self._uid, self._gid, 0, 0, 0, *[self._since] * 3)
        file = self._file(ino)
        mode = stat.S_IFREG | (0o400 if self._device.read_only else 0o600)
        blocks = -(-file.size // 512)
        times = (file.atime_ns, file.mtime_ns, file.mtime_ns)
        return Attr(ino, mode, 1, self._uid, self._gid, 0, file.size, blocks, *times)

    async def lookup(self, parent: int, name: bytes) -> Entry:
        if parent != ROOT:
            raise _error(errno.ENOTDIR)
        ino = self._names.get(name)
        if ino is None:
            return Entry(0, self._attr(ROOT), FOREVER)
        return Entry(ino, self._attr(ino), FOREVER, FOREVER)

    async def getattr(self, ino: int, handle: int = NO_HANDLE) -> tuple[Attr, int]:
        return self._attr(ino), FOREVER

    async def setattr(
        self, ino: int, changes: SetAttr, handle: int = NO_HANDLE, caller: Caller | None = None
    ) -> tuple[Attr, int]:
        """Times can be set, and truncation is accepted and does nothing, as for a block device. Else EPERM."""
        if self._device.read_only:
            raise _error(errno.EROFS)
        file = self._file(ino)
        if changes.mode is not None or changes.uid is not None or changes.gid is not None:
            raise _error(errno.EPERM)
        if changes.atime_ns is not None:
            file.atime_ns = time.time_ns() if changes.atime_ns == NOW else changes.atime_ns
        if changes.mtime_ns is not None:
            file.mtime_ns = time.time_ns() if changes.mtime_ns == NOW else changes.mtime_ns
        return self._attr(ino), FOREVER

    async def statfs(self, ino: int = ROOT) -> StatFs:
        return StatFs(512, self._device.size // 512, 0, 0, len(self._files), 0)

    async def readdir(self, ino: int, handle: int, offset: int, add: DirSink, plus: bool = False) -> None:
        if ino != ROOT:
            raise _error(errno.ENOTDIR)
        listed = [(b".", ROOT), (b"..", ROOT), *((file.name, number) for number, file in self._files.items())]
        for index in range(offset, len(listed)):
            name, number = listed[index]
            attr = self._attr(number)
            entry = Entry(number, attr, FOREVER, FOREVER) if plus and number != ROOT else None
            if not add(name, index + 1, number, stat.S_IFMT(attr.mode), entry):
                return

    # Contents ---------------------------------------------------------------------------------

    async def open(self, ino: int, flags: int) -> Opened:
        """The disk and its partitions are cached apart; so what was written to one is seen when the other is opened."""
        self._file(ino)
        return Opened(NO_HANDLE, keep_cache=len(self._files) == 1)

    async def read_into(self, ino: int, handle: int, offset: int, buffers: Sequence[memoryview]) -> int:
        file = self._file(ino)
        wanted = max(0, min(sum(map(len, buffers)), file.size - offset))
        if not wanted:
            return 0
        start = file.offset + offset
        if self._is_aligned(start, wanted) and wanted == sum(map(len, buffers)):
            await self._device.read_into(start, buffers)
        else:
            data = memoryview(await self._read_around(start, wanted))
            for buffer in buffers:
                part, data = data[: len(buffer)], data[len(buffer) :]
                buffer[: len(part)] = part
        return wanted

    async def write_from(
        self, ino: int, handle: int, offset: int, buffers: Sequence[memoryview], kill_set_id: bool = False
    ) -> int:
        """ENOSPC past the end; what lies before it is written."""
        file = self._file(ino)
        wanted = sum(map(len, buffers))
        length = max(0, min(wanted, file.size - offset))
        if wanted and not length:
            raise _error(errno.ENOSPC)
        start = file.offset + offset
        if length == wanted and self._is_aligned(start, length):
            await self._device.write_from(start, buffers)
        else:
            await self._write_around(start, b"".join(buffers)[:length])
        file.mtime_ns = time.time_ns()
        return length

    def _is_aligned(self, offset: int, length: int) -> bool:
        """Whether the range consists of whole blocks, or ends where the device does."""
        block, end = self._device.block_size, offset + length
        return offset % block == 0 and (end % block == 0 or end == self._device.size)

    def _around(self, offset: int, length: int) -> tuple[int, int]:
        """The range of whole blocks that holds it: where it begins and ends."""
        block = self._device.block_size
        return offset - offset % block, min(-(-(offset + length) // block) * block, self._device.size)

    async def _read_around(self, offset: int, length: int) -> bytes:
        start, end = self._around(offset, length)
        data = bytearray(end - start)
        await self._device.read_into(start, [memoryview(data)])
        return bytes(data[offset - start : offset - start + length])

    async def _write_around(self, offset: int, content: bytes) -> None:
        """Change part of some blocks. Two such changes at once would undo each other."""
        start, end = self._around(offset, len(content))
        async with self._unaligned:
            data = bytearray(end - start)
            await self._device.read_into(start, [memoryview(data)])
            data[offset - start : offset - start + len(content)] = content
            await self._device.write_from(start, [memoryview(data)])

    async def fsync(self, ino: int, handle: int, data_only: bool = False) -> None:
        if not self._device.read_only:
            await self._device.flush()

    async def fsyncdir(self, ino: int, handle: int, data_only: bool = False) -> None:
        await self.fsync(ino, handle)

    async def syncfs(self) -> None:
        await self.fsync(ROOT, NO_HANDLE)

    async def fallocate(self, ino: int, handle: int, mode: int, offset: int, length: int) -> None:
        """Punching holes discards, zeroing zeroes; nothing can grow."""
        file = self._file(ino)
        length = min(length, file.size - offset)
        if length <= 0 or mode & ~_KEEP_SIZE not in (_PUNCH_HOLE, _ZERO_RANGE):
            raise _error(errno.EOPNOTSUPP)
        await self._device.write_zeroes(file.offset + offset, length, unmap=bool(mode & _PUNCH_HOLE))
