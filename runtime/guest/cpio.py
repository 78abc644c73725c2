"""cpio archives in the "newc" format, which the kernel unpacks as its initramfs.

The format is defined in the kernel's Documentation/driver-api/early-userspace/buffer-format.rst and read by its
init/initramfs.c. Archives are deterministic: the same entries give the same bytes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

MAGIC: Final = b"070701"
TRAILER: Final = b"TRAILER!!!"
BLOCK: Final = 512
PATH_MAX: Final = 4096
"""The kernel skips, without a word, entries whose name with its NUL is longer."""
DATA_MAX: Final = 0xFFFFFFFF


class CpioEntry(NamedTuple):
    """A file, directory, symlink or device node of an archive, owned by root, with no time of its own."""

    name: bytes
    """The path, relative: `bin/busybox`."""
    mode: int
    """File type and permission bits, as st_mode."""
    data: bytes = b""
    """A file's contents, or a symlink's target."""
    device: int = 0
    """A device node's number, as `os.makedev` gives it."""


def directory(name: bytes, permissions: int = 0o755) -> CpioEntry:
    return CpioEntry(name, stat.S_IFDIR | permissions)


def file(name: bytes, data: bytes, permissions: int = 0o644) -> CpioEntry:
    return CpioEntry(name, stat.S_IFREG | permissions, data)


def symlink(name: bytes, target: bytes) -> CpioEntry:
    return CpioEntry(name, stat.S_IFLNK | 0o777, target)


def archive(entries: Iterable[CpioEntry]) -> bytes:
    """The archive holding `entries`, and the directories that lead to them (mode 755) where not given.

    ValueError for a name that is absolute, empty, has `.` or `..` in it, or occurs twice, and for data that
    cannot be.
    """
    return b"".join(_pieces(_complete(entries)))


def _complete(entries: Iterable[CpioEntry]) -> list[CpioEntry]:
    """All entries and their parents, sorted: a parent's name is a prefix of its children's, so comes first."""
    given: dict[bytes, CpioEntry] = {}
    for entry in entries:
        _check(entry)
        if entry.name in given:
            raise ValueError(f"{entry.name!r} is twice in the archive")
        given[entry.name] = entry
    for name in list(given):
        while b"/" in name:
            name = name.rpartition(b"/")[0]
            if not stat.S_ISDIR(given.setdefault(name, directory(name)).mode):
                raise ValueError(f"{name!r} is no directory, but something lies in it")
    return [given[name] for name in sorted(given)]


def _check(entry: CpioEntry) -> None:
    parts = entry.name.split(b"/")
    if b"\0" in entry.name or any(part in (b"", b".", b"..") for part in parts) or entry.name == TRAILER:
        raise ValueError(f"{entry.name!r} cannot be a name in an archive")
    limit = PATH_MAX - 1 if stat.S_ISLNK(entry.mode) else DATA_MAX
    if len(entry.name) >= PATH_MAX or len(entry.data) > limit:
        raise ValueError(f"{entry.name[:80]!r} is too long for an archive")
    if stat.S_ISDIR(entry.mode) and entry.data:
        raise ValueError(f"{entry.name!r} is a directory and cannot hold data")


def _pieces(entries: Iterable[CpioEntry]) -> Iterator[bytes]:
    length = 0
    for ino, entry in enumerate(entries, start=1):
        for piece in (_header(ino, entry), entry.data, bytes(-len(entry.data) % 4)):
            length += len(piece)
            yield piece
    trailer = _header(0, CpioEntry(TRAILER, 0))
    yield trailer
    yield bytes(-(length + len(trailer)) % BLOCK)


def _header(ino: int, entry: CpioEntry) -> bytes:
    """The header and the name, padded: 110 bytes of hexadecimal numbers, the name, NULs up to a multiple of 4."""
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (ino, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0)
    numbers = (*fields, os.major(entry.device), os.minor(entry.device), len(entry.name) + 1, 0)
    head = MAGIC + b"".join(b"%08X" % number for number in numbers) + entry.name + b"\0"
    return head + bytes(-len(head) % 4)
