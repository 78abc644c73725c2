"""The historical metadata format `shadow_fs`: text records in two trees beside `data/`.

A directory D has its record in `dir_metadata/D/metadata`, anything else F in `file_metadata/F`:

    MODE UID GID
    MODE UID GID TYPE MAJOR MINOR

all decimal, MODE the nine permission bits, TYPE one of c, b, p, s. Names of one file are links of one record. Types
not in a record are those of the files under `data/`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from humfs import schema
from humfs import superblock as superblocks
from humfs.below import OPEN, open_below
from humfs.findings import display
from humfs.host import DATA, ORPHANS
from humfs.journal import FILE as JOURNAL
from humfs.lock import TreeLock
from humfs.rows import path_of
from humfs.scan import Metadata, Scanner
from humfs.store import Store
from humfs.superblock import SHADOW_FS, SQLITE, Superblock
from humfs.volume import Progress, Volume, no_progress, sync_tree
from umlfs.errors import UmlError
from umlfs.filesystem import ROOT

FILES: Final = "file_metadata"
DIRECTORIES: Final = "dir_metadata"
RECORD: Final = b"metadata"
RECORD_MAX: Final = 64
NUMBER_MAX: Final = 999
"""The historical driver's room for a device's major and minor number: three digits."""

_TYPES: Final = {b"c": stat.S_IFCHR, b"b": stat.S_IFBLK, b"p": stat.S_IFIFO, b"s": stat.S_IFSOCK}
_LETTERS: Final = {kind: letter for letter, kind in _TYPES.items()}
_RECORD_FLAGS: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def parse(text: bytes, host_mode: int) -> Metadata:
    """What a record says of a file of the host's type. ValueError if it is none."""
    fields = text.split()
    if len(fields) not in (3, 6):
        raise ValueError(f"{len(fields)} fields")
    mode, uid, gid = (_number(field) for field in fields[:3])
    kind, rdev = stat.S_IFMT(host_mode), 0
    if len(fields) == 6:
        if fields[3] not in _TYPES:
            raise ValueError(f"type {fields[3]!r}")
        kind = _TYPES[fields[3]]
        rdev = os.makedev(_number(fields[4]), _number(fields[5]))
    return Metadata(kind | mode & 0o777, uid, gid, rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0)


def _number(field: bytes) -> int:
    if not field.isdigit() or int(field) >= 1 << 32:
        raise ValueError(f"number {field!r}")
    return int(field)


def format_record(mode: int, uid: int, gid: int, rdev: int) -> bytes:
    """The text of a record."""
    text = b"%d %d %d" % (mode & 0o777, uid, gid)
    letter = _LETTERS.get(stat.S_IFMT(mode))
    if letter is not None:
        text += b" %b %d %d" % (letter, os.major(rdev), os.minor(rdev))
    return text + b"\n"


def _require_owner(path: Path) -> int:
    try:
        return os.open(path, OPEN)
    except OSError as error:
        raise UmlError(f"{path}: {error.strerror}", "a shadow_fs directory has its records there") from None


# Reading --------------------------------------------------------------------------------------


class Records:
    """The records of a tree, found by the paths of their files."""

    def __init__(self, root: Path, default: Callable[[bytes], None] = lambda path: None) -> None:
        """`default` is told the path of each file that has no record."""
        self._files = _require_owner(root / FILES)
        try:
            self._directories = _require_owner(root / DIRECTORIES)
        except BaseException:
            os.close(self._files)
            raise
        self._default = default
        self._at: bytes | None = None
        self._place = -1

    def close(self) -> None:
        if self._place >= 0:
            os.close(self._place)
        os.close(self._files)
        os.close(self._directories)

    def describe(self, fd: int, name: bytes, path: bytes, found: os.stat_result) -> Metadata:
        """See `humfs.scan.Describe`. A file without a record is root's, with the host's permissions."""
        try:
            text = self._directory(path) if stat.S_ISDIR(found.st_mode) else self._file(path)
        except FileNotFoundError:
            self._default(path)
            rdev = found.st_rdev if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode) else 0
            return Metadata(found.st_mode & (0o170000 | 0o777), 0, 0, rdev)
        try:
            return parse(text, found.st_mode)
        except ValueError as error:
            raise UmlError(
                f"{display(path)}: its record is damaged ({error})", "write 'MODE UID GID' into it"
            ) from None

    def _directory(self, path: bytes) -> bytes:
        place = open_below(self._directories, path)
        try:
            return _read(RECORD, place)
        finally:
            os.close(place)

    def _file(self, path: bytes) -> bytes:
        directory, _, name = path.rpartition(b"/")
        if directory != self._at:
            if self._place >= 0:
                os.close(self._place)
                self._place = -1
            self._place = open_below(self._files, directory)
            self._at = directory
        return _read(name, self._place)


def _read(name: bytes, place: int) -> bytes:
    fd = os.open(name, os.O_RDONLY | _RECORD_FLAGS, dir_fd=place)
    try:
        return os.read(fd, RECORD_MAX)
    finally:
        os.close(fd)


def write_record(name: bytes, place: int, text: bytes) -> None:
    """Write a record in place, so that its other links stay its own."""
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | _RECORD_FLAGS, 0o644, dir_fd=place)
    try:
        os.pwrite(fd, text, 0)
        os.ftruncate(fd, len(text))
    finally:
        os.close(fd)


# Conversion -----------------------------------------------------------------------------------


