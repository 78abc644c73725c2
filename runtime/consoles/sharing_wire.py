"""What `uml console` and a machine say to each other over the machine's socket `lines`.

The client begins with a line of JSON, `{"line": "con1", "rows": 24, "columns": 80}`. Without `line` it gets the
machine's first; without a size the window stays as it is. The server answers `{"line": "con1", "writer": true}`, or
`{"error": "what failed and why", "way_out": "..."}` and the end. From then on both send frames: a byte that says what
it is, four of length (big endian), and the content.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

GREETING_MAX: Final = 4096
"""Bytes of the first line."""
CONTENT_MAX: Final = 64 << 10
"""Bytes in a frame."""
_HEADER: Final = struct.Struct(">BI")
_SIZE: Final = struct.Struct(">HH")


class ProtocolError(ValueError):
    """The other side does not speak this protocol."""


class FrameKind(IntEnum):
    """What a frame holds."""

    DATA = 0
    """From the server what the guest said, from the client what was typed."""
    SIZE = 1
    """From the client: rows and columns, two bytes each."""
    NOTICE = 2
    """From the server: a line of text for the person."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message."""

    kind: FrameKind
    content: bytes

    def encode(self) -> bytes:
        """The bytes of it."""
        return _HEADER.pack(self.kind, len(self.content)) + self.content

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of a SIZE."""
        rows, columns = _SIZE.unpack(self.content)
        return rows, columns


def size_frame(rows: int, columns: int) -> Frame:
    """The window has that size."""
    return Frame(FrameKind.SIZE, _SIZE.pack(min(rows, 0xFFFF), min(columns, 0xFFFF)))


@dataclass(frozen=True, slots=True)
class Request:
    """What a client begins with."""

    line: str | None = None
    rows: int = 0
    columns: int = 0

    def encode(self) -> bytes:
        """The bytes of it."""
        fields = {"line": self.line, "rows": self.rows, "columns": self.columns}
        return json.dumps({name: value for name, value in fields.items() if value}).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Request:
        """ProtocolError for what is no request."""
        message = _object(line)
        name, rows, columns = message.get("line"), message.get("rows", 0), message.get("columns", 0)
        if not isinstance(name, str | None) or type(rows) is not int or type(columns) is not int:
            raise ProtocolError("not a request for a line")
        return cls(name, rows, columns)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server answers: a line, or an error."""

    line: str = ""
    writer: bool = False
    """What this client types reaches the guest."""
    error: str = ""
    way_out: str = ""

    def encode(self) -> bytes:
        """The bytes of it."""
        if self.error:
            return json.dumps({"error": self.error, "way_out": self.way_out}).encode() + b"\n"
        return json.dumps({"line": self.line, "writer": self.writer}).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Answer:
        """ProtocolError for what is no answer."""
        message = _object(line)
        fields = [message.get(name, "") for name in ("line", "error", "way_out")]
        if not all(isinstance(field, str) for field in fields) or not (fields[0] or fields[1]):
            raise ProtocolError("not an answer about a line")
        return cls(fields[0], message.get("writer") is True, fields[1], fields[2])


def _object(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise ProtocolError("not a line of JSON") from None
    if not isinstance(message, dict):
        raise ProtocolError("not a JSON object")
    return message


class Decoder:
    """One direction of a connection: the first line, then frames. What is kept of it is bounded."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self.greeting: bytes | None = None
        """The first line, once it is there whole."""

    def receive(self, data: bytes) -> None:
        """Take what arrived. ProtocolError if the first line has no end. `frames` is to be called after that."""
        self._rest += data
        if self.greeting is None:
            end = self._rest.find(b"\n")
            if end > GREETING_MAX or (end < 0 and len(self._rest) > GREETING_MAX):
                raise ProtocolError("the first line has no end")
            if end >= 0:
                self.greeting = bytes(self._rest[:end])
                del self._rest[: end + 1]

    def frames(self) -> Iterator[Frame]:
        """The frames that are there whole. ProtocolError for what is none; those of an unknown kind are passed over."""
        while self.greeting is not None and len(self._rest) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._rest)
            if length > CONTENT_MAX or (kind == FrameKind.SIZE and length != _SIZE.size):
                raise ProtocolError(f"a frame of {length} bytes")
            if len(self._rest) < _HEADER.size + length:
                return
            content = bytes(self._rest[_HEADER.size : _HEADER.size + length])
            del self._rest[: _HEADER.size + length]
            if kind in list(FrameKind):
                yield Frame(FrameKind(kind), content)
