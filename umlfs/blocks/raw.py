"""A raw image: a file or block device of the host as a BlockDevice, byte for byte."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from umlfs.block import BlockDevice, Extent
from umlfs.blocks.file import HostFile
from umlfs.buffers import total
from umlfs.errors import UmlError
from umlfs.host.lock import FileLock, close


class Storage(Protocol):
    """What stores the bytes of a `RawDevice` or a COW file: `umlfs.blocks.file.HostFile`, or a test's stand-in."""

    async def read_into(self, offset: int, buffers: Sequence[memoryview]) -> int: ...
    async def write_from(self, offset: int, buffers: Sequence[memoryview]) -> None: ...
    async def flush(self) -> None: ...
    async def punch(self, offset: int, length: int) -> None: ...
    async def zero(self, offset: int, length: int) -> None: ...
    async def write_zeroes(self, offset: int, length: int) -> None: ...
    async def extents(self, offset: int, length: int) -> list[Extent]: ...
    def close(self) -> None: ...


def check_range(device: BlockDevice, offset: int, length: int) -> None:
    """EINVAL unless the range lies within `device`."""
    if offset < 0 or length < 0 or offset + length > device.size:
        raise OSError(errno.EINVAL, f"{length} bytes at {offset} are not within a device of {device.size}")


def check_writable(device: BlockDevice, offset: int, length: int) -> None:
    """EROFS if `device` is read-only, EINVAL unless the range lies within it."""
    if device.read_only:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    check_range(device, offset, length)


class RawDevice(BlockDevice):
    """The first `size` bytes of a storage. The size may be anything, as that of a file is: it is neither
    rounded nor ever changed (`umlfs.blocks.padded.Padded` rounds up for those who count in sectors)."""

    def __init__(self, storage: Storage, size: int, *, read_only: bool = False, discard: bool = True) -> None:
        self.storage = storage
        self.size = size
        self.read_only = read_only
        self.can_discard = discard and not read_only

    async def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """As the contract. EIO if the file has become shorter than it was when opened."""
        wanted = total(buffers)
        check_range(self, offset, wanted)
        if await self.storage.read_into(offset, buffers) != wanted:
            raise OSError(errno.EIO, "the image has become shorter while in use")

    async def write_from(self, offset: int, buffers: Sequence[memoryview]) -> None:
        check_writable(self, offset, total(buffers))
        await self.storage.write_from(offset, buffers)

    async def flush(self) -> None:
        """As the contract. After a failure every further one fails with EIO: what was lost stays lost."""
        if not self.read_only:
            await self.storage.flush()

    async def discard(self, offset: int, length: int) -> None:
        """As the contract: punches a hole; where the host cannot, `can_discard` turns False."""
        check_writable(self, offset, length)
        if not self.can_discard or not length:
            return
        try:
            await self.storage.punch(offset, length)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            self.can_discard = False

    async def write_zeroes(self, offset: int, length: int, unmap: bool = True) -> None:
        check_writable(self, offset, length)
        await zero_storage(self.storage, offset, length, unmap and self.can_discard)

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        """As the contract, from the holes of the file."""
        check_range(self, offset, length)
        return await self.storage.extents(offset, length)

    async def close(self) -> None:
        self.storage.close()


async def zero_storage(storage: Storage, offset: int, length: int, unmap: bool) -> None:
    """Make a range read as zeroes: by a hole (with `unmap`), without one, by writing, whichever works first."""
    if not length:
        return
    for attempt in (storage.punch, storage.zero) if unmap else (storage.zero,):
        try:
            return await attempt(offset, length)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
    await storage.write_zeroes(offset, length)


class LockedFile(HostFile):
    """A HostFile under a lock."""

    def __init__(self, fd: int, lock: FileLock | None, *, sync: bool = False) -> None:
        super().__init__(fd, sync=sync)
        self._lock = lock

    def close(self) -> None:
        """Close the descriptor, and with it give up the lock. Does not flush."""
        if self._lock is None:
            return super().close()
        self._fd = -1
        self._lock.close()


def open_file(
    path: str | Path, *, read_only: bool = False, sync: bool = False, lock: bool = True, shared: bool = False
) -> LockedFile:
    """Open an image for reading, or for reading and writing, and lock it accordingly; with `shared`, along with others
    who do so.

    `sync` is O_SYNC. OSError if it cannot be opened; UmlError if it is in use, or not a file or block device.
    """
    flags = (os.O_RDONLY if read_only else os.O_RDWR) | (os.O_SYNC if sync else 0)
    # Not blocking: a FIFO that somebody put in the place of an image must not hold us up.
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
            raise UmlError(f"{path}: neither a file nor a block device", "name an image")
        return LockedFile(fd, FileLock(fd, path, exclusive=not read_only, shared=shared) if lock else None, sync=sync)
    except BaseException:
        close(fd)
        raise


def open_raw(
    path: str | Path, *, read_only: bool = False, sync: bool = False, lock: bool = True, discard: bool = True
) -> RawDevice:
    """Open the image at `path`.

    `sync`: every write is durable when answered. `lock`: exclude other writers, as the kernel's driver does.
    `discard`: give back to the host what is discarded. OSError (such as EROFS and EACCES: try `read_only`), UmlError.
    """
    file = open_file(path, read_only=read_only, sync=sync, lock=lock)
    return RawDevice(file, file.size(), read_only=read_only, discard=discard)
