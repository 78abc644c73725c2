"""A directory with `shadow_fs` metadata, mounted as it is: changes go into its records as they are made.

The rows are a copy of the records, in a database for the time of the mount. What the format cannot hold is refused:
set-id and sticky bits (EPERM), extended attributes (EOPNOTSUPP). Times are those of the files under `data/`.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from humfs import superblock as superblocks
from humfs.below import OPEN
from humfs.filesystem import HumFilesystem
from humfs.host import DATA, ORPHANS, Directories, Host
from humfs.inodes import Inode
from humfs.legacy import DIRECTORIES, FILES, RECORD, Records, format_record, write_record
from humfs.lock import TreeLock
from humfs.names import EXCHANGE, WHITEOUT
from humfs.scan import Scanner
from humfs.store import Store
from humfs.volume import Progress, Volume, no_progress, sync_tree
from umlfs.filesystem import NO_HANDLE, ROOT, Attr, Caller, Entry, Opened, SetAttr, Traits
from umlfs.host import syscalls
from umlfs.host.syscalls import failure
from umlfs.views.view import View

_HELD_MAX: Final = 64


class ShadowVolume(Volume):
    """An open directory whose metadata is in records."""

    def __init__(self, root: Path, *, progress: Progress = no_progress) -> None:
        """UmlError if it is none, or its records are damaged. Reads all of them."""
        self.root = root
        self.superblock = superblocks.read(root)
        self.findings = []
        self.changed = set()
        self.marked = True
        self.was_clean = True
        self.was_copied = False
        self._lock = TreeLock(root)
        self._scratch = tempfile.TemporaryDirectory(prefix="humfs-")
        try:
            self.store = Store(Path(self._scratch.name))
            self._read(progress)
            self.host = Host(root, self.store.name_of)
        except BaseException:
            if hasattr(self, "store"):
                self.store.close()
            self._scratch.cleanup()
            self._lock.close()
            raise
        self.used = self.count_used()

    def _read(self, progress: Progress) -> None:
        data = os.open(self.root / DATA, OPEN)
        records = Records(self.root)
        try:
            Scanner(self.store, data, records.describe, progress).run()
            self.store.commit()
        finally:
            records.close()
            os.close(data)

    def close(self, clean: bool = True, *, durable: bool = True) -> None:
        try:
            if clean:
                if durable:
                    sync_tree(self.host.directories.root)
                self.superblock.used = max(self.used, 1)
                superblocks.write(self.root, self.superblock)
            for name in os.listdir(self.root / ORPHANS):
                os.unlink(name, dir_fd=self.host.orphans)
            os.rmdir(self.root / ORPHANS)
        finally:
            self.host.close()
            self.store.close()
            self._scratch.cleanup()
            self._lock.close()


class ShadowFilesystem(View):
    """A `HumFilesystem` of a `ShadowVolume`, whose records are kept in step."""

    def __init__(self, volume: ShadowVolume, *, read_only: bool = False, atime: str = "relatime") -> None:
        self._rows = rows = HumFilesystem(volume, read_only=read_only, atime=atime)
        super().__init__(rows)
        self.traits = Traits(read_only=read_only, writeback=not read_only, kills_set_id=True)
        self._files = Directories(volume.root / FILES, volume.store.name_of, _HELD_MAX)
        self._shadows = Directories(volume.root / DIRECTORIES, volume.store.name_of, _HELD_MAX)
        self._closed = False

    def _record(self, inode: Inode) -> None:
        """Write the record of an inode that has a name."""
        text = format_record(inode.mode, inode.uid, inode.gid, inode.rdev)
        if inode.is_directory:
            write_record(RECORD, self._shadows.get(inode.ino), text)
        elif inode.nlink:
            write_record(inode.name, self._files.get(inode.parent), text)

    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int, umask: int, caller: Caller) -> Entry:
        entry = await super().mknod(parent, name, mode & ~0o7000, rdev, umask, caller)
        self._record(self._rows.node(entry.ino))
        return entry

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, umask: int, caller: Caller
    ) -> tuple[Entry, Opened]:
        made = await super().create(parent, name, mode & 0o777, flags, umask, caller)
        self._record(self._rows.node(made[0].ino))
        return made

    async def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Entry:
        entry = await super().symlink(parent, name, target, caller)
        self._record(self._rows.node(entry.ino))
        return entry

    async def mkdir(self, parent: int, name: bytes, mode: int, umask: int, caller: Caller) -> Entry:
        entry = await super().mkdir(parent, name, mode & 0o777, umask, caller)
        os.mkdir(name, 0o755, dir_fd=self._files.get(parent))
        os.mkdir(name, 0o755, dir_fd=self._shadows.get(parent))
        self._record(self._rows.node(entry.ino))
        return entry

    async def link(self, ino: int, new_parent: int, new_name: bytes) -> Entry:
        inode = self._rows.node(ino)
        parent, name = inode.parent, inode.name
        entry = await super().link(ino, new_parent, new_name)
        source = os.dup(self._files.get(parent))
        try:
            os.link(name, new_name, src_dir_fd=source, dst_dir_fd=self._files.get(new_parent), follow_symlinks=False)
        finally:
            os.close(source)
        return entry

    async def unlink(self, parent: int, name: bytes) -> None:
        await super().unlink(parent, name)
        os.unlink(name, dir_fd=self._files.get(parent))

    async def rmdir(self, parent: int, name: bytes) -> None:
        inode = self._rows.child(parent, name)
        await super().rmdir(parent, name)
        if inode is not None:
            self._drop_directory(parent, name, inode.ino)

    def _drop_directory(self, parent: int, name: bytes, ino: int) -> None:
        self._files.drop(ino)
        self._shadows.drop(ino)
        os.rmdir(name, dir_fd=self._files.get(parent))
        shadow = self._shadows.get(parent)
        below = os.open(name, OPEN, dir_fd=shadow)
        try:
            os.unlink(RECORD, dir_fd=below)
        finally:
            os.close(below)
        os.rmdir(name, dir_fd=shadow)

    async def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> None:
        if flags & WHITEOUT:
            raise failure(errno.EINVAL)
        moved = self._rows.child(parent, name)
        replaced = self._rows.child(new_parent, new_name)
        await super().rename(parent, name, new_parent, new_name, flags)
        if moved is None or moved is replaced:
            return
        exchange = flags & EXCHANGE
        if replaced is not None and replaced.is_directory and not exchange:
            self._drop_directory(new_parent, new_name, replaced.ino)
        _rename(self._files, parent, name, new_parent, new_name, exchange)
        swapped = replaced is not None and replaced.is_directory and bool(exchange)
        if moved.is_directory:
            both = exchange if swapped else 0
            _rename(self._shadows, parent, name, new_parent, new_name, both)
        elif swapped:
            _rename(self._shadows, new_parent, new_name, parent, name, 0)

    async def setattr(
        self, ino: int, changes: SetAttr, handle: int = NO_HANDLE, caller: Caller | None = None
    ) -> tuple[Attr, int]:
        if changes.mode is not None and changes.mode & 0o7000:
            raise failure(errno.EPERM)
        answer = await super().setattr(ino, changes, handle, caller)
        inode = self._rows.node(ino)
        if changes.mode is not None or changes.uid is not None or changes.gid is not None:
            self._record(inode)
        if (changes.atime_ns is not None or changes.mtime_ns is not None) and inode.nlink:
            name = b"." if ino == ROOT else inode.name
            place = self._rows.host.directories.root if ino == ROOT else self._rows.host.place(inode)
            os.utime(name, ns=(inode.atime_ns, inode.mtime_ns), dir_fd=place, follow_symlinks=stat.S_ISDIR(inode.mode))
        return answer

    async def setxattr(self, ino: int, name: bytes, value: bytes, flags: int = 0) -> None:
        raise failure(errno.EOPNOTSUPP)

    async def removexattr(self, ino: int, name: bytes) -> None:
        raise failure(errno.EOPNOTSUPP)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._files.close()
            self._shadows.close()
        await super().close()


def _rename(tree: Directories, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int) -> None:
    source = os.dup(tree.get(parent))
    try:
        syscalls.rename(source, name, tree.get(new_parent), new_name, flags)
    finally:
        os.close(source)
