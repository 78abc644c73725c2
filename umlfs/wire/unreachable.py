"""The answer that a packet may not go where it is to (RFC 792, RFC 4443), in Ethernet frames."""

from __future__ import annotations

import struct
from typing import Final

from umlfs.wire.ethernet import HEADER, IPV4

IPV6: Final = b"\x86\xdd"
_ICMP, _ICMPV6 = 1, 58
_UNREACHABLE, _PROHIBITED = 3, 13
_UNREACHABLE_6, _PROHIBITED_6 = 1, 1
_LIFETIME: Final = 64
_IPV4_SIZE: Final = 20
_IPV6_SIZE: Final = 40
_KEPT: Final = 8
"""Bytes of the packet's content that the answer repeats: the ports."""
_MESSAGE: Final = struct.Struct(">BBHI")


def refusal(frame: bytes, gateway: bytes, gateway_6: bytes, mac: bytes) -> bytes | None:
    """The frame that tells whoever sent `frame` that its target is prohibited, in the name of a gateway. None where
    nobody is to be told: the packet is none, goes to many, or is such an answer itself."""
    if len(frame) < HEADER or frame[0] & 1:
        return None
    head = frame[6:12] + mac + frame[12:14]
    packet = frame[HEADER:]
    if frame[12:14] == IPV4 and len(packet) >= _IPV4_SIZE and packet[9] != _ICMP:
        return head + _refusal_4(packet, gateway)
    if frame[12:14] == IPV6 and len(packet) >= _IPV6_SIZE and packet[6] != _ICMPV6:
        return head + _refusal_6(packet, gateway_6)
    return None


def _refusal_4(packet: bytes, gateway: bytes) -> bytes:
    body = packet[: _IPV4_SIZE + _KEPT]
    draft = _MESSAGE.pack(_UNREACHABLE, _PROHIBITED, 0, 0) + body
    message = _MESSAGE.pack(_UNREACHABLE, _PROHIBITED, checksum(draft), 0) + body
    fields = 0x45, 0, _IPV4_SIZE + len(message), 0, 0, _LIFETIME, _ICMP
    header = struct.pack(">BBHHHBBH", *fields, 0) + gateway + packet[12:16]
    return struct.pack(">BBHHHBBH", *fields, checksum(header)) + gateway + packet[12:16] + message


def _refusal_6(packet: bytes, gateway: bytes) -> bytes:
    body, target = packet[: _IPV6_SIZE + _KEPT], packet[8:24]
    length = _MESSAGE.size + len(body)
    pseudo = gateway + target + struct.pack(">II", length, _ICMPV6)
    draft = _MESSAGE.pack(_UNREACHABLE_6, _PROHIBITED_6, 0, 0) + body
    message = _MESSAGE.pack(_UNREACHABLE_6, _PROHIBITED_6, checksum(pseudo + draft), 0) + body
    return struct.pack(">IHBB", 0x60000000, length, _ICMPV6, _LIFETIME) + gateway + target + message


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
