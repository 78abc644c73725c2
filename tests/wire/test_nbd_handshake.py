"""The handshake, each side against bytes and against the other."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umlfs.wire import nbd_handshake as wire
from umlfs.wire.nbd import ProtocolError
from umlfs.wire.nbd_client_handshake import REPLIES_MAX, ClientHandshake, Refused
from umlfs.wire.nbd_handshake import Export, Option, Phase, Reply, ServerHandshake

EXPORT = Export("disk", 1 << 30, 0x0D, "the disk", 512)
FLAGS = struct.pack(">I", 3)


def option(number: int, data: bytes = b"") -> bytes:
    return struct.pack(">QII", wire.OPTION_MAGIC, number, len(data)) + data


def string(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


def replies(data: bytes) -> list[tuple[int, int, bytes]]:
    found = []
    while data:
        magic, number, kind, length = struct.unpack_from(">QIII", data)
        assert magic == wire.OPTION_REPLY_MAGIC
        found.append((number, kind, data[20 : 20 + length]))
        data = data[20 + length :]
    return found


def server() -> ServerHandshake:
    handshake = ServerHandshake(EXPORT)
    assert handshake.feed(FLAGS) == b""
    return handshake


def test_greeting() -> None:
    assert ServerHandshake.greeting() == b"NBDMAGICIHAVEOPT\0\3"


def go(name: bytes, infos: list[int] | None = None) -> bytes:
    wanted = infos or []
    return option(Option.GO, string(name) + struct.pack(f">H{len(wanted)}H", len(wanted), *wanted))


@pytest.mark.parametrize("name", [b"disk", b""])
def test_go(name: bytes) -> None:
    handshake = server()
    found = replies(handshake.feed(go(name, [1, 2, 3]) + b"rest"))
    assert handshake.phase is Phase.TRANSMISSION
    assert handshake.rest == b"rest"
    assert [kind for _, kind, _ in found] == [Reply.INFO] * 4 + [Reply.ACK]
    assert found[0][2] == struct.pack(">HQH", 0, 1 << 30, 0x0D)
    assert found[1][2] == struct.pack(">HIII", 3, 512, 4096, 32 << 20)
    assert (found[2][2], found[3][2]) == (b"\0\1disk", b"\0\2the disk")


def test_info_leaves_the_choice_open() -> None:
    handshake = server()
    assert replies(handshake.feed(option(Option.INFO, string(b"disk") + b"\0\0")))[-1][1] == Reply.ACK
    assert handshake.phase is Phase.OPTIONS
    assert replies(handshake.feed(go(b"other")))[0][1] == Reply.ERR_UNKNOWN
    assert handshake.phase is Phase.OPTIONS


@pytest.mark.parametrize(("flags", "zeroes"), [(3, 0), (1, 124), (0, 124)])
def test_export_name(flags: int, zeroes: int) -> None:
    handshake = ServerHandshake(EXPORT)
    answer = handshake.feed(struct.pack(">I", flags) + option(Option.EXPORT_NAME, b"disk"))
    assert answer == struct.pack(">QH", 1 << 30, 0x0D) + bytes(zeroes)
    assert handshake.phase is Phase.TRANSMISSION


def test_export_name_that_is_not_there_ends_it() -> None:
    handshake = server()
    assert handshake.feed(option(Option.EXPORT_NAME, b"other")) == b""
    assert handshake.phase is Phase.CLOSED


def test_list_and_abort() -> None:
    handshake = server()
    assert replies(handshake.feed(option(Option.LIST))) == [
        (Option.LIST, Reply.SERVER, string(b"disk") + b"the disk"),
        (Option.LIST, Reply.ACK, b""),
    ]
    assert replies(handshake.feed(option(Option.ABORT))) == [(Option.ABORT, Reply.ACK, b"")]
    assert handshake.phase is Phase.CLOSED


def contexts(number: int, name: bytes, *queries: bytes) -> bytes:
    return option(number, string(name) + struct.pack(">I", len(queries)) + b"".join(map(string, queries)))


def test_meta_contexts() -> None:
    handshake = server()
    found = replies(handshake.feed(contexts(Option.SET_META_CONTEXT, b"disk", b"base:allocation")))
    assert found[0][1] == Reply.ERR_INVALID
    handshake.feed(option(Option.STRUCTURED_REPLY))
    context = (Reply.META_CONTEXT, b"\0\0\0\1base:allocation")
    for number, queries, there in (
        (Option.LIST_META_CONTEXT, (), True),
        (Option.LIST_META_CONTEXT, (b"base:",), True),
        (Option.LIST_META_CONTEXT, (b"qemu:",), False),
        (Option.SET_META_CONTEXT, (b"base:",), False),
        (Option.SET_META_CONTEXT, (b"qemu:dirty-bitmap:x", b"base:allocation"), True),
    ):
        found = replies(handshake.feed(contexts(number, b"disk", *queries)))
        assert [answer[1:] for answer in found] == ([context] if there else []) + [(Reply.ACK, b"")]
    handshake.feed(go(b"disk"))
    assert handshake.structured
    assert handshake.block_status


def test_a_context_is_for_one_export() -> None:
    handshake = server()
    handshake.feed(option(Option.STRUCTURED_REPLY))
    handshake.feed(contexts(Option.SET_META_CONTEXT, b"disk", b"base:allocation"))
    handshake.feed(go(b""))
    assert not handshake.block_status


@pytest.mark.parametrize(
    ("number", "data", "kind"),
    [
        (5, b"", Reply.ERR_UNSUP),
        (11, b"", Reply.ERR_UNSUP),
        (0xFFFFFFFF, b"xyz", Reply.ERR_UNSUP),
        (Option.LIST, b"x", Reply.ERR_INVALID),
        (Option.STRUCTURED_REPLY, b"x", Reply.ERR_INVALID),
        (Option.GO, b"", Reply.ERR_INVALID),
        (Option.GO, string(b"disk"), Reply.ERR_INVALID),
        (Option.GO, string(b"disk") + b"\0\0x", Reply.ERR_INVALID),
        (Option.GO, string(b"\xff") + b"\0\0", Reply.ERR_INVALID),
        (Option.GO, struct.pack(">I", 0xFFFFFFFF), Reply.ERR_INVALID),
        (Option.GO, string(b"x" * 5000) + b"\0\0", Reply.ERR_INVALID),
        (Option.LIST_META_CONTEXT, string(b"") + b"\xff\xff\xff\xff", Reply.ERR_INVALID),
        (Option.GO, bytes(100_000), Reply.ERR_TOO_BIG),
        (77, bytes(100_000), Reply.ERR_TOO_BIG),
    ],
)
def test_what_makes_no_sense_is_refused_and_the_next_option_works(number: int, data: bytes, kind: int) -> None:
    handshake = server()
    found = replies(handshake.feed(option(number, data) + option(Option.LIST)))
    assert found[0][:2] == (number, kind)
    assert found[-1][:2] == (Option.LIST, Reply.ACK)


@pytest.mark.parametrize("data", [b"\0\0\0\x07", FLAGS + b"GET / HTTP/1.1\r\n", FLAGS + option(1, b"\xff")])
def test_what_is_no_client_is_dropped(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        ServerHandshake(EXPORT).feed(data)


def test_options_are_counted() -> None:
    handshake = server()
    with pytest.raises(ProtocolError, match="options"):
        handshake.feed(option(Option.LIST) * (wire.OPTIONS_MAX + 1))


@given(st.binary(max_size=300), st.sampled_from([*Option, 99]), st.integers(1, 50))
def test_fuzzed_options(data: bytes, number: int, size: int) -> None:
    handshake = server()
    stream = option(number, data) + data
    try:
        for start in range(0, len(stream), size):
            handshake.feed(stream[start : start + size])
    except ProtocolError:
        pass


def talk(client: ClientHandshake, host: ServerHandshake, size: int = 1 << 20) -> None:
    to_client, to_server = ServerHandshake.greeting(), b""
    while to_client or to_server:
        answer = b"".join(client.feed(to_client[i : i + size]) for i in range(0, len(to_client), size))
        to_server += answer
        to_client = b"".join(host.feed(to_server[i : i + size]) for i in range(0, len(to_server), size))
        to_server = b""


@pytest.mark.parametrize("name", ["disk", ""])
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_both_sides_agree(name: str, size: int) -> None:
    client, host = ClientHandshake(name), ServerHandshake(EXPORT)
    talk(client, host, size)
    assert client.phase is host.phase is Phase.TRANSMISSION
    assert (client.structured, client.context, host.block_status) == (True, wire.CONTEXT_ID, True)
    assert (client.export.size, client.export.flags, client.export.minimum_block) == (1 << 30, 0x0D, 512)


def test_an_export_that_is_not_there() -> None:
    with pytest.raises(Refused, match="no such export"):
        talk(ClientHandshake("other"), ServerHandshake(EXPORT))


def test_a_server_of_few_options() -> None:
    """One that knows EXPORT_NAME only, as the oldest of the fixed newstyle."""
    client = ClientHandshake("disk")
    client.feed(b"NBDMAGICIHAVEOPT\0\1")
    refusal = struct.pack(">QIII", wire.OPTION_REPLY_MAGIC, Option.STRUCTURED_REPLY, Reply.ERR_UNSUP, 0)
    assert client.feed(refusal) == go(b"disk", [3])
    refusal = struct.pack(">QIII", wire.OPTION_REPLY_MAGIC, Option.GO, Reply.ERR_UNSUP, 0)
    assert client.feed(refusal) == option(Option.EXPORT_NAME, b"disk")
    client.feed(struct.pack(">QH", 4096, 1) + bytes(124) + b"x")
    assert (client.phase, client.export.size, client.rest) == (Phase.TRANSMISSION, 4096, b"x")


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"NBDMAGIC" + struct.pack(">QQHH", 0x420281861253, 1 << 20, 0, 0),
        b"NBDMAGICIHAVEOPT\0\3" + bytes(20),
        b"NBDMAGICIHAVEOPT\0\3" + struct.pack(">QIII", wire.OPTION_REPLY_MAGIC, 8, 1, 1 << 30),
        b"NBDMAGICIHAVEOPT\0\3" + struct.pack(">QIII", wire.OPTION_REPLY_MAGIC, 7, 1, 0),
    ],
)
def test_what_is_no_server(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        ClientHandshake("disk").feed(data)


def reply(number: int, kind: int, data: bytes = b"") -> bytes:
    return struct.pack(">QIII", wire.OPTION_REPLY_MAGIC, number, kind, len(data)) + data


@pytest.mark.parametrize(
    "data",
    [
        reply(7, Reply.ACK),
        reply(7, Reply.INFO, b"\0"),
        reply(7, Reply.INFO, b"\0\0abc"),
        reply(7, Reply.INFO, struct.pack(">HIII", 3, 3, 4096, 1 << 20)),
        reply(7, Reply.INFO, struct.pack(">HIII", 3, 0, 4096, 1 << 20)),
        reply(7, Reply.INFO, struct.pack(">HIII", 3, 4096, 4096, 512)),
        reply(7, Reply.SERVER),
        reply(7, Reply.INFO, b"\0\1name") * (REPLIES_MAX + 1),
    ],
)
def test_a_server_that_lies_about_its_export(data: bytes) -> None:
    client = ClientHandshake("disk")
    client.feed(b"NBDMAGICIHAVEOPT\0\3")
    client.feed(reply(8, Reply.ERR_UNSUP))
    with pytest.raises(ProtocolError):
        client.feed(data)


@given(st.binary(max_size=200), st.integers(1, 40))
def test_fuzzed_servers(data: bytes, size: int) -> None:
    for start in (b"", b"NBDMAGICIHAVEOPT\0\3", b"NBDMAGICIHAVEOPT\0\3" + reply(8, 1) + reply(10, 1)):
        client = ClientHandshake("disk")
        try:
            for at in range(0, len(start + data), size):
                client.feed((start + data)[at : at + size])
        except (ProtocolError, Refused):
            pass
