"""Questions for names (DNS over UDP and IPv4, in Ethernet frames), and answers to those that a network knows itself.

RFC 1035, and RFC 826 for whoever asks where the server is.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from umlfs.wire.ethernet import ARP, HEADER, IPV4

PORT: Final = 53
LIFETIME: Final = 5
"""Seconds that an answer may be kept."""
LABELS_MAX: Final = 64
TYPE_A: Final = 1
TYPE_PTR: Final = 12
_CLASS_IN: Final = 1
_DNS: Final = struct.Struct(">HHHHHH")
_ARP: Final = struct.Struct(">HHBBH6s4s6s4s")
_UDP: Final = struct.Struct(">HHHH")
_UDP_PROTOCOL: Final = 17
_ANSWER: Final = 0x8580
"""Flags: an answer, authoritative, recursion desired and there."""
_NO_SUCH_NAME: Final = 3
_REFUSED: Final = 5
"""Whoever asks turns to the next server that it knows."""

Lookup = Callable[[str, int], "bytes | None"]
"""The data of the answer for a name and type; empty for a name without such; None if the name is not ours."""


class Question(NamedTuple):
    """A question of one name."""

    identifier: int
    name: str
    """In lower case, without the dot at the end."""
    kind: int
    raw: bytes
    """The question's own bytes, which the answer repeats."""


def decode_question(data: bytes) -> Question | None:
    """The question of a message; None for what is none, or not one alone."""
    if len(data) < _DNS.size:
        return None
    identifier, flags, questions, _, _, _ = _DNS.unpack_from(data)
    if flags & 0xF800 or questions != 1:
        return None
    labels: list[bytes] = []
    place = _DNS.size
    while place < len(data) and data[place] and len(labels) < LABELS_MAX:
        length = data[place]
        if length > 63 or place + 1 + length > len(data):
            return None
        labels.append(data[place + 1 : place + 1 + length])
        place += 1 + length
    end = place + 5
    if end > len(data) or data[place]:
        return None
    kind, family = struct.unpack_from(">HH", data, place + 1)
    if family != _CLASS_IN:
        return None
    name = b".".join(labels).decode("ascii", "replace").lower()
    return Question(identifier, name, kind, data[_DNS.size : end])


def encode_answer(question: Question, data: bytes | None) -> bytes:
    """The answer: `data`, none of that type if that is empty, or that there is no such name if it is None."""
    flags = _ANSWER | (_NO_SUCH_NAME if data is None else 0)
    head = _DNS.pack(question.identifier, flags, 1, 1 if data else 0, 0, 0)
    if not data:
        return head + question.raw
    answer = struct.pack(">HHHIH", 0xC000 | _DNS.size, question.kind, _CLASS_IN, LIFETIME, len(data)) + data
    return head + question.raw + answer


def encode_refusal(question: Question) -> bytes:
    """The answer that others are to be asked."""
    return _DNS.pack(question.identifier, _ANSWER | _REFUSED, 1, 0, 0, 0) + question.raw


def encode_name(name: str) -> bytes:
    """A name, as the data of a PTR record has it."""
    return b"".join(bytes([len(label)]) + label for label in name.encode().split(b".")) + b"\0"


def reply_to(frame: bytes, server: bytes, mac: bytes, lookup: Lookup, *, alone: bool) -> bytes | None:
    """The frame that answers `frame` in the name of the server at IPv4 address `server`; None for what is not for it to
    answer. Where it is `alone`, it also says where the server is, at `mac`, and refuses what others would answer."""
    kind = frame[12:14]
    if kind == ARP and alone:
        return _reply_to_arp(frame, server, mac)
    if kind == IPV4:
        return _reply_to_query(frame, server, lookup, alone=alone)
    return None


def _reply_to_arp(frame: bytes, server: bytes, mac: bytes) -> bytes | None:
    if len(frame) < HEADER + _ARP.size:
        return None
    hardware, protocol, size, length, operation, sender, address, _, target = _ARP.unpack_from(frame, HEADER)
    if (hardware, protocol, size, length, operation, target) != (1, 0x0800, 6, 4, 1, server):
        return None
    return bytes(sender + mac + ARP) + _ARP.pack(1, 0x0800, 6, 4, 2, mac, server, sender, address)


def _reply_to_query(frame: bytes, server: bytes, lookup: Lookup, *, alone: bool) -> bytes | None:
    ip = frame[HEADER:]
    if len(ip) < 20 or ip[0] >> 4 != 4 or ip[9] != _UDP_PROTOCOL or ip[16:20] != server:
        return None
    start = (ip[0] & 15) * 4
    if start < 20 or len(ip) < start + _UDP.size or int.from_bytes(ip[6:8], "big") & 0x3FFF:
        return None
    source, target, length, _ = _UDP.unpack_from(ip, start)
    if target != PORT or not _UDP.size <= length <= len(ip) - start:
        return None
    question = decode_question(ip[start + _UDP.size : start + length])
    if question is None:
        return None
    data = lookup(question.name, question.kind)
    if data is not None or _is_ours(question.name, lookup):
        message = encode_answer(question, data)
    elif alone:
        message = encode_refusal(question)
    else:
        return None
    udp = _UDP.pack(PORT, source, _UDP.size + len(message), 0) + message
    return frame[6:12] + frame[0:6] + IPV4 + _ipv4(server, ip[12:16], udp)


def _is_ours(name: str, lookup: Lookup) -> bool:
    """Whether nobody else is to be asked: a lookup of the domain itself has an answer."""
    return lookup(name.rpartition(".")[2], 0) is not None


def _ipv4(source: bytes, target: bytes, payload: bytes) -> bytes:
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 0, 0x4000, 64, _UDP_PROTOCOL, 0, source, target)
    total = sum(struct.unpack(">10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return head[:10] + struct.pack(">H", ~total & 0xFFFF) + head[12:] + payload


def address_bytes(text: str) -> bytes:
    """An IPv4 address. ValueError."""
    return ipaddress.IPv4Address(text).packed
