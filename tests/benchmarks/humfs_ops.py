"""What one operation of humfs costs, in microseconds: `python tests/benchmarks/humfs_ops.py [DIRECTORY]`.

Everything is in the host's caches and nothing blocks, so this is the price of the code itself. Each figure is the
best of several rounds over many files; "unread" is for inodes that are not in memory yet.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from humfs.filesystem import HumFilesystem, open_filesystem
from humfs.volume import create
from tests.benchmarks.ratio import rounds
from umlfs.filesystem import NO_HANDLE, ROOT, Caller, Entry, SetAttr

FILES = 1000
ROUNDS = rounds(5)
NAMES = [b"file-%04d" % number for number in range(FILES)]
CALLER = Caller(1000, 1000, 1)
SIZE = 1 << 34

Work = Callable[[], Awaitable[None]]


class Bench:
    """A directory of small files in a new humfs."""

    def __init__(self, filesystem: HumFilesystem) -> None:
        self.fs = filesystem
        self.inos: list[int] = []

    async def create(self) -> None:
        create = self.fs.create
        self.inos.clear()
        for name in NAMES:
            self.inos.append((await create(ROOT, name, 0o644, os.O_RDWR | os.O_EXCL, 0o022, CALLER))[0].ino)

    async def write_4k(self) -> None:
        data = [memoryview(bytes(4096))]
        for ino in self.inos:
            await self.fs.write_from(ino, NO_HANDLE, 0, data)

    async def read_4k(self) -> None:
        data = [memoryview(bytearray(4096))]
        for ino in self.inos:
            await self.fs.read_into(ino, NO_HANDLE, 0, data)

    async def read_4k_unread(self) -> None:
        """Each file opened first, and its inode read."""
        self.drop()
        await self.read_4k()

    async def lookup(self) -> None:
        for name in NAMES:
            await self.fs.lookup(ROOT, name)

    async def lookup_unread(self) -> None:
        self.drop()
        await self.lookup()

    async def lookup_missing(self) -> None:
        for name in NAMES:
            await self.fs.lookup(ROOT, name + b"?")

    async def getattr(self) -> None:
        for ino in self.inos:
            await self.fs.getattr(ino)

    async def readdir(self) -> None:
        await self.list(False)

    async def readdir_plus(self) -> None:
        await self.list(True)

    async def readdir_plus_unread(self) -> None:
        self.drop()
        await self.list(True)

    async def chmod(self) -> None:
        for ino in self.inos:
            await self.fs.setattr(ino, SetAttr(mode=0o640 if self.fs.node(ino).mode & 4 else 0o644))

    async def utimes(self) -> None:
        for ino in self.inos:
            await self.fs.setattr(ino, SetAttr(mtime_ns=time.time_ns()))

    async def rename(self) -> None:
        for name in NAMES:
            await self.fs.rename(ROOT, name, ROOT, name + b"~")
        for name in NAMES:
            await self.fs.rename(ROOT, name + b"~", ROOT, name)

    async def unlink_and_forget(self) -> None:
        for name, ino in zip(NAMES, self.inos, strict=True):
            await self.fs.unlink(ROOT, name)
            self.fs.forget(ino, 1 << 30)

    def drop(self) -> None:
        """Have nothing in memory."""
        self.fs._core.flush()
        for inode in list(self.fs._core.inodes.values()):
            if (fd := self.fs.host.release(inode)) >= 0:
                os.close(fd)
        self.fs._core.inodes.clear()

    async def list(self, plus: bool) -> None:
        reached = 0
        left = 0

        def add(name: bytes, offset: int, ino: int, mode: int, entry: Entry | None) -> bool:
            nonlocal reached, left
            if not left:
                return False
            left -= 1
            reached = offset
            return True

        before = -1
        while reached != before:
            before, left = reached, 40
            await self.fs.readdir(ROOT, NO_HANDLE, reached, add, plus)


async def once(work: Work, count: int = FILES) -> float:
    """Microseconds of processor time for each file."""
    start = time.thread_time()
    await work()
    return (time.thread_time() - start) / count * 1e6


async def measure(directory: Path) -> None:
    create(directory / "fs", SIZE)
    filesystem = open_filesystem(directory / "fs")
    bench = Bench(filesystem)
    repeated: list[Work] = [
        bench.write_4k,
        bench.read_4k,
        bench.read_4k_unread,
        bench.lookup,
        bench.lookup_unread,
        bench.lookup_missing,
        bench.getattr,
        bench.readdir,
        bench.readdir_plus,
        bench.readdir_plus_unread,
        bench.chmod,
        bench.utimes,
        bench.rename,
    ]
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        for work in (bench.create, *repeated, bench.unlink_and_forget):
            name = work.__name__
            count = 2 * FILES if work == bench.rename else FILES
            best[name] = min(best.get(name, 1e9), await once(work, count))
    for name, figure in best.items():
        print(f"{name:<22} {figure:6.1f}")
    bench.inos.clear()
    start = time.perf_counter()
    await filesystem.syncfs()
    print(f"syncfs, ms             {(time.perf_counter() - start) * 1e3:6.1f}")
    await filesystem.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as name:
        trio.run(measure, Path(name))
