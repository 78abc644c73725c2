"""The COW device: the contract at all sizes and layouts, copying up, what the backing file keeps, memory."""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from tests.contract.block import check_block_device, check_read_only, read, whole_map
from tests.cow.files import as_version, assert_whole_groups, bitmap_of, pair
from umlfs.block import BlockDevice, ExtentKind
from umlfs.blocks.raw import open_raw
from umlfs.cow.create import create
from umlfs.cow.device import CowDevice
from umlfs.cow.open import open_cow

SIZES = (1 << 20, 82020, 70001, 32768, 4096, 1000, 512, 100)


@pytest.mark.parametrize("size", SIZES)
async def test_contract(tmp_path: Path, size: int) -> None:
    cow, backing = pair(tmp_path, size)
    before = backing.read_bytes()

    async def open_device() -> BlockDevice:
        return await open_cow(str(cow))

    await check_block_device(open_device)
    assert backing.read_bytes() == before
    assert_whole_groups(cow)


@pytest.mark.parametrize(("version", "order"), [(1, ">"), (1, "<"), (2, ">"), (4, ">")])
async def test_contract_of_old_versions(tmp_path: Path, version: int, order: str) -> None:
    cow, _ = pair(tmp_path, 1 << 20)
    as_version(cow, version, order)

    async def open_device() -> BlockDevice:
        return await open_cow(str(cow))

    await check_block_device(open_device)


async def test_contract_synchronous(tmp_path: Path) -> None:
    cow, _ = pair(tmp_path, 200000)

    async def open_device() -> BlockDevice:
        return await open_cow(str(cow), sync=True)

    await check_block_device(open_device, rounds=40)


async def test_read_only(tmp_path: Path) -> None:
    cow, _ = pair(tmp_path, 8192)
    device = await open_cow(str(cow), read_only=True)
    await check_read_only(device)
    await device.close()


async def test_synchronous_writes_are_on_the_disk(tmp_path: Path) -> None:
    cow, _ = pair(tmp_path, 65536)
    device = await open_cow(str(cow), sync=True)
    await device.write_from(4096, [memoryview(b"x" * 4096)])
    assert bitmap_of(cow)[1].all_set(8, 16)
    await device.close()


async def test_bits_reach_the_file_only_with_a_flush_or_close(tmp_path: Path) -> None:
    cow, _ = pair(tmp_path, 65536)
    device = await open_cow(str(cow))
    await device.write_from(4096, [memoryview(b"x" * 512)])
    assert not bitmap_of(cow)[1].get(8)
    await device.flush()
    assert bitmap_of(cow)[1].all_set(8, 16)
    await device.write_from(0, [memoryview(b"y" * 512)])
    await device.close()
    assert bitmap_of(cow)[1].all_set(0, 16)


async def test_mixed_groups_of_others_are_read_right_and_completed(tmp_path: Path) -> None:
    cow, backing = pair(tmp_path, 65536)
    header, _ = bitmap_of(cow)
    content = bytearray(backing.read_bytes())
    with cow.open("r+b") as file:  # sector 3 alone, and 8 to 10
        for sector in (3, 8, 9, 10):
            content[sector * 512 : sector * 512 + 512] = bytes([sector]) * 512
            file.seek(header.data_offset + sector * 512)
            file.write(bytes([sector]) * 512)
        file.seek(header.bitmap_offset)
        file.write(bytes([0b1000, 0b111]))
    device = await open_cow(str(cow))
    assert await read(device, 0, 65536) == content
    async with trio.open_nursery() as nursery:
        for sector in (0, 1, 3, 9, 15):
            content[sector * 512 : sector * 512 + 512] = b"n" * 512
            nursery.start_soon(device.write_from, sector * 512, [memoryview(b"n" * 512)])
    assert await read(device, 0, 65536) == content
    await device.close()
    assert_whole_groups(cow)


async def test_discard_hides_the_backing_file_and_frees_the_cow(tmp_path: Path) -> None:
    cow, _ = pair(tmp_path, 1 << 20)
    device = await open_cow(str(cow))
    await device.write_from(0, [memoryview(b"x" * (1 << 20))])
    await device.flush()
    before = cow.stat().st_blocks
    await device.discard(512, (1 << 20) - 512)
    assert await read(device, 0, 1 << 20) == b"x" * 512 + bytes((1 << 20) - 512)
    assert cow.stat().st_blocks < before // 4
    assert [(each.kind, each.depth) for each in await whole_map(device)] == [(ExtentKind.DATA, 0), (ExtentKind.ZERO, 0)]
    await device.close()


async def test_extents_tell_layers_apart(tmp_path: Path) -> None:
    backing, cow = tmp_path / "backing", tmp_path / "cow"
    with backing.open("wb") as file:
        file.write(b"b" * (1 << 20))
        file.truncate(3 << 20)
    create(str(cow), str(backing))
    device = await open_cow(str(cow))
    await device.write_from(1 << 19, [memoryview(b"c" * 4096)])
    found = [(each.offset, each.length, each.kind, each.depth) for each in await whole_map(device)]
    await device.close()
    assert found == [
        (0, 1 << 19, ExtentKind.DATA, 1),
        (1 << 19, 4096, ExtentKind.DATA, 0),
        ((1 << 19) + 4096, (1 << 19) - 4096, ExtentKind.DATA, 1),
        (1 << 20, 2 << 20, ExtentKind.ZERO, 1),
    ]


async def test_large_devices_take_little_memory(tmp_path: Path) -> None:
    backing, cow = tmp_path / "backing", tmp_path / "cow"
    backing.touch()
    os.truncate(backing, 1 << 40)
    create(str(cow), str(backing))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    device = await open_cow(str(cow))
    for offset in (0, 5 << 30, (1 << 40) - 4096):
        await device.write_from(offset, [memoryview(b"x" * 4096)])
        assert await read(device, offset, 4096) == b"x" * 4096
    await device.flush()
    assert len([each for each in await whole_map(device) if each.depth == 0]) == 3
    await device.close()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024
    assert cow.stat().st_blocks * 512 < 1 << 20


async def test_failed_flush_keeps_bits_to_be_written(tmp_path: Path) -> None:
    cow, _ = pair(tmp_path, 65536)
    device = await open_cow(str(cow))
    await device.write_from(0, [memoryview(b"x" * 4096)])
    with trio.CancelScope() as scope:
        scope.cancel()
        await device.flush()
    assert scope.cancelled_caught
    assert not bitmap_of(cow)[1].get(0)
    await device.flush()
    assert bitmap_of(cow)[1].get(0)
    await device.close()


async def test_any_device_can_be_below(tmp_path: Path) -> None:
    cow, backing = pair(tmp_path, 65536)
    below = Counting(backing)
    file = open_raw(cow)
    header, _ = bitmap_of(cow)
    device = CowDevice(file.storage, header, below)
    await device.write_from(512, [memoryview(b"x" * 512)])
    assert below.read == [(0, 512), (1024, 3072)]
    await device.close()


class Counting(BlockDevice):
    """A device that notes what is read of it."""

    def __init__(self, path: Path) -> None:
        self.below = open_raw(path, read_only=True)
        self.size = self.below.size
        self.read: list[tuple[int, int]] = []

    async def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        self.read.append((offset, sum(map(len, buffers))))
        await self.below.read_into(offset, buffers)

    async def close(self) -> None:
        await self.below.close()
