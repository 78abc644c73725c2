"""Inodes in memory: a bounded number of those in the database, with what belongs to the host's side."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import Final

from humfs.store import Row
from umlfs.filesystem import Attr

CACHED_MAX: Final = 32 * 1024
"""How many inodes are kept in memory; about half a kilobyte each."""

ORPHANAGE: Final = 0
"""The parent of an inode without a name: its file is in `orphans/`, named by its number, unless `humfs.host` keeps it
by its descriptor."""

DIRECTORY_SIZE: Final = 4096
"""What is shown as a directory's size, and what it counts for in `used`: it has no size of its own."""
DIRECTORY_BLOCKS: Final = DIRECTORY_SIZE // 512


class Inode:
    """An inode, and one name by which its file on the host is reached."""

    __slots__ = (
        "atime_ns",
        "blocks",
        "busy",
        "ctime_ns",
        "dirty",
        "fd",
        "gid",
        "host_ino",
        "ino",
        "mode",
        "mtime_ns",
        "name",
        "nlink",
        "parent",
        "rdev",
        "size",
        "uid",
        "used",
        "xattrs",
    )

    def __init__(self, row: Row, parent: int, name: bytes) -> None:
        (
            self.ino,
            self.mode,
            self.uid,
            self.gid,
            self.rdev,
            self.nlink,
            self.size,
            self.blocks,
            self.atime_ns,
            self.mtime_ns,
            self.ctime_ns,
            self.xattrs,
            self.host_ino,
        ) = row
        self.parent = parent
        self.name = name
        self.fd = -1
        """Its file, open for reading and writing, or -1."""
        self.used = False
        """`fd` was used since it was last thought of closing it."""
        self.busy = 0
        """How many threads use `fd` now; it is not closed meanwhile."""
        self.dirty = False
        """Differs from its row. (Never so in what a kill must not lose: that is written at once.)"""

    def row(self) -> Row:
        """As a row of the database."""
        return Row(
            self.ino,
            self.mode,
            self.uid,
            self.gid,
            self.rdev,
            self.nlink,
            self.size,
            self.blocks,
            self.atime_ns,
            self.mtime_ns,
            self.ctime_ns,
            self.xattrs,
            self.host_ino,
        )

    def values(self) -> tuple[int | None, ...]:
        """The parameters of `PUT_INODE`."""
        ino, *others = self.row()
        return (*others, ino)

    def attr(self) -> Attr:
        return Attr(
            self.ino,
            self.mode,
            self.nlink,
            self.uid,
            self.gid,
            self.rdev,
            self.size,
            self.blocks,
            self.atime_ns,
            self.mtime_ns,
            self.ctime_ns,
        )

    @property
    def is_directory(self) -> bool:
        return self.mode & 0o170000 == stat.S_IFDIR

    @property
    def is_file(self) -> bool:
        return self.mode & 0o170000 == stat.S_IFREG


class InodeCache:
    """The inodes in memory by number. Those in use (open in a thread, or with a descriptor) are not put out."""

    def __init__(self, most: int = CACHED_MAX) -> None:
        self.most = most
        self.inodes: dict[int, Inode] = {}

    def add(self, inode: Inode) -> None:
        self.inodes[inode.ino] = inode

    def surplus(self) -> Iterator[Inode]:
        """Take out the inodes that were read longest ago until there is room for some again."""
        inodes = self.inodes
        if len(inodes) <= self.most:
            return
        count = len(inodes) - self.most + self.most // 8
        for inode in list(inodes.values())[:count]:
            del inodes[inode.ino]
            if inode.busy or inode.fd >= 0:
                inodes[inode.ino] = inode  # at the end, as if just read
            else:
                yield inode
