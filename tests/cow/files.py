"""COW files for tests, in every version, and what is in them."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

from tests.contract.block import read
from umlfs.block import BlockDevice
from umlfs.cow.bitmap import Bitmap
from umlfs.cow.create import create
from umlfs.cow.file import header_at, load_bitmap, read_header
from umlfs.cow.header import Header
from umlfs.cow.open import open_cow

MAGIC = 0x4F4F4F4D
BROKEN = 4
"""The version number that stands for a broken V3 here."""


def pair(folder: Path, size: int) -> tuple[Path, Path]:
    """A COW file, and the backing file of random bytes that it is over."""
    backing, cow = folder / "backing", folder / "cow"
    backing.write_bytes(random.Random(size).randbytes(size))
    create(str(cow), str(backing))
    return cow, backing


def bitmap_of(cow: Path) -> tuple[Header, Bitmap]:
    """What is in the file now."""
    fd = os.open(cow, os.O_RDONLY)
    try:
        header = read_header(fd, str(cow))
        return header, load_bitmap(fd, header, str(cow))
    finally:
        os.close(fd)


def assert_whole_groups(cow: Path) -> None:
    """The kernel's driver needs all sectors of a group of 4 KiB in one place."""
    header, bitmap = bitmap_of(cow)
    for first, end, _ in bitmap.runs(0, header.sectors):
        assert first % 8 == 0
        assert end % 8 == 0 or end == header.sectors


def as_version(cow: Path, version: int, order: str = ">", alignment: int = 4096) -> None:
    """Rewrite a fresh COW file in an old layout, as programs of its time did."""
    header = header_at(str(cow))
    values = (header.mtime, header.size, 512)
    match version:
        case 1:
            head = struct.pack(f"{order}II256sIQI", MAGIC, 1, header.backing, *values)
        case 2:
            head = struct.pack(">II4096sIQI", MAGIC, 2, header.backing, *values)
        case 3:
            head = struct.pack(">IIIQIII4096s", MAGIC, 3, *values, alignment, 0, header.backing)
        case _:
            head = struct.pack(">III4xQIII4096s4x", MAGIC, 3, *values, alignment, 0, header.backing)
    cow.write_bytes(head)
    os.truncate(cow, header_at(str(cow)).file_size)


async def change(cow: Path, seed: int = 1, count: int = 20) -> bytes:
    """Write, zero and discard here and there; what the device then shows."""
    device = await open_cow(str(cow))
    chance = random.Random(seed)
    for _ in range(count if device.size else 0):
        offset = chance.randrange(-(-device.size // 512)) * 512
        length = min(chance.choice((512, 1024, 4096, 20000)), device.size - offset)
        match chance.randrange(4):
            case 0:
                await device.discard(offset, length)
            case 1:
                await device.write_zeroes(offset, length, False)
            case _:
                await device.write_from(offset, [memoryview(chance.randbytes(length))])
    await device.flush()
    content = await whole(device)
    await device.close()
    return content


async def whole(device: BlockDevice) -> bytes:
    """All of a small device."""
    return await read(device, 0, device.size)


async def contents(cow: Path) -> bytes:
    """What a COW file shows."""
    device = await open_cow(str(cow), read_only=True)
    try:
        return await whole(device)
    finally:
        await device.close()
