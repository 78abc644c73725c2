"""A humfs directory, opened: locked, its journal applied, and compared with the host's tree where need be.

When it was closed in order, only directories whose names were changed by hand since are looked into: their host
directories tell by st_ctime, and one stat for each directory finds them. After a crash, or when the tree was
copied, every name is compared, and `used` counted anew.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from humfs import damage
from humfs import superblock as superblocks
from humfs.database import unusable
from humfs.findings import Finding, Kind
from humfs.host import DATA, DIRECTORY_MODE, ORPHANS, Host
from humfs.inodes import DIRECTORY_BLOCKS, DIRECTORY_SIZE
from humfs.lock import TreeLock
from humfs.reconcile import Reconciler
from humfs.rows import path_of
from humfs.store import Store
from humfs.superblock import SQLITE, Superblock
from umlfs.errors import UmlError
from umlfs.filesystem import ROOT

log = logging.getLogger(__name__)

CLEAN: Final = 1
SAID_MAX: Final = 20
"""So many findings are logged one by one; the rest is counted. `uml humfs info` shows all."""
_EXPECTED: Final = frozenset({Kind.ADOPTED, Kind.MOVED, Kind.LOST, Kind.REPLACED, Kind.JOINED, Kind.FOREIGN})
"""What people do by hand, so that it is no sign of damage in a tree that was closed in order."""

Progress = Callable[[int], None]


def no_progress(count: int) -> None:
    """Say nothing."""


class Volume:
    """An open humfs directory with metadata in SQLite."""

    def __init__(self, root: Path, *, recover: bool = True, progress: Progress = no_progress) -> None:
        """Open it. With `recover` false nothing is compared or mended (`check` does that itself).

        UmlError if it is none, of another format, in use, or cannot be written to. Waits for the disk.
        """
        self.root = root
        self.superblock = superblocks.read(root)
        if self.superblock.metadata != SQLITE or self.superblock.version != superblocks.VERSION:
            raise UmlError(
                f"{root}: metadata format '{self.superblock.metadata}' (version {self.superblock.version})",
                f"convert it with 'uml humfs convert {root} --to sqlite'",
            )
        self.findings: list[Finding] = []
        """What opening it found, and mended."""
        self.changed: set[int] = set()
        """Directories with names changed since it was opened."""
        with contextlib.ExitStack() as undo:
            self._lock = TreeLock(root)
            undo.callback(self._lock.close)
            _require_data(root)
            self.store = Store(root)
            undo.callback(self.store.close)
            try:
                self.host = Host(root, self.store.name_of)
            except OSError as error:
                raise UmlError(f"{root}: {error.filename or ''}: {error.strerror}") from error
            undo.callback(self.host.close)
            found = os.fstat(self.host.directories.root)
            meta = self.store.meta
            self.was_clean = meta["clean"] in (CLEAN, boot_token()) and not self.store.replayed
            self.was_copied = (meta["data_device"], meta["data_ino"]) != (found.st_dev, found.st_ino)
            self.marked = False
            """Changed since it was opened, and so noted."""
            self._adopt_root(found)
            if recover:
                with self.damage_explained():
                    self._recover(progress)
            self.used = self.count_used() if recover and not self.was_clean else self.superblock.used
            undo.pop_all()

    def reconcile(
        self,
        report: Callable[[Finding], None],
        progress: Progress,
        *,
        change_host: bool = True,
        directories: Iterable[tuple[int, bytes]] | None = None,
    ) -> None:
        """Compare the host's tree with the rows, all of it or some directories, and change the rows accordingly."""
        self.store.journaling = False
        Reconciler(
            self.store,
            self.host.directories.root,
            self.host.device,
            unbound=self.was_copied,
            change_host=change_host,
            report=report,
            progress=progress,
        ).run(directories)

    def _adopt_root(self, found: os.stat_result) -> None:
        if self.store.get(ROOT) is not None:
            return
        now = time.time_ns()
        meta = self.store.meta
        row = (ROOT, 0o040755, meta["default_uid"], meta["default_gid"], 0, 2, DIRECTORY_SIZE, DIRECTORY_BLOCKS)
        self.store.apply((0, (*row, now, now, now, 0, found.st_ino)))

    # Recovery ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def damage_explained(self) -> Iterator[None]:
        """Values in the database that are of other kinds than they should be are a UmlError."""
        try:
            yield
        except (TypeError, ValueError) as error:
            self.store.rollback()
            problems = damage.problems(self.store.path)
            if not problems:
                raise
            raise unusable(self.store.path, OSError(errno.EIO, f"damaged: {problems[0]}")) from error

    def _recover(self, progress: Progress) -> None:
        if self.store.meta["importing"]:
            log.warning("%s: an import was broken off; import again what it should hold", self.root)
        findings: list[Finding] = []
        if self.was_copied or not self.was_clean:
            log.info("%s: %s, comparing everything", self.root, "copied" if self.was_copied else "not closed in order")
            self.reconcile(findings.append, progress)
        else:
            stale = self._changed_by_hand()
            if not stale:
                return
            self.reconcile(findings.append, progress, directories=stale)
            self.changed.update(ino for ino, _ in stale)
        self._say(findings)
        self.settle(findings)

    def settle(self, findings: list[Finding]) -> None:
        """After a comparison: write down what it found, remove orphans, and bind the rows to this tree. Durable."""
        if self.was_copied or not self.was_clean:
            self.changed.update(ino for (ino,) in self.store.select("SELECT ino FROM inode WHERE mode & 61440 = 16384"))
        self.findings = findings
        self.store.add_repairs([str(finding) for finding in findings])
        self.was_clean = False
        self._drop_orphans()
        found = os.fstat(self.host.directories.root)
        self.store.set_meta(clean=0, data_device=found.st_dev, data_ino=found.st_ino)
        self.marked = True
        self.store.commit()
        self.store.journaling = True
        self.store.sync_log()

    def _drop_orphans(self) -> None:
        """Remove what was unlinked but in use when the last server ended."""
        self.store.begin()
        execute = self.store.execute
        execute("DELETE FROM xattr WHERE ino IN (SELECT ino FROM inode WHERE nlink = 0)")
        execute("DELETE FROM inode WHERE nlink = 0")
        for name in os.listdir(self.root / ORPHANS):
            os.unlink(name, dir_fd=self.host.orphans)

    def mark(self) -> None:
        """Note that it is being changed, before the first change: a kill from now on has everything compared."""
        self.store.set_meta(clean=0)
        self.store.commit()
        self.marked = True

    def _changed_by_hand(self) -> list[tuple[int, bytes]]:
        """Directories whose host directory has changed since the volume was closed."""
        changed: list[tuple[int, bytes]] = []
        rows: dict[int, list[tuple[int, bytes, int]]] = {}
        for ino, parent, name, at in self.store.select(
            "SELECT i.ino, d.parent, d.name, i.host_ctime_ns FROM inode i INDEXED BY inode_directories "
            "CROSS JOIN dentry d ON d.ino = i.ino WHERE i.mode & 61440 = 16384"
        ):
            rows.setdefault(parent, []).append((ino, name, at))
        ((at,),) = self.store.select("SELECT host_ctime_ns FROM inode WHERE ino = ?", ROOT)
        if os.fstat(self.host.directories.root).st_ctime_ns != at:
            changed.append((ROOT, b""))
        pending = [ROOT]
        while pending:
            parent = pending.pop()
            below = rows.get(parent)
            if not below:
                continue
            fd = self.host.directories.get(parent)
            for ino, name, at in below:
                try:
                    found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    continue  # then its parent has changed, and is looked into
                if not _is_directory(found):
                    continue
                if found.st_ctime_ns != at:
                    changed.append((ino, path_of(self.store, ino) or b""))
                pending.append(ino)
        return changed

    def _say(self, findings: list[Finding]) -> None:
        """Log what is being mended."""
        in_order = bool(self.store.meta["clean"]) and not self.store.replayed
        for finding in findings[:SAID_MAX]:
            level = logging.INFO if in_order and finding.kind in _EXPECTED else logging.WARNING
            log.log(level, "%s: %s", self.root, finding)
        if len(findings) > SAID_MAX:
            log.warning("%s: and %d more; 'uml humfs info' shows them", self.root, len(findings) - SAID_MAX)

    # Space ------------------------------------------------------------------------------------

    def count_used(self) -> int:
        """Bytes that all inodes and extended attributes take, counted."""
        ((blocks,),) = self.store.select("SELECT coalesce(sum(blocks), 0) FROM inode WHERE nlink > 0")
        ((values,),) = self.store.select("SELECT coalesce(sum(length(name) + length(value)), 0) FROM xattr")
        return int(blocks) * 512 + int(values)

    # Closing ----------------------------------------------------------------------------------

    def close(self, clean: bool = True, *, durable: bool = True) -> None:
        """Close it; with `clean` everything is noted as in order, and on the disk if `durable`. Waits.

        What is clean but not durable is so until the host is booted again; then everything is compared.
        """
        try:
            if clean:
                self._finish(durable)
        finally:
            self.host.close()
            self.store.close()
            self._lock.close()

    def _finish(self, durable: bool) -> None:
        if not self.marked:
            return
        stamps = []
        for ino in self.changed:
            with contextlib.suppress(OSError):
                stamps.append((os.fstat(self.host.directories.get(ino)).st_ctime_ns, ino))
        if stamps:
            self.store.begin()
            self.store.executemany("UPDATE inode SET host_ctime_ns = ? WHERE ino = ?", stamps)
            self.store.uncommitted = True
        if durable:
            sync_tree(self.host.directories.root)
        if self.superblock.used != self.used:
            self.superblock.used = max(self.used, 0)
            superblocks.write(self.root, self.superblock, durable=durable)
        self.store.set_meta(clean=CLEAN if durable else boot_token())
        self.store.commit()
        if durable:
            self.store.sync_log()
        else:
            self.store.execute("PRAGMA synchronous = OFF")
        self.changed.clear()


