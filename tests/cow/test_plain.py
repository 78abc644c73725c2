"""Whoever writes to an image that was taken for a plain one cannot turn it into another kind for the next time."""

from __future__ import annotations

import errno
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.contract.block import expect
from umlfs.block import BlockDevice
from umlfs.blocks.raw import RawDevice, open_file
from umlfs.cow.plain import PlainImage
from umlfs.sources import parse

MARK = b"OOOM\0\0\0\2"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(bytes(8192))
    return path


def plain(path: Path) -> PlainImage:
    file = open_file(path)
    return PlainImage(file, file.size())


@pytest.mark.parametrize("mark", [MARK, b"QFI\xfb\0\0\0\3", b"conectix", b"<<< Oracle VM VirtualBox"])
async def test_no_other_kind(path: Path, mark: bytes) -> None:
    device = plain(path)
    await expect(errno.EPERM, device.write_from(0, [memoryview(mark)]))
    await device.close()
    assert not any(path.read_bytes())


@pytest.mark.parametrize("mark", [MARK, b"QFI\xfb", b"conectix"])
async def test_not_in_pieces_either(path: Path, mark: bytes) -> None:
    for cut in range(1, 4):
        path.write_bytes(bytes(8192))
        device = plain(path)
        await device.write_from(cut, [memoryview(mark[cut:])])
        await expect(errno.EPERM, device.write_from(0, [memoryview(mark[:cut])]))
        await device.close()
        assert path.read_bytes()[:cut] == bytes(cut)


async def test_nor_at_once(path: Path) -> None:
    """One of two writes that are innocuous each has to fail."""
    device = plain(path)
    failed = []

    async def write(offset: int, data: bytes) -> None:
        try:
            await device.write_from(offset, [memoryview(data)])
        except OSError as error:
            failed.append(error.errno)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(write, 0, MARK[:2]))
        nursery.start_soon(partial(write, 2, MARK[2:]))
    await device.close()
    assert failed == [errno.EPERM]


async def test_other_writes_pass(path: Path) -> None:
    device = plain(path)
    await device.write_from(3, [memoryview(b"abc"), memoryview(b"def")])
    await device.write_from(32, [memoryview(MARK)])
    await device.write_from(0, [memoryview(b"x" * 5000), memoryview(b"y" * 3192)])
    await device.close()
    assert path.read_bytes() == b"x" * 5000 + b"y" * 3192


async def test_a_tiny_image(tmp_path: Path) -> None:
    path = tmp_path / "tiny"
    path.write_bytes(b"abc")
    device = plain(path)
    await device.write_from(1, [memoryview(b"OO")])
    await device.close()
    assert path.read_bytes() == b"aOO"


async def test_only_where_nobody_said_what_it_is(path: Path) -> None:
    for word, kind in ((str(path), PlainImage), (f"raw:{path}", RawDevice)):
        device = await parse(word).open()
        assert type(device) is kind
        assert isinstance(device, BlockDevice)
        await device.close()
