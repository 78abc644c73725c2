"""The index of an archive, made once and kept: `$XDG_CACHE_HOME/umlfs/archive-….sqlite`, the 32 used last.

It holds for as long as the archive is the same file with the same size and time. Without a cache it is made anew, in
memory.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import sqlite3
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from humfs.importer import Member, show
from humfs.losses import Losses
from humfs.tarreader import Reader
from runtime.archives.schema import SCHEMA, VERSION
from runtime.archives.tree import ArchiveNode, ArchiveTree
from runtime.host import cache
from umlfs.errors import UmlError
from umlfs.filesystem import ROOT
from umlfs.host.syscalls import failure

KEPT: Final = 32
_BATCH: Final = 10_000


def identity(path: Path, status: os.stat_result) -> tuple[object, ...]:
    """What an index of the archive is known by."""
    return VERSION, str(path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def kept(known_by: tuple[object, ...]) -> sqlite3.Connection | None:
    """The index that is kept of the archive, if it is one of that very file."""
    place = _place(known_by)
    fd = cache.open_ours(place) if place is not None else None
    if place is None or fd is None:
        return None
    os.close(fd)
    rows = None
    try:
        rows = sqlite3.connect(f"{place.as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False)
        if rows.execute("SELECT * FROM archive").fetchone() == known_by:
            os.utime(place)
            return rows
    except (sqlite3.Error, OSError):
        pass  # damaged, or gone
    if rows is not None:
        rows.close()
    return None


def _place(known_by: tuple[object, ...]) -> Path | None:
    root = cache.directory()
    digest = hashlib.sha256(str(known_by[1]).encode(errors="surrogateescape")).hexdigest()[:32]
    return root / f"archive-{digest}.sqlite" if root is not None else None


def made(known_by: tuple[object, ...], plain: BinaryIO, losses: Losses) -> sqlite3.Connection:
    """A new index of the archive, whose plain tar is read from `plain`; it is kept where there is a cache. UmlError for
    an archive that is damaged."""
    rows = sqlite3.connect(":memory:", check_same_thread=False)
    try:
        rows.executescript(SCHEMA)
        rows.execute("INSERT INTO archive VALUES (?, ?, ?, ?, ?, ?)", known_by)
        _Builder(rows).run(Reader(plain, losses))
        rows.commit()
    except BaseException:
        rows.close()
        raise
    if not losses:  # what is lost is told each time
        _keep(rows, known_by)
    return rows


def _keep(rows: sqlite3.Connection, known_by: tuple[object, ...]) -> None:
    place = _place(known_by)
    if place is None:
        return
    with contextlib.suppress(OSError, sqlite3.Error):
        cache.write_atomically(place, rows.serialize())
        cache.prune("archive-*.sqlite", KEPT)


@dataclass
class _Builder:
    """Puts members into an empty index: as tar unpacks them, later ones over earlier ones."""

    rows: sqlite3.Connection
    _last: int = ROOT
    _inodes: list[tuple[object, ...]] = field(default_factory=list)
    _attributes: list[tuple[int, bytes, bytes]] = field(default_factory=list)

    def run(self, reader: Reader) -> None:
        root = ArchiveNode(ROOT, stat.S_IFDIR, {})
        self._tree = ArchiveTree(root, self._make_parent)
        self._put(ROOT, Member((), stat.S_IFDIR | 0o755))
        for member in reader:
            try:
                self._add(member)
            except OSError as error:
                raise UmlError(f"{show(member.path)}: {error.strerror}", "the archive is damaged") from None
            if len(self._inodes) >= _BATCH:
                self._flush()
        self._flush()
        if not reader.is_complete:
            raise UmlError("the archive has no end", "it was cut short, make it again")
        self._write_names(root)

    def _make_parent(self) -> ArchiveNode:
        return self._make(Member((), stat.S_IFDIR | 0o755))

    def _make(self, member: Member) -> ArchiveNode:
        self._last += 1
        self._put(self._last, member)
        kind = stat.S_IFMT(member.mode)
        return ArchiveNode(self._last, kind, {} if kind == stat.S_IFDIR else None, member.target)

    def _put(self, ino: int, member: Member) -> None:
        place = member.source[1] if member.source is not None else None
        ranges = None if member.ranges is None else json.dumps(list(member.ranges))
        times = member.atime_ns, member.mtime_ns
        facts = member.mode, member.uid, member.gid, member.rdev, member.size
        if ino != self._last or ino == ROOT:
            self.rows.execute("DELETE FROM inode WHERE ino = ?", (ino,))
            self.rows.execute("DELETE FROM attribute WHERE ino = ?", (ino,))
        self._inodes.append((ino, *facts, *times, member.target, place, ranges, 1))
        self._attributes += [(ino, name, value) for name, value in member.xattrs]

    def _add(self, member: Member) -> None:
        if member.link is not None:
            self._link(member)
            return
        if not member.path:
            self._flush()
            self._put(ROOT, member)
            return
        names = self._tree.parent(member.path)
        there = names.get(member.path[-1])
        if there is not None and stat.S_ISDIR(member.mode) and there.children is not None:
            self._flush()
            self._put(there.ino, member)
            return
        if there is not None:
            self._tree.forget()
        names[member.path[-1]] = self._make(member)

    def _link(self, member: Member) -> None:
        assert member.link is not None
        node = self._tree.find(member.link)
        if node is None or node.children is not None or not member.path:
            raise failure(errno.ENOENT if node is None else errno.EPERM)
        names = self._tree.parent(member.path)
        if names.get(member.path[-1]) not in (None, node):
            self._tree.forget()
        names[member.path[-1]] = node

    def _flush(self) -> None:
        values = ", ".join("?" * 12)
        self.rows.executemany(f"INSERT OR REPLACE INTO inode VALUES ({values})", self._inodes)
        self.rows.executemany("INSERT OR REPLACE INTO attribute VALUES (?, ?, ?)", self._attributes)
        self._inodes.clear()
        self._attributes.clear()

    def _write_names(self, root: ArchiveNode) -> None:
        pending = [root]
        while pending:
            node = pending.pop()
            children = node.children or {}
            entries = [(node.ino, name, child.ino) for name, child in children.items()]
            self.rows.executemany("INSERT INTO entry VALUES (?, ?, ?)", entries)
            pending += [child for child in children.values() if child.children is not None]
        self.rows.execute(
            "UPDATE inode SET nlink = n FROM (SELECT ino AS i, count(*) AS n FROM entry GROUP BY ino) WHERE i = ino"
        )
        self.rows.execute("DELETE FROM inode WHERE ino != ? AND ino NOT IN (SELECT ino FROM entry)", (ROOT,))
