"""What an ext4 has in its blocks: names of a directory, times, and which parts of a file are worth one."""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from typing import Final

from runtime.archives.tree import ArchiveNode

BLOCK: Final = 4096
_ZEROES: Final = bytes(BLOCK)
_TAIL: Final = struct.pack("<IHBBI", 0, 12, 0, 0xDE, 0)
"""The end of a directory's block: where its checksum goes."""
_TYPES: Final = {
    stat.S_IFREG: 1,
    stat.S_IFDIR: 2,
    stat.S_IFCHR: 3,
    stat.S_IFBLK: 4,
    stat.S_IFIFO: 5,
    stat.S_IFSOCK: 6,
    stat.S_IFLNK: 7,
}


def stretches(data: bytes, position: int) -> Iterator[tuple[int, int]]:
    """Where in a file, of which `data` are the bytes at `position`, blocks are that are not all zeroes."""
    start: int | None = None
    at, end = position, position + len(data)
    while at < end:
        after = min(end, (at // BLOCK + 1) * BLOCK)
        is_hole = data.startswith(_ZEROES[: after - at], at - position)
        if is_hole and start is not None:
            yield start, at
            start = None
        elif not is_hole and start is None:
            start = at
        at = after
    if start is not None:
        yield start, end


def encode_time(nanoseconds: int) -> tuple[int, int]:
    """A time as an inode has it: 32 bits of seconds, and two more of them with the nanoseconds."""
    seconds, rest = divmod(nanoseconds, 10**9)
    seconds = max(-(2**31), min(seconds, 2**34 - 2**31 - 1))
    low = seconds & 0xFFFFFFFF
    signed = low - 2**32 if low & 2**31 else low
    return low, (seconds - signed) >> 32 & 3 | rest << 2


def directory_blocks(ino: int, parent: int, children: dict[bytes, ArchiveNode]) -> list[bytes]:
    """The blocks of a directory: names in order, each block with room for its checksum at the end."""
    entries = [(b".", ino, 2), (b"..", parent, 2)]
    entries += [(name, node.ino, _TYPES[node.kind]) for name, node in sorted(children.items())]
    room = BLOCK - len(_TAIL)
    blocks: list[bytes] = []
    packed: list[tuple[bytes, int, int]] = []
    used = 0
    for entry in entries:
        length = 8 + (len(entry[0]) + 3 & ~3)
        if used + length > room:
            blocks.append(_pack(packed, room))
            packed, used = [], 0
        packed.append(entry)
        used += length
    return [*blocks, _pack(packed, room)]


def _pack(entries: list[tuple[bytes, int, int]], room: int) -> bytes:
    parts: list[bytes] = []
    for number, (name, ino, kind) in enumerate(entries):
        padded = name + bytes(-len(name) % 4)
        length = 8 + len(padded) if number < len(entries) - 1 else room - sum(len(part) for part in parts)
        parts.append(struct.pack("<IHBB", ino, length, len(name), kind) + padded)
    return b"".join(parts).ljust(room, b"\0") + _TAIL
