"""What every BlockDevice must do, as a checker of any of them.

`check_block_device(open_device)` takes a factory that opens the same device again and again, for writing, and raises
AssertionError where the device is wrong. The device should be small (a few MiB at most): all of it is read.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Awaitable, Callable, Sequence

import trio

from umlfs.block import BlockDevice, Extent, ExtentKind

OpenDevice = Callable[[], Awaitable[BlockDevice]]

GROUP = 4096


async def check_block_device(open_device: OpenDevice, *, rounds: int = 120, seed: int = 1) -> None:
    """Exercise every operation; what was flushed must be there when the device is opened again."""
    device = await open_device()
    try:
        model = bytearray(await read(device, 0, device.size))
        await check_ranges(device)
        await check_scattered(device, model)
        await check_concurrency(device, model)
        await check_zeroes(device, model)
        await check_random(device, model, random.Random(seed), rounds)
        await check_extents(device, model)
        await device.flush()
    finally:
        await device.close()
    again = await open_device()
    try:
        assert again.size == len(model)
        assert await read(again, 0, again.size) == model
        await check_extents(again, model)
    finally:
        await again.close()


async def check_read_only(device: BlockDevice) -> None:
    """A device opened read-only reads, and refuses all else with EROFS."""
    assert device.read_only
    await read(device, 0, device.size)
    await device.flush()
    length = min(device.block_size, device.size)
    for refused in (
        device.write_from(0, [memoryview(bytearray(length))]),
        device.discard(0, length),
        device.write_zeroes(0, length),
    ):
        await expect(errno.EROFS, refused)


async def expect(number: int, operation: Awaitable[object]) -> None:
    """`operation` must raise OSError with that errno."""
    found = None
    try:
        await operation
    except OSError as error:
        found = error
    assert found is not None, f"no error, but {errno.errorcode[number]} was due"
    assert found.errno == number, found


async def read(device: BlockDevice, offset: int, length: int) -> bytes:
    """A range, its buffer full of something else before."""
    content = bytearray(b"\xa5" * length)
    await device.read_into(offset, [memoryview(content)])
    return bytes(content)


async def write(device: BlockDevice, model: bytearray, offset: int, data: bytes) -> None:
    await device.write_from(offset, [memoryview(data)])
    model[offset : offset + len(data)] = data


async def check_ranges(device: BlockDevice) -> None:
    """What is not within the device is EINVAL, and changes nothing."""
    unit = device.block_size
    for offset, length in (
        (device.size, unit),
        (-unit, unit),
        (device.size - device.size % unit, 2 * unit),
        (1 << 62, unit),
    ):
        buffer = memoryview(bytearray(length))
        for refused in (
            device.read_into(offset, [buffer]),
            device.write_from(offset, [buffer]),
            device.discard(offset, length),
            device.write_zeroes(offset, length),
            device.extents(offset, length),
        ):
            await expect(errno.EINVAL, refused)


async def check_scattered(device: BlockDevice, model: bytearray) -> None:
    """Many small buffers, more than one system call takes, at the very end of the device too."""
    length = min(device.size, 1500 * device.block_size)
    for offset in {0, (device.size - length) // device.block_size * device.block_size}:
        data = random.Random(offset).randbytes(min(length, device.size - offset))
        pieces = _scatter(data, device.block_size)
        await device.write_from(offset, pieces)
        model[offset : offset + len(data)] = data
        back = bytearray(len(data))
        await device.read_into(offset, _scatter(back, device.block_size))
        assert back == data
    assert await read(device, 0, device.size) == model


def _scatter(data: bytes | bytearray, unit: int) -> list[memoryview]:
    view = memoryview(data)
    return [view[start : start + unit] for start in range(0, len(data), unit)]


async def check_concurrency(device: BlockDevice, model: bytearray) -> None:
    """Writes at once to neighbouring sectors, and larger ones around others, lose nothing of each other."""
    unit = device.block_size
    count = min(device.size // unit, 256)
    async with trio.open_nursery() as nursery:
        for number in random.Random(2).sample(range(count), count):
            nursery.start_soon(write, device, model, number * unit, bytes([number % 255 + 1]) * unit)
    assert await read(device, 0, device.size) == model
    if device.size >= 8 * GROUP:
        async with trio.open_nursery() as nursery:
            for start in range(GROUP - unit, 7 * GROUP, 2 * GROUP):
                nursery.start_soon(write, device, model, start, b"\x11" * 2 * unit)
                nursery.start_soon(write, device, model, start + 2 * unit, b"\x22" * (GROUP - unit))
            nursery.start_soon(device.flush)
        assert await read(device, 0, device.size) == model


async def check_zeroes(device: BlockDevice, model: bytearray) -> None:
    """Zeroes where they were asked for, and nowhere else."""
    unit = device.block_size
    whole = device.size // unit
    for first, count in ((0, 1), (1, 2), (whole // 2, whole // 4), (whole // 3, 17), (max(whole - 3, 0), 3)):
        offset, length = first * unit, max(0, min(count, whole - first)) * unit
        if not length:
            continue
        for unmap in (True, False):
            await write(device, model, offset, b"\x77" * length)
            await device.write_zeroes(offset, length, unmap)
            model[offset : offset + length] = bytes(length)
            assert await read(device, 0, device.size) == model
        await write(device, model, offset, b"\x78" * length)
        await device.discard(offset, length)
        found = await read(device, offset, length)
        assert found in ((bytes(length),) if device.can_discard else (bytes(length), b"\x78" * length))
        model[offset : offset + length] = found
        assert await read(device, 0, device.size) == model


async def check_random(device: BlockDevice, model: bytearray, chance: random.Random, rounds: int) -> None:
    """Any operation anywhere, against a model in memory."""
    for _ in range(rounds):
        offset, length = _range(device, chance)
        match chance.randrange(6):
            case 0 | 1:
                await write(device, model, offset, chance.randbytes(length))
            case 2:
                assert await read(device, offset, length) == model[offset : offset + length]
            case 3:
                await device.write_zeroes(offset, length, chance.random() < 0.5)
                model[offset : offset + length] = bytes(length)
            case 4:
                await device.discard(offset, length)
                model[offset : offset + length] = await read(device, offset, length)
                assert not device.can_discard or not any(model[offset : offset + length])
            case 5:
                await device.flush()
    assert await read(device, 0, device.size) == model


def _range(device: BlockDevice, chance: random.Random) -> tuple[int, int]:
    """Whole blocks, the last one perhaps cut off by the end of the device."""
    unit = device.block_size
    offset = chance.randrange(-(-device.size // unit)) * unit if device.size else 0
    count = chance.choice((1, 1, 3, 8, 16, 100))
    return offset, min(count * unit, device.size - offset)


async def check_extents(device: BlockDevice, model: bytes | bytearray) -> None:
    """The map has no gaps, and what it calls zero is zero."""
    unit = device.block_size
    assert not device.size or await whole_map(device)
    for offset, length in ((0, device.size), (unit, min(5 * unit, device.size - unit))):
        reached = offset
        while length > 0 and reached < offset + length:
            found = await device.extents(reached, offset + length - reached)
            assert found, "an empty map"
            reached = _follow(found, reached, offset + length, model)


async def whole_map(device: BlockDevice) -> list[Extent]:
    """All extents of a device."""
    found: list[Extent] = []
    reached = 0
    while reached < device.size:
        found += await device.extents(reached, device.size - reached)
        reached = found[-1].offset + found[-1].length
    return found


def _follow(found: Sequence[Extent], reached: int, end: int, model: bytes | bytearray) -> int:
    for extent in found:
        assert extent.offset == reached
        assert extent.length > 0
        reached += extent.length
        assert extent.kind is not ExtentKind.ZERO or not any(model[extent.offset : reached])
    assert reached <= end
    return reached
