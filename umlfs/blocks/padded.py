"""A device rounded up to whole blocks, for consumers that count in sectors (virtio-blk)."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from umlfs.block import BlockDevice, Extent, ExtentKind
from umlfs.blocks.raw import check_range, check_writable
from umlfs.buffers import all_zero, fill_zeroes, part, total


class Padded(BlockDevice):
    """`device` with its size rounded up to a multiple of `block_size`.

    The kernel's ubd driver and qemu present an image of odd size rounded up too; the driver then repeats
    data in the padding, and qemu lets a write there make the image longer. Here the padding reads as zeroes, zeroes
    written to it vanish, and anything else written to it is ENOSPC: an image never grows, and nothing is
    lost unsaid.
    """

    def __init__(self, device: BlockDevice, block_size: int = 512) -> None:
        self.device = device
        self.block_size = block_size
        self.size = -(-device.size // block_size) * block_size
        self.read_only = device.read_only

    @property
    def can_discard(self) -> bool:  # type: ignore[override]
        """As the device's, which may learn that it cannot."""
        return self.device.can_discard

    def _inside(self, offset: int, length: int) -> int:
        """How many bytes of the range are not padding."""
        return max(0, min(length, self.device.size - offset))

    async def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        length = total(buffers)
        check_range(self, offset, length)
        inside = self._inside(offset, length)
        if inside == length:
            return await self.device.read_into(offset, buffers)
        if inside:
            await self.device.read_into(offset, part(buffers, 0, inside))
        fill_zeroes(buffers, inside)

    async def write_from(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """As the contract. ENOSPC, and nothing is written, if the padding would not stay zero."""
        length = total(buffers)
        check_writable(self, offset, length)
        inside = self._inside(offset, length)
        if inside == length:
            return await self.device.write_from(offset, buffers)
        if not all_zero(part(buffers, inside, length - inside)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if inside:
            await self.device.write_from(offset, part(buffers, 0, inside))

    async def flush(self) -> None:
        await self.device.flush()

    async def discard(self, offset: int, length: int) -> None:
        check_writable(self, offset, length)
        if inside := self._inside(offset, length):
            await self.device.discard(offset, inside)

    async def write_zeroes(self, offset: int, length: int, unmap: bool = True) -> None:
        check_writable(self, offset, length)
        if inside := self._inside(offset, length):
            await self.device.write_zeroes(offset, inside, unmap)

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        check_range(self, offset, length)
        inside = self._inside(offset, length)
        found = list(await self.device.extents(offset, inside)) if inside else []
        reached = found[-1].offset + found[-1].length if found else offset
        if reached == offset + inside < offset + length:
            found.append(Extent(reached, length - inside, ExtentKind.ZERO))
        return found

    async def close(self) -> None:
        await self.device.close()
