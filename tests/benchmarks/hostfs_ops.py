"""What one operation of hostfs costs, in microseconds: `python tests/benchmarks/hostfs_ops.py [DIRECTORY]`.

Everything is in the host's caches and nothing blocks, so this is the price of the code itself. Each figure is the
best of several rounds over many files, next to the bare system call that the operation cannot do without.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from hostfs import HostFilesystem
from tests.benchmarks.ratio import rounds
from umlfs.filesystem import NO_HANDLE, ROOT, Caller, Entry, SetAttr

FILES = 1000
ROUNDS = rounds(7)
NAMES = [b"file-%04d" % number for number in range(FILES)]
CALLER = Caller(os.geteuid(), os.getegid(), 1)

Work = Callable[[], Awaitable[None]]


class Bench:
    """A tree of small files and a filesystem on it."""

    def __init__(self, filesystem: HostFilesystem, directory: Path) -> None:
        self.fs = filesystem
        self.path = directory
        self.inos: list[int] = []
        self.born: list[int] = []
        self.handles: list[int] = []
        self.opened: list[int] = []
        self.fds: list[int] = []
        self.fd = os.open(directory, os.O_PATH)

    async def fill(self) -> None:
        for name in NAMES:
            entry, opened = await self.fs.create(ROOT, name, 0o644, os.O_RDWR | os.O_CREAT, 0, CALLER)
            await self.fs.write_from(entry.ino, opened.handle, 0, [memoryview(bytes(4000))])
            await self.fs.release(entry.ino, opened.handle)
            self.inos.append(entry.ino)

    async def lookup(self) -> None:
        lookup = self.fs.lookup
        for name in NAMES:
            await lookup(ROOT, name)

    async def lookup_unread(self) -> None:
        """In a directory not read lately: each name is first tried for without waiting."""
        root = self.fs.resolver.root
        cached, root.cached_until = root.cached_until, 0.0
        await self.lookup()
        root.cached_until = cached

    async def lookup_missing(self) -> None:
        lookup = self.fs.lookup
        for name in NAMES:
            await lookup(ROOT, name + b"?")

    async def getattr(self) -> None:
        getattr_ = self.fs.getattr
        for ino in self.inos:
            await getattr_(ino)

    async def getattr_unopened(self) -> None:
        self.fs.resolver.descriptors.clear()
        await self.getattr()

    async def readdir(self) -> None:
        await self._list(False)

    async def readdir_plus(self) -> None:
        await self._list(True)

    async def _list(self, plus: bool) -> None:
        reached = left = 0

        def add(name: bytes, offset: int, ino: int, mode: int, entry: Entry | None) -> bool:
            nonlocal reached, left
            if not left:
                return False
            left -= 1
            reached = offset
            return True

        while not left:
            left = 24  # what the kernel has room for in one request
            await self.fs.readdir(ROOT, NO_HANDLE, reached, add, plus)

    async def read(self) -> None:
        read_into, data = self.fs.read_into, [memoryview(bytearray(4096))]
        for ino in self.inos:
            await read_into(ino, NO_HANDLE, 0, data)

    async def read_first(self) -> None:
        """Nothing open yet."""
        self.fs.resolver.descriptors.clear()
        await self.read()

    async def open(self) -> None:
        open_ = self.fs.open
        self.opened = [(await open_(ino, os.O_RDONLY)).handle for ino in self.inos]

    async def read_open(self) -> None:
        read_into, data = self.fs.read_into, [memoryview(bytearray(4096))]
        for ino, handle in zip(self.inos, self.opened, strict=True):
            await read_into(ino, handle, 0, data)

    async def release(self) -> None:
        release = self.fs.release
        for ino, handle in zip(self.inos, self.opened, strict=True):
            await release(ino, handle)

    async def write(self) -> None:
        write_from, data = self.fs.write_from, [memoryview(bytes(4000))]
        for ino in self.inos:
            await write_from(ino, NO_HANDLE, 0, data)

    async def chmod(self) -> None:
        for ino in self.inos:
            await self.fs.setattr(ino, SetAttr(mode=0o644))

    async def utimes(self) -> None:
        for ino in self.inos:
            await self.fs.setattr(ino, SetAttr(atime_ns=10**18, mtime_ns=10**18))

    # A life, stage by stage -------------------------------------------------------------------

    async def create(self) -> None:
        self.born, self.handles = [], []
        create, flags = self.fs.create, os.O_RDWR | os.O_CREAT | os.O_EXCL
        for name in NAMES:
            entry, opened = await create(ROOT, b"+" + name, 0o644, flags, 0, CALLER)
            self.born.append(entry.ino)
            self.handles.append(opened.handle)

    async def fill_new(self) -> None:
        write_from, data = self.fs.write_from, [memoryview(bytes(4000))]
        for ino, handle in zip(self.born, self.handles, strict=True):
            await write_from(ino, handle, 0, data)

    async def release_new(self) -> None:
        release = self.fs.release
        for ino, handle in zip(self.born, self.handles, strict=True):
            await release(ino, handle)

    async def unlink(self) -> None:
        unlink = self.fs.unlink
        for name in NAMES:
            await unlink(ROOT, b"+" + name)

    async def forget(self) -> None:
        for ino in self.born:
            self.fs.forget(ino, 1)

    # The bare system calls --------------------------------------------------------------------

    async def bare_stat(self) -> None:
        for name in NAMES:
            os.stat(name, dir_fd=self.fd, follow_symlinks=False)

    async def bare_list(self) -> None:
        with os.scandir(self.path) as entries:
            for entry in entries:
                entry.stat(follow_symlinks=False)

    async def bare_read(self) -> None:
        data = [memoryview(bytearray(4096))]
        for name in NAMES:
            fd = os.open(name, os.O_RDONLY, dir_fd=self.fd)
            os.preadv(fd, data, 0)
            os.close(fd)

    async def bare_create(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        self.fds = [os.open(b"-" + name, flags, 0o644, dir_fd=self.fd) for name in NAMES]

    async def bare_write(self) -> None:
        data = bytes(4000)
        for fd in self.fds:
            os.write(fd, data)

    async def bare_unlink(self) -> None:
        for name in NAMES:
            os.unlink(b"-" + name, dir_fd=self.fd)

    async def bare_close(self) -> None:
        for fd in self.fds:
            os.close(fd)


async def best(*stages: Work) -> list[float]:
    """Microseconds per file of each stage, run in turn."""
    times: list[list[float]] = [[] for _ in stages]
    for _ in range(ROUNDS):
        for stage, taken in zip(stages, times, strict=True):
            start = time.perf_counter()
            await stage()
            taken.append(time.perf_counter() - start)
    return [min(taken) / FILES * 1e6 for taken in times]


async def main(parent: str | None) -> None:
    with tempfile.TemporaryDirectory(dir=parent) as directory:
        filesystem = HostFilesystem(directory)
        bench = Bench(filesystem, Path(directory))
        await bench.fill()
        for titles, stages in (
            ("lookup", [bench.lookup]),
            ("lookup, directory not read lately", [bench.lookup_unread]),
            ("lookup of a missing name", [bench.lookup_missing]),
            ("getattr", [bench.getattr_unopened]),
            ("readdir, per entry", [bench.readdir]),
            ("readdir with attributes, per entry", [bench.readdir_plus]),
            ("read 4 KB for the first time", [bench.read_first]),
            ("read 4 KB", [bench.read]),
            ("getattr of a file held open", [bench.getattr]),
            ("open; read 4 KB; release", [bench.open, bench.read_open, bench.release]),
            ("write 4 KB", [bench.write]),
            ("chmod", [bench.chmod]),
            ("utimes", [bench.utimes]),
            (
                "create; write; release; unlink; forget",
                [bench.create, bench.fill_new, bench.release_new, bench.unlink, bench.forget],
            ),
            ("bare: stat", [bench.bare_stat]),
            ("bare: scandir, stat", [bench.bare_list]),
            ("bare: open, read, close", [bench.bare_read]),
            (
                "bare: create; write; unlink; close",
                [bench.bare_create, bench.bare_write, bench.bare_unlink, bench.bare_close],
            ),
        ):
            for title, taken in zip(titles.split(";"), await best(*stages), strict=True):
                print(f"{title.strip():42}{taken:8.2f} us")
        await filesystem.close()


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else None)
