"""`HumFilesystem`: a guest's filesystem with true ownership, in plain files of one host user."""

from __future__ import annotations

import os
from collections.abc import Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar

from humfs.attributes import Attributes
from humfs.core import Core
from humfs.files import Files
from humfs.inodes import Inode
from humfs.names import Names
from humfs.volume import Progress, Volume
from humfs.whole import Making, make_whole
from umlfs.filesystem import (
    NO_HANDLE,
    ROOT,
    Attr,
    Caller,
    DirSink,
    Entry,
    Filesystem,
    Opened,
    SetAttr,
    StatFs,
)

T = TypeVar("T")
Answer = Coroutine[Any, Any, T]
Buffers = Sequence[memoryview]


class HumFilesystem(Filesystem):
    """A humfs directory, served to one consumer.

    It is exclusively ours while open, so the consumer may cache everything for ever. Permissions are the consumer's
    to check. `open`, `opendir` and `flush` answer ENOSYS: nothing is kept for an open file but what its inode has.

    Durability: `fsync` and `fsyncdir` make everything durable that was changed before them, names and metadata of
    all files included; without them rows are so after some five seconds, names and contents whenever the host writes
    them, and the next open after a power cut compares all of it. A killed server loses nothing that
    it answered, but the last times and sizes that it had not written down.

    This class puts the parts together and passes each operation on to the one that does it. What fills a humfs from
    outside (`humfs.importer`) uses it directly, see "Filling".
    """

    def __init__(self, volume: Volume, *, read_only: bool = False, atime: str = "relatime") -> None:
        """Serve `volume`, which is closed with the filesystem. `atime` is relatime, noatime or strictatime."""
        self._core = core = Core(volume, read_only=read_only, atime=atime)
        self._names = Names(core)
        self._files = Files(core)
        self._attributes = Attributes(core, self._files)
        self.traits = core.traits
        self.volume = volume
        self.store = volume.store
        self.host = volume.host

    # Filling ----------------------------------------------------------------------------------
    # Synchronous, with inodes instead of numbers, and without counting lookups. For one who calls
    # `volume.mark` first, and whom no consumer uses it beside. All may raise OSError.

    def node(self, ino: int) -> Inode:
        """The inode of that number. ESTALE if there is none."""
        return self._core.node(ino)

    def child(self, parent: int, name: bytes) -> Inode | None:
        """What `name` in the directory `parent` leads to, if anything."""
        return self._core.child(parent, name)

    def existing(self, parent: int, name: bytes) -> Inode:
        """What `name` in the directory `parent` leads to. ENOENT."""
        return self._core.existing(parent, name)

    def make(
        self, parent: int, name: bytes, mode: int, rdev: int, umask: int, caller: Caller, target: bytes = b""
    ) -> tuple[Inode, int]:
        """Make a file of any type (`mode`), `target` being a symlink's. EEXIST. Also a descriptor, the caller's to
        close, of all but directories and symlinks; else -1."""
        return self._names.make(parent, name, mode, rdev, umask, caller, target)

    def make_whole(self, parent: int, name: bytes, making: Making) -> int:
        """Make a file with all that it has, of a filesystem that counts only once it is complete; returns its number.
        EEXIST, ENOSPC: then nothing of it is left."""
        return make_whole(self._core, parent, name, making)

    def measure(self, inode: Inode, found: os.stat_result) -> None:
        """Take over size and space from the host's file, which was written to."""
        self._core.measure(inode, found)

    def mark_dirty(self, inode: Inode) -> None:
        """Its attributes were changed in memory: its row is to be written with the next commit."""
        self._core.mark_dirty(inode)

    def put_xattr(self, inode: Inode, name: bytes, value: bytes) -> None:
        """Set an extended attribute."""
        self._attributes.put_xattr(inode, name, value)

    def remove_xattr(self, inode: Inode, name: bytes) -> None:
        """Remove an extended attribute, if it is there."""
        self._core.remove_xattr(inode, name)

    # The consumer -----------------------------------------------------------------------------

    def running(self) -> AbstractAsyncContextManager[None]:
        return self._core.running()

    @property
    def failure(self) -> OSError | None:
        return self._core.failure

    def forget(self, ino: int, count: int) -> None:
        self._core.forget(ino, count)

    def disconnect(self) -> None:
        self._core.disconnect()

    async def close(self, *, durable: bool = True) -> None:
        """The directory is noted as closed in order; everything is durable on return, unless that is not asked for.

        UmlError if it could not be: everything is given up nevertheless, and the next open compares it."""
        await self._core.close(durable=durable)

    # Names ------------------------------------------------------------------------------------

    def lookup(self, parent: int, name: bytes) -> Answer[Entry]:
        return self._names.lookup(parent, name)

    def mknod(self, parent: int, name: bytes, mode: int, rdev: int, umask: int, caller: Caller) -> Answer[Entry]:
        return self._names.mknod(parent, name, mode, rdev, umask, caller)

    def mkdir(self, parent: int, name: bytes, mode: int, umask: int, caller: Caller) -> Answer[Entry]:
        return self._names.mkdir(parent, name, mode, umask, caller)

    def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Answer[Entry]:
        return self._names.symlink(parent, name, target, caller)

    def readlink(self, ino: int) -> Answer[bytes]:
        return self._names.readlink(ino)

    def link(self, ino: int, new_parent: int, new_name: bytes) -> Answer[Entry]:
        return self._names.link(ino, new_parent, new_name)

    def unlink(self, parent: int, name: bytes) -> Answer[None]:
        return self._names.unlink(parent, name)

    def rmdir(self, parent: int, name: bytes) -> Answer[None]:
        return self._names.rmdir(parent, name)

    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> Answer[None]:
        return self._names.rename(parent, name, new_parent, new_name, flags)

    # Attributes -------------------------------------------------------------------------------

    def getattr(self, ino: int, handle: int = NO_HANDLE) -> Answer[tuple[Attr, int]]:
        return self._attributes.getattr(ino, handle)

    def setattr(
        self, ino: int, changes: SetAttr, handle: int = NO_HANDLE, caller: Caller | None = None
    ) -> Answer[tuple[Attr, int]]:
        return self._attributes.setattr(ino, changes, handle, caller)

    def access(self, ino: int, mask: int, caller: Caller) -> Answer[None]:
        return self._attributes.access(ino, mask, caller)

    def statfs(self, ino: int = ROOT) -> Answer[StatFs]:
        return self._attributes.statfs(ino)

    def getxattr(self, ino: int, name: bytes) -> Answer[bytes]:
        return self._attributes.getxattr(ino, name)

    def setxattr(self, ino: int, name: bytes, value: bytes, flags: int = 0) -> Answer[None]:
        return self._attributes.setxattr(ino, name, value, flags)

    def listxattr(self, ino: int) -> Answer[list[bytes]]:
        return self._attributes.listxattr(ino)

    def removexattr(self, ino: int, name: bytes) -> Answer[None]:
        return self._attributes.removexattr(ino, name)

    # Files ------------------------------------------------------------------------------------

    def open(self, ino: int, flags: int) -> Answer[Opened]:
        return self._files.open(ino, flags)

    def create(
        self, parent: int, name: bytes, mode: int, flags: int, umask: int, caller: Caller
    ) -> Answer[tuple[Entry, Opened]]:
        return self._names.create(parent, name, mode, flags, umask, caller)

    def read_into(self, ino: int, handle: int, offset: int, buffers: Buffers) -> Answer[int]:
        return self._files.read_into(ino, handle, offset, buffers)

    def write_from(
        self, ino: int, handle: int, offset: int, buffers: Buffers, kill_set_id: bool = False
    ) -> Answer[int]:
        return self._files.write_from(ino, handle, offset, buffers, kill_set_id)

    def flush(self, ino: int, handle: int) -> Answer[None]:
        return self._files.flush(ino, handle)

    def release(self, ino: int, handle: int) -> Answer[None]:
        return self._files.release(ino, handle)

    def fsync(self, ino: int, handle: int, data_only: bool = False) -> Answer[None]:
        return self._files.fsync(ino, handle, data_only)

    def fallocate(self, ino: int, handle: int, mode: int, offset: int, length: int) -> Answer[None]:
        return self._files.fallocate(ino, handle, mode, offset, length)

    def lseek(self, ino: int, handle: int, offset: int, whence: int) -> Answer[int]:
        return self._files.lseek(ino, handle, offset, whence)

    def copy_file_range(
        self, ino: int, handle: int, offset: int, out_ino: int, out_handle: int, out_offset: int, length: int
    ) -> Answer[int]:
        return self._files.copy_file_range(ino, handle, offset, out_ino, out_handle, out_offset, length)

    # Directories ------------------------------------------------------------------------------

    def opendir(self, ino: int) -> Answer[Opened]:
        return self._names.opendir(ino)

    def readdir(self, ino: int, handle: int, offset: int, add: DirSink, plus: bool = False) -> Answer[None]:
        return self._names.readdir(ino, handle, offset, add, plus)

    def fsyncdir(self, ino: int, handle: int, data_only: bool = False) -> Answer[None]:
        return self._names.fsyncdir(ino, handle, data_only)

    def syncfs(self) -> Answer[None]:
        return self._core.syncfs()


def _quiet(count: int) -> None:
    pass


def open_filesystem(
    root: Path, *, read_only: bool = False, atime: str = "relatime", progress: Progress = _quiet
) -> HumFilesystem:
    """Open the humfs directory `root`. Waits for the disk; after a crash it compares the whole tree first.

    UmlError if it is none, is in use, or cannot be written to.
    """
    return HumFilesystem(Volume(root, progress=progress), read_only=read_only, atime=atime)
