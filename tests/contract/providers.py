"""Small filesystems to serve in tests."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

import trio

from umlfs.filesystem import ROOT, Attr, DirSink, Entry, Filesystem, StatFs

FILE = 2
NAME = b"file"
FOREVER = 10**18


def fail(code: int) -> OSError:
    return OSError(code, os.strerror(code))


class OneFile(Filesystem):
    """A directory with one file, in memory. `entries` gives the directory more names of it."""

    def __init__(self, data: bytes = b"contents") -> None:
        self.data = bytearray(data)
        self.lookups = 0
        self.disconnects = 0
        self.entries = [NAME]

    def attr(self, ino: int) -> Attr:
        mode = stat.S_IFDIR | 0o755 if ino == ROOT else stat.S_IFREG | 0o644
        return Attr(ino, mode, 1, 1000, 1000, 0, 0 if ino == ROOT else len(self.data), 0, 1, 2, 3)

    def entry(self) -> Entry:
        self.lookups += 1
        return Entry(FILE, self.attr(FILE), FOREVER, FOREVER)

    def disconnect(self) -> None:
        self.disconnects += 1
        self.lookups = 0

    def forget(self, ino: int, count: int) -> None:
        if ino == FILE:
            self.lookups -= count

    async def lookup(self, parent: int, name: bytes) -> Entry:
        if parent != ROOT or name not in self.entries:
            raise fail(errno.ENOENT)
        return self.entry()

    async def getattr(self, ino: int, handle: int = 0) -> tuple[Attr, int]:
        if ino not in (ROOT, FILE):
            raise fail(errno.ESTALE)
        return self.attr(ino), FOREVER

    async def statfs(self, ino: int = ROOT) -> StatFs:
        return StatFs(blocks=1)

    async def read_into(self, ino: int, handle: int, offset: int, buffers: Sequence[memoryview]) -> int:
        done = 0
        for buffer in buffers:
            part = self.data[offset + done : offset + done + len(buffer)]
            buffer[: len(part)] = part
            done += len(part)
        return done

    async def write_from(
        self, ino: int, handle: int, offset: int, buffers: Sequence[memoryview], kill_set_id: bool = False
    ) -> int:
        data = b"".join(buffers)
        self.data[offset : offset + len(data)] = data
        return len(data)

    async def readdir(self, ino: int, handle: int, offset: int, add: DirSink, plus: bool = False) -> None:
        for position, name in enumerate(self.entries[offset:], offset + 1):
            entry = self.entry() if plus else None
            if not add(name, position, FILE, stat.S_IFREG, entry):
                self.lookups -= plus
                return


class Slow(OneFile):
    """Reads wait until `go` is set, each for itself; `reading` counts those that wait, `most` the most ever."""

    def __init__(self, data: bytes = b"contents") -> None:
        super().__init__(data)
        self.go = trio.Event()
        self.reading = self.most = self.cancelled = 0
        self.changed = trio.Condition()

    async def read_into(self, ino: int, handle: int, offset: int, buffers: Sequence[memoryview]) -> int:
        async with self.changed:
            self.reading += 1
            self.most = max(self.most, self.reading)
            self.changed.notify_all()
        try:
            await self.go.wait()
        except trio.Cancelled:
            self.cancelled += 1
            raise
        finally:
            self.reading -= 1
        return await super().read_into(ino, handle, offset, buffers)

    async def until_reading(self, count: int) -> None:
        async with self.changed:
            while self.reading < count:
                await self.changed.wait()


class Broken(OneFile):
    """A provider with bugs."""

    async def lookup(self, parent: int, name: bytes) -> Entry:
        raise ZeroDivisionError

    async def statfs(self, ino: int = ROOT) -> StatFs:
        return StatFs(blocks=-1)

    async def access(self, ino: int, mask: int, caller: object) -> None:
        raise OSError("no number")

    async def readlink(self, ino: int) -> bytes:
        raise ValueError("embedded null byte")

    async def fsync(self, ino: int, handle: int, data_only: bool = False) -> None:
        raise OSError(524, "a number of the kernel's own")
