"""Partition tables, well made and hostile."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umlfs.blocks.partitions import LOGICAL_MAX, SECTOR, Partition, read_table

MIB = 1 << 20
SIZE = 64 * MIB


def partitions(
    image: bytes | bytearray, size: int | None = None, beyond: list[Partition] | None = None
) -> list[Partition]:
    """Drive the reader over an image, and check that it asks for nothing outside."""
    size = len(image) if size is None else size
    reader = read_table(size, beyond)
    try:
        offset, length = next(reader)
        for _ in range(10_000):
            assert offset >= 0
            assert length > 0
            assert offset + length <= size
            part = bytes(image[offset : offset + length])
            offset, length = reader.send(part + bytes(length - len(part)))
    except StopIteration as done:
        found: list[Partition] = done.value
        return found
    pytest.fail("it reads for ever")


def mbr(*entries: tuple[int, int, int]) -> bytes:
    """A sector with entries of type, first sector, sectors."""
    table = b"".join(struct.pack("<B3sB3sII", 0, b"", kind, b"", start, count) for kind, start, count in entries)
    return bytes(446) + table.ljust(64, b"\0") + b"\x55\xaa"


def gpt(ranges: list[tuple[int, int]], size: int = SIZE, block: int = 512, width: int = 128) -> bytearray:
    """An image with a GPT and its copy: ranges of first and last block."""
    entries = b"".join(
        struct.pack("<16s16sQQQ72s", b"k" * 16, b"u" * 16, *one, 0, b"").ljust(width, b"\0") for one in ranges
    ).ljust(128 * width, b"\0")
    image = bytearray(size)
    image[:512] = mbr((0xEE, 1, 0xFFFFFFFF))
    last = size // block - 1
    for own, other, place in ((1, last, 2), (last, 1, last - len(entries) // block)):
        header = _header(own, other, place, entries, last, width)
        image[own * block : own * block + len(header)] = header
        image[place * block : place * block + len(entries)] = entries
    return image


def _header(own: int, other: int, place: int, entries: bytes, last: int, width: int) -> bytes:
    def packed(checksum: int) -> bytes:
        fields = (b"EFI PART", 0x10000, 92, checksum, 0, own, other, 34, last - 33, b"d" * 16, place, 128, width)
        return struct.pack("<8sIIIIQQQQ16sQII", *fields) + struct.pack("<I", zlib.crc32(entries))

    return packed(zlib.crc32(packed(0)))


def test_primary_and_logical() -> None:
    image = bytearray(SIZE)
    image[:512] = mbr((0x83, 2048, 2048), (0, 0, 0), (0x05, 8192, 65536))
    image[8192 * 512 : 8193 * 512] = mbr((0x83, 63, 1000), (0x05, 4096, 4096))
    image[12288 * 512 : 12289 * 512] = mbr((0x82, 63, 2000))
    assert partitions(image.ljust(SIZE, b"\0")) == [
        Partition(1, MIB, MIB),
        Partition(5, (8192 + 63) * 512, 1000 * 512),
        Partition(6, (12288 + 63) * 512, 2000 * 512),
    ]


@pytest.mark.parametrize("block", [512, 4096])
@pytest.mark.parametrize("width", [128, 256])
def test_gpt(block: int, width: int) -> None:
    image = gpt([(256, 511), (1024, 1024)], block=block, width=width)
    expected = [Partition(1, 256 * block, 256 * block), Partition(2, 1024 * block, block)]
    assert partitions(image) == expected
    image[block : block + 100] = bytes(100)
    assert partitions(image) == expected, "the copy at the end counts"
    image[-block:] = bytes(block)
    assert partitions(image) == []


def test_what_lies_outside_is_left_out() -> None:
    sectors = SIZE // SECTOR
    image = mbr((0x83, 0, 100), (0x83, 1, sectors), (0x83, sectors, 1), (0x83, 1, sectors - 1))
    assert partitions(image, SIZE) == [Partition(4, 512, SIZE - 512)]
    assert partitions(gpt([(1 << 60, (1 << 60) + 1), (300, 200), (0, 10), (2048, 1 << 40)])) == []


def test_a_chain_that_loops_ends() -> None:
    image = bytearray(SIZE)
    image[:512] = mbr((0x05, 100, 10_000))
    image[100 * 512 : 101 * 512] = mbr((0x83, 1, 1), (0x05, 10, 100))
    image[110 * 512 : 111 * 512] = mbr((0x83, 1, 1), (0x05, 0, 100))
    assert [one.number for one in partitions(image)] == [5, 6]


def test_a_long_chain_is_bounded() -> None:
    image = bytearray(SIZE)
    image[:512] = mbr((0x05, 1, 100_000))
    for index in range(1000):
        at = 1 + index * 2
        image[at * 512 : (at + 1) * 512] = mbr((0x83, 1, 1), (0x05, (index + 1) * 2, 100))
    assert len(partitions(image)) == LOGICAL_MAX


@pytest.mark.parametrize("content", [b"", bytes(512), b"\x55\xaa" * 256, mbr((0xEE, 1, 100))])
def test_no_table(content: bytes) -> None:
    assert partitions(content, len(content)) == []
    assert all(one.offset + one.length <= SIZE for one in partitions(content, SIZE))


def test_the_boot_sector_of_a_filesystem_is_no_table() -> None:
    sector = bytearray(mbr((0x83, 2048, 2048)))
    sector[446] = 0x20
    assert partitions(sector, SIZE) == []


@given(st.integers(0, 5 * MIB), st.lists(st.tuples(st.integers(0, 4 * MIB), st.binary(max_size=64)), max_size=20))
def test_anything_at_all(size: int, changes: list[tuple[int, bytes]]) -> None:
    image = gpt([(256, 511)], size=4 * MIB)
    for offset, content in changes:
        image[offset : offset + len(content)] = content
    for one in partitions(image, size):
        assert 0 < one.offset < one.offset + one.length <= size


@given(
    st.lists(st.tuples(st.sampled_from([5, 0x83, 0]), *[st.integers(0, 200)] * 2), min_size=1, max_size=4), st.data()
)
def test_any_chain(entries: list[tuple[int, int, int]], data: st.DataObject) -> None:
    image = bytearray(256 * SECTOR)
    image[:512] = mbr(*entries)
    for sector in data.draw(st.lists(st.integers(1, 255), max_size=10)):
        links = data.draw(st.lists(st.tuples(st.sampled_from([5, 0x83]), *[st.integers(0, 200)] * 2), max_size=2))
        image[sector * 512 : (sector + 1) * 512] = mbr(*links)
    for one in partitions(image):
        assert one.offset + one.length <= len(image)


def test_what_was_cut_off_is_told() -> None:
    image = gpt([(2048, 4095), (4096, 90_000)])
    beyond: list[Partition] = []
    assert [each.number for each in partitions(image[: 4 * MIB], beyond=beyond)] == [1]
    assert [(each.number, each.offset) for each in beyond] == [(2, 4096 * SECTOR)]
