"""Frames, names, captures and the protocol of uml_switch: any bytes are an answer or an error of ours."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umlfs.wire import ethernet, names, pcap, uml_switch
from umlfs.wire.ethernet import BROADCAST, FrameError

A, B = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
SERVER = bytes([10, 9, 0, 3])


def lookup(name: str, kind: int) -> bytes | None:
    if name.rpartition(".")[2] != "lab":
        return None
    return {"lab": b"", "web.lab": bytes([10, 9, 0, 101]) if kind == names.TYPE_A else b""}.get(name)


def query(name: str, kind: int = names.TYPE_A, *, server: bytes = SERVER, port: int = 53) -> bytes:
    message = struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + names.encode_name(name) + struct.pack(">HH", kind, 1)
    udp = struct.pack(">HHHH", 4000, port, 8 + len(message), 0) + message
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, bytes([10, 9, 0, 102]), server)
    return B + A + ethernet.IPV4 + ip + udp


def test_tags() -> None:
    frame = B + A + b"\x08\x00" + b"payload"
    assert ethernet.parse(frame) == (B, A, 0)
    assert ethernet.parse(ethernet.tagged(frame, 42)) == (B, A, 42)
    assert ethernet.untagged(ethernet.tagged(frame, 42)) == frame
    assert ethernet.parse(BROADCAST + A + b"\x08\x06").is_group


@pytest.mark.parametrize("frame", [b"", B + A, B + BROADCAST + b"\x08\x00", B + A + b"\x81\x00\x00"])
def test_what_is_no_frame(frame: bytes) -> None:
    with pytest.raises(FrameError):
        ethernet.parse(frame)


def test_a_name_is_answered() -> None:
    reply = names.reply_to(query("Web.LAB"), SERVER, B, lookup, alone=False)
    assert reply is not None
    assert (reply[:12], reply[26:30], reply[30:34]) == (A + B, SERVER, bytes([10, 9, 0, 102]))
    assert reply[36:38] == struct.pack(">H", 4000)
    assert reply.endswith(bytes([0, 4, 10, 9, 0, 101]))


@pytest.mark.parametrize(("name", "kind", "code"), [("web.lab", 28, 0), ("db.lab", 1, 3), ("lab", 1, 0)])
def test_a_name_that_is_not_there(name: str, kind: int, code: int) -> None:
    reply = names.reply_to(query(name, kind), SERVER, B, lookup, alone=False)
    assert reply is not None
    assert (reply[45] & 15, reply[48:50]) == (code, b"\0\0")


@pytest.mark.parametrize("frame", [query("web.lab", port=80), query("web.lab", server=A[:4])])
def test_what_is_for_others(frame: bytes) -> None:
    assert names.reply_to(frame, SERVER, B, lookup, alone=True) is None


def test_names_of_others() -> None:
    """They are for whoever leads out; where nobody does they are refused, so that the next server is asked."""
    frame = query("example.org")
    assert names.reply_to(frame, SERVER, B, lookup, alone=False) is None
    reply = names.reply_to(frame, SERVER, B, lookup, alone=True)
    assert reply is not None
    assert (reply[45] & 15, reply[48:50]) == (5, b"\0\0")


@given(st.binary(max_size=200))
def test_garbage_is_no_question(data: bytes) -> None:
    names.decode_question(data)
    for kind in (ethernet.ARP, ethernet.IPV4):
        names.reply_to(B + A + kind + data, SERVER, B, lookup, alone=True)
    with contextlib.suppress(FrameError):
        ethernet.parse(data)


@given(st.integers(0, 120), st.integers(0, 255))
def test_a_query_with_one_wrong_byte(place: int, value: int) -> None:
    frame = bytearray(query("web.lab"))
    frame[place % len(frame)] = value
    names.reply_to(bytes(frame), SERVER, B, lookup, alone=True)


def test_captures() -> None:
    assert len(pcap.header()) == 24
    assert pcap.record(1_500_000_000, b"frame") == struct.pack("=IIII", 1, 500_000_000, 5, 5) + b"frame"


@pytest.mark.parametrize("version", [0, 1, 3])
@pytest.mark.parametrize("address", [b"/tmp/socket", b"\0\0\0\0abcdefgh"])
def test_requests_of_all_versions(version: int, address: bytes) -> None:
    data = uml_switch.encode_request(address, version)
    assert len(data) == {0: 120, 1: 124, 3: 124}[version]
    request = uml_switch.decode_request(data)
    assert request is not None
    assert (request.version, request.address) == (version, address.ljust(108, b"\0"))
    assert request.name == (address.ljust(108, b"\0") if address[0] == 0 else address)
    assert uml_switch.decode_request(data[:60]) is None


def test_replies() -> None:
    assert uml_switch.decode_reply(uml_switch.encode_reply(b"\0x")) == b"\0x".ljust(108, b"\0")
    with pytest.raises(uml_switch.ProtocolError):
        uml_switch.decode_reply(b"short")


@given(st.binary(max_size=130))
def test_garbage_is_no_request(data: bytes) -> None:
    with contextlib.suppress(uml_switch.ProtocolError):
        uml_switch.decode_request(data)
    with contextlib.suppress(uml_switch.ProtocolError):
        uml_switch.decode_request(uml_switch.encode_request(b"x")[:8] + data)
