"""The vhost-user codec, on the bytes of real conversations and on any bytes at all."""

from __future__ import annotations

import struct

import hypothesis.strategies as st
import pytest
from hypothesis import given

from umlfs.wire.vhost_user import (
    DESCRIPTORS_MAX,
    PAYLOAD_MAX,
    Decoder,
    MemoryRegion,
    Message,
    ProtocolError,
    Request,
    config_changed,
    reply_config,
    reply_u64,
    reply_vring_state,
)

CONVERSATION = [
    (Request.SET_OWNER, 1, ""),
    (Request.GET_FEATURES, 1, ""),
    (Request.GET_PROTOCOL_FEATURES, 1, ""),
    (Request.SET_PROTOCOL_FEATURES, 9, "2802000000000000"),
    (Request.SET_FEATURES, 9, "0000004001000000"),
    (Request.GET_CONFIG, 1, "000000000d000000 00000000" + "00" * 13),
    (
        Request.SET_MEM_TABLE,
        9,
        "0100000000000000 00907a1d00000000 0090570500000000 00907a1d00000000 00907a1d00000000" + "00" * 32,
    ),
    (Request.SET_VRING_NUM, 9, "01000000 00010000"),
    (Request.SET_VRING_ADDR, 9, "0100000000000000 0000001e00000000 0020001e00000000 0010001e00000000" + "ff" * 8),
    (Request.SET_VRING_ENABLE, 9, "01000000 01000000"),
]
"""What the UML kernel says, with a memory of 96 MiB."""


def encode(request: int, flags: int, payload: bytes) -> bytes:
    return struct.pack("<III", request, flags, len(payload)) + payload


def decode(data: bytes, descriptors: list[int] | None = None) -> Message:
    """`data`, which is one whole message."""
    decoder = Decoder()
    assert decoder.feed(data[:12], descriptors or []) is None or len(data) == 12
    if len(data) == 12:
        decoder = Decoder()
        message = decoder.feed(data, descriptors or [])
    else:
        message = decoder.feed(data[12:])
    assert message is not None
    assert not decoder.partial
    return message


def payload_of(request: Request) -> Message:
    found, flags, payload = next(row for row in CONVERSATION if row[0] == request)
    descriptors = [5] if request == Request.SET_MEM_TABLE else []
    return decode(encode(found, flags, bytes.fromhex(payload)), descriptors)


def test_numbers() -> None:
    message = payload_of(Request.SET_FEATURES)
    assert (message.request, message.needs_reply, message.u64()) == (2, True, 1 << 32 | 1 << 30)
    assert not payload_of(Request.SET_OWNER).needs_reply


def test_memory_tables() -> None:
    message = payload_of(Request.SET_MEM_TABLE)
    assert len(message.payload) == 72
    assert message.memory_regions() == [MemoryRegion(0x1D7A9000, 0x5579000, 0x1D7A9000, 0x1D7A9000)]
    assert message.descriptors == [5]


def test_rings() -> None:
    assert payload_of(Request.SET_VRING_NUM).vring_state() == (1, 256)
    assert payload_of(Request.SET_VRING_ADDR).vring_addresses() == (1, 0x1E000000, 0x1E002000, 0x1E001000)


def test_descriptors_of_rings() -> None:
    message = Message(Request.SET_VRING_KICK, 9, struct.pack("<Q", 1), [7])
    assert message.vring_descriptor() == (1, True)
    message = Message(Request.SET_VRING_CALL, 9, struct.pack("<Q", 0x102))
    assert message.vring_descriptor() == (2, False)
    for value, descriptors in ((1, []), (0x101, [7]), (1, [7, 8])):
        with pytest.raises(ProtocolError):
            Message(Request.SET_VRING_KICK, 9, struct.pack("<Q", value), descriptors).vring_descriptor()


def test_configuration() -> None:
    assert payload_of(Request.GET_CONFIG).config_window() == (0, 13, bytes(13))


def test_replies() -> None:
    assert reply_u64(2, 0) == bytes.fromhex("02000000 05000000 08000000 0000000000000000")
    assert reply_config(24, 1, b"ab") == bytes.fromhex("18000000 05000000 0e000000 01000000 02000000 00000000 6162")
    assert reply_vring_state(11, 1, 9) == bytes.fromhex("0b000000 05000000 08000000 01000000 09000000")
    assert config_changed() == bytes.fromhex("02000000 01000000 00000000")


