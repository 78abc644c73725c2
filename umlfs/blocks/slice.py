"""A range of a device as a device of its own: a partition."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from umlfs.block import BlockDevice, Extent
from umlfs.buffers import total


class Slice(BlockDevice):
    """The `length` bytes of `device` from `offset`. The device stays the caller's: closing the slice leaves it open."""

    def __init__(self, device: BlockDevice, offset: int, length: int) -> None:
        """Both in bytes, multiples of the device's block size; ValueError if they lead beyond its end."""
        if offset < 0 or length < 0 or offset + length > device.size:
            raise ValueError(f"{length} bytes at {offset} of a device of {device.size}")
        self.device = device
        self.offset = offset
        self.size = length
        self.block_size = device.block_size
        self.read_only = device.read_only

    @property
    def can_discard(self) -> bool:  # type: ignore[override]
        """As the device's, which may learn that it cannot."""
        return self.device.can_discard

    def _inside(self, offset: int, length: int) -> int:
        """Where in the device the range begins. EINVAL unless it lies within the slice."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return self.offset + offset

    async def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        await self.device.read_into(self._inside(offset, total(buffers)), buffers)

    async def write_from(self, offset: int, buffers: Sequence[memoryview]) -> None:
        await self.device.write_from(self._inside(offset, total(buffers)), buffers)

    async def flush(self) -> None:
        await self.device.flush()

    async def discard(self, offset: int, length: int) -> None:
        await self.device.discard(self._inside(offset, length), length)

    async def write_zeroes(self, offset: int, length: int, unmap: bool = True) -> None:
        await self.device.write_zeroes(self._inside(offset, length), length, unmap)

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        found = await self.device.extents(self._inside(offset, length), length)
        return [each._replace(offset=each.offset - self.offset) for each in found]

    async def close(self) -> None:
        """Does nothing to the device."""
