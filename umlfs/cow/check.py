"""Checking a COW file, and repairing what can be repaired without losing anything."""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from umlfs.blocks import sparse
from umlfs.blocks.raw import LockedFile, open_file
from umlfs.cow.bitmap import Bitmap
from umlfs.cow.device import GROUP
from umlfs.cow.file import load_bitmap, read_header, require_not_merging, require_whole
from umlfs.cow.header import ALIGNMENT, SECTOR, Header
from umlfs.cow.info import info

_GROUP_SECTORS = GROUP // SECTOR


class Severity(enum.Enum):
    """What a finding means."""

    NOTE = "note"
    """Legitimate, but worth knowing."""
    WARNING = "warning"
    """Works here; some other program may stumble over it."""
    ERROR = "error"
    """Something is lost or cannot be used."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found."""

    severity: Severity
    what: str
    """A short constant word for programs."""
    text: str
    """For a person."""
    repaired: bool = False


@dataclass(slots=True)
class _Cow:
    """An open COW file."""

    path: str
    file: LockedFile
    header: Header
    bitmap: Bitmap

    @property
    def fd(self) -> int:
        return self.file.fileno()


def check(path: str, *, repair: bool = False) -> list[Finding]:
    """Check the COW file at `path`, under a lock. With `repair`, mend what loses nothing, durably:

    * a file that ends before its data area does is made longer (what is missing reads as zeroes already);
    * bits behind the device's last sector are cleared;
    * groups of 4 KiB that are only partly in the COW file get the rest from the backing file, if that is valid.

    OSError; UmlError if it is not a COW file, its header is damaged, its bitmap is cut off, or it is being merged.
    """
    with ExitStack() as opened:
        file = open_file(path, read_only=not repair)
        opened.callback(file.close)
        header = read_header(file.fileno(), path)
        require_not_merging(path, header)
        require_whole(file.fileno(), header, path)
        bitmap = load_bitmap(file.fileno(), header, path)
        opened.callback(bitmap.close)
        cow = _Cow(path, file, header, bitmap)
        problem = info(path).problem
        found = [*_header(header, problem), *_length(cow, repair), *_mixed(cow, repair and problem is None)]
        found += [*_surplus(cow, repair), *_space(cow)]
        if repair:
            os.fsync(cow.fd)
        return found


def _header(header: Header, problem: str | None) -> Iterator[Finding]:
    if problem:
        yield Finding(Severity.ERROR, "backing", problem)
    if header.version < 3 or header.broken:
        text = f"an old format, {header.name}; the kernel destroys it when given a moved backing file"
        yield Finding(Severity.NOTE, "version", f"{text}; 'uml cow rebase' converts it")
    if not header.covers_all:
        missing = header.sectors - header.bitmap_length * 8
        yield Finding(Severity.WARNING, "bitmap-short", f"the last {missing} sectors have no bit in this format")
    if header.version == 3 and header.alignment % SECTOR:
        yield Finding(Severity.NOTE, "alignment", f"alignment {header.alignment}, usual is {ALIGNMENT}")


def _length(cow: _Cow, repair: bool) -> Iterator[Finding]:
    missing = cow.header.file_size - os.fstat(cow.fd).st_size
    if missing <= 0:
        return
    lost = _sectors_from(cow, os.fstat(cow.fd).st_size)
    if repair:
        os.ftruncate(cow.fd, cow.header.file_size)
    text = f"the file ends {missing} bytes early"
    if lost:
        yield Finding(
            Severity.ERROR, "truncated", f"{text}: {lost} changed sectors are lost and read as zeroes", repair
        )
    else:
        yield Finding(Severity.WARNING, "short", f"{text}, without loss", repair)


def _sectors_from(cow: _Cow, size: int) -> int:
    """How many sectors have a bit but would lie behind `size` bytes of file."""
    first = max(0, size - cow.header.data_offset) // SECTOR
    return sum(end - start for start, end, own in cow.bitmap.runs(first, cow.header.sectors) if own)


def _surplus(cow: _Cow, repair: bool) -> Iterator[Finding]:
    """Bits of sectors that the device does not have."""
    existing, bits = cow.header.sectors, cow.header.bitmap_length * 8
    surplus = sum(end - first for first, end, own in cow.bitmap.runs(existing, bits) if own)
    if not surplus:
        return
    if repair:  # they are in the last byte: the bitmap is no longer than it must be
        last = cow.header.bitmap_length - 1
        kept = sum(cow.bitmap.get(bit) << (bit & 7) for bit in range(last * 8, existing))
        sparse.write_all(cow.fd, bytes([kept]), cow.header.bitmap_offset + last)
    yield Finding(Severity.WARNING, "bits-surplus", f"{surplus} bits are set behind the last sector", repair)


def _mixed(cow: _Cow, repair: bool) -> Iterator[Finding]:
    """Groups that are only partly in the COW file."""
    groups = list(mixed_groups(cow.header, cow.bitmap))
    if not groups:
        return
    if repair:
        _complete(cow, groups)
    yield Finding(
        Severity.WARNING,
        "groups-mixed",
        f"{len(groups)} groups of 4 KiB are only partly here: the kernel's own ubd driver misreads around them",
        repair,
    )


def mixed_groups(header: Header, bitmap: Bitmap) -> Iterator[int]:
    """The numbers of the groups of 4 KiB that are only partly in the COW file, in order."""
    last = -1
    for first, _, _ in bitmap.runs(0, header.sectors):  # runs that meet inside a group
        group = first // _GROUP_SECTORS
        if first % _GROUP_SECTORS and group != last:
            yield group
            last = group


def _complete(cow: _Cow, groups: list[int]) -> None:
    """Copy up what is missing of these groups: the data first, then the bits."""
    below = open_file(os.fsdecode(cow.header.backing), read_only=True)
    try:
        for group in groups:
            first, end = group * _GROUP_SECTORS, min((group + 1) * _GROUP_SECTORS, cow.header.sectors)
            for start, stop, own in list(cow.bitmap.runs(first, end)):
                if not own:
                    content = sparse.read_all(below.fileno(), (stop - start) * SECTOR, start * SECTOR)
                    padded = content.ljust((stop - start) * SECTOR, b"\0")
                    sparse.write_all(cow.fd, padded, cow.header.data_offset + start * SECTOR)
            cow.bitmap.set(first, end)
    finally:
        below.close()
    os.fdatasync(cow.fd)
    for offset, content in cow.bitmap.take_dirty().items():
        sparse.write_all(cow.fd, content, cow.header.bitmap_offset + offset)


def _space(cow: _Cow) -> Iterator[Finding]:
    """Bits without data, and data without bits."""
    holes = orphans = 0
    base = cow.header.data_offset
    for first, end, own in cow.bitmap.runs(0, cow.header.sectors):
        for start, stop, has_data in sparse.segments(cow.fd, base + first * SECTOR, base + end * SECTOR):
            holes += (stop - start) * (own and not has_data)
            orphans += (stop - start) * (not own and has_data)
    if holes:
        yield Finding(Severity.NOTE, "bits-without-data", f"{holes} bytes are held as holes: discarded or zeroed")
    if orphans:
        text = f"{orphans} bytes of data have no bit: not flushed before a crash, or rounded up to blocks of the disk"
        yield Finding(Severity.NOTE, "data-without-bits", text)


def worst(findings: list[Finding]) -> Severity | None:
    """The gravest severity of what was found and not repaired."""
    order = list(Severity)
    return max((each.severity for each in findings if not each.repaired), key=order.index, default=None)
