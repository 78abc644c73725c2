"""What one wants of a humfs from the host, without a guest: facts, and one file's metadata."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from humfs import lock, schema
from humfs import store as sql
from humfs import superblock as superblocks
from humfs.host import DATA
from humfs.store import Row, require_sound
from humfs.superblock import SQLITE
from humfs.volume import Progress, Volume, no_progress
from umlfs.errors import UmlError, UsageError
from umlfs.filesystem import ROOT

# Facts ----------------------------------------------------------------------------------------


@dataclass
class Info:
    """What is known of a humfs directory without opening it."""

    path: str
    metadata: str
    version: int
    used: int
    total: int
    holder: int | None = None
    """The process that has it open."""
    inodes: int | None = None
    names: int | None = None
    default_uid: int | None = None
    default_gid: int | None = None
    posix_acl: bool | None = None
    clean: bool | None = None
    """Closed in order, or open now."""
    importing: bool | None = None
    """An import is under way, or was broken off."""
    repairs: list[str] = field(default_factory=list)
    """What was mended without being asked, the latest last, each with its time (UTC)."""


def info(root: Path) -> Info:
    """Facts about `root`, open or not. UmlError if it is no humfs."""
    said = superblocks.read(root)
    facts = Info(str(root), said.metadata, said.version, said.used, said.total, lock.holder(root))
    if said.metadata != SQLITE:
        return facts
    try:
        with contextlib.closing(sqlite3.connect(f"file:{_quoted(root / schema.FILE)}?mode=ro", uri=True)) as rows:
            meta = dict(rows.execute("SELECT key, value FROM meta").fetchall())
            facts.default_uid, facts.default_gid = meta["default_uid"], meta["default_gid"]
            facts.posix_acl = bool(meta["posix_acl"])
            facts.importing = bool(meta["importing"])
            facts.clean = bool(meta["clean"]) or facts.holder is not None
            ((facts.inodes,),) = rows.execute("SELECT count(*) FROM inode").fetchall()
            ((facts.names,),) = rows.execute("SELECT count(*) FROM dentry").fetchall()
            facts.repairs = [
                f"{datetime.fromtimestamp(at // 10**9, UTC):%Y-%m-%d %H:%M:%S} {what}"
                for at, what in rows.execute("SELECT at_ns, what FROM repair ORDER BY id")
            ]
    except (sqlite3.Error, KeyError, TypeError, ValueError, OverflowError) as error:
        raise UmlError(f"{root / schema.FILE}: damaged: {error}", f"see 'uml humfs check {root}'") from error
    return facts


def _quoted(path: Path) -> str:
    from urllib.parse import quote

    return quote(os.fsencode(path.absolute()))


# One file -------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(root: Path, progress: Progress = no_progress) -> Iterator[Volume]:
    """The volume in `root`, closed in order afterwards if nothing went wrong."""
    volume = Volume(root, progress=progress)
    try:
        with volume.damage_explained():
            yield volume
    except BaseException:
        volume.close(clean=False)
        raise
    volume.close()


def locate(path: Path) -> tuple[Path, tuple[bytes, ...]]:
    """The humfs directory that `path`, of a file under its `data/`, is in, and the way from there."""
    absolute = Path(os.path.abspath(path))
    for parent in (absolute, *absolute.parents):
        if parent.name == DATA and (parent.parent / superblocks.FILE).exists():
            return parent.parent, tuple(os.fsencode(part) for part in absolute.relative_to(parent).parts)
    raise UsageError(f"{path}: not in a humfs directory", "name a file below its data/")


def find(volume: Volume, path: tuple[bytes, ...]) -> Row:
    """The row of what is there. UmlError if there is nothing."""
    row = volume.store.get(ROOT)
    for name in path:
        row = volume.store.find(row.ino, name) if row is not None else None
    if row is None:
        raise UmlError(f"/{os.fsdecode(b'/'.join(path))}: no such file in the filesystem", None)
    return row


def read_stat(path: Path) -> tuple[Row, list[tuple[bytes, bytes]]]:
    """Metadata and extended attributes of a file, as the guest has them."""
    root, parts = locate(path)
    with opened(root) as volume:
        row = find(volume, parts)
        try:
            require_sound(row)
        except OSError as error:
            raise UmlError(f"{path}: {error.strerror}", None) from error
        return row, volume.store.xattrs(row.ino)


def change_owner(path: Path, owner: str) -> tuple[int, int]:
    """Give a file to `owner`: USER, USER:GROUP or :GROUP, numbers or the guest's own names. Returns uid and gid.

    As chown in the guest does, it drops set-id bits and file capabilities.
    """
    root, parts = locate(path)
    with opened(root) as volume:
        row = find(volume, parts)
        uid, gid = parse_owner(owner, root, row.uid, row.gid)
        mode = row.mode
        if not stat.S_ISDIR(mode):
            mode &= ~stat.S_ISUID
            if mode & stat.S_IXGRP:
                mode &= ~stat.S_ISGID
        changed = (mode, uid, gid, *row[4:], row.ino)
        volume.mark()
        volume.store.apply((sql.PUT_INODE, changed), (sql.DELETE_XATTR, (row.ino, b"security.capability")))
        volume.used = volume.count_used()
        return uid, gid


def change_settings(root: Path, size: int | None, owner: str | None, acl: bool | None) -> None:
    """Change what is given: the size in bytes, the default owner (see `parse_owner`), access control lists.

    UsageError if nothing is.
    """
    if size is None and owner is None and acl is None:
        raise UsageError(f"{root}: nothing to change", "say --size, --owner, --acl or --no-acl")
    with opened(root) as volume:
        meta = volume.store.meta
        volume.mark()
        if owner is not None:
            uid, gid = parse_owner(owner, root, meta["default_uid"], meta["default_gid"])
            volume.store.set_meta(default_uid=uid, default_gid=gid)
        if acl is not None:
            volume.store.set_meta(posix_acl=int(acl))
        if size is not None:
            if size < volume.used:
                raise UmlError(f"{root}: {volume.used} bytes are used", "say a larger size, or remove something first")
            volume.superblock.total = size
            superblocks.write(root, volume.superblock)


def parse_owner(owner: str, root: Path, uid: int, gid: int) -> tuple[int, int]:
    """The numbers of USER[:GROUP]; what is not named stays `uid`, `gid`."""
    user, colon, group = owner.partition(":")
    if not user and not group:
        raise UsageError(f"'{owner}' names no owner", "say USER, USER:GROUP or :GROUP")
    if user:
        uid = _number(user, root, "passwd")
    if colon and group:
        gid = _number(group, root, "group")
    return uid, gid


def _number(word: str, root: Path, file: str) -> int:
    """A number, or a name that the guest knows."""
    if word.isascii() and word.isdecimal() and int(word) < (1 << 32) - 1:
        return int(word)
    path = root / DATA / "etc" / file
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                fields = line.split(":")
                if len(fields) > 2 and fields[0] == word and fields[2].isdecimal():
                    return int(fields[2])
    raise UsageError(f"'{word}' is no number, and not in the guest's /etc/{file}", "say the number")
