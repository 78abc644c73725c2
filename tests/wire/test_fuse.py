"""The FUSE codec, on real bytes and on any bytes at all."""

from __future__ import annotations

import errno
import os
import stat
import struct

import hypothesis.strategies as st
import pytest
from hypothesis import given

from tests.contract.transports import scattered
from tests.fuse.fuse_client import _attr, _entry, decode_device, encode_device, encode_setattr, parse_listing
from umlfs import buffers
from umlfs.filesystem import NOW, Attr, Entry, Opened, SetAttr, StatFs
from umlfs.wire import fuse as wire

ATTR = Attr(7, stat.S_IFREG | 0o644, 2, 1000, 1001, 0, 5, 8, 10**18 + 1, -1, 3, 512)

INIT = bytes.fromhex(
    "68000000 1a000000 0200000000000000 0000000000000000 00000000 00000000 00000000 0000 0000"
    "07000000 26000000 00000200 fbffff7b 09000000" + "00" * 44
)
"""The first request of a Linux 6.1 guest."""


def test_the_first_request() -> None:
    request = [memoryview(INIT)]
    header = wire.header(request)
    assert (header.length, header.opcode, header.unique, header.node) == (len(INIT), wire.Opcode.INIT, 2, 0)
    assert wire.fields(wire.INIT_IN, wire.body(request)) == (7, 38, 131072, 0x7BFFFFFB)


def test_the_answer_to_the_first_request() -> None:
    answer = wire.init_out(0x10000005, 131072, 1 << 20, 256, 64)
    assert len(answer) == wire.INIT_OUT_SIZE == 64
    head = bytes.fromhex("07000000 26000000 00000200 05000010 4000 3000 00001000 01000000 0001 0000 00000000")
    assert answer == head + bytes(28)


@given(st.lists(st.integers(0, 104), max_size=8))
def test_headers_in_any_pieces(cuts: list[int]) -> None:
    request = scattered(bytearray(INIT), cuts)
    assert wire.header(request).unique == 2
    assert wire.body(request) == INIT[40:]


@pytest.mark.parametrize("size", [0, 1, 39])
def test_headers_cut_short(size: int) -> None:
    with pytest.raises(wire.WireError):
        wire.header([memoryview(INIT)[:size]])
    with pytest.raises(wire.WireError):
        wire.header([])


def test_flags_beyond_32_bits() -> None:
    """They are offered, and taken, in a field of their own, where INIT_EXT says so."""
    offered = wire.INIT_IN.pack(7, 38, 4096, int(wire.Init.INIT_EXT)) + wire.INIT_IN_FLAGS2.pack(1 << 4)
    flags = wire.init_in(offered)[3]
    assert wire.Init.DIRECT_IO_ALLOW_MMAP in wire.Init(flags)
    assert wire.init_in(offered[:16])[3] == wire.init_in(wire.INIT_IN.pack(7, 38, 4096, 0) + offered[16:])[3] | 1 << 30
    fields = wire.INIT_OUT.unpack(wire.init_out(flags, 0, 0, 0, 0))
    assert (fields[3], fields[-1]) == (1 << 30, 1 << 4)


