"""A Filesystem under test: what it can do, and short ways to use it through the contract alone."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import pytest

from umlfs.filesystem import NO_HANDLE, ROOT, Attr, Caller, Entry, Filesystem, SetAttr


@dataclass(frozen=True, slots=True)
class Features:
    """What a provider (or the user it runs as, or what lies under it) can do. Checks assert the failure of what it
    cannot, so a flag that is wrong either way is found."""

    owners: bool = True
    """What is created belongs to the caller, and may be given to anyone. Else it belongs to one user for ever."""
    devices: bool = True
    """mknod makes device nodes. (Fifos and sockets are made everywhere.)"""
    rename_flags: bool = True
    """RENAME_NOREPLACE and RENAME_EXCHANGE."""
    fallocate: bool = True
    punch_hole: bool = True
    zero_range: bool = True
    holes: bool = True
    """SEEK_HOLE finds holes of 64 KiB and more, and they take no space."""
    copy_file_range: bool = True
    xattrs: bytes | None = b"user."
    """The namespace in which any name can be set, on files and directories."""
    before_1970: bool = True
    time_granularity_ns: int = 1
    """What times are rounded down to."""
    big_files: bool = True
    """Files over 4 GiB."""
    symlink_max: int = 4095
    """The longest target, in bytes."""
    caller: Caller = field(default_factory=lambda: Caller(1000, 1000, 1))
    other: Caller = field(default_factory=lambda: Caller(2000, 2001, 1))


@contextmanager
def failing(*codes: int) -> Iterator[None]:
    """What is within must raise OSError with one of `codes`."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is looked at below
        yield
    number = caught.value.errno
    assert number in codes, f"{errno.errorcode.get(number or 0)}, not {[errno.errorcode[code] for code in codes]}"


class Subject:
    """Wraps a Filesystem. Counts every lookup it is given, so that all can be given back."""

    def __init__(self, filesystem: Filesystem, features: Features | None = None) -> None:
        self.fs = filesystem
        self.features = features or Features()
        self.lookups: Counter[int] = Counter()

    @property
    def caller(self) -> Caller:
        return self.features.caller

    def counted(self, entry: Entry) -> Entry:
        assert entry.ino, "a name that is not there"
        self.lookups[entry.ino] += 1
        return entry

    def forget_all(self) -> None:
        """Give back every lookup."""
        for ino, count in self.lookups.items():
            self.fs.forget(ino, count)
        self.lookups.clear()

    # Names ------------------------------------------------------------------------------------

    async def find(self, parent: int, name: bytes) -> Entry | None:
        """The entry, or None if the name is not there."""
        try:
            entry = await self.fs.lookup(parent, name)
        except FileNotFoundError:
            return None
        return self.counted(entry) if entry.ino else None

    async def lookup(self, parent: int, name: bytes) -> Entry:
        entry = await self.find(parent, name)
        assert entry is not None, name
        return entry

    async def mkdir(self, parent: int, name: bytes, mode: int = 0o755) -> int:
        return self.counted(await self.fs.mkdir(parent, name, mode, 0, self.caller)).ino

    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int = 0) -> Entry:
        return self.counted(await self.fs.mknod(parent, name, mode, rdev, 0, self.caller))

    async def symlink(self, parent: int, name: bytes, target: bytes) -> int:
        return self.counted(await self.fs.symlink(parent, name, target, self.caller)).ino

    async def link(self, ino: int, parent: int, name: bytes) -> Entry:
        return self.counted(await self.fs.link(ino, parent, name))

    async def file(self, parent: int, name: bytes, data: bytes = b"", mode: int = 0o644) -> int:
        """A new file with these contents; its inode number."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        entry, opened = await self.fs.create(parent, name, mode, flags, 0, self.caller)
        self.counted(entry)
        if data:
            assert await self.fs.write_from(entry.ino, opened.handle, 0, [memoryview(data)]) == len(data)
        await self.close(entry.ino, opened.handle)
        return entry.ino

    # Files ------------------------------------------------------------------------------------

    async def open(self, ino: int, flags: int = os.O_RDWR) -> int:
        """A handle, or `NO_HANDLE` if none is needed."""
        try:
            return (await self.fs.open(ino, flags)).handle
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
        if flags & os.O_TRUNC:
            await self.fs.setattr(ino, SetAttr(size=0))
        return NO_HANDLE

    async def close(self, ino: int, handle: int) -> None:
        """As a consumer closes: what a provider does not have is no error."""
        for operation in (self.fs.flush, self.fs.release):
            try:
                await operation(ino, handle)
            except OSError as error:
                if error.errno != errno.ENOSYS:
                    raise

    @asynccontextmanager
    async def opened(self, ino: int, flags: int = os.O_RDWR) -> AsyncIterator[int]:
        handle = await self.open(ino, flags)
        try:
            yield handle
        finally:
            await self.close(ino, handle)

    async def read(self, ino: int, size: int = 1 << 16, offset: int = 0) -> bytes:
        data = bytearray(size)
        async with self.opened(ino, os.O_RDONLY) as handle:
            count = await self.fs.read_into(ino, handle, offset, [memoryview(data)])
        return bytes(data[:count])

    async def write(self, ino: int, data: bytes, offset: int = 0) -> None:
        async with self.opened(ino) as handle:
            assert await self.fs.write_from(ino, handle, offset, [memoryview(data)]) == len(data)

    # Attributes and directories ---------------------------------------------------------------

    async def attr(self, ino: int) -> Attr:
        return (await self.fs.getattr(ino))[0]

    async def set(self, ino: int, changes: SetAttr) -> Attr:
        return (await self.fs.setattr(ino, changes, caller=self.caller))[0]

    async def entries(self, ino: int, plus: bool = False, batch: int = 1 << 30) -> list[tuple[bytes, Entry | None]]:
        """Everything in a directory but `.` and `..`, read `batch` entries at a time."""
        found: list[tuple[bytes, Entry | None]] = []
        offset = 0
        handle = await self.opendir(ino)
        while True:
            offset, part = await self.batch(ino, handle, offset, batch, plus)
            if not part:
                break
            found += [one for one in part if one[0] not in (b".", b"..")]
        await self.closedir(ino, handle)
        return found

    async def batch(
        self, ino: int, handle: int, offset: int, size: int, plus: bool = False
    ) -> tuple[int, list[tuple[bytes, Entry | None]]]:
        """At most `size` entries from `offset`, and where to go on."""
        part: list[tuple[bytes, Entry | None]] = []
        reached = offset

        def add(name: bytes, offset: int, ino: int, mode: int, entry: Entry | None) -> bool:
            nonlocal reached
            if len(part) == size:
                return False
            part.append((name, self.counted(entry) if entry is not None else None))
            reached = offset
            return True

        await self.fs.readdir(ino, handle, offset, add, plus)
        return reached, part

    async def names(self, ino: int = ROOT) -> list[bytes]:
        return sorted(name for name, _ in await self.entries(ino))

    async def opendir(self, ino: int) -> int:
        try:
            return (await self.fs.opendir(ino)).handle
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
        return NO_HANDLE

    async def closedir(self, ino: int, handle: int) -> None:
        try:
            await self.fs.releasedir(ino, handle)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise


Check = Callable[[Subject], Awaitable[None]]
CHECKS: list[Check] = []
"""Every check, in the order of definition."""


def check(function: Check) -> Check:
    """Add `function` to `CHECKS`."""
    CHECKS.append(function)
    return function
