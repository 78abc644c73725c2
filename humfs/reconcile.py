"""Comparing the host's tree with the rows, and mending what differs.

Names are the host's: what is under `data/` is what there is. A file found under a name without a row is recognised
by its host inode number (it was renamed or linked), else adopted: it is the default owner's, with the permissions
that it has on the host. A row whose file is found nowhere goes. A file with several names of which a copy
made several files is joined again if they are still the same.

Nothing is decided silently: each difference is a `Finding`. What is wrong among the rows alone is for `humfs.rows`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from humfs import store as sql
from humfs.below import open_below
from humfs.findings import Finding, Kind, display
from humfs.inodes import DIRECTORY_BLOCKS, DIRECTORY_SIZE
from humfs.rows import Rows, path_of
from humfs.store import Row, Store
from umlfs.filesystem import ROOT

_FORMAT: Final = 0o170000
_SPECIAL: Final = frozenset({stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK})
_CHUNK: Final = 1 << 20
_TEMPORARY: Final = b".humfs-tmp-"


def temporary_name() -> bytes:
    """The name for a file under data/ that is about to replace another. One without a row is removed when found."""
    return b"%b%d" % (_TEMPORARY, os.getpid())


def same_type(mode: int, host_mode: int) -> bool:
    """A file of the guest's type may be one of the host's type. (Real nodes come from the historical humfsify.)"""
    kind, host_kind = mode & _FORMAT, host_mode & _FORMAT
    return kind == host_kind or (kind in _SPECIAL and host_kind == stat.S_IFREG)


@dataclass(slots=True)
class _Name:
    """A row of `dentry` with what is needed of its inode."""

    ino: int
    mode: int
    host_ino: int | None
    size: int
    blocks: int


@dataclass(slots=True)
class Reconciler:
    """One comparison. `run` does it, and leaves the changed rows in the store's open transaction."""

    store: Store
    root: int
    """A descriptor of data/."""
    device: int
    unbound: bool = False
    """The tree was copied: host inode numbers mean nothing, names decide."""
    change_host: bool = True
    """Join hard links and give the owner access; else only say so."""
    report: Callable[[Finding], None] = lambda finding: None
    progress: Callable[[int], None] = lambda count: None
    """Told the number of names looked at so far, now and then."""
    _vanished: list[tuple[int, bytes, int, bytes]] = field(default_factory=list)
    _moved: set[int] = field(default_factory=set)
    _seen: int = 0
    _rows: Rows = field(init=False)

    def __post_init__(self) -> None:
        self._rows = Rows(self.store, self.report)

    def run(self, directories: Iterable[tuple[int, bytes]] | None = None) -> None:
        """Compare everything, or only `directories` (inode and path of each) and what turns out to be new in them."""
        if self.unbound:
            self.store.begin()
            self.store.execute("UPDATE inode SET host_ino = NULL")
            self.store.uncommitted = True
        whole = directories is None
        pending = list(directories) if directories is not None else [(ROOT, b"")]
        known = {ino for ino, _ in pending}
        if whole:
            self._rows.drop_dangling()
        while pending:
            ino, path = pending.pop()
            for below, name, is_new in self._directory(ino, path):
                if (whole or is_new) and (whole or below not in known):
                    pending.append((below, name))
        self._drop_vanished()
        if whole:
            self._rows.drop_unreachable()
        self._rows.recount()

    # One directory ----------------------------------------------------------------------------

    def _directory(self, ino: int, path: bytes) -> Iterator[tuple[int, bytes, bool]]:
        """Compare one; gives the directories in it, each with whether it is new here."""
        rows = {
            name: _Name(*rest)
            for name, *rest in self.store.select(
                "SELECT d.name, i.ino, i.mode, i.host_ino, i.size, i.blocks "
                "FROM dentry d JOIN inode i ON i.ino = d.ino WHERE d.parent = ?",
                ino,
            )
        }
        fd = self._open(path)
        try:
            for name in os.listdir(fd):
                encoded = os.fsencode(name)
                below = path + b"/" + encoded if path else encoded
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                row = rows.pop(encoded, None)
                self._count()
                if row is None and encoded.startswith(_TEMPORARY) and encoded[len(_TEMPORARY) :].isdigit():
                    self._remove_temporary(fd, encoded, below)
                    continue
                if found.st_dev != self.device:
                    self._rows.say(Kind.FOREIGN, below)
                    continue
                child, is_new = self._name(ino, encoded, below, found, row, fd)
                if stat.S_ISDIR(found.st_mode):
                    yield child, below, is_new
        finally:
            os.close(fd)
        self._vanished.extend((ino, name, row.ino, path + b"/" + name if path else name) for name, row in rows.items())

    def _remove_temporary(self, fd: int, name: bytes, path: bytes) -> None:
        self._rows.say(Kind.TEMPORARY, path)
        if self.change_host:
            os.unlink(name, dir_fd=fd)

    def _open(self, path: bytes) -> int:
        """The directory at `path` under data/, for listing."""
        return open_below(self.root, path, self._permit)

    def _permit(self, parent: int, name: bytes) -> None:
        if not self.change_host:
            raise PermissionError(13, os.strerror(13), name)
        fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(os.fstat(fd).st_mode) | 0o700)
        finally:
            os.close(fd)

    def _name(
        self, parent: int, name: bytes, path: bytes, found: os.stat_result, row: _Name | None, fd: int
    ) -> tuple[int, bool]:
        """Match one name; returns its inode, and whether the name is new for it."""
        if row is not None and row.host_ino == found.st_ino and same_type(row.mode, found.st_mode):
            self._measure(row, found)
            return row.ino, False
        known = self._known(found)
        if known is not None and row is not None and row.host_ino is None and same_type(row.mode, found.st_mode):
            if known.ino != row.ino:
                found = self._separate(name, path, found, fd)
        elif known is not None and (row is None or known.ino != row.ino):
            self._point(parent, name, known.ino, row)
            self._measure(known, found)
            self._rows.say(Kind.MOVED, path)
            return known.ino, True
        if row is None:
            self._rows.say(Kind.ADOPTED, path)
            return self._adopt(parent, name, found, None), True
        if not same_type(row.mode, found.st_mode):
            self._rows.say(Kind.ADOPTED, path, "of another type than before")
            return self._adopt(parent, name, found, row), True
        return self._rebind(parent, name, path, found, row, fd), False

    def _known(self, found: os.stat_result) -> _Name | None:
        """The inode that is bound to this file of the host."""
        for ino, mode, host_ino, size, blocks in self.store.select(
            "SELECT ino, mode, host_ino, size, blocks FROM inode WHERE host_ino = ? AND nlink > 0", found.st_ino
        ):
            if same_type(mode, found.st_mode):
                return _Name(ino, mode, host_ino, size, blocks)
        return None

    def _rebind(self, parent: int, name: bytes, path: bytes, found: os.stat_result, row: _Name, fd: int) -> int:
        """The name leads to another file than the row says: after a copy, or because it was replaced by hand."""
        links = self.store.select("SELECT parent, name FROM dentry WHERE ino = ?", row.ino)
        if row.host_ino is not None and len(links) > 1:
            twin = self._twin(row, parent, name)
            if twin is not None:
                if self._alike(row, twin, name, found, fd):
                    self._join(twin, name, fd, path)
                    return row.ino
                self._rows.say(Kind.SPLIT, path)
                return self._split(parent, name, found, row)
        if row.host_ino is not None:
            self._rows.say(Kind.REPLACED, path)
        self._rows.execute("UPDATE inode SET host_ino = ? WHERE ino = ?", found.st_ino, row.ino)
        row.host_ino = found.st_ino
        self._measure(row, found)
        return row.ino

    # Files that a copy made of one ------------------------------------------------------------

    def _twin(self, row: _Name, parent: int, name: bytes) -> bytes | None:
        """The path of another name of the inode, that leads to the file it is bound to."""
        for other_parent, other_name in self.store.select("SELECT parent, name FROM dentry WHERE ino = ?", row.ino):
            if (other_parent, other_name) == (parent, name):
                continue
            directory = path_of(self.store, other_parent)
            if directory is None:
                continue
            other: bytes = directory + b"/" + other_name if directory else other_name
            try:
                fd = self._open(directory)
            except OSError:
                continue
            try:
                other_found = os.stat(other_name, dir_fd=fd, follow_symlinks=False)
                if other_found.st_ino == row.host_ino and same_type(row.mode, other_found.st_mode):
                    return other
            except OSError:
                continue
            finally:
                os.close(fd)
        return None

    def _alike(self, row: _Name, twin: bytes, name: bytes, found: os.stat_result, fd: int) -> bool:
        """The two files may be one. Of a device, fifo or socket there is nothing to compare, and nothing to open."""
        if not stat.S_ISREG(row.mode):
            return row.mode & _FORMAT in _SPECIAL
        return stat.S_ISREG(found.st_mode) and self._same_contents(twin, name, fd)

    def _same_contents(self, path: bytes, name: bytes, fd: int) -> bool:
        directory, _, base = path.rpartition(b"/")
        place = self._open(directory)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            with (
                open(os.open(base, flags, dir_fd=place), "rb") as one,
                open(os.open(name, flags, dir_fd=fd), "rb") as two,
            ):
                if os.fstat(one.fileno()).st_size != os.fstat(two.fileno()).st_size:
                    return False
                while data := one.read(_CHUNK):
                    if data != two.read(_CHUNK):
                        return False
                return True
        except PermissionError:
            return False
        finally:
            os.close(place)

    def _join(self, twin: bytes, name: bytes, fd: int, path: bytes) -> None:
        self._rows.say(Kind.JOINED, path, f"with {display(twin)}")
        if not self.change_host:
            return
        directory, _, base = twin.rpartition(b"/")
        place = self._open(directory)
        temporary = temporary_name()
        try:
            os.link(base, temporary, src_dir_fd=place, dst_dir_fd=fd, follow_symlinks=False)
            os.rename(temporary, name, src_dir_fd=fd, dst_dir_fd=fd)
        finally:
            os.close(place)

    def _separate(self, name: bytes, path: bytes, found: os.stat_result, fd: int) -> os.stat_result:
        """Two inodes have become one file (a tool that saves space linked them): give this one its own again."""
        self._rows.say(Kind.SEPARATED, path)
        if not self.change_host or not stat.S_ISREG(found.st_mode):
            return found
        temporary = temporary_name()
        flags = os.O_NOFOLLOW | os.O_CLOEXEC
        source = os.open(name, os.O_RDONLY | flags, dir_fd=fd)
        try:
            target = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags, 0o600, dir_fd=fd)
            try:
                while os.copy_file_range(source, target, 1 << 30):
                    pass
                os.fsync(target)
            finally:
                os.close(target)
            os.rename(temporary, name, src_dir_fd=fd, dst_dir_fd=fd)
        finally:
            os.close(source)
        return os.stat(name, dir_fd=fd, follow_symlinks=False)

    def _split(self, parent: int, name: bytes, found: os.stat_result, row: _Name) -> int:
        """A new inode for one of the names, with the metadata of the old."""
        old = self.store.get(row.ino)
        assert old is not None
        ino = self._number()
        fresh = (ino, *old[1:5], 1, found.st_size, found.st_blocks, *old[8:12], found.st_ino)
        self.store.apply((sql.ADD_INODE, tuple(fresh)), (sql.TURN_NAME, (ino, parent, name)))
        for xattr, value in self.store.xattrs(row.ino):
            self.store.apply((sql.PUT_XATTR, (ino, xattr, value)))
        self._rows.relink.add(row.ino)
        return ino

    # Rows -------------------------------------------------------------------------------------

    def _number(self) -> int:
        ino = self.store.next_ino
        self.store.next_ino += 1
        return ino

    def _adopt(self, parent: int, name: bytes, found: os.stat_result, row: _Name | None) -> int:
        """A new inode for a file of the host."""
        ino = self._number()
        meta = self.store.meta
        fresh = adopted(ino, found, meta["default_uid"], meta["default_gid"])
        link = (sql.ADD_NAME, (parent, name, ino)) if row is None else (sql.TURN_NAME, (ino, parent, name))
        self.store.apply((sql.ADD_INODE, tuple(fresh)), link)
        self._rows.relink.update({ino, parent} if row is None else {ino, parent, row.ino})
        return ino

    def _point(self, parent: int, name: bytes, ino: int, row: _Name | None) -> None:
        if row is None:
            self.store.apply((sql.ADD_NAME, (parent, name, ino)))
        else:
            self.store.apply((sql.TURN_NAME, (ino, parent, name)))
            self._rows.relink.add(row.ino)
        self._rows.relink.update((ino, parent))
        self._moved.add(ino)

    def _measure(self, row: _Name, found: os.stat_result) -> None:
        """Take over size and space of a regular file."""
        if stat.S_ISREG(row.mode) and (row.size, row.blocks) != (found.st_size, found.st_blocks):
            self._rows.execute(
                "UPDATE inode SET size = ?, blocks = ? WHERE ino = ?", found.st_size, found.st_blocks, row.ino
            )

    def _drop_vanished(self) -> None:
        for parent, name, ino, path in self._vanished:
            self.store.apply((sql.DELETE_NAME, (parent, name)))
            self._rows.relink.update((parent, ino))
            if not self.store.select("SELECT 1 FROM dentry WHERE ino = ? LIMIT 1", ino):
                self._rows.say(Kind.LOST, path)
                self._rows.drop_below(ino)
            elif ino not in self._moved:
                self._rows.say(Kind.LOST, path, "but it has other names")

    def _count(self) -> None:
        self._seen += 1
        if not self._seen % 1000:
            self.progress(self._seen)


def adopted(ino: int, found: os.stat_result, uid: int, gid: int) -> Row:
    """The row for a file of the host that has none: the permissions are the host's, without set-id bits."""
    mode = found.st_mode & (_FORMAT | 0o777)
    is_directory = stat.S_ISDIR(mode)
    return Row(
        ino,
        mode,
        uid,
        gid,
        found.st_rdev if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else 0,
        2 if is_directory else 1,
        DIRECTORY_SIZE if is_directory else found.st_size,
        DIRECTORY_BLOCKS if is_directory else found.st_blocks if stat.S_ISREG(mode) else 0,
        found.st_atime_ns,
        found.st_mtime_ns,
        found.st_ctime_ns,
        0,
        found.st_ino,
    )
