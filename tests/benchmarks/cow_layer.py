"""What the COW layer costs: `python -m tests.benchmarks.cow_layer [DIRECTORY]`.

Requests to allocated extents, against the same bytes of the same file as a raw device, with everything in the page
cache: at most 10 % more. And opening a COW file over 1 TiB of sparse backing file: under 0.2 s.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import trio

from tests.benchmarks.ratio import rounds
from umlfs.block import BlockDevice
from umlfs.blocks.raw import RawDevice, check_range, check_writable, open_file
from umlfs.buffers import total
from umlfs.cow.create import create
from umlfs.cow.open import open_cow

SIZE = 64 << 20
ROUNDS = rounds(15)
REQUESTS = ((4096, 10000), (65536, 3000), (1 << 20, 300))


class Shifted(RawDevice):
    """The data area of a COW file as a raw device, by the very steps of one."""

    def __init__(self, cow: Path, offset: int) -> None:
        super().__init__(open_file(cow, lock=False), offset + SIZE)
        self.base = offset

    async def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        wanted = total(buffers)
        check_range(self, offset, wanted)
        if await self.storage.read_into(offset + self.base, buffers) != wanted:
            raise EOFError

    async def write_from(self, offset: int, buffers: Sequence[memoryview]) -> None:
        check_writable(self, offset, total(buffers))
        await self.storage.write_from(offset + self.base, buffers)


async def passing(device: BlockDevice, write: bool, size: int, count: int) -> float:
    chance = random.Random(1)
    offsets = [chance.randrange(SIZE // size) * size for _ in range(count)]
    buffers = [memoryview(bytearray(size))]
    operation = device.write_from if write else device.read_into
    start = time.perf_counter()
    for offset in offsets:
        await operation(offset, buffers)
    return (time.perf_counter() - start) / count * 1e6


def make(folder: Path, size: int) -> Path:
    """A COW file over a sparse backing file."""
    backing, cow = folder / f"backing{size}", folder / f"cow{size}"
    backing.touch()
    os.truncate(backing, size)
    create(str(cow), str(backing))
    return cow


async def layer(cow: Path) -> None:
    """Print the price of each kind of request."""
    ours = await open_cow(str(cow))
    for offset in range(0, SIZE, 1 << 20):
        await ours.write_from(offset, [memoryview(bytearray(b"x" * (1 << 20)))])
    await ours.flush()
    raw = Shifted(cow, ours.header.data_offset)
    for write in (False, True):
        for size, count in REQUESTS:
            below, above = [], []
            for _ in range(ROUNDS):
                below.append(await passing(raw, write, size, count))
                above.append(await passing(ours, write, size, count))
            one, other = statistics.median(below), statistics.median(above)
            name = f"{'write' if write else 'read'} {size}"
            print(f"{name:<16}{one:>10.2f} us raw{other:>10.2f} us COW{other / one:>8.2f}x")
    await raw.close()
    await ours.close()


async def opening(cow: Path) -> None:
    """Print how long it takes to open a large one."""
    start = time.perf_counter()
    device = await open_cow(str(cow))
    print(f"{'open 1 TiB':<16}{(time.perf_counter() - start) * 1e3:>10.2f} ms")
    await device.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="uml-benchmark-", dir=sys.argv[1] if len(sys.argv) > 1 else None) as name:
        trio.run(layer, make(Path(name), SIZE))
        trio.run(opening, make(Path(name), 1 << 40))