def boot_token() -> int:
    """A number that is another after each boot of the host; above 1."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return 2 + int(file.read().replace("-", "")[:15], 16)


def sync_tree(root: int) -> None:
    """Have the host's whole filesystem on the disk."""
    from umlfs.host.syscalls import syncfs

    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
    try:
        syncfs(fd)
    finally:
        os.close(fd)


def _is_directory(found: os.stat_result) -> bool:
    return found.st_mode & 0o170000 == 0o040000


def _require_data(root: Path) -> None:
    if not (root / DATA).is_dir() or (root / DATA).is_symlink():
        raise UmlError(f"{root / DATA}: no such directory", "a humfs directory has its files there")


def create(root: Path, size: int, uid: int = 0, gid: int = 0, *, acl: bool = False, durable: bool = True) -> None:
    """Make a new, empty humfs directory with room for `size` bytes, owned by `uid` and `gid` in the guest.

    With `acl` the guest has POSIX access control lists. If `durable`, it is on the disk on return.
    UmlError if `root` is there and not empty.
    """
    try:
        is_new = not root.exists()
        root.mkdir(mode=0o755, exist_ok=True)
        if any(root.iterdir()):
            raise UmlError(f"{root}: not empty", "name a new directory, or run humfsify in one that has data/")
        try:
            _fill(root, size, uid, gid, acl, durable)
        except BaseException:
            _empty(root, is_new)
            raise
    except OSError as error:
        raise UmlError(f"{error.filename or root}: {error.strerror}", "name a directory that can be written") from error


def _fill(root: Path, size: int, uid: int, gid: int, acl: bool, durable: bool) -> None:
    (root / DATA).mkdir(DIRECTORY_MODE)
    found = os.stat(root / DATA)
    store = Store(root)
    try:
        store.set_meta(default_uid=uid, default_gid=gid, posix_acl=int(acl))
        store.set_meta(data_device=found.st_dev, data_ino=found.st_ino)
        now = time.time_ns()
        row = (ROOT, 0o040755, uid, gid, 0, 2, DIRECTORY_SIZE, DIRECTORY_BLOCKS, now, now, now, 0, found.st_ino)
        store.apply((0, row))
        store.execute("UPDATE inode SET host_ctime_ns = ? WHERE ino = 1", (found.st_ctime_ns,))
        store.commit()
        if durable:
            store.sync_log()
        else:
            store.execute("PRAGMA synchronous = OFF")
    finally:
        store.close()
    superblocks.write(root, Superblock(used=DIRECTORY_SIZE, total=size), durable=durable)


def _empty(root: Path, is_new: bool) -> None:
    """Leave nothing of a directory that could not be made."""
    for name in os.listdir(root):
        (root / name).rmdir() if name == DATA else (root / name).unlink()
    if is_new:
        root.rmdir()
