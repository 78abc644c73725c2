"""A tree used through the contract, by paths."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from typing import cast

from tests.contract.subject import Subject, failing
from umlfs import sources
from umlfs.filesystem import ROOT, Attr, Entry, Filesystem
from umlfs.sources import OpenOptions


class Driver:
    """What a shell does."""

    def __init__(self, filesystem: Filesystem) -> None:
        self.subject = Subject(filesystem)
        self.fs = filesystem

    async def walk(self, path: str) -> int:
        ino = ROOT
        for name in path.split("/"):
            if name:
                ino = (await self._found(ino, os.fsencode(name))).ino
        return ino

    async def _found(self, parent: int, name: bytes) -> Entry:
        entry = await self.subject.find(parent, name)
        if entry is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return entry

    async def parent(self, path: str) -> tuple[int, bytes]:
        directory, _, name = path.rpartition("/")
        return await self.walk(directory), os.fsencode(name)

    async def cat(self, path: str) -> bytes:
        ino = await self.walk(path)
        found = bytearray()
        handle = await self.subject.open(ino, os.O_RDONLY)
        try:
            while True:
                data = bytearray(1 << 16)
                count = await self.fs.read_into(ino, handle, len(found), [memoryview(data)])
                if not count:
                    return bytes(found)
                found += data[:count]
        finally:
            await self.subject.close(ino, handle)

    async def put(self, path: str, data: bytes) -> None:
        """As `cp` or a shell does: made anew, or emptied first."""
        parent, name = await self.parent(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        entry, opened = await self.fs.create(parent, name, 0o644, flags, 0, self.subject.caller)
        self.subject.counted(entry)
        try:
            await self.fs.write_from(entry.ino, opened.handle, 0, [memoryview(data)])
            await self.fs.flush(entry.ino, opened.handle)
        finally:
            await self.fs.release(entry.ino, opened.handle)

    async def ls(self, path: str = "") -> list[str]:
        return [os.fsdecode(name) for name in await self.subject.names(await self.walk(path))]

    async def stat(self, path: str) -> Attr:
        return await self.subject.attr(await self.walk(path))

    async def readlink(self, path: str) -> str:
        return os.fsdecode(await self.fs.readlink(await self.walk(path)))

    async def mkdir(self, path: str) -> None:
        await self.subject.mkdir(*await self.parent(path))

    async def rm(self, path: str) -> None:
        await self.fs.unlink(*await self.parent(path))

    async def rmdir(self, path: str) -> None:
        await self.fs.rmdir(*await self.parent(path))

    async def mv(self, path: str, to: str) -> None:
        await self.fs.rename(*await self.parent(path), *await self.parent(to))

    async def rm_r(self, path: str) -> None:
        """As `rm -r`: what is inside first."""
        ino = await self.walk(path)
        for name, _ in await self.subject.entries(ino):
            entry = await self._found(ino, name)
            below = f"{path}/{os.fsdecode(name)}"
            await (self.rm_r(below) if stat.S_ISDIR(entry.attr.mode) else self.rm(below))
        await self.rmdir(path)


@asynccontextmanager
async def driving(word: str, **extra: str) -> AsyncIterator[Driver]:
    """The tree that a source word names."""
    filesystem = cast(Filesystem, await sources.parse(word).open(OpenOptions(extra=extra)))
    try:
        async with filesystem.running():
            yield Driver(filesystem)
    finally:
        await filesystem.close()


def refused(*codes: int) -> AbstractContextManager[object]:
    """What is within must fail with one of these."""
    return failing(*codes)
