"""What a COW file says of itself, and what it holds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from umlfs.block import ExtentKind
from umlfs.blocks import sparse
from umlfs.blocks.raw import open_file
from umlfs.cow.backing import find, is_remote, require_match
from umlfs.cow.bitmap import Bitmap
from umlfs.cow.file import identity, load_bitmap, read_header
from umlfs.cow.header import SECTOR, Header
from umlfs.errors import UmlError
from umlfs.host.lock import holder


@dataclass(frozen=True, slots=True)
class Info:
    """A COW file at a glance."""

    path: str
    version: str
    backing: str
    """The path in the header; bytes that are not UTF-8 as `os.fsdecode` gives them."""
    size: int
    """Of the device, and of the backing file when the COW file was made."""
    size_found: int | None
    """Of the backing file now; None if it cannot be looked at."""
    mtime: int
    """Of the backing file when the COW file was made, in seconds since the epoch."""
    mtime_found: int | None
    problem: str | None
    """Why it cannot be used, with the way out; None if it can."""
    sectors: int
    """Of 512 bytes, the last perhaps not a whole one."""
    sectors_changed: int
    allocated: int
    """Space used on the disk, in bytes."""
    alignment: int
    bitmap_offset: int
    data_offset: int
    in_use_by: int | None
    """Process id of who has it open for writing; -1 if that does not show."""

    @property
    def valid(self) -> bool:
        """Whether it can be used."""
        return self.problem is None


@dataclass(frozen=True, slots=True)
class Present:
    """A range of the device, in bytes, that the COW file holds."""

    offset: int
    length: int
    kind: ExtentKind
    """ZERO: as a hole of the COW file; discarded, or zeroes written."""


@contextmanager
def _opened(path: str) -> Iterator[tuple[int, Header, Bitmap]]:
    """A COW file to look at, also while somebody uses it: without a lock."""
    with ExitStack() as opened:
        file = open_file(path, read_only=True, lock=False)
        opened.callback(file.close)
        header = read_header(file.fileno(), path)
        bitmap = load_bitmap(file.fileno(), header, path)
        opened.callback(bitmap.close)
        yield file.fileno(), header, bitmap


def info(path: str) -> Info:
    """Look at a COW file, and at its backing file. OSError; UmlError if it is no COW file or its header is damaged."""
    with _opened(path) as (fd, header, bitmap):
        problem, size_found, mtime_found = _look_at_backing(path, fd, header)
        return Info(
            path=path,
            version=header.name,
            backing=os.fsdecode(header.backing),
            size=header.size,
            size_found=size_found,
            mtime=header.mtime,
            mtime_found=mtime_found,
            problem=problem,
            sectors=header.sectors,
            sectors_changed=sum(end - first for first, end, own in bitmap.runs(0, header.sectors) if own),
            allocated=os.fstat(fd).st_blocks * 512,
            alignment=header.alignment,
            bitmap_offset=header.bitmap_offset,
            data_offset=header.data_offset,
            in_use_by=holder(fd, exclusive=False),
        )


def _look_at_backing(path: str, fd: int, header: Header) -> tuple[str | None, int | None, int | None]:
    """What is wrong, and the backing file's size and mtime."""
    named = os.fsdecode(header.backing)
    if header.merging is not None:
        return "a merge into its backing file was interrupted; run 'uml cow merge --in-place' again", None, None
    if is_remote(named):
        return None, None, None
    try:
        backing = find(path, header, identity(fd))
    except UmlError as error:
        return str(error), None, None
    try:
        require_match(path, header, backing)
    except UmlError as error:
        return str(error), backing.size, backing.mtime
    return None, backing.size, backing.mtime


def present(path: str) -> list[Present]:
    """The ranges that a COW file holds, in order. Errors as `info`."""
    with _opened(path) as (fd, header, bitmap):
        found: list[Present] = []
        for first, end, own in bitmap.runs(0, header.sectors):
            if own:
                low, high = first * SECTOR, min(end * SECTOR, header.size)
                found += _kinds(fd, header.data_offset, low, high)
        return found


def _kinds(fd: int, base: int, low: int, high: int) -> Iterator[Present]:
    for start, end, has_data in sparse.segments(fd, base + low, base + high):
        yield Present(start - base, end - start, ExtentKind.DATA if has_data else ExtentKind.ZERO)