@pytest.mark.parametrize("size", [0, 1, 7, 9, 100])
def test_payloads_of_the_wrong_size(size: int) -> None:
    message = Message(1, 1, bytes(size))
    for read in (message.u64, message.vring_state, message.vring_addresses, message.vring_descriptor):
        with pytest.raises(ProtocolError):
            read()


@pytest.mark.parametrize(("count", "size", "descriptors"), [(0, 72, 0), (2, 72, 1), (1, 39, 1), (9, 400, 9), (1, 4, 1)])
def test_memory_tables_that_lie(count: int, size: int, descriptors: int) -> None:
    payload = struct.pack("<II", count, 0).ljust(size, b"\0")[:size]
    with pytest.raises(ProtocolError):
        Message(Request.SET_MEM_TABLE, 9, payload, list(range(descriptors))).memory_regions()


@pytest.mark.parametrize(("size", "data"), [(1, 0), (0, 1), (2**32 - 1, 10)])
def test_configuration_requests_that_lie(size: int, data: int) -> None:
    with pytest.raises(ProtocolError):
        Message(Request.GET_CONFIG, 1, struct.pack("<III", 0, size, 0) + bytes(data)).config_window()
    with pytest.raises(ProtocolError):
        Message(Request.GET_CONFIG, 1, bytes(11)).config_window()


@pytest.mark.parametrize("flags", [0, 2, 3, 5, 2**32 - 1])
def test_flags_that_no_request_has(flags: int) -> None:
    with pytest.raises(ProtocolError):
        Decoder().feed(struct.pack("<III", 1, flags, 0))


def test_a_message_is_not_waited_for_if_it_is_too_long() -> None:
    Decoder().feed(struct.pack("<III", 1, 1, PAYLOAD_MAX))
    with pytest.raises(ProtocolError):
        Decoder().feed(struct.pack("<III", 1, 1, PAYLOAD_MAX + 1))


def test_too_many_descriptors() -> None:
    decoder = Decoder()
    decoder.feed(b"\1", list(range(DESCRIPTORS_MAX)))
    with pytest.raises(ProtocolError):
        decoder.feed(b"\0", [99])
    assert decoder.abandon() == [*range(DESCRIPTORS_MAX), 99]
    assert decoder.abandon() == []


def test_more_than_was_asked_for() -> None:
    decoder = Decoder()
    with pytest.raises(ValueError, match="lacks 12"):
        decoder.feed(bytes(13), [3])
    assert decoder.abandon() == [3]


@given(st.lists(st.sampled_from(CONVERSATION), max_size=8), st.data())
def test_chunks_of_any_size_make_the_same_messages(rows: list[tuple[int, int, str]], data: st.DataObject) -> None:
    stream = b"".join(encode(request, flags, bytes.fromhex(payload)) for request, flags, payload in rows)
    decoder = Decoder()
    messages = []
    descriptor = 0
    while stream:
        size = data.draw(st.integers(1, decoder.needed))
        if message := decoder.feed(stream[:size], [descriptor] if not decoder.partial else []):
            messages.append(message)
        stream = stream[size:]
        descriptor = len(messages)
    assert [(m.request, m.flags, m.payload) for m in messages] == [(r, f, bytes.fromhex(p)) for r, f, p in rows]
    assert [m.descriptors for m in messages] == [[index] for index in range(len(rows))]
    assert not decoder.partial


_HEADERS = st.builds(struct.Struct("<III").pack, st.integers(0, 40), st.sampled_from([1, 9, 0, 5]), st.integers(0, 80))


@given(st.lists(st.one_of(_HEADERS, st.binary(max_size=90)), max_size=10))
def test_any_bytes_are_messages_or_refused(parts: list[bytes]) -> None:
    stream = b"".join(parts)
    decoder = Decoder()
    try:
        while stream:
            assert 0 < decoder.needed <= 12 + PAYLOAD_MAX
            size = decoder.needed
            message = decoder.feed(stream[:size])
            stream = stream[size:]
            if message is not None:
                for read in (message.u64, message.memory_regions, message.config_window, message.vring_addresses):
                    try:
                        read()
                    except ProtocolError:
                        continue
    except ProtocolError:
        pass
