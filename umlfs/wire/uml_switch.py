"""The control protocol of uml_switch, versions 0, 1 and 3: how a client gets its port.

A client connects to the control socket, says where its own data socket is, and hears where the switch's is. Frames are
then datagrams between the two. All is in the order of the host's bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

MAGIC: Final = 0xFEEDFACE
NEW_CONTROL: Final = 0
ADDRESS_SIZE: Final = 110
"""Of a sockaddr_un: the family and 108 bytes of path."""
PATH_SIZE: Final = 108
AF_UNIX: Final = 1
REQUEST_MAX: Final = 124
_FAMILY: Final = struct.Struct("=H")
_WORD: Final = struct.Struct("=I")


class ProtocolError(ValueError):
    """What came is no request that can be granted."""


@dataclass(frozen=True, slots=True)
class Request:
    """A client wants a port."""

    version: int
    address: bytes
    """The path of the client's data socket, all 108 bytes of it: in the abstract namespace all of them count."""

    @property
    def wants_reply(self) -> bool:
        """Version 0 has no answer."""
        return self.version > 0

    @property
    def name(self) -> bytes:
        """What to give to sendto: as it is for an abstract address, else up to the NUL."""
        return self.address if self.address.startswith(b"\0") else self.address.partition(b"\0")[0]


def decode_request(data: bytes) -> Request | None:
    """The request, or None while it is not all there. ProtocolError with the historical words."""
    if len(data) < 4:
        return None
    (magic,) = _WORD.unpack_from(data)
    if magic != MAGIC:
        # version 0: type, MAC, address
        return _request(0, data, 4 + 6)
    if len(data) < 8:
        return None
    (version,) = _WORD.unpack_from(data, 4)
    if version == 2:
        raise ProtocolError("Version 2 is not supported")
    if version == 3:
        return _request(3, data, 12)
    if version == NEW_CONTROL:
        # version 1 has no number: magic, type, MAC, address
        return _request(1, data, 14)
    raise ProtocolError(f"Request for a version {version} port, which this switch doesn't support")


def _request(version: int, data: bytes, offset: int) -> Request | None:
    if len(data) < offset + ADDRESS_SIZE:
        return None
    kind = _WORD.unpack_from(data, 8 if version == 3 else 4 if version == 1 else 0)[0]
    if kind != NEW_CONTROL:
        raise ProtocolError(f"Bad request type {kind}")
    (family,) = _FAMILY.unpack_from(data, offset)
    if family != AF_UNIX:
        raise ProtocolError(f"Bad address family {family}")
    return Request(version, data[offset + 2 : offset + ADDRESS_SIZE])


def encode_request(address: bytes, version: int = 3) -> bytes:
    """A client's request. `address` is the path of its data socket, up to 108 bytes."""
    socket = _FAMILY.pack(AF_UNIX) + address.ljust(PATH_SIZE, b"\0")
    heads = {
        0: _WORD.pack(NEW_CONTROL) + bytes(6),
        1: _WORD.pack(MAGIC) + _WORD.pack(NEW_CONTROL) + bytes(6),
        3: _WORD.pack(MAGIC) + _WORD.pack(3) + _WORD.pack(NEW_CONTROL),
    }
    return heads[version] + socket + (bytes(2) if version == 3 else b"")


def encode_reply(address: bytes) -> bytes:
    """The switch's answer: where its data socket is."""
    return _FAMILY.pack(AF_UNIX) + address.ljust(PATH_SIZE, b"\0")


def decode_reply(data: bytes) -> bytes:
    """The path of the switch's data socket, all 108 bytes of it. ProtocolError."""
    if len(data) != ADDRESS_SIZE or _FAMILY.unpack_from(data)[0] != AF_UNIX:
        raise ProtocolError("not the answer of a switch")
    return data[2:]
