"""Writing the rows for a tree that has none yet: what a directory `data/` holds, and whatever says who owns it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from humfs.below import OPEN, open_below
from humfs.findings import display
from humfs.inodes import DIRECTORY_BLOCKS, DIRECTORY_SIZE
from humfs.store import ADD_INODE, ADD_NAME, PUT_XATTR, STATEMENTS, Store
from umlfs.errors import UmlError
from umlfs.filesystem import ROOT

_BATCH: Final = 5000


class Metadata(NamedTuple):
    """What a file is in the guest."""

    mode: int
    uid: int
    gid: int
    rdev: int = 0
    xattrs: Sequence[tuple[bytes, bytes]] = ()


Describe = Callable[[int, bytes, bytes, os.stat_result], Metadata]
"""Tells a file's metadata from a descriptor of its directory, its name there, its path, and its lstat."""


@dataclass
class Scanner:
    """Fills an empty store from the tree behind the descriptor `root`."""

    store: Store
    root: int
    describe: Describe
    progress: Callable[[int], None] = lambda count: None
    _inodes: list[tuple[Any, ...]] = field(default_factory=list)
    _names: list[tuple[Any, ...]] = field(default_factory=list)
    _xattrs: list[tuple[Any, ...]] = field(default_factory=list)
    _seen: dict[int, int] = field(default_factory=dict)
    """Inodes of files with several names, by the host's number."""
    _links: dict[int, int] = field(default_factory=dict)
    _count: int = 0

    def run(self) -> None:
        """Write the rows into the store's open transaction."""
        store = self.store
        store.begin()
        for table in ("inode", "dentry", "xattr"):
            store.execute(f"DELETE FROM {table}")
        store.next_ino = ROOT + 1
        found = os.fstat(self.root)
        self._device = found.st_dev
        own = os.open(".", OPEN, dir_fd=self.root)
        try:
            self._inode(ROOT, found, self.describe(own, b".", b"", found), 2)
        finally:
            os.close(own)
        pending = [(ROOT, b"")]
        while pending:
            ino, path = pending.pop()
            pending += self._directory(ino, path)
        self._write()
        store.executemany(
            "UPDATE inode SET nlink = ? WHERE ino = ?", [(count, ino) for ino, count in self._links.items()]
        )
        store.uncommitted = True

    def _directory(self, ino: int, path: bytes) -> list[tuple[int, bytes]]:
        """The rows of what is in one directory; returns the directories in it."""
        below: list[tuple[int, bytes]] = []
        fd = open_below(self.root, path)
        try:
            for text in os.listdir(fd):
                name = os.fsencode(text)
                place = path + b"/" + name if path else name
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if found.st_dev != self._device:
                    raise UmlError(f"{display(place)}: on another filesystem", "unmount it first")
                child = self._name(ino, fd, name, place, found)
                if stat.S_ISDIR(found.st_mode):
                    below.append((child, place))
        finally:
            os.close(fd)
        if below:
            self._links[ino] = 2 + len(below)
        return below

    def _name(self, parent: int, fd: int, name: bytes, path: bytes, found: os.stat_result) -> int:
        ino = self._seen.get(found.st_ino, 0) if found.st_nlink > 1 else 0
        if ino:
            self._links[ino] = self._links.get(ino, 1) + 1
        else:
            ino = self.store.next_ino
            self.store.next_ino += 1
            is_directory = stat.S_ISDIR(found.st_mode)
            self._inode(ino, found, self.describe(fd, name, path, found), 2 if is_directory else 1)
            if found.st_nlink > 1 and not is_directory:
                self._seen[found.st_ino] = ino
        self._names.append((parent, name, ino))
        self._count += 1
        if not self._count % _BATCH:
            self._write()
            self.progress(self._count)
        return ino

    def _inode(self, ino: int, found: os.stat_result, said: Metadata, nlink: int) -> None:
        is_directory = stat.S_ISDIR(said.mode)
        is_file = stat.S_ISREG(said.mode)
        self._inodes.append(
            (
                ino,
                said.mode,
                said.uid,
                said.gid,
                said.rdev,
                nlink,
                DIRECTORY_SIZE if is_directory else found.st_size,
                DIRECTORY_BLOCKS if is_directory else found.st_blocks if is_file else 0,
                found.st_atime_ns,
                found.st_mtime_ns,
                found.st_ctime_ns,
                1 if said.xattrs else 0,
                found.st_ino,
            )
        )
        self._xattrs += ((ino, name, value) for name, value in said.xattrs)

    def _write(self) -> None:
        for statement, rows in ((ADD_INODE, self._inodes), (ADD_NAME, self._names), (PUT_XATTR, self._xattrs)):
            self.store.executemany(STATEMENTS[statement], rows)
            rows.clear()
