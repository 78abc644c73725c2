"""`humfsify`: a tree with true ownership in `data/` becomes a humfs in place, and back. Both need root.

Killed at any moment, the same command goes on where it was. Forward, all metadata is in the database, durable, before
the first owner is changed; the superblock, by which the directory is a humfs at all, comes last. Backward, the
database goes last.

Nothing on the way is trusted to stay what it is: a file is opened without following symlinks, and changed through
that descriptor.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from humfs import schema
from humfs import superblock as superblocks
from humfs.acl import ACCESS, DEFAULT
from humfs.below import OPEN, open_below
from humfs.findings import display
from humfs.host import DATA, DIRECTORY_MODE, FILE_MODE, ORPHANS
from humfs.journal import FILE as JOURNAL
from humfs.lock import FILE as LOCK
from humfs.lock import TreeLock
from humfs.reconcile import temporary_name
from humfs.scan import Metadata, Scanner
from humfs.store import Store
from humfs.superblock import SQLITE, Superblock
from humfs.volume import Progress, Volume, no_progress, sync_tree
from umlfs.errors import UmlError
from umlfs.filesystem import ROOT
from umlfs.host.newfile import sync_path
from umlfs.host.syscalls import chown, utime

_PATH: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_SPECIAL: Final = frozenset({stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK})
_CONVERTING: Final = "converting"
"""In `meta`: 1 once all metadata is in the database, while owners are being changed."""


# Forward --------------------------------------------------------------------------------------


def humfsify(root: Path, uid: int, gid: int, size: int, progress: Progress = no_progress) -> int:
    """Make the directory `root`, with a tree in `data/`, a humfs that belongs to the host user `uid` and `gid`.

    Returns the bytes used. UmlError if it is one already, if the tree does not fit into `size` bytes, or without
    root; whatever it says, no ownership is lost.
    """
    _require_root()
    if not (root / DATA).is_dir() or (root / DATA).is_symlink():
        raise UmlError(f"{root}: no directory data/ here", "run humfsify in the directory that has it")
    if (root / superblocks.FILE).exists() and (root / superblocks.FILE).stat().st_size:
        said = superblocks.read(root)
        if (said.metadata != SQLITE and _has_shadow(root)) or (root / schema.FILE).exists():
            raise UmlError(f"{root}: already a humfs ({said.metadata})", "'humfsify -r' makes it a plain tree")
    elif _has_shadow(root):
        raise UmlError(
            f"{root}: half converted by the historical humfsify",
            "write a superblock ('version 2', 'metadata shadow_fs', 'used 1', 'total BYTES') and use 'humfsify -r'",
        )
    lock = TreeLock(root)
    try:
        used = _record(root, size, progress)
        _hand_over(root, uid, gid, progress)
    finally:
        lock.close()
    _finish(root, uid, gid, used, size)
    return used


def _require_root() -> None:
    if os.geteuid() != 0:
        raise UmlError("humfsify changes owners, which needs root", "run it with sudo; 'uml humfs import' needs none")


def _has_shadow(root: Path) -> bool:
    return (root / "dir_metadata").exists() or (root / "file_metadata").exists()


def _record(root: Path, size: int, progress: Progress) -> int:
    """Have all metadata of data/ in the database, durable; returns the bytes used."""
    store = Store(root)
    fd = os.open(root / DATA, OPEN)
    try:
        if not store.meta.get(_CONVERTING):
            Scanner(store, fd, _describe, progress).run()
            used = _used(store)
            if used > size:
                store.rollback()
                raise UmlError(f"Current disk usage greater than the requested size - {used} vs {size}", None)
            lists = store.select("SELECT 1 FROM xattr WHERE name IN (?, ?) LIMIT 1", ACCESS, DEFAULT)
            store.set_meta(**{_CONVERTING: 1}, posix_acl=1 if lists else 0)
            store.commit()
            store.sync_log()
            sync_path(root)
        used = _used(store)
        if used > size:
            raise UmlError(f"Current disk usage greater than the requested size - {used} vs {size}", None)
        return used
    finally:
        os.close(fd)
        store.close()


def _used(store: Store) -> int:
    ((blocks,),) = store.select("SELECT coalesce(sum(blocks), 0) * 512 FROM inode")
    ((values,),) = store.select("SELECT coalesce(sum(length(name) + length(value)), 0) FROM xattr")
    return int(blocks) + int(values)


def _describe(fd: int, name: bytes, path: bytes, found: os.stat_result) -> Metadata:
    """As the host has it."""
    mode = found.st_mode
    rdev = found.st_rdev if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else 0
    return Metadata(mode, found.st_uid, found.st_gid, rdev, list(_host_xattrs(fd, name, mode)))


def _host_xattrs(fd: int, name: bytes, mode: int) -> Iterator[tuple[bytes, bytes]]:
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
    try:
        for text in os.listxattr(file):
            xattr = os.fsencode(text)
            if xattr.startswith((b"user.", b"trusted.", b"security.")) or xattr in (ACCESS, DEFAULT):
                with contextlib.suppress(OSError):
                    yield xattr, os.getxattr(file, xattr)
    except OSError:
        return
    finally:
        os.close(file)


class _Walk:
    """All rows with a name, each with a descriptor of its directory on the host."""

    def __init__(self, store: Store, root: int) -> None:
        self._store = store
        self._root = root

    def __iter__(self) -> Iterator[tuple[int, bytes, bytes, tuple[int, ...]]]:
        """Directory, name, path, and inode, mode, uid, gid, rdev, atime, mtime, xattrs, host_ino; what is in a
        directory comes before it, the root last."""
        yield from self._below(ROOT, b"")
        own = os.open(".", OPEN, dir_fd=self._root)
        try:
            (row,) = self._store.select(f"SELECT {_COLUMNS} FROM inode i WHERE ino = 1")
            yield own, b".", b"", row
        finally:
            os.close(own)

    def _below(self, ino: int, path: bytes) -> Iterator[tuple[int, bytes, bytes, tuple[int, ...]]]:
        pending = [(ino, path, False)]
        while pending:
            ino, path, done = pending.pop()
            if not done:
                pending.append((ino, path, True))
                pending += (
                    (child, path + b"/" + name if path else name, False)
                    for child, name in self._store.select(
                        "SELECT i.ino, d.name FROM dentry d JOIN inode i ON i.ino = d.ino "
                        "WHERE d.parent = ? AND i.mode & 61440 = 16384",
                        ino,
                    )
                )
                continue
            fd = open_below(self._root, path)
            try:
                for name, *row in self._store.select(
                    f"SELECT d.name, {_COLUMNS} FROM dentry d JOIN inode i ON i.ino = d.ino WHERE d.parent = ?", ino
                ):
                    yield fd, name, path + b"/" + name if path else name, tuple(row)
            finally:
                os.close(fd)


_COLUMNS: Final = "i.ino, i.mode, i.uid, i.gid, i.rdev, i.atime_ns, i.mtime_ns, i.xattrs, i.host_ino"


def _hand_over(root: Path, uid: int, gid: int, progress: Progress) -> None:
    """Give everything in data/ to the host user; devices, fifos and sockets become empty files."""
    store = Store(root)
    fd = os.open(root / DATA, OPEN)
    replaced: dict[int, bytes] = {}
    try:
        for count, (place, name, path, row) in enumerate(_Walk(store, fd)):
            _give(fd, place, name, path, row, (uid, gid), replaced)
            if not count % 1000:
                progress(count)
        for ino, path in replaced.items():
            found = os.stat(path, dir_fd=fd, follow_symlinks=False)
            store.begin()
            store.execute("UPDATE inode SET host_ino = ? WHERE ino = ?", (found.st_ino, ino))
        store.commit()
        sync_tree(fd)
    finally:
        os.close(fd)
        store.close()


def _give(
    root: int,
    place: int,
    name: bytes,
    path: bytes,
    row: tuple[int, ...],
    owner: tuple[int, int],
    replaced: dict[int, bytes],
) -> None:
    ino, mode = row[0], row[1]
    if stat.S_IFMT(mode) in _SPECIAL:
        _replace_special(root, place, name, ino, path, replaced)
    fd = os.open(name, _PATH, dir_fd=place)
    try:
        found = _same(fd, row, path)
        link = f"/proc/self/fd/{fd}"
        if (found.st_uid, found.st_gid) != owner:
            chown(fd, *owner)
        if stat.S_ISLNK(found.st_mode):
            return
        if row[7]:
            for xattr in os.listxattr(link):
                with contextlib.suppress(OSError):
                    os.removexattr(link, xattr)
        wanted = DIRECTORY_MODE if stat.S_ISDIR(found.st_mode) else FILE_MODE
        if stat.S_IMODE(found.st_mode) != wanted:
            os.chmod(link, wanted)
    finally:
        os.close(fd)


def _same(fd: int, row: tuple[int, ...], path: bytes) -> os.stat_result:
    """lstat of what is about to be changed. UmlError if it is not what the row was made for: somebody is at work
    in the tree, and root must not be led to other files."""
    found = os.fstat(fd)
    if found.st_ino != row[8] and stat.S_IFMT(row[1]) not in _SPECIAL:
        raise UmlError(f"{display(path)}: replaced while humfsify ran", "let nobody change the tree, and run it again")
    return found


def _replace_special(root: int, place: int, name: bytes, ino: int, path: bytes, replaced: dict[int, bytes]) -> None:
    """Put an empty file in the place of a device, fifo or socket; the same one for all its names."""
    if stat.S_ISREG(os.stat(name, dir_fd=place, follow_symlinks=False).st_mode) and ino not in replaced:
        replaced[ino] = path  # by a run that was killed
        return
    temporary = temporary_name()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=place)
    if ino in replaced:
        os.link(replaced[ino], temporary, src_dir_fd=root, dst_dir_fd=place, follow_symlinks=False)
    else:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(temporary, flags, FILE_MODE, dir_fd=place))
        replaced[ino] = path
    os.rename(temporary, name, src_dir_fd=place, dst_dir_fd=place)
    with contextlib.suppress(FileNotFoundError):  # of two names of one file, rename may leave both
        os.unlink(temporary, dir_fd=place)


def _finish(root: Path, uid: int, gid: int, used: int, size: int) -> None:
    """Stamp the rows as those of this tree, and make the directory a humfs."""
    superblocks.write(root, Superblock(used=used, total=size))
    volume = Volume(root, recover=False)
    volume.was_clean = False
    volume.settle([])
    volume.used = used
    volume.store.set_meta(**{_CONVERTING: 0})
    volume.close()
    for name in (superblocks.FILE, schema.FILE, JOURNAL, LOCK, ORPHANS, "."):
        with contextlib.suppress(FileNotFoundError):
            os.chown(root / name, uid, gid, follow_symlinks=False)


# Backward -------------------------------------------------------------------------------------


def restore(root: Path, progress: Progress = no_progress) -> None:
    """Make the humfs in `root` a plain tree again: owners, modes, devices, times and xattrs are those of the guest.

    `data/` and the superblock stay, the database goes. UmlError without root, and for what the host refuses.
    """
    _require_root()
    Volume(root, progress=progress).close()  # whatever a crash left is mended first
    lock = TreeLock(root)
    try:
        _restore_tree(root, progress)
        (root / schema.FILE).unlink()
        for name in (JOURNAL, f"{schema.FILE}-wal", f"{schema.FILE}-shm"):
            (root / name).unlink(missing_ok=True)
        (root / ORPHANS).rmdir()
    finally:
        lock.close()
    (root / LOCK).unlink(missing_ok=True)


def _restore_tree(root: Path, progress: Progress) -> None:
    store = Store(root)
    fd = os.open(root / DATA, OPEN)
    made: dict[int, bytes] = {}
    try:
        for count, (place, name, path, row) in enumerate(_Walk(store, fd)):
            try:
                _return(fd, place, name, path, row, store, made)
            except OSError as error:
                raise UmlError(
                    f"{display(path)}: {error.strerror}", "mend that, then run 'humfsify -r' again"
                ) from error
            if not count % 1000:
                progress(count)
        sync_tree(fd)
    finally:
        os.close(fd)
        store.close()


def _return(
    root: int,
    place: int,
    name: bytes,
    path: bytes,
    row: tuple[int, ...],
    store: Store,
    made: dict[int, bytes],
) -> None:
    """Give a file its true metadata."""
    ino, mode, uid, gid, rdev, atime_ns, mtime_ns, has_xattrs, _ = row
    if stat.S_IFMT(mode) in _SPECIAL:
        _make_special(root, place, name, ino, mode, rdev, path, made)
    fd = os.open(name, _PATH, dir_fd=place)
    try:
        _same(fd, row, path)
        link = f"/proc/self/fd/{fd}"
        chown(fd, uid, gid)
        if not stat.S_ISLNK(mode):
            os.chmod(link, stat.S_IMODE(mode))
            for xattr, value in store.xattrs(ino) if has_xattrs else ():
                os.setxattr(link, xattr, value)
        utime(fd, divmod(atime_ns, 10**9), divmod(mtime_ns, 10**9))
    finally:
        os.close(fd)


def _make_special(
    root: int, place: int, name: bytes, ino: int, mode: int, rdev: int, path: bytes, made: dict[int, bytes]
) -> None:
    found = os.stat(name, dir_fd=place, follow_symlinks=False)
    if stat.S_IFMT(found.st_mode) == stat.S_IFMT(mode) and found.st_rdev == rdev and ino not in made:
        made[ino] = path
        return
    temporary = temporary_name()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=place)
    if ino in made:
        os.link(made[ino], temporary, src_dir_fd=root, dst_dir_fd=place, follow_symlinks=False)
    else:
        os.mknod(temporary, stat.S_IFMT(mode) | 0o600, rdev, dir_fd=place)
        made[ino] = path
    os.rename(temporary, name, src_dir_fd=place, dst_dir_fd=place)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=place)
