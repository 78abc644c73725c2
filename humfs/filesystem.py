"""`HumFilesystem`: a guest's filesystem with true ownership, in plain files of one host user."""

from __future__ import annotations

import os
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from humfs.attributes import Attributes
from humfs.core import Core
from humfs.files import Files
from humfs.inodes import Inode
from humfs.listings import Listings
from humfs.names import Names
from humfs.volume import Progress, Volume
from humfs.whole import Making, make_whole
from umlfs.composed import Composed
from umlfs.filesystem import Caller


class HumFilesystem(Composed):
    """A humfs directory, served to one consumer.

    It is exclusively ours while open, so the consumer may cache everything for ever. Permissions are the consumer's
    to check. `open`, `opendir` and `flush` answer ENOSYS: nothing is kept for an open file but what its inode has.

    Durability: `fsync` and `fsyncdir` make everything durable that was changed before them, names and metadata of
    all files included; without them rows are so after some five seconds, names and contents whenever the host writes
    them, and the next open after a power cut compares all of it. A killed server loses nothing that
    it answered, but the last times and sizes that it had not written down.

    This class puts the parts together. What fills a humfs from outside (`humfs.importer`) uses it directly, see
    "Filling".
    """

    def __init__(self, volume: Volume, *, read_only: bool = False, atime: str = "relatime") -> None:
        """Serve `volume`, which is closed with the filesystem. `atime` is relatime, noatime or strictatime."""
        self._core = core = Core(volume, read_only=read_only, atime=atime)
        self._making = names = Names(core)
        files = Files(core, names)
        self._labels = attributes = Attributes(core, files)
        self._compose(names, attributes, files, Listings(core))
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
        return self._making.make(parent, name, mode, rdev, umask, caller, target)

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
        self._labels.put_xattr(inode, name, value)

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

    async def syncfs(self) -> None:
        await self._core.syncfs()


def _quiet(count: int) -> None:
    pass


def open_filesystem(
    root: Path, *, read_only: bool = False, atime: str = "relatime", progress: Progress = _quiet
) -> HumFilesystem:
    """Open the humfs directory `root`. Waits for the disk; after a crash it compares the whole tree first.

    UmlError if it is none, is in use, or cannot be written to.
    """
    return HumFilesystem(Volume(root, progress=progress), read_only=read_only, atime=atime)
