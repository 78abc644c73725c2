"""Many files, for memory and speed: `python -m tests.humfs.many DIR COUNT` prints what it took as JSON.

A tar archive with COUNT empty files is imported (as a stream, so that no archive of that size is needed), opened
and listed by a consumer that forgets nothing; then files are looked up at random.
"""

from __future__ import annotations

import io
import json
import random
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import trio

from humfs.filesystem import HumFilesystem, open_filesystem
from humfs.importer import Importer
from humfs.tarball import add_tar
from humfs.volume import create
from umlfs.filesystem import NO_HANDLE, ROOT, Entry

IN_DIRECTORY = 1000
LOOKUPS = 5000
SIZE = 1 << 40


class Archive(io.RawIOBase):
    """The archive, made as it is read."""

    def __init__(self, count: int) -> None:
        self._parts = self._members(count)
        self._ahead = b""

    @staticmethod
    def _members(count: int) -> Iterator[bytes]:
        for number in range(count):
            info = tarfile.TarInfo(path(number))
            info.uid, info.gid = number % 5000, number % 3000
            yield info.tobuf(tarfile.USTAR_FORMAT)
        yield bytes(1024)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        parts = [self._ahead]
        left = size - len(self._ahead)
        while left > 0 and (part := next(self._parts, b"")):
            parts.append(part)
            left -= len(part)
        data = b"".join(parts)
        data, self._ahead = data[:size], data[size:]
        return data


def path(number: int) -> str:
    return f"directory-{number // IN_DIRECTORY}/file-{number}"


def memory() -> int:
    """The most memory that this process has had, in bytes. (getrusage counts what its parent had before exec, too.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


async def list_all(fs: HumFilesystem, ino: int) -> int:
    """List a tree with attributes, as a kernel does; returns the number of names."""
    count = reached = 0
    taken = 1
    below: list[int] = []

    def add(name: bytes, offset: int, ino: int, mode: int, entry: Entry | None) -> bool:
        nonlocal reached, count, taken
        if taken == 40:
            return False
        taken += 1
        reached = offset
        if entry is not None:
            count += 1
            if mode & 0o170000 == 0o040000:
                below.append(entry.ino)
        return True

    while taken:
        taken = 0
        await fs.readdir(ino, NO_HANDLE, reached, add, True)
    for child in below:
        count += await list_all(fs, child)
    return count


async def look_up(fs: HumFilesystem, count: int) -> float:
    """Microseconds of processor time for a lookup at random."""
    chosen = [path(random.randrange(count)).encode().split(b"/") for _ in range(LOOKUPS)]
    start = time.thread_time()
    for directory, name in chosen:
        parent = await fs.lookup(ROOT, directory)
        assert (await fs.lookup(parent.ino, name)).ino
    return (time.thread_time() - start) / LOOKUPS * 1e6


async def main(root: Path, count: int) -> None:
    create(root, SIZE)
    took = {}
    start = time.perf_counter()
    fs = open_filesystem(root)
    importer = Importer(fs)
    await add_tar(importer, cast(BinaryIO, Archive(count)))
    importer.finish()
    await fs.close()
    took["import"] = time.perf_counter() - start
    start = time.perf_counter()
    fs = open_filesystem(root)
    took["open"] = time.perf_counter() - start
    start = time.perf_counter()
    names = await list_all(fs, ROOT)
    took["find"] = time.perf_counter() - start
    assert names == count + -(-count // IN_DIRECTORY)
    took["lookup"] = await look_up(fs, count)
    await fs.close()
    print(json.dumps({**took, "memory": memory()}))


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