def test_bodies_have_a_limit() -> None:
    part = memoryview(bytes(wire.BODY_MAX // 2))
    assert len(wire.body([part, part])) == wire.BODY_MAX
    with pytest.raises(wire.WireError):
        wire.body([part, part, part[:1]])


@pytest.mark.parametrize("body", [b"", b"name", b"\0", b".\0", b"..\0", b"a/b\0", b"/\0", b"../x\0", b"/etc\0"])
def test_what_is_no_name(body: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.name(body)


@pytest.mark.parametrize("name", [b"a", b"...", b".a", b"\xff\n\\ ", b"x" * 255])
def test_names(name: bytes) -> None:
    assert wire.name(name + b"\0") == name
    assert wire.names(name + b"\0" + b"b\0rest", 0) == (name, b"b")


def test_names_that_are_too_long() -> None:
    with pytest.raises(OSError, match=os.strerror(errno.ENAMETOOLONG)):
        wire.name(b"x" * 256 + b"\0")


def test_one_name_instead_of_two() -> None:
    for body in (b"a\0", b"a\0b", b"a\0\0", b"a\0..\0"):
        with pytest.raises(wire.WireError):
            wire.names(body, 0)


def test_attributes() -> None:
    answer = wire.attr_out(ATTR, 1_500_000_000)
    assert answer[:16] == struct.pack("<QII", 1, 500_000_000, 0)
    assert _attr(answer, 16) == ATTR
    assert len(answer) == wire.ATTR_OUT_SIZE == 104


def test_entries() -> None:
    entry = Entry(9, ATTR, 2_000_000_001, 3, generation=4)
    assert _entry(wire.entry_out(entry)) == entry
    assert len(wire.entry_out(entry)) == wire.ENTRY_OUT_SIZE == 128


@pytest.mark.parametrize(("major", "minor"), [(0, 0), (1, 3), (8, 255), (8, 256), (4095, 0xFFFFF), (259, 0x12345)])
def test_device_numbers(major: int, minor: int) -> None:
    number = os.makedev(major, minor)
    assert wire.device_out(number) == encode_device(number)
    assert wire.device_in(wire.device_out(number)) == number == decode_device(encode_device(number))


@pytest.mark.parametrize(
    "changes",
    [
        SetAttr(),
        SetAttr(mode=0o7777, uid=1, gid=2, size=2**63 - 1, kill_set_id=True),
        SetAttr(size=0),
        SetAttr(atime_ns=-1, mtime_ns=2**40, ctime_ns=5),
        SetAttr(atime_ns=NOW),
        SetAttr(mtime_ns=NOW),
    ],
)
@pytest.mark.parametrize("handle", [0, 2**64 - 1])
def test_changes_of_attributes(changes: SetAttr, handle: int) -> None:
    assert wire.setattr_in(encode_setattr(changes, handle)) == (changes, handle or None)


def test_changes_out_of_range() -> None:
    for start, number in ((16, 2**63), (56, 10**9), (60, 2**32 - 1), (64, 10**9)):
        body = bytearray(88)
        body[start : start + 8] = struct.pack("<Q", number) if start == 16 else struct.pack("<II", number, 0)
        with pytest.raises(wire.WireError):
            wire.setattr_in(bytes(body))


def test_forgets() -> None:
    body = struct.pack("<II QQ QQ", 2, 0, 5, 1, 6, 2)
    assert wire.forgets(body) == [(5, 1), (6, 2)]
    for lie in (3, 2**32 - 1):
        with pytest.raises(wire.WireError):
            wire.forgets(struct.pack("<I", lie) + body[4:])


def test_the_state_of_a_filesystem() -> None:
    answer = wire.statfs_out(StatFs(512, 10, 9, 8, 7, 6, 255))
    assert answer == struct.pack("<QQQQQIII28x", 10, 9, 8, 7, 6, 512, 255, 512)


def test_open_files() -> None:
    opened = Opened(5, keep_cache=True, direct=True, stream=True, cache_directory=True)
    assert wire.open_out(opened) == struct.pack("<QII", 5, 0b11111, 0)
    assert wire.open_out(Opened(2**64 - 1)) == struct.pack("<QII", 2**64 - 1, 0, 0)


# Listings -------------------------------------------------------------------------------------

_NAMES = st.lists(st.binary(min_size=1, max_size=255), max_size=30)


@given(_NAMES, st.booleans(), st.integers(0, 5000))
def test_listings_read_back(names: list[bytes], plus: bool, room: int) -> None:
    memory = bytearray(b"\xaa" * (room + 64))
    listing = wire.Listing(memoryview(memory)[:room], plus)
    taken = []
    for position, name in enumerate(names):
        entry = Entry(9, ATTR) if position % 2 else None
        if not listing.add(name, position - 1, position, stat.S_IFREG, entry):
            assert listing.size + wire.dirent_size(len(name), plus) > room
            break
        taken.append((name, (position - 1) % 2**64, position, stat.S_IFREG >> 12, entry if plus else None))
    assert parse_listing(bytes(memory[: listing.size]), plus) == taken
    assert memory[room:] == b"\xaa" * 64
    assert listing.size == sum(wire.dirent_size(len(name), plus) for name, *_ in taken)


# Any bytes ------------------------------------------------------------------------------------


@given(st.binary(max_size=120), st.integers(0, 20))
def test_any_body_is_read_or_refused(body: bytes, start: int) -> None:
    for read in (
        lambda: wire.name(body, start),
        lambda: wire.names(body, start),
        lambda: wire.string(body, start),
        lambda: wire.setattr_in(body),
        lambda: wire.forgets(body),
        lambda: wire.fields(wire.COPY_FILE_RANGE_IN, body),
    ):
        try:
            read()
        except wire.WireError:
            continue


# Buffers --------------------------------------------------------------------------------------

_CUTS = st.lists(st.integers(0, 40), max_size=6)


@given(st.binary(max_size=40), _CUTS, st.integers(0, 50))
def test_buffers_are_one_run_of_bytes(data: bytes, cuts: list[int], size: int) -> None:
    assert b"".join(buffers.after(scattered(bytearray(data), cuts), size)) == data[size:]
    assert b"".join(buffers.part(scattered(bytearray(data), cuts), 0, size)) == data[:size]
    assert buffers.total(scattered(bytearray(data), cuts)) == len(data)
    rest = scattered(bytearray(data), cuts)
    assert buffers.take(rest, size) == data[:size]
    assert b"".join(rest) == data[size:]


@given(st.binary(max_size=50), st.integers(0, 40), _CUTS)
def test_buffers_are_filled_from_their_start(data: bytes, room: int, cuts: list[int]) -> None:
    memory = bytearray(room)
    buffers.scatter(data, scattered(memory, cuts))
    assert memory == data[:room].ljust(room, b"\0")
