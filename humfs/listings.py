"""What is in a directory, read from the rows."""

from __future__ import annotations

import errno
import stat
from typing import Final

from humfs.core import Core
from humfs.inodes import Inode
from humfs.store import Row
from umlfs.filesystem import ROOT, DirectoryOperations, DirSink, Opened
from umlfs.host.syscalls import failure

BATCH: Final = 128
"""Rows of a listing read at once."""
BATCH_PLUS: Final = 32
"""With attributes: the kernel asks for a page of them, which is 24 at most."""
_DOTS: Final = 2
"""Offsets 1 and 2 follow `.` and `..`; a name's is its row's id and this."""


class Listings(DirectoryOperations):
    """The operations on directories; see `Filesystem` for each. There are no handles."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._inodes = core.inodes

    async def opendir(self, ino: int) -> Opened:
        raise failure(errno.ENOSYS)

    async def fsyncdir(self, ino: int, handle: int, data_only: bool = False) -> None:
        if not self._core.node(ino).is_directory:
            raise failure(errno.ENOTDIR)
        await self._core.durability.sync()

    async def readdir(self, ino: int, handle: int, offset: int, add: DirSink, plus: bool = False) -> None:
        directory = self._core.node(ino)
        if not directory.is_directory:
            raise failure(errno.ENOTDIR)
        if offset < 1 and not add(b".", 1, ino, stat.S_IFDIR, None):
            return
        if offset < _DOTS and not add(b"..", _DOTS, self._above(directory), stat.S_IFDIR, None):
            return
        after = max(offset - _DOTS, 0)
        batch = BATCH_PLUS if plus else BATCH
        while rows := self._core.store.entries(ino, after, batch):
            if plus and ino not in self._core.host_caches:
                await self._core.host_caches.fill(ino, rows[0][1])
            for row in rows:
                if not self._give(ino, row, add, plus):
                    return
            after = rows[-1][0]
            if len(rows) < batch:
                return

    @staticmethod
    def _above(directory: Inode) -> int:
        return directory.parent or directory.ino if directory.ino != ROOT else ROOT

    def _give(self, ino: int, row: tuple[int, ...], add: DirSink, plus: bool) -> bool:
        position, name, *_ = row
        number, mode = row[2], row[3]
        if not plus:
            return add(name, position + _DOTS, number, mode & 0o170000, None)  # type: ignore[arg-type]
        inode = self._inodes.get(number)
        if inode is None:
            try:
                inode = self._core.remember(Row._make(row[2:]), ino, name)  # type: ignore[arg-type]
            except OSError:
                return add(name, position + _DOTS, number, mode & 0o170000, None)  # type: ignore[arg-type]
        if add(name, position + _DOTS, number, mode & 0o170000, entry := self._core.entry(inode)):  # type: ignore[arg-type]
            return True
        self._core.forget(entry.ino, 1)
        return False
