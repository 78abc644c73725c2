"""An archive as a filesystem: names and attributes from its index, contents from the archive."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import stat
import threading
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

import trio

from humfs.losses import Losses
from runtime.archives import index
from runtime.archives.kinds import is_plain
from runtime.archives.plain import put_down
from umlfs.errors import UmlError
from umlfs.externfs.calls import instant
from umlfs.externfs.filesystem import NodeFilesystem
from umlfs.externfs.node import Attributes, Child, Directory, File, Link, Node
from umlfs.filesystem import FOREVER, ROOT, Filesystem
from umlfs.host.syscalls import failure

_COLUMNS: Final = "i.ino, mode, uid, gid, rdev, size, atime, mtime, target, place, ranges, nlink"
_Row = tuple[int, int, int, int, int, int, int | None, int, bytes, int | None, str | None, int]


class Archive:
    """An open archive. Its methods may wait, and may be called by several threads."""

    def __init__(self, path: Path) -> None:
        """Finds the index, or makes it, which reads all of the archive. UmlError; OSError."""
        self.path = path
        self._file = open(path, "rb")  # noqa: SIM115 - closed by `close`
        self._plain: BinaryIO | None = None
        self._lock = threading.Lock()
        self.losses = Losses()
        try:
            if is_plain(path):
                self._plain = self._file
            known_by = index.identity(path, os.fstat(self._file.fileno()))
            self._rows = index.kept(known_by) or index.made(known_by, self._contents(), self.losses)
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        self._rows.close()
        if self._plain is not None:
            self._plain.close()
        self._file.close()

    def select(self, query: str, *values: object) -> list[_Row]:
        """Rows of nodes."""
        with self._lock:
            try:
                return self._rows.execute(f"SELECT {_COLUMNS}{query}", values).fetchall()
            except sqlite3.Error:
                raise failure(errno.EIO) from None

    def names(self, ino: int) -> list[tuple[bytes, _Row]]:
        """What is in a directory."""
        rows = self.select(
            ", e.name FROM entry e JOIN inode i ON i.ino = e.ino WHERE e.parent = ? ORDER BY e.name", ino
        )
        return [(row[-1], row[:-1]) for row in rows]  # type: ignore[misc]

    def attributes(self, ino: int) -> dict[bytes, bytes]:
        """A file's extended attributes."""
        with self._lock:
            return dict(self._rows.execute("SELECT name, value FROM attribute WHERE ino = ?", (ino,)).fetchall())

    def read(self, place: int, size: int) -> bytes:
        """Bytes of the plain archive."""
        with self._lock:
            fd = self._contents().fileno()
        return os.pread(fd, size, place)

    def _contents(self) -> BinaryIO:
        """The archive as plain tar; a compressed one is put down when its contents are first asked for."""
        if self._plain is None:
            try:
                self._plain = put_down(self.path)
            except UmlError as error:
                raise UmlError(f"{self.path}: {error.what}", error.way_out, details=error.details) from None
        return self._plain


class _ArchiveNode(Node):
    """What all nodes have in common."""

    valid_ns = FOREVER

    def __init__(self, archive: Archive, row: _Row) -> None:
        self.archive = archive
        self.row = row

    @property
    def key(self) -> int:
        return self.row[0]

    @instant
    async def attributes(self) -> Attributes:
        _, mode, uid, gid, rdev, size, atime, mtime, target, _, ranges, nlink = self.row
        stored = sum(length for _, length in json.loads(ranges)) if ranges is not None else size
        blocks = -(-stored // 512)
        size = len(target) if stat.S_ISLNK(mode) else size
        return Attributes(stat.S_IMODE(mode), size, mtime, atime, None, uid, gid, nlink, rdev, blocks)


class ArchiveDirectory(_ArchiveNode, Directory):
    """A directory in an archive."""

    def children(self) -> Iterable[Child]:
        return [(os.fsdecode(name), _node(self.archive, row)) for name, row in self.archive.names(self.row[0])]

    def lookup(self, name: str) -> Node:
        query = " FROM entry e JOIN inode i ON i.ino = e.ino WHERE e.parent = ? AND e.name = ?"
        rows = self.archive.select(query, self.row[0], os.fsencode(name))
        if not rows:
            raise failure(errno.ENOENT)
        return _node(self.archive, rows[0])


class ArchiveFile(_ArchiveNode, File):
    """A regular file in an archive."""

    def read_at(self, offset: int, length: int) -> bytes:
        size, place, ranges = self.row[5], self.row[9], self.row[10]
        length = min(length, size - offset)
        if length <= 0 or place is None:
            return b""
        if ranges is None:
            return self.archive.read(place + offset, length)
        return self._with_holes(place, json.loads(ranges), offset, length)

    def _with_holes(self, place: int, ranges: list[tuple[int, int]], offset: int, length: int) -> bytes:
        found = bytearray(length)
        for start, count in ranges:
            first, last = max(start, offset), min(start + count, offset + length)
            if first < last:
                found[first - offset : last - offset] = self.archive.read(place + first - start, last - first)
            place += count
        return bytes(found)


class ArchiveLink(_ArchiveNode, Link):
    """A symbolic link in an archive."""

    def __init__(self, archive: Archive, row: _Row) -> None:
        super().__init__(archive, row)
        self.target = row[8]


class ArchiveSpecial(_ArchiveNode):
    """A device or a pipe in an archive."""

    @property
    def kind(self) -> int:  # type: ignore[override]
        return stat.S_IFMT(self.row[1])


def _node(archive: Archive, row: _Row) -> Node:
    kind = stat.S_IFMT(row[1])
    classes = {stat.S_IFDIR: ArchiveDirectory, stat.S_IFREG: ArchiveFile, stat.S_IFLNK: ArchiveLink}
    return classes.get(kind, ArchiveSpecial)(archive, row)


class ArchiveFilesystem(NodeFilesystem):
    """The tree in an archive, which is only read."""

    def __init__(self, archive: Archive) -> None:
        root = archive.select(" FROM inode i WHERE ino = ?", ROOT)[0]
        super().__init__(
            ArchiveDirectory(archive, root), name=f"archive:{archive.path}", read_only=True, on_close=archive.close
        )
        self._archive = archive

    async def getxattr(self, ino: int, name: bytes) -> bytes:
        node = self._inodes[ino].node
        value = self._archive.attributes(node.row[0]).get(name) if isinstance(node, _ArchiveNode) else None
        if value is None:
            raise failure(errno.ENODATA)
        return value

    async def listxattr(self, ino: int) -> list[bytes]:
        node = self._inodes[ino].node
        return list(self._archive.attributes(node.row[0])) if isinstance(node, _ArchiveNode) else []


async def open_archive(path: Path) -> Filesystem:
    """The archive as a filesystem; the first time all of it is read. UmlError; OSError."""
    archive = await trio.to_thread.run_sync(partial(Archive, path))
    for line in archive.losses.lines():
        archive.close()
        raise UmlError(f"{path}: not all of it can be shown: {line}", "unpack it with the program that made it")
    return ArchiveFilesystem(archive)
