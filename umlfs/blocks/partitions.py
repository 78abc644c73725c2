"""Partition tables: MBR with logical partitions, and GPT. Sans-IO: the reader of a table asks for bytes.

Formats: the MBR as every BIOS reads it; GPT as of the UEFI specification 2.10, chapter 5. Tables come from guests
and strangers: whatever does not lie within the device is left out, chains that loop end, and sizes are bounded.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Generator
from dataclasses import dataclass
from typing import Final

SECTOR: Final = 512
GPT_SECTORS: Final = (512, 4096)
"""Logical block sizes that a GPT may have been written for."""

LOGICAL_MAX: Final = 251
"""Linux numbers partitions up to 255; the first logical one is 5."""
ENTRIES_MAX: Final = 1 << 20
"""Bytes of a GPT's entries that are looked at; 16 KiB are usual."""

_MBR_ENTRY: Final = struct.Struct("<B3sB3sII")
_MBR_TABLE: Final = 446
_EXTENDED: Final = frozenset({0x05, 0x0F, 0x85})
_PROTECTIVE: Final = 0xEE

_GPT_HEADER: Final = struct.Struct("<8sIIIIQQQQ16sQIII")
_GPT_ENTRY: Final = struct.Struct("<16s16sQQQ72s")
_EMPTY: Final = bytes(16)


@dataclass(frozen=True, slots=True)
class Partition:
    """A range of a device, in bytes. `number` is what Linux would give it: 1 to 4, and from 5 for logical ones."""

    number: int
    offset: int
    length: int


Reader = Generator[tuple[int, int], bytes, list[Partition]]
"""Yields the (offset, length) it wants to see, within the device, is sent those bytes, and returns the partitions."""


def read_table(size: int, beyond: list[Partition] | None = None) -> Reader:
    """The partitions of a device of `size` bytes, by number; none if it has no table that makes sense. Those that lead
    beyond its end are added to `beyond`."""
    beyond = beyond if beyond is not None else []
    if size < 2 * SECTOR:
        return []
    first = yield 0, SECTOR
    if first[510:512] != b"\x55\xaa":
        return []
    entries = _mbr_entries(first)
    if any(kind == _PROTECTIVE for kind, _, _ in entries):
        return (yield from _read_gpt(size, beyond))
    found = []
    for number, (kind, start, count) in enumerate(entries, 1):
        if kind in _EXTENDED:
            found += yield from _read_logical(size, start, count, beyond)
        elif kind:
            found += _within(size, Partition(number, start * SECTOR, count * SECTOR), beyond)
    return sorted(found, key=lambda partition: partition.number)


def _within(size: int, found: Partition, beyond: list[Partition]) -> list[Partition]:
    """The partition, if it is one that lies within the device and leaves its table alone."""
    if found.offset < SECTOR or found.length <= 0:
        return []
    if found.offset + found.length > size:
        beyond.append(found)
        return []
    return [found]


def _mbr_entries(sector: bytes) -> list[tuple[int, int, int]]:
    """Type, first sector and number of sectors, of all four."""
    found = []
    for status, _, kind, _, start, count in _MBR_ENTRY.iter_unpack(sector[_MBR_TABLE:510]):
        if status & 0x7F:
            return []  # the boot sector of a filesystem, with something else there
        found.append((kind, start, count))
    return found


def _read_logical(size: int, base: int, count: int, beyond: list[Partition]) -> Reader:
    """The partitions within an extended one: a chain of sectors, each telling of one and of where the next is."""
    found: list[Partition] = []
    seen: set[int] = set()
    at = base
    while at not in seen and base <= at < base + count and (at + 1) * SECTOR <= size and len(found) < LOGICAL_MAX:
        seen.add(at)
        sector = yield at * SECTOR, SECTOR
        if sector[510:512] != b"\x55\xaa" or not (entries := _mbr_entries(sector)):
            break
        kind, start, length = entries[0]
        if kind and kind not in _EXTENDED:
            found += _within(size, Partition(5 + len(found), (at + start) * SECTOR, length * SECTOR), beyond)
        kind, start, _ = entries[1]
        if kind not in _EXTENDED:
            break
        at = base + start
    return found


# GPT ------------------------------------------------------------------------------------------


def _read_gpt(size: int, beyond: list[Partition]) -> Reader:
    """By the header at the beginning, else by the one at the end, for each size that a block may have."""
    for block in GPT_SECTORS:
        for at in (block, (size // block - 1) * block):
            if at < block or at + block > size:
                continue
            header = _gpt_header((yield at, block), at // block)
            if header is None:
                continue
            place, count, width, checksum = header
            if place < 2 or place * block + count * width > size:
                continue
            entries = yield place * block, count * width
            if zlib.crc32(entries) == checksum:
                return _gpt_partitions(size, block, entries, width, beyond)
    return []


def _gpt_header(sector: bytes, at: int) -> tuple[int, int, int, int] | None:
    """Block of the entries, how many there are, the bytes of each, and their checksum; None if it is no header."""
    fields = _GPT_HEADER.unpack_from(sector)
    signature, _, length, checksum, _, own = fields[:6]
    place, count, width, entries = fields[10:]
    if signature != b"EFI PART" or own != at or not _GPT_HEADER.size <= length <= len(sector):
        return None
    zeroed = sector[:16] + bytes(4) + sector[20:length]
    if zlib.crc32(zeroed) != checksum or width < _GPT_ENTRY.size or width % 8 or not 0 < count * width <= ENTRIES_MAX:
        return None
    return place, count, width, entries


def _gpt_partitions(size: int, block: int, entries: bytes, width: int, beyond: list[Partition]) -> list[Partition]:
    found = []
    for index in range(len(entries) // width):
        kind, _, first, last, _, _ = _GPT_ENTRY.unpack_from(entries, index * width)
        if kind != _EMPTY:
            found += _within(size, Partition(index + 1, first * block, (last + 1 - first) * block), beyond)
    return found
