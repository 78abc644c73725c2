"""A device put together of ranges of others."""

from __future__ import annotations

import errno
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from umlfs.block import BlockDevice, Extent
from umlfs.buffers import part, total


class Piece(NamedTuple):
    """`length` bytes of the whole, from `start`, which are those of `device` from `offset`."""

    start: int
    length: int
    device: BlockDevice
    offset: int


class Mapped(BlockDevice):
    """The pieces one behind the other, without gaps. Their devices stay the caller's."""

    def __init__(self, pieces: Sequence[Piece], *, read_only: bool = False) -> None:
        """`pieces` in order of their starts. ValueError if they leave a gap or lead beyond a device's end."""
        at = 0
        for piece in pieces:
            if piece.start != at or piece.length <= 0:
                raise ValueError("its parts leave a gap, or overlap")
            if piece.offset < 0 or piece.offset + piece.length > piece.device.size:
                raise ValueError("a part of it lies beyond the end of its disk")
            at += piece.length
        self._pieces = list(pieces)
        self._starts = [piece.start for piece in pieces]
        self.size = at
        self.block_size = max((piece.device.block_size for piece in pieces), default=512)
        self.read_only = read_only or any(piece.device.read_only for piece in pieces)
        self.can_discard = all(piece.device.can_discard for piece in pieces)

    def _ranges(self, offset: int, length: int) -> Iterator[tuple[BlockDevice, int, int, int]]:
        """Device, offset in it, offset in the request, and length. EINVAL unless it lies within."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        done = 0
        index = bisect_right(self._starts, offset) - 1
        while done < length:
            piece = self._pieces[index]
            within = offset + done - piece.start
            count = min(length - done, piece.length - within)
            yield piece.device, piece.offset + within, done, count
            done += count
            index += 1

    def _writable(self) -> None:
        if self.read_only:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    async def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        for device, place, start, length in self._ranges(offset, total(buffers)):
            await device.read_into(place, part(buffers, start, length))

    async def write_from(self, offset: int, buffers: Sequence[memoryview]) -> None:
        self._writable()
        for device, place, start, length in self._ranges(offset, total(buffers)):
            await device.write_from(place, part(buffers, start, length))

    async def flush(self) -> None:
        for device in {id(piece.device): piece.device for piece in self._pieces}.values():
            await device.flush()

    async def discard(self, offset: int, length: int) -> None:
        self._writable()
        for device, place, _, count in self._ranges(offset, length):
            await device.discard(place, count)

    async def write_zeroes(self, offset: int, length: int, unmap: bool = True) -> None:
        self._writable()
        for device, place, _, count in self._ranges(offset, length):
            await device.write_zeroes(place, count, unmap)

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        found: list[Extent] = []
        for device, place, start, count in self._ranges(offset, length):
            pieces = await device.extents(place, count)
            found += [replace_offset(each, each.offset - place + offset + start) for each in pieces]
            if pieces[-1].offset + pieces[-1].length < place + count:
                break
        return found

    async def close(self) -> None:
        """Does nothing to the devices."""


def replace_offset(extent: Extent, offset: int) -> Extent:
    """The extent, elsewhere."""
    return extent._replace(offset=offset)
