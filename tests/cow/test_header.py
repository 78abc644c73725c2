"""The header codec: every layout and byte order, the values known from real files, and hostile bytes."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umlfs.cow.header import READ_SIZE, BadHeader, Header, NotCow, marker, pack, pack_mtime, parse

MAGIC = 0x4F4F4F4D
PATH = b"/srv/uml/root.img"
MTIME = 1700000000
MIB = 1 << 20


def v1(order: str = ">", path: bytes = PATH, size: int = MIB, sector: int = 512) -> bytes:
    return struct.pack(f"{order}II256sIQI", MAGIC, 1, path, MTIME, size, sector)


def v2(head: str = ">", rest: str = ">", size: int = MIB) -> bytes:
    return struct.pack(f"{head}II", MAGIC, 2) + struct.pack(f"{rest}4096sIQI", PATH, MTIME, size, 512)


def v3(order: str = ">", *, path: bytes = PATH, size: int = MIB, alignment: int = 4096, sector: int = 512) -> bytes:
    return struct.pack(f"{order}IIIQIII4096s", MAGIC, 3, MTIME, size, sector, alignment, 0, path)


def v3_broken(order: str = ">", alignment: int = 4096, swapped_mtime: bool = False) -> bytes:
    mtime = struct.pack(f"{order}II", 0, MTIME) if swapped_mtime else struct.pack(f"{order}II", MTIME, 0)
    values = struct.pack(f"{order}QIII4096s4x", MIB, 512, alignment, 0, PATH)
    return struct.pack(f"{order}II", MAGIC, 3) + mtime + values


@pytest.mark.parametrize(
    ("data", "version", "broken", "offsets"),
    [
        (v1(), 1, False, (280, 256, 1024)),
        (v1("<"), 1, False, (280, 256, 1024)),
        (v2(), 2, False, (4120, 256, 4608)),
        (v2("<"), 2, False, (4120, 256, 4608)),
        (v2("<", "<"), 2, False, (4120, 256, 4608)),
        (v3(), 3, False, (8192, 256, 12288)),
        (v3("<"), 3, False, (8192, 256, 12288)),
        (v3(alignment=512), 3, False, (4608, 256, 5120)),
        (v3(alignment=32), 3, False, (4128, 256, 4384)),
        (v3_broken(), 3, True, (8192, 256, 12288)),
        (v3_broken("<"), 3, True, (8192, 256, 12288)),
        (v3_broken(swapped_mtime=True), 3, True, (8192, 256, 12288)),
        (v3_broken(alignment=512), 3, True, (4608, 256, 5120)),
        (v3_broken(alignment=8), 3, True, (4136, 256, 4392)),
    ],
)
def test_layouts(data: bytes, version: int, broken: bool, offsets: tuple[int, int, int]) -> None:
    header = parse(data)
    assert (header.version, header.broken) == (version, broken)
    assert (header.backing, header.mtime, header.size) == (PATH, MTIME, MIB)
    assert (header.bitmap_offset, header.bitmap_length, header.data_offset) == offsets


def test_large_device() -> None:
    header = Header(PATH, MTIME, 5 << 30)
    assert (header.bitmap_length, header.data_offset, header.file_size) == (1310720, 1318912, 5370028032)


def test_old_versions_forget_the_last_sectors() -> None:
    assert not parse(v1(size=82020)).covers_all
    assert not parse(v2(size=512)).covers_all
    assert parse(v3(size=82020)).covers_all
    assert parse(v2(size=81920)).covers_all


def test_written_as_the_kernel_writes_it() -> None:
    packed = pack(Header(PATH, MTIME, MIB))
    assert packed.hex().startswith("4f4f4f4d000000036553f1000000000000100000000002000000100000000000" + PATH.hex())
    assert packed.endswith(PATH + b"\0")
    assert v3().startswith(packed)


paths = st.binary(min_size=1, max_size=4079).filter(lambda path: b"\0" not in path)
headers = st.builds(
    Header,
    backing=paths,
    mtime=st.integers(0, 2**32 - 1),
    size=st.integers(0, 2**62),
    alignment=st.integers(1, 2**20),
)


@given(headers, st.one_of(st.none(), st.integers(0, 2**64 - 1)))
def test_there_and_back(header: Header, merging: int | None) -> None:
    data = bytearray(pack(header).ljust(READ_SIZE, b"\0"))
    data[header.marker_offset : header.marker_offset + 16] = marker(merging)
    assert parse(bytes(data)) == replace(header, merging=merging)
    offset, content = pack_mtime(header, 77)
    data[offset : offset + 4] = content
    assert parse(bytes(data)).mtime == 77


@given(st.sampled_from([v1(), v1("<"), v2(), v3(), v3_broken()]), st.data())
def test_damaged_headers_are_refused_or_sane(data: bytes, chance: st.DataObject) -> None:
    damaged = bytearray(data)
    for _ in range(chance.draw(st.integers(1, 4))):
        at = chance.draw(st.one_of(st.integers(0, 40), st.integers(0, len(data) - 1)))
        damaged[at] = chance.draw(st.integers(0, 255))
    try:
        header = parse(bytes(damaged[: chance.draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))]))
    except (NotCow, BadHeader):
        return
    assert 0 < header.bitmap_offset <= header.data_offset
    assert header.bitmap_offset + header.bitmap_length <= header.data_offset
    assert header.file_size < 2**63


@given(st.binary(max_size=READ_SIZE))
def test_arbitrary_bytes(data: bytes) -> None:
    with pytest.raises((NotCow, BadHeader)):
        parse(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (v3(alignment=0), "alignment 0"),
        (v3(sector=1024), "sector size 1024"),
        (v3(path=b"x" * 4096), "has no end"),
        (v1(path=b"x" * 256), "has no end"),
        (v1(path=b""), "is empty"),
        (v3(size=2**63), "size 9223372036854775808"),
        (v3()[:4000], "cut off after 4000 bytes of a V3 header of 4128"),
        (struct.pack(">II", MAGIC, 4), "version 4"),
    ],
)
def test_errors_name_the_value(data: bytes, message: str) -> None:
    with pytest.raises(BadHeader, match=message):
        parse(data)


@pytest.mark.parametrize("data", [b"", b"OOO", b"OOOM\0\0\0", bytes(4136)])
def test_other_files(data: bytes) -> None:
    with pytest.raises(NotCow):
        parse(data)


def test_only_v3_is_written() -> None:
    with pytest.raises(BadHeader, match="V2"):
        pack(parse(v2()))
    with pytest.raises(BadHeader, match="5000 bytes"):
        pack(Header(b"x" * 5000, 0, 0))
    with pytest.raises(BadHeader, match="mtime -1"):
        pack(Header(PATH, -1, 0))


@pytest.mark.parametrize("alignment", [8, 16, 32, 64, 512, 4096])
def test_conversion_says_whether_things_move(alignment: int) -> None:
    broken = parse(v3_broken(alignment=alignment))
    fixed = broken.as_v3()
    assert fixed.lies_like(broken) == (alignment >= 64)
    assert parse(pack(fixed).ljust(READ_SIZE, b"\0")) == fixed
    assert not parse(v2()).as_v3().lies_like(parse(v2()))
