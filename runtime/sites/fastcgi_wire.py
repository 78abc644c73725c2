"""Records of FastCGI 1.0, for one request on a connection. Bytes in, bytes and records out.

https://fastcgi-archives.github.io/FastCGI_Specification.html
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Final, NamedTuple

VERSION: Final = 1
REQUEST: Final = 1
"""The number of the only request."""
CONTENT_MAX: Final = 0xFFFF
_HEADER: Final = struct.Struct(">BBHHBx")
"""Version, type, request, lengths of content and of padding."""
_BEGIN: Final = struct.Struct(">HB5x")
"""Role and flags: a responder that closes the connection afterwards."""
_RESPONDER: Final = 1


class Kind(IntEnum):
    """The types of records."""

    BEGIN_REQUEST = 1
    ABORT_REQUEST = 2
    END_REQUEST = 3
    PARAMS = 4
    STDIN = 5
    STDOUT = 6
    STDERR = 7


class FormatError(ValueError):
    """What came is no FastCGI."""


class Record(NamedTuple):
    """One of the answer's."""

    kind: int
    content: bytes


def record(kind: Kind, content: bytes = b"") -> bytes:
    """One record of at most `CONTENT_MAX` bytes."""
    return _HEADER.pack(VERSION, kind, REQUEST, len(content), 0) + content


def begin(variables: Mapping[bytes, bytes]) -> bytes:
    """The beginning of a request, before its STDIN."""
    text = b"".join(_length(name) + _length(value) + name + value for name, value in variables.items())
    pieces = [text[at : at + CONTENT_MAX] for at in range(0, len(text), CONTENT_MAX)]
    records = [record(Kind.PARAMS, piece) for piece in (*pieces, b"")]
    return record(Kind.BEGIN_REQUEST, _BEGIN.pack(_RESPONDER, 0)) + b"".join(records)


def _length(word: bytes) -> bytes:
    return bytes([len(word)]) if len(word) < 0x80 else struct.pack(">I", len(word) | 1 << 31)


class Parser:
    """Records of what has come. At most one that is not whole is kept."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[Record]:
        """Those that are whole now. FormatError."""
        self._rest += data
        while len(self._rest) >= _HEADER.size:
            version, kind, _, length, padding = _HEADER.unpack_from(self._rest)
            if version != VERSION:
                raise FormatError(f"version {version}")
            end = _HEADER.size + length
            if len(self._rest) < end + padding:
                return
            content = bytes(self._rest[_HEADER.size : end])
            del self._rest[: end + padding]
            yield Record(kind, content)
