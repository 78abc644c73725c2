"""Raw images: the contract, sizes of any kind, TRIM, and the padding to whole sectors."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.contract.block import check_block_device, check_read_only, expect, read
from umlfs.block import BlockDevice
from umlfs.blocks.padded import Padded
from umlfs.blocks.raw import open_raw
from umlfs.errors import UmlError


def image(path: Path, size: int) -> Path:
    path.write_bytes(os.urandom(size))
    return path


@pytest.mark.parametrize("size", [1 << 20, 82020, 512])
@pytest.mark.parametrize("sync", [False, True])
async def test_contract(tmp_path: Path, size: int, sync: bool) -> None:
    path = image(tmp_path / "image", size)

    async def open_device() -> BlockDevice:
        return open_raw(path, sync=sync)

    await check_block_device(open_device, rounds=60)
    assert path.stat().st_size == size


async def test_contract_padded(tmp_path: Path) -> None:
    path = image(tmp_path / "image", 40960)

    async def open_device() -> BlockDevice:
        return Padded(open_raw(path))

    await check_block_device(open_device, rounds=60)


async def test_read_only(tmp_path: Path) -> None:
    device = open_raw(image(tmp_path / "image", 8192), read_only=True)
    await check_read_only(device)
    await device.close()


async def test_discard_gives_space_back(tmp_path: Path) -> None:
    path = image(tmp_path / "image", 1 << 20)
    device = open_raw(path)
    await device.flush()
    before = path.stat().st_blocks
    await device.discard(0, 1 << 19)
    assert path.stat().st_blocks <= before // 2 + 8
    await device.close()
    device = open_raw(path, discard=False)
    before = path.stat().st_blocks
    await device.discard(0, 1 << 20)
    assert path.stat().st_blocks == before
    await device.close()


async def test_padding_is_zero_and_stays_zero(tmp_path: Path) -> None:
    path = image(tmp_path / "image", 82020)
    content = path.read_bytes()
    device = Padded(open_raw(path))
    assert device.size == 82432
    assert await read(device, 81920, 512) == content[81920:] + bytes(412)
    await device.write_from(81920, [memoryview(b"x" * 100 + bytes(412))])
    await expect(errno.ENOSPC, device.write_from(81920, [memoryview(b"y" * 512)]))
    await device.close()
    assert path.read_bytes() == content[:81920] + b"x" * 100


async def test_an_image_that_shrinks_is_an_error(tmp_path: Path) -> None:
    path = image(tmp_path / "image", 8192)
    device = open_raw(path)
    os.truncate(path, 4096)
    with pytest.raises(OSError, match="shorter"):
        await read(device, 0, 8192)
    await device.close()


def test_not_an_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UmlError, match="neither a file nor a block device"):
        open_raw(tmp_path / "fifo")
    with pytest.raises(IsADirectoryError):
        open_raw(tmp_path)
