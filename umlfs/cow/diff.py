"""Where two block devices differ."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Final

from umlfs.block import BlockDevice, Extent, ExtentKind
from umlfs.blocks.file import HostFile
from umlfs.blocks.raw import RawDevice
from umlfs.cow.device import CowDevice
from umlfs.cow.header import SECTOR

_STEP: Final = 1 << 20
"""Bytes compared at a time."""

Progress = Callable[[int, int], None]
"""Is told how many bytes are done, and of how many."""


async def differences(a: BlockDevice, b: BlockDevice, progress: Progress | None = None) -> list[tuple[int, int]]:
    """The ranges, as (offset, length) in bytes, in which two devices differ, to the sector of 512; in order.

    What one has and the other, being smaller, has not, differs. Ranges that both read from the same backing
    file, or that are holes of both, are not read.
    """
    found: list[tuple[int, int]] = []
    size = min(a.size, b.size)
    async for low, high in _suspects(a, b, size):
        for start in range(low, high, _STEP):
            stop = min(start + _STEP, high)
            for offset, end in _compare(await _read(a, start, stop), await _read(b, start, stop)):
                _join(found, start + offset, start + end)
        if progress:
            progress(high, size)
    if a.size != b.size:
        _join(found, size, max(a.size, b.size))
    return found


async def _suspects(a: BlockDevice, b: BlockDevice, size: int) -> AsyncIterator[tuple[int, int]]:
    """The ranges of which the maps do not say already that both are the same."""
    shared = _share_backing(a, b)
    offset = 0
    while offset < size:
        ours, theirs = await a.extents(offset, size - offset), await b.extents(offset, size - offset)
        for low, high, mine, other in _intersect(ours, theirs):
            zero = mine.kind is other.kind is ExtentKind.ZERO
            below = shared and mine.depth > 0 and other.depth > 0
            if not zero and not below:
                yield low, high
            offset = high


def _intersect(ours: Sequence[Extent], theirs: Sequence[Extent]) -> Iterator[tuple[int, int, Extent, Extent]]:
    """Ranges that lie in one extent of either map, as far as both maps go."""
    i = j = 0
    while i < len(ours) and j < len(theirs):
        mine, other = ours[i], theirs[j]
        my_end, other_end = mine.offset + mine.length, other.offset + other.length
        yield max(mine.offset, other.offset), min(my_end, other_end), mine, other
        i += my_end <= other_end
        j += other_end <= my_end


def _share_backing(a: BlockDevice, b: BlockDevice) -> bool:
    """Whether both are COW devices over the same file."""
    files = [_file(each.backing) for each in (a, b) if isinstance(each, CowDevice)]
    if len(files) < 2 or None in files:
        return False
    return files[0] == files[1]


def _file(device: BlockDevice) -> tuple[int, int] | None:
    if isinstance(device, RawDevice) and isinstance(device.storage, HostFile):
        found = os.fstat(device.storage.fileno())
        return found.st_dev, found.st_ino
    return None


async def _read(device: BlockDevice, start: int, end: int) -> bytes:
    content = bytearray(end - start)
    await device.read_into(start, [memoryview(content)])
    return bytes(content)


def _compare(mine: bytes, other: bytes) -> Iterator[tuple[int, int]]:
    """The sectors that differ, as (start, end) within the bytes."""
    if mine == other:
        return
    for start in range(0, len(mine), SECTOR):
        end = min(start + SECTOR, len(mine))
        if mine[start:end] != other[start:end]:
            yield start, end


def _join(found: list[tuple[int, int]], start: int, end: int) -> None:
    """Append a range, or make the last one longer by it."""
    if found and sum(found[-1]) == start:
        found[-1] = (found[-1][0], end - found[-1][0])
    else:
        found.append((start, end - start))
