"""What is said on a machine's control socket: lines, each a JSON object. No input or output here.

The client begins with a request, `{"do": "state"}`; some are followed by more (a signal for a command), and the machine
answers until it closes the connection. `{"error": "…", "way_out": "…", "status": 1}` is the answer to what fails.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from umlfs.errors import UmlError

LINE_MAX: Final = 4 << 20
"""Bytes of a line. Arguments and environment of a command are in one; the guest's kernel takes 2 MiB of them."""

Message = dict[str, Any]


class ProtocolError(Exception):
    """The other side does not speak the protocol."""


def encode(message: Mapping[str, object]) -> bytes:
    """The line that says it. Names and words that are no UTF-8 are surrogates in the text, and go as such."""
    return json.dumps(message).encode() + b"\n"


class Decoder:
    """Bytes in, messages out."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._seen = 0
        """Bytes of the rest in which there is no end of a line."""

    def feed(self, data: bytes) -> None:
        """Take what came next. ProtocolError for a line that is too long."""
        self._rest += data
        if len(self._rest) > LINE_MAX and b"\n" not in self._rest[: LINE_MAX + 1]:
            raise ProtocolError(f"a line of more than {LINE_MAX} bytes")

    def messages(self) -> Iterator[Message]:
        """Those that are complete. ProtocolError for a line that is no JSON object."""
        while (end := self._rest.find(b"\n", self._seen)) >= 0:
            line = bytes(self._rest[:end])
            del self._rest[: end + 1]
            self._seen = 0
            try:
                message = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ProtocolError(f"no JSON: {error}") from None
            if not isinstance(message, dict):
                raise ProtocolError("not an object")
            yield message
        self._seen = len(self._rest)


def failure(error: UmlError) -> Message:
    """The message that tells of `error`."""
    return {"error": error.what, "way_out": error.way_out, "status": error.status, "details": error.details}


def raise_failure(message: Message) -> None:
    """Raise the error that `message` tells of, if it does."""
    if "error" in message:
        way_out, status = message.get("way_out"), message.get("status")
        raise UmlError(
            str(message["error"]),
            None if way_out is None else str(way_out),
            status=status if isinstance(status, int) and 0 < status < 256 else 1,
            details=str(message.get("details") or ""),
        )


def text(message: Message, key: str, default: str | None = None) -> str | None:
    """A text in `message`. ProtocolError if it is something else."""
    value = message.get(key, default)
    if value is not None and (not isinstance(value, str) or "\0" in value):
        raise ProtocolError(f"'{key}' is no text")
    return value


def words(message: Message, key: str) -> list[str]:
    """A list of texts in `message`. ProtocolError if it is something else."""
    value = message.get(key, [])
    if not isinstance(value, list) or not all(isinstance(each, str) and "\0" not in each for each in value):
        raise ProtocolError(f"'{key}' is no list of texts")
    return value
