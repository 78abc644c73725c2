"""A filesystem with nothing in it."""

from __future__ import annotations

import errno
import os
import stat

from umlfs.filesystem import FOREVER, ROOT, Attr, DirSink, Entry, Filesystem, StatFs, Traits


class Empty(Filesystem):
    """A root directory without names, which cannot be changed."""

    traits = Traits(read_only=True)

    async def lookup(self, parent: int, name: bytes) -> Entry:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    async def getattr(self, ino: int, handle: int = 0) -> tuple[Attr, int]:
        return Attr(ROOT, stat.S_IFDIR | 0o555, 2, 0, 0, 0, 0, 0, 0, 0, 0), FOREVER

    async def readdir(self, ino: int, handle: int, offset: int, add: DirSink, plus: bool = False) -> None:
        """There is no name to add."""

    async def statfs(self, ino: int = ROOT) -> StatFs:
        return StatFs()
