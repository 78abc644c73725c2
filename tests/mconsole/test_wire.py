"""The protocol, byte by byte."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.mconsole.wire import (
    NOT_VERSION_2,
    NOTIFICATION_MAX,
    REPLY_MAX,
    TEXT_MAX,
    Assembly,
    Malformed,
    NoticeKind,
    Notification,
    Refused,
    Reply,
    bytes_of,
    decode_notification,
    decode_piece,
    decode_request,
    encode_hang,
    encode_notification,
    encode_piece,
    encode_reply,
    encode_request,
    text_of,
)

BYTES = st.binary(max_size=3000)


def head(magic: int = 0xCAFEBABE, version: int = 2, length: int = 0) -> bytes:
    return struct.pack("=III", magic, version, length)


def assembled(datagrams: list[bytes]) -> Reply:
    assembly = Assembly()
    *first, last = [assembly.feed(each) for each in datagrams]
    assert first == [None] * len(first)
    assert last is not None
    return last


def test_request() -> None:
    datagram = encode_request("version")
    assert datagram == bytes.fromhex("bebafeca 02000000 07000000") + b"version" + bytes(505)
    assert len(datagram) == 524
    assert decode_request(datagram) == "version"
    assert decode_request(datagram[:19]) == "version"
    assert decode_request(head(length=9) + b"log\0stale") == "log"


def test_longest_request() -> None:
    assert decode_request(encode_request("x" * TEXT_MAX)) == "x" * TEXT_MAX
    with pytest.raises(ValueError, match="512 bytes"):
        encode_request("x" * (TEXT_MAX + 1))


@pytest.mark.parametrize(
    ("datagram", "answer"),
    [
        (b"", NOT_VERSION_2),
        (b"version", NOT_VERSION_2),
        (head(magic=0xBEBAFECA), NOT_VERSION_2),
        (head(length=512) + bytes(512), encode_piece(1, False, b"Request too large")),
        (head(length=0xFFFFFFFF), encode_piece(1, False, b"Request too large")),
        (head(version=3), encode_piece(1, False, b"This driver only supports version 2 clients")),
        (head(length=8) + b"version", encode_piece(1, False, b"Request too short")),
    ],
)
def test_what_is_no_request_is_answered(datagram: bytes, answer: bytes) -> None:
    with pytest.raises(Refused) as refused:
        decode_request(datagram)
    assert refused.value.datagram == answer


def test_reply() -> None:
    assert encode_reply(Reply(0, "stopped")) == [struct.pack("=III", 0, 0, 8) + b"stopped\0"]
    assert encode_reply(Reply()) == [struct.pack("=III", 0, 0, 1) + b"\0"]
    assert encode_reply(Reply(-22, "x" * 600)) == [
        struct.pack("=iII", -22, 1, 512) + b"x" * 511 + b"\0",
        struct.pack("=iII", 0, 0, 90) + b"x" * 89 + b"\0",
    ]


@given(BYTES.map(text_of), st.integers(-4095, 1))
def test_replies_survive(text: str, err: int) -> None:
    assert assembled(encode_reply(Reply(err, text))) == Reply(err, text)


def test_the_last_piece_may_be_empty() -> None:
    assert assembled([encode_piece(0, True, b"\n"), encode_piece(0, False, b"")]) == Reply(0, "\n")


def test_answer_of_version_0() -> None:
    assert decode_piece(NOT_VERSION_2).err == 1
    assert assembled([NOT_VERSION_2]).text.startswith("Version 0 mconsole clients")


@pytest.mark.parametrize("piece", [encode_piece(0, True, b"x" * 511), encode_piece(0, True, b"")])
def test_replies_end_some_time(piece: bytes) -> None:
    assembly = Assembly()

    def endless() -> None:
        for _ in range(REPLY_MAX // 64 + 1):
            assembly.feed(piece)

    with pytest.raises(Malformed, match="more than 4 MiB"):
        endless()


@given(BYTES)
def test_any_bytes_are_text(data: bytes) -> None:
    assert bytes_of(text_of(data)) == data.partition(b"\0")[0]


@given(
    BYTES
    | st.builds(lambda head, rest: struct.pack("=III", *head) + rest, st.tuples(*[st.integers(0, 600)] * 3), BYTES)
)
def test_any_datagram_is_decoded_or_refused(datagram: bytes) -> None:
    for magic in (b"", head()[:8]):
        with contextlib.suppress(Refused):
            assert len(bytes_of(decode_request(magic + datagram))) <= TEXT_MAX
    with contextlib.suppress(Malformed):
        Assembly().feed(datagram)
    for magic in (b"", head()[:8]):
        with contextlib.suppress(Malformed):
            decode_notification(magic + datagram).text.encode()


@pytest.mark.parametrize(
    ("datagram", "notification"),
    [
        (
            encode_notification(NoticeKind.BOOT, b"/run/m/mconsole\0"),
            Notification(NoticeKind.BOOT, "/run/m/mconsole"),
        ),
        (
            encode_notification(NoticeKind.PANIC, b"Attempted to kill init!\0"),
            Notification(NoticeKind.PANIC, "Attempted to kill init!"),
        ),
        (encode_notification(NoticeKind.HANG), Notification(NoticeKind.HANG)),
        (encode_notification(NoticeKind.USER, b"a\n\xff\0"), Notification(NoticeKind.USER, "a\n\\xff\0")),
        (bytes.fromhex("bebafeca 00000000 02000000 02000000 00000000 00000000"), Notification(NoticeKind.HANG)),
    ],
)
def test_notifications(datagram: bytes, notification: Notification) -> None:
    assert decode_notification(datagram) == notification


def test_hang_is_what_uml_watchdog_sends() -> None:
    assert encode_hang() == bytes.fromhex("bebafeca 00000000 02000000 02000000 00000000 00000000")
    assert encode_notification(NoticeKind.USER, b"ab") == bytes.fromhex("bebafeca 02000000 03000000 02000000") + b"ab"


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        encode_notification(NoticeKind.USER, b"abc")[:-1],
        struct.pack("=IIII", 0xCAFEBABE, 2, 4, 0),
        struct.pack("=IIII", 0xCAFEBABE, 1, 0, 0),
        struct.pack("=IIII", 0xCAFEBABE, 2, 3, NOTIFICATION_MAX + 1) + bytes(NOTIFICATION_MAX + 1),
    ],
)
def test_no_notifications(datagram: bytes) -> None:
    with pytest.raises(Malformed):
        decode_notification(datagram)


def test_notifications_that_cannot_be_sent() -> None:
    with pytest.raises(ValueError, match="513 bytes"):
        encode_notification(NoticeKind.USER, bytes(NOTIFICATION_MAX + 1))
    with pytest.raises(ValueError, match="not in"):
        encode_notification(NoticeKind.EXIT)
