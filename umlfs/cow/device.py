"""A COW file over a backing device, as one BlockDevice.

What a crash leaves behind is always right, because of the order in which things become durable:

* data goes to the data area at once, but its bits change in memory only;
* `flush` makes the data durable, then writes the bits, then makes those durable, and only then answers.

So a bit on the disk always stands for data on the disk, and a write that was never flushed reads as before it. `close`
does the same as far as the page cache.

Bits are set for whole groups of 4 KiB, as the kernel's ubd driver needs it (it returns wrong data for a request over a
group that is partly here and partly in the backing file); a write to a part of a group copies the rest up.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import trio

from umlfs.block import BlockDevice, Extent
from umlfs.blocks.file import MAX_EXTENTS
from umlfs.blocks.raw import Storage, check_range, check_writable, zero_storage
from umlfs.buffers import fill_zeroes, part, total
from umlfs.cow.bitmap import CHUNK, Bitmap
from umlfs.cow.header import SECTOR, Header

GROUP: Final = 4096
"""Bytes that are copied up together."""
_GROUP_SECTORS: Final = GROUP // SECTOR
_LOAD_CHUNKS: Final = 16
"""So much of the bitmap is loaded at once, where much of it is asked for."""
_LOADED: Final = 8 * CHUNK * _LOAD_CHUNKS
"""Sectors that are mapped before more of the bitmap is loaded."""


class CowDevice(BlockDevice):
    """The device that a COW file and its backing device make together; owns both.

    `storage` holds the COW file, `header` what was read from it. The backing device is never written to. Its
    size is the header's, in bytes, and may be anything.
    """

    def __init__(
        self,
        storage: Storage,
        header: Header,
        backing: BlockDevice,
        *,
        read_only: bool = False,
        sync: bool = False,
        discard: bool = True,
        path: str = "",
    ) -> None:
        """`path`: where the COW file is, if it has a name. `sync`: `storage` writes synchronously, and so every write
        is to be durable when answered, bits and all."""
        self.path = path
        self.header = header
        self.backing = backing
        self.size = header.size
        self.read_only = read_only
        self.can_discard = discard and not read_only
        self._storage = storage
        self._sync = sync
        self._data = header.data_offset
        self._bitmap = Bitmap(header.sectors, header.bitmap_length)
        self._flushing = trio.Lock()
        self._copying: dict[tuple[int, int], trio.Event] = {}
        """Ranges of sectors whose bits are about to be set, with what ends it."""

    # Reading ----------------------------------------------------------------------------------

    async def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """As the contract. A data area that ends early reads as zeroes, as the kernel has it."""
        length = total(buffers)
        if offset < 0 or offset + length > self.size:
            check_range(self, offset, length)
        if self._bitmap.covers(offset, length):  # nearly every request, so that it costs little more than a raw one
            if await self._storage.read_into(self._data + offset, buffers) == length:
                return
            return await self._read_own(offset, buffers, length)
        first, end = offset // SECTOR, -(-(offset + length) // SECTOR)
        await self._load(first, end)
        for start, stop, own in self._bitmap.runs(first, end):
            low, high = max(start * SECTOR, offset), min(stop * SECTOR, offset + length)
            piece = buffers if high - low == length else part(buffers, low - offset, high - low)
            if own:
                await self._read_own(low, piece, high - low)
            else:
                await self.backing.read_into(low, piece)

    async def _read_own(self, offset: int, buffers: Sequence[memoryview], length: int) -> None:
        done = await self._storage.read_into(self._data + offset, buffers)
        if done != length:
            fill_zeroes(buffers, done)

    async def _load(self, first: int, end: int) -> None:
        """Have the bits of a range in memory."""
        missing = self._bitmap.missing(first, end)
        while missing:
            chunk, count = missing[0], 1
            while count < min(len(missing), _LOAD_CHUNKS) and missing[count] == chunk + count:
                count += 1
            await self._load_chunks(chunk, count)
            missing = missing[count:]

    async def _load_chunks(self, chunk: int, count: int) -> None:
        offset = chunk * CHUNK
        content = bytearray(min(count * CHUNK, self._bitmap.length - offset))
        if await self._storage.read_into(self.header.bitmap_offset + offset, [memoryview(content)]) != len(content):
            raise OSError(errno.EIO, "the COW file ends within its bitmap")
        for number in range(count):
            self._bitmap.load(chunk + number, content[number * CHUNK : (number + 1) * CHUNK])

    # Writing ----------------------------------------------------------------------------------

    async def write_from(self, offset: int, buffers: Sequence[memoryview]) -> None:
        length = total(buffers)
        if self.read_only or offset < 0 or offset + length > self.size:
            check_writable(self, offset, length)
        if self._bitmap.covers(offset, length):
            return await self._storage.write_from(self._data + offset, buffers)
        if not length:
            return
        # Whole groups: one that is partly here may be being copied up with what it held before this write.
        first = offset // GROUP * _GROUP_SECTORS
        end = min(-(-(offset + length) // GROUP) * _GROUP_SECTORS, self.header.sectors)
        await self._load(first, end)
        if self._bitmap.all_set(first, end):
            await self._storage.write_from(self._data + offset, buffers)
        else:
            await self._copy_up(offset, buffers, length)

    async def _copy_up(self, offset: int, buffers: Sequence[memoryview], length: int) -> None:
        """Write whole groups: `buffers`, and around them what is there now.

        A group that is all here already gets nothing around: others may be writing to the rest of it.
        """
        low, high = offset // GROUP * GROUP, self._group_end(offset + length)
        async with self._claim(low // SECTOR, -(-high // SECTOR)) as (first, end):
            head = bytearray(0 if self._is_here(low) else offset - low)
            tail = bytearray(0 if self._is_here((high - 1) // GROUP * GROUP) else high - offset - length)
            if head:
                await self.read_into(low, [memoryview(head)])
            if tail:
                await self.read_into(offset + length, [memoryview(tail)])
            if (
                offset + length + len(tail) == self.size
            ):  # where the last sector is not a whole one, others read all of it
                tail += bytes(end * SECTOR - self.size)
            whole = [memoryview(head), *buffers, memoryview(tail)]
            await self._storage.write_from(self._data + offset - len(head), [buffer for buffer in whole if buffer])
            await self._hold(first, end)

    def _is_here(self, group: int) -> bool:
        """Whether all of the group that begins at this offset is in the COW file."""
        return self._bitmap.all_set(group // SECTOR, -(-self._group_end(group + 1) // SECTOR))

    def _group_end(self, offset: int) -> int:
        """The end of the group that ends at or after `offset`; the last group ends with the device."""
        return min(-(-offset // GROUP) * GROUP, self.size)

    @asynccontextmanager
    async def _claim(self, first: int, end: int) -> AsyncIterator[tuple[int, int]]:
        """Keep others from setting any of these bits meanwhile: they would copy up what we are about to replace."""
        while (rival := self._rival(first, end)) is not None:
            await rival.wait()
        done = self._copying[first, end] = trio.Event()
        try:
            yield first, end
        finally:
            del self._copying[first, end]
            done.set()

    def _rival(self, first: int, end: int) -> trio.Event | None:
        for (low, high), event in self._copying.items():
            if low < end and first < high:
                return event
        return None

    async def _hold(self, first: int, end: int) -> None:
        """Note that the data area holds these sectors."""
        self._bitmap.set(first, end)
        if self._sync:
            await self.flush()

    # Making durable ---------------------------------------------------------------------------

    async def flush(self) -> None:
        """As the contract: data first, then the bits that stand for it."""
        if self.read_only:
            return
        async with self._flushing:
            # Only bits whose data was written before the data is made durable; more may be set meanwhile.
            ranges = self._bitmap.take_dirty()
            try:
                await self._storage.flush()
                if ranges:
                    await self._write_bits(ranges)
                    await self._storage.flush()
            except BaseException:
                self._bitmap.put_back(ranges)
                raise

    async def _write_bits(self, ranges: dict[int, bytes]) -> None:
        for offset, content in ranges.items():
            await self._storage.write_from(self.header.bitmap_offset + offset, [memoryview(content)])

    # Zeroes -----------------------------------------------------------------------------------

    async def discard(self, offset: int, length: int) -> None:
        """As the contract: whole groups become holes of the COW file, which hide the backing device."""
        check_writable(self, offset, length)
        if not self.can_discard or not length:
            return
        try:
            await self._zero(offset, length, self._storage.punch)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            self.can_discard = False

    async def write_zeroes(self, offset: int, length: int, unmap: bool = True) -> None:
        check_writable(self, offset, length)
        if length:
            await self._zero(offset, length, partial(zero_storage, self._storage, unmap=unmap and self.can_discard))

    async def _zero(self, offset: int, length: int, erase: Callable[[int, int], Awaitable[None]]) -> None:
        """Let `erase` zero whole groups in the data area, and write zeroes to what is left at either end."""
        end = offset + length
        low = min(-(-offset // GROUP) * GROUP, end)
        high = max(end if end == self.size else end // GROUP * GROUP, low)
        if low < high:
            async with self._claim(low // SECTOR, -(-high // SECTOR)) as (first, last):
                await self._load(first, last)
                await erase(self._data + low, (last - first) * SECTOR)
                await self._hold(first, last)
        await self.write_from(offset, [memoryview(bytes(low - offset))])
        await self.write_from(high, [memoryview(bytes(end - high))])

    # The rest ---------------------------------------------------------------------------------

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        """As the contract: depth 0 is what the COW file holds, what the backing device holds lies one deeper."""
        check_range(self, offset, length)
        limit = offset + length
        own = _Layer(self._storage.extents, limit + self._data, -self._data)
        below = _Layer(self.backing.extents, limit, deeper=1)
        found: list[Extent] = []
        while offset < limit and len(found) < MAX_EXTENTS:
            first, end = offset // SECTOR, -(-limit // SECTOR)
            end = min(end, (first // _LOADED + 1) * _LOADED)
            await self._load(first, end)
            is_own, end = self._bitmap.run(first, end)
            for extent in await (own if is_own else below).between(offset, min(end * SECTOR, limit)):
                _join(found, extent)
                offset = extent.offset + extent.length
        return found

    async def close(self) -> None:
        """Give up every resource, the backing device's too. What was not flushed goes to the host's page cache."""
        try:
            if self._bitmap.dirty:
                with trio.CancelScope(shield=True):
                    await self._store_all()
        finally:
            self._storage.close()
            self._bitmap.close()
            await self.backing.close()

    async def _store_all(self) -> None:
        """Write all bits behind their data."""
        async with self._flushing:
            await self._storage.flush()
            await self._write_bits(self._bitmap.take_dirty())


class _Layer:
    """The map of one layer, asked for in long stretches."""

    def __init__(
        self,
        fetch: Callable[[int, int], Awaitable[Sequence[Extent]]],
        limit: int,
        shift: int = 0,
        deeper: int = 0,
    ) -> None:
        self._fetch = fetch
        self._limit = limit
        """Where in the layer the map ends that will be asked for."""
        self._shift = shift
        """What makes an offset in the layer one in the device."""
        self._deeper = deeper
        self._known: list[Extent] = []
        """What was fetched, from the present position on; the nearest last."""

    async def between(self, offset: int, end: int) -> list[Extent]:
        """What the layer holds from `offset`, up to `end` or less. Successive calls go forward."""
        while self._known and self._known[-1].offset + self._known[-1].length <= offset:
            self._known.pop()
        if not self._known:
            fetched = await self._fetch(offset - self._shift, self._limit - offset + self._shift)
            self._known = [self._translate(extent) for extent in reversed(fetched)]
        found = []
        while self._known and offset < end:
            extent = self._known[-1]
            stop = min(extent.offset + extent.length, end)
            found.append(Extent(offset, stop - offset, extent.kind, extent.depth))
            if stop == extent.offset + extent.length:
                self._known.pop()
            offset = stop
        return found

    def _translate(self, extent: Extent) -> Extent:
        return Extent(extent.offset + self._shift, extent.length, extent.kind, extent.depth + self._deeper)


def _join(found: list[Extent], extent: Extent) -> None:
    """Append an extent, or make the last one longer by it."""
    last = found[-1] if found else None
    if last and last.kind is extent.kind and last.depth == extent.depth:
        found[-1] = Extent(last.offset, last.length + extent.length, last.kind, last.depth)
    else:
        found.append(extent)