def to_sqlite(root: Path, progress: Progress = no_progress) -> list[str]:
    """Convert a shadow_fs directory in place; returns what is worth knowing. Killed on the way, it starts again."""
    superblock = _require(root, SHADOW_FS)
    notes: list[str] = []
    with contextlib.closing(TreeLock(root)):
        for name in (schema.FILE, f"{schema.FILE}-wal", f"{schema.FILE}-shm", JOURNAL):
            (root / name).unlink(missing_ok=True)
        store = Store(root)
        data = os.open(root / DATA, OPEN)
        try:
            _scan(root, store, data, notes, progress)
            store.commit()
            store.sync_log()
        finally:
            os.close(data)
            store.close()
    superblocks.write(root, Superblock(superblock.used, superblock.total))
    volume = Volume(root, recover=False)
    volume.was_clean = False
    volume.settle([])
    volume.used = volume.count_used()
    volume.close()
    for name in (FILES, DIRECTORIES):
        shutil.rmtree(root / name)
    return notes


def _scan(root: Path, store: Store, data: int, notes: list[str], progress: Progress) -> None:
    records = Records(root, lambda path: notes.append(f"{display(path)}: has no record, so it is root's"))
    try:
        Scanner(store, data, records.describe, progress).run()
    finally:
        records.close()


def _require(root: Path, metadata: str) -> Superblock:
    superblock = superblocks.read(root)
    if superblock.version != superblocks.VERSION or superblock.metadata != metadata:
        raise UmlError(f"{root}: metadata format '{superblock.metadata}' already, or of version 1", None)
    return superblock


def losses(volume: Volume) -> Iterator[str]:
    """What shadow_fs cannot hold of what is there, one line for each file and property."""
    for ino, mode, rdev, has_xattrs, mtime_ns in volume.store.select(
        "SELECT ino, mode, rdev, xattrs, mtime_ns FROM inode WHERE nlink > 0"
    ):
        lost = []
        if mode & 0o7000:
            lost.append(f"mode {mode & 0o7777:o}")
        if os.major(rdev) > NUMBER_MAX or os.minor(rdev) > NUMBER_MAX:
            lost.append(f"device {os.major(rdev)}, {os.minor(rdev)}")
        if has_xattrs:
            lost += [f"attribute {name.decode('utf-8', 'backslashreplace')}" for name, _ in volume.store.xattrs(ino)]
        if not -(1 << 31) <= mtime_ns // 10**9 < 1 << 31:
            lost.append("time")
        if lost:
            yield f"{display(path_of(volume.store, ino) or b'')}: {', '.join(lost)}"


def to_shadow(root: Path, *, lossy: bool = False, progress: Progress = no_progress) -> list[str]:
    """Convert to shadow_fs in place; returns what was lost. UmlError listing that, unless `lossy` allows it.

    The records are whole before the superblock names them; killed on the way, the directory is still SQLite's.
    """
    _require(root, SQLITE)
    for name in (FILES, DIRECTORIES):
        if (root / name).exists():
            shutil.rmtree(root / name)  # of a conversion that was killed
    volume = Volume(root, progress=progress)
    try:
        with volume.damage_explained():
            lost = list(losses(volume))
        if lost and not lossy:
            details = "\n".join(lost)
            raise UmlError(
                f"{root}: shadow_fs cannot hold what {len(lost)} files have", "allow that with --lossy", details=details
            )
        _write_tree(volume, root, progress)
        used = volume.used
        sync_tree(volume.host.directories.root)
    finally:
        volume.close()
    superblocks.write(root, Superblock(used, volume.superblock.total, SHADOW_FS))
    for name in (schema.FILE, JOURNAL):
        (root / name).unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        (root / ORPHANS).rmdir()
    return lost


def _write_tree(volume: Volume, root: Path, progress: Progress) -> None:
    """All records, and the times, which shadow_fs has on the files under data/."""
    trees = [root / FILES, root / DIRECTORIES]
    for tree in trees:
        tree.mkdir(0o755)
    files, directories = (os.open(tree, OPEN) for tree in trees)
    linked: dict[int, bytes] = {}
    count = 0
    try:
        pending = [(ROOT, b"")]
        while pending:
            ino, path = pending.pop()
            row = volume.store.get(ino)
            assert row is not None
            place, shadow = open_below(files, path), open_below(directories, path)
            data = volume.host.directories.get(ino)
            try:
                write_record(RECORD, shadow, format_record(row.mode, row.uid, row.gid, row.rdev))
                for name, child, mode, uid, gid, rdev, nlink, atime_ns, mtime_ns in volume.store.select(
                    "SELECT d.name, i.ino, mode, uid, gid, rdev, nlink, atime_ns, mtime_ns FROM dentry d "
                    "JOIN inode i ON i.ino = d.ino WHERE d.parent = ?",
                    ino,
                ):
                    os.utime(name, ns=(atime_ns, mtime_ns), dir_fd=data, follow_symlinks=False)
                    below = path + b"/" + name if path else name
                    if stat.S_ISDIR(mode):
                        os.mkdir(name, 0o755, dir_fd=place)
                        os.mkdir(name, 0o755, dir_fd=shadow)
                        pending.append((child, below))
                    elif child in linked:
                        os.link(linked[child], name, src_dir_fd=files, dst_dir_fd=place, follow_symlinks=False)
                    else:
                        write_record(name, place, format_record(mode, uid, gid, rdev))
                        if nlink > 1:
                            linked[child] = below
                    count += 1
                    if not count % 1000:
                        progress(count)
            finally:
                os.close(place)
                os.close(shadow)
    finally:
        os.close(files)
        os.close(directories)
