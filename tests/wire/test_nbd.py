"""Requests and replies as bytes."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umlfs.wire import nbd as nbd_wire
from umlfs.wire import nbd_reply as nbd_reply_wire
from umlfs.wire.nbd import ChunkType, Command, ProtocolError, Request, RequestDecoder
from umlfs.wire.nbd_reply import Pending, ReplyDecoder

# As qemu-io sends them: a read of 512 bytes at 1 MiB, then a disconnect.
QEMU_READ = bytes.fromhex("25609513 0000 0000 0000000000000001 0000000000100000 00000200")
QEMU_DISC = bytes.fromhex("25609513 0000 0002 0000000000000000 0000000000000000 00000000")


def feed(decoder: RequestDecoder, data: bytes, sizes: list[int]) -> list[tuple[Request, bytes | None]]:
    """What the decoder makes of `data` that arrives in pieces of `sizes`, the last one for all that is left."""
    found = []
    rest = memoryview(data)
    turn = 0
    while True:
        while (request := decoder.next()) is not None:
            found.append((request, None if request.payload is None else bytes(request.payload)))
        if not rest:
            return found
        space = decoder.space()
        assert len(space)
        count = min(len(space), len(rest), sizes[turn] if turn < len(sizes) else len(rest))
        turn += 1
        space[:count] = rest[:count]
        decoder.received(count)
        rest = rest[count:]


def test_requests_of_qemu() -> None:
    read, disc = [request for request, _ in feed(RequestDecoder(QEMU_READ + QEMU_DISC), b"", [])]
    assert (read.command, read.offset, read.length, read.cookie) == (Command.READ, 1 << 20, 512, 1)
    assert disc.command == Command.DISC


LENGTHS = st.sampled_from([0, 1, 512, 4096, 65535, 65536, 65537, 200_000, 300_000])


@given(st.lists(st.tuples(st.integers(0, 9), LENGTHS), max_size=6), st.lists(st.integers(1, 5000), max_size=30))
def test_requests_come_out_as_they_went_in(requests: list[tuple[int, int]], sizes: list[int]) -> None:
    data = b""
    for cookie, (command, length) in enumerate(requests):
        data += nbd_reply_wire.request(command, cookie & 1, cookie, 7 * cookie, length)
        if command == Command.WRITE:
            data += bytes([cookie + 1]) * length
    found = feed(RequestDecoder(), data, sizes)
    assert [(r.command, r.length, r.cookie, r.offset, r.flags) for r, _ in found] == [
        (command, length, cookie, 7 * cookie, cookie & 1) for cookie, (command, length) in enumerate(requests)
    ]
    for request, payload in found:
        assert payload == (bytes([request.cookie + 1]) * request.length if request.command == Command.WRITE else None)


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_waited_for(data: bytes) -> None:
    decoder = RequestDecoder()
    try:
        for request, _ in feed(decoder, data, [1, 2, 3]):
            assert data.startswith(struct.pack(">I", nbd_wire.REQUEST_MAGIC)), request
    except ProtocolError:
        pass


def test_a_payload_that_is_too_large_is_passed_over() -> None:
    length = nbd_wire.PAYLOAD_MAX + 1
    head = nbd_reply_wire.request(Command.WRITE, 0, 5, 0, length)
    (large, payload), (after, _) = feed(RequestDecoder(), head + bytes(length) + QEMU_READ, [])
    assert (large.length, payload) == (length, None)
    assert after.command == Command.READ


def test_kept_payloads_stay() -> None:
    decoder = RequestDecoder()
    kept = []
    for cookie, length in enumerate([100, 100_000, 100_000, 100, 100]):
        data = nbd_reply_wire.request(Command.WRITE, 0, cookie, 0, length) + bytes([cookie + 1]) * length
        while data:
            space = decoder.space()
            count = min(len(space), len(data))
            space[:count] = data[:count]
            decoder.received(count)
            data = data[count:]
            while (request := decoder.next()) is not None:
                assert request.payload is not None
                decoder.keep()
                kept.append(request.payload)
    assert [set(payload) for payload in kept] == [{1}, {2}, {3}, {4}, {5}]


def test_partial_tells_whether_a_request_has_begun() -> None:
    decoder = RequestDecoder(QEMU_READ[:5])
    assert decoder.next() is None
    assert decoder.partial
    assert not RequestDecoder().partial


# Replies ----------------------------------------------------------------------------------------


def decode(
    pending: dict[int, Pending], data: bytes, sizes: list[int] | None = None, *, structured: bool = True
) -> list[Pending]:
    decoder = ReplyDecoder(b"", structured, 1)
    decoder.pending.update(pending)
    finished: list[Pending] = []
    rest = memoryview(data)
    turn = iter(sizes or [])
    while rest:
        space = decoder.space()
        assert len(space)
        count = min(len(space), len(rest), next(turn, len(rest)))
        space[:count] = rest[:count]
        decoder.received(count)
        rest = rest[count:]
        finished += decoder.completed()
    return finished


def reading(offset: int, length: int, parts: int = 1) -> tuple[Pending, list[bytearray]]:
    buffers = [bytearray(b"\xa5" * (length // parts)) for _ in range(parts)]
    return Pending(Command.READ, offset, length, [memoryview(buffer) for buffer in buffers]), buffers


def data_chunk(cookie: int, offset: int, data: bytes, done: bool) -> bytes:
    buffer = bytearray(nbd_wire.DATA_CHUNK_SIZE)
    nbd_wire.put_data_chunk(buffer, cookie, offset, len(data), done)
    return bytes(buffer) + data


@given(st.lists(st.integers(1, 3000), max_size=30), st.booleans())
def test_chunks_in_any_order_fill_the_buffers(sizes: list[int], hole_first: bool) -> None:
    pending, buffers = reading(1000, 4096, parts=4)
    chunks = [data_chunk(9, 1000, b"a" * 2000, False), nbd_wire.hole_chunk(9, 3000, 1096, False)]
    if hole_first:
        chunks.reverse()
    data = b"".join([*chunks, data_chunk(9, 4096, b"b" * 1000, False), nbd_wire.none_chunk(9)])
    assert decode({9: pending}, data, sizes) == [pending]
    assert b"".join(buffers) == b"a" * 2000 + bytes(1096) + b"b" * 1000


@given(st.lists(st.integers(1, 300), max_size=30))
def test_simple_replies(sizes: list[int]) -> None:
    first, buffers = reading(0, 512)
    second = Pending(Command.FLUSH, 0, 0)
    third, _ = reading(0, 512)
    data = nbd_wire.simple_reply(1) + b"x" * 512 + nbd_wire.simple_reply(2) + nbd_wire.simple_reply(3, 5)
    assert decode({1: first, 2: second, 3: third}, data, sizes, structured=False) == [first, second, third]
    assert (bytes(buffers[0]), second.error, third.error) == (b"x" * 512, 0, 5)


def test_errors_with_their_text() -> None:
    first, _ = reading(0, 512)
    second, _ = reading(0, 512)
    data = nbd_wire.error_chunk(1, 5, "bad sector") + nbd_wire.error_chunk(2, 28, "", 17)
    decode({1: first, 2: second}, data)
    assert (first.error, first.message, second.error) == (5, "bad sector", 28)


def test_block_status() -> None:
    pending = Pending(Command.BLOCK_STATUS, 0, 3000)
    decode({1: pending}, nbd_wire.block_status_chunk(1, 1, [(1000, 0), (9000, 3)]))
    assert pending.extents == [(1000, 0), (9000, 3)]


def chunk(kind: int, content: bytes, flags: int = 1, cookie: int = 1) -> bytes:
    return struct.pack(">IHHQI", nbd_wire.STRUCTURED_REPLY_MAGIC, flags, kind, cookie, len(content)) + content


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        nbd_wire.simple_reply(2),
        nbd_wire.simple_reply(1),
        nbd_wire.none_chunk(1),
        nbd_wire.none_chunk(7),
        data_chunk(1, 0, bytes(511), True),
        data_chunk(1, 0, bytes(513), True),
        data_chunk(1, 1, bytes(512), True),
        data_chunk(1, (1 << 64) - 1, bytes(512), True),
        data_chunk(1, 0, bytes(512), False) + data_chunk(1, 0, bytes(1), True),
        data_chunk(1, 100, bytes(300), False) + data_chunk(1, 0, bytes(101), True),
        nbd_wire.hole_chunk(1, 0, 1 << 31, True),
        nbd_wire.hole_chunk(1, 0, 0, True),
        chunk(ChunkType.OFFSET_DATA, bytes(8)),
        chunk(ChunkType.OFFSET_HOLE, bytes(5)),
        chunk(ChunkType.NONE, b"x"),
        chunk(ChunkType.NONE, b"", flags=0),
        chunk(77, b""),
        chunk(ChunkType.ERROR, b"\0\0\0\5\0\7ab"),
        chunk(ChunkType.ERROR, b"\0\0\0\0\0\0"),
        chunk(ChunkType.ERROR, b"\0"),
        chunk(ChunkType.BLOCK_STATUS, bytes(12)),
        struct.pack(">IHHQI", nbd_wire.STRUCTURED_REPLY_MAGIC, 1, ChunkType.ERROR, 1, 1 << 30),
    ],
)
def test_a_server_that_lies_is_found_out(data: bytes) -> None:
    pending, buffers = reading(0, 512)
    with pytest.raises(ProtocolError):
        decode({1: pending}, data)
    assert len(buffers[0]) == 512


@pytest.mark.parametrize(
    "extents",
    [struct.pack(">3I", 2, 100, 0), struct.pack(">3I", 1, 0, 0), struct.pack(">5I", 1, 512, 0, 1, 0), bytes(4), b""],
)
def test_a_block_status_that_lies_is_found_out(extents: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode({1: Pending(Command.BLOCK_STATUS, 0, 512)}, chunk(ChunkType.BLOCK_STATUS, extents))


def test_chunks_are_counted() -> None:
    pending, _ = reading(0, 512)
    data = chunk(ChunkType.ERROR, b"\0\0\0\5\0\0", flags=0) * (nbd_wire.CHUNKS_MAX + 1)
    with pytest.raises(ProtocolError, match="chunks"):
        decode({1: pending}, data)


def test_an_abandoned_read_touches_nothing() -> None:
    pending, buffers = reading(0, 512)
    pending.abandon()
    assert decode({1: pending}, data_chunk(1, 0, b"x" * 512, True), [40, 100]) == [pending]
    assert set(buffers[0]) == {0xA5}


@given(st.binary(max_size=120), st.sampled_from([Command.READ, Command.BLOCK_STATUS, Command.WRITE]))
def test_fuzzed_replies_fill_nothing_else(data: bytes, command: Command) -> None:
    arena = bytearray(b"\xa5" * 1024)
    pending = Pending(command, 0, 512, [memoryview(arena)[256:768]] if command == Command.READ else ())
    magic = struct.pack(">IHH", nbd_wire.STRUCTURED_REPLY_MAGIC, 1, data[0] % 8 if data else 0)
    for stream in (data, magic + data, magic + struct.pack(">Q", 1) + data):
        with contextlib.suppress(ProtocolError):
            decode({1: pending}, stream)
        assert set(arena[:256]) == set(arena[768:]) == {0xA5}


@pytest.mark.parametrize(("number", "wire"), [(30, 1), (28, 28), (122, 28), (5, 5), (4, 5), (38, 95)])
def test_errno_to_wire(number: int, wire: int) -> None:
    assert nbd_wire.error_to_wire(number) == wire
