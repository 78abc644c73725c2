"""The NBD protocol once an export is chosen: requests, replies, and their decoders. No input or output.

Defined in https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md, section "Transmission phase".
All integers are big-endian. What comes before it is in `nbd_handshake_wire`.

Both decoders tell the caller where to receive to (`space`), so that a payload goes from the socket straight
to where it is wanted, and hold no more than what one message may take.
"""

from __future__ import annotations

import enum
import errno
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

REQUEST_MAGIC: Final = 0x25609513
SIMPLE_REPLY_MAGIC: Final = 0x67446698
STRUCTURED_REPLY_MAGIC: Final = 0x668E33EF

PAYLOAD_MAX: Final = 32 << 20
"""The most bytes that one read or write may carry. The protocol lets a client that was told nothing else rely on
32 MiB, and every other server and client has the same limit."""

RECEIVE_SIZE: Final = 256 << 10
"""The size of a receive buffer: what a local socket holds, so that one receive empties it, and a full queue of
sixteen small writes fits."""

IN_PLACE_MAX: Final = 64 << 10
"""Up to here the payload of a write is handed out where it was received; a longer one gets its own memory, where
the socket puts most of it directly."""

MESSAGE_MAX: Final = 4096
"""The most bytes of text in an error reply, as for every string of the protocol."""

EXTENTS_MAX: Final = 4096
"""The most descriptors in one block status reply: a client asks again for the rest, and neither a fragmented
device nor a server that lies makes a message of many megabytes."""

CHUNKS_MAX: Final = 65536
"""The most chunks of one structured reply. A 32 MiB read in pieces of 512 bytes has as many."""


class ProtocolError(Exception):
    """The peer does not speak the protocol; the connection is of no more use."""


class Command(enum.IntEnum):
    """What a request asks for."""

    READ = 0
    WRITE = 1
    DISC = 2
    FLUSH = 3
    TRIM = 4
    CACHE = 5
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7


class CommandFlag(enum.IntFlag):
    """How a request is to be done."""

    FUA = 1
    """Durable before it is answered."""
    NO_HOLE = 2
    """Zeroes are to be allocated."""
    DF = 4
    """The data of a read in one chunk."""
    REQ_ONE = 8
    """One descriptor of block status is enough."""
    FAST_ZERO = 16
    """Fail rather than write zeroes as slowly as data."""


class ExportFlag(enum.IntFlag):
    """What an export can do."""

    HAS_FLAGS = 1
    READ_ONLY = 2
    SEND_FLUSH = 4
    SEND_FUA = 8
    ROTATIONAL = 16
    SEND_TRIM = 32
    SEND_WRITE_ZEROES = 64
    SEND_DF = 128
    CAN_MULTI_CONN = 256
    """A flush on one connection covers what was answered on any."""
    SEND_CACHE = 1024
    SEND_FAST_ZERO = 2048


class ChunkType(enum.IntEnum):
    """What a structured reply chunk holds; bit 15 marks errors."""

    NONE = 0
    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5
    ERROR = 0x8001
    ERROR_OFFSET = 0x8002


CHUNK_DONE: Final = 1
CHUNK_ERROR_BIT: Final = 0x8000

BASE_ALLOCATION: Final = "base:allocation"
"""The metadata context that every server of block status has."""
STATE_HOLE: Final = 1
STATE_ZERO: Final = 2

_REQUEST: Final = struct.Struct(">IHHQQI")
_SIMPLE_REPLY: Final = struct.Struct(">IIQ")
_CHUNK: Final = struct.Struct(">IHHQI")
_DATA_CHUNK: Final = struct.Struct(">IHHQIQ")
_HOLE_CHUNK: Final = struct.Struct(">IHHQIQI")
_ERROR: Final = struct.Struct(">IH")
_U64: Final = struct.Struct(">Q")
_HOLE: Final = struct.Struct(">QI")

REQUEST_SIZE: Final = _REQUEST.size
DATA_CHUNK_SIZE: Final = _DATA_CHUNK.size
SIMPLE_REPLY_SIZE: Final = _SIMPLE_REPLY.size

_ERRNO_TO_WIRE: Final = {
    errno.EPERM: 1,
    errno.EROFS: 1,
    errno.EACCES: 1,
    errno.EIO: 5,
    errno.ENOMEM: 12,
    errno.EINVAL: 22,
    errno.ENOSPC: 28,
    errno.EDQUOT: 28,
    errno.EFBIG: 28,
    errno.EOVERFLOW: 75,
    errno.EOPNOTSUPP: 95,
    errno.ENOSYS: 95,
    errno.ESHUTDOWN: 108,
}
_WIRE_TO_ERRNO: Final = {
    1: errno.EPERM,
    5: errno.EIO,
    12: errno.ENOMEM,
    22: errno.EINVAL,
    28: errno.ENOSPC,
    75: errno.EOVERFLOW,
    95: errno.EOPNOTSUPP,
    108: errno.ESHUTDOWN,
}


def error_to_wire(number: int) -> int:
    """The protocol's number for an errno; EIO where it has none, since the fault is not the client's."""
    return _ERRNO_TO_WIRE.get(number, 5)


def error_from_wire(number: int) -> int:
    """The errno for a number of the protocol; EINVAL for one that it does not define, as it says."""
    return _WIRE_TO_ERRNO.get(number, errno.EINVAL)


@dataclass(slots=True)
class Request:
    """One request. `offset` and `length` are bytes."""

    command: int
    flags: int
    cookie: int
    """Chosen by the client; its reply carries it."""
    offset: int
    length: int
    payload: memoryview | None = None
    """What a write is to write, valid until the decoder is used again, unless it is told to `keep` it. None where
    the length is over `PAYLOAD_MAX`: the payload was passed over."""


# What the server sends --------------------------------------------------------------------


def simple_reply(cookie: int, error: int = 0) -> bytes:
    """A reply without data; before the data of a read, its head. `error` is a number of the protocol."""
    return _SIMPLE_REPLY.pack(SIMPLE_REPLY_MAGIC, error, cookie)


def put_simple_reply(buffer: bytearray, cookie: int) -> None:
    """Write the head of a simple reply to a read at the start of `buffer`."""
    _SIMPLE_REPLY.pack_into(buffer, 0, SIMPLE_REPLY_MAGIC, 0, cookie)


def put_data_chunk(buffer: bytearray, cookie: int, offset: int, length: int, done: bool) -> None:
    """Write the head of a chunk with `length` bytes of data of the export's `offset` at the start of `buffer`."""
    _DATA_CHUNK.pack_into(
        buffer, 0, STRUCTURED_REPLY_MAGIC, done, ChunkType.OFFSET_DATA, cookie, length + _U64.size, offset
    )


def hole_chunk(cookie: int, offset: int, length: int, done: bool) -> bytes:
    """A chunk that says that `length` bytes at `offset` read as zeroes."""
    return _HOLE_CHUNK.pack(STRUCTURED_REPLY_MAGIC, done, ChunkType.OFFSET_HOLE, cookie, _HOLE.size, offset, length)


def none_chunk(cookie: int) -> bytes:
    """The end of a structured reply that has nothing more to say."""
    return _CHUNK.pack(STRUCTURED_REPLY_MAGIC, CHUNK_DONE, ChunkType.NONE, cookie, 0)


def error_chunk(cookie: int, error: int, message: str = "", offset: int | None = None) -> bytes:
    """The end of a structured reply that failed, with `offset` if it is known where."""
    text = message.encode()[:MESSAGE_MAX]
    kind = ChunkType.ERROR if offset is None else ChunkType.ERROR_OFFSET
    tail = b"" if offset is None else _U64.pack(offset)
    length = _ERROR.size + len(text) + len(tail)
    head = _CHUNK.pack(STRUCTURED_REPLY_MAGIC, CHUNK_DONE, kind, cookie, length)
    return head + _ERROR.pack(error, len(text)) + text + tail


def block_status_chunk(cookie: int, context: int, extents: Sequence[tuple[int, int]]) -> bytes:
    """The whole reply to a block status request: `extents` are length and state, at most `EXTENTS_MAX`."""
    flat = [number for extent in extents for number in extent]
    body = struct.pack(f">I{len(flat)}I", context, *flat)
    return _CHUNK.pack(STRUCTURED_REPLY_MAGIC, CHUNK_DONE, ChunkType.BLOCK_STATUS, cookie, len(body)) + body


class RequestDecoder:
    """What a client sends, for its server.

    Receive into `space()`, tell `received(count)`, then take requests from `next()` until it gives None.
    """

    def __init__(self, start: bytes = b"") -> None:
        """`start` is what was received beyond the handshake."""
        self._buffer = bytearray(max(RECEIVE_SIZE, len(start)))
        self._buffer[: len(start)] = start
        self._view = memoryview(self._buffer)
        self._begin = 0
        """Where in the buffer the undecoded bytes begin, and where they end."""
        self._end = len(start)
        self._large: Request | None = None
        """A write whose payload is being received into its own memory."""
        self._filled = 0
        """How much of that has been received."""
        self._spare: bytearray | None = None
        """Memory of an earlier large write, for the next one: fresh memory costs more than the copying."""
        self._lent: bytearray | None = None
        """The memory of the large write handed out last."""
        self._large_last = False

    @property
    def partial(self) -> bool:
        """Whether a request has begun and not ended: no place for a connection to end."""
        return self._large is not None or self._begin != self._end

    def space(self) -> memoryview:
        """Where to receive to. Never empty."""
        if (large := self._large) is not None:
            if large.payload is None:
                return self._view[: min(large.length - self._filled, RECEIVE_SIZE)]
            return large.payload[self._filled :]
        self._reclaim()
        if self._begin:
            self._compact()
        if self._large_last and self._end < REQUEST_SIZE:
            # A large write comes seldom alone: take the next one's head only, and what follows needs no copy.
            return self._view[self._end : REQUEST_SIZE]
        return self._view[self._end :]

    def received(self, count: int) -> None:
        """`count` bytes were put at the start of what `space` gave."""
        if self._large is not None:
            self._filled += count
        else:
            self._end += count

    def keep(self) -> None:
        """The payload handed out last is still needed: receive elsewhere from now on."""
        if self._lent is not None:
            self._lent = None
            return
        rest = bytes(self._view[self._begin : self._end])
        self._buffer = bytearray(RECEIVE_SIZE)
        self._view = memoryview(self._buffer)
        self._buffer[: len(rest)] = rest
        self._begin, self._end = 0, len(rest)

    def next(self) -> Request | None:
        """The next request that is complete; None if more is to be received. ProtocolError if it is none."""
        if self._large is not None:
            return self._finish_large()
        self._reclaim()
        begin = self._begin
        available = self._end - begin - REQUEST_SIZE
        if available < 0:
            return None
        magic, flags, command, cookie, offset, length = _REQUEST.unpack_from(self._buffer, begin)
        if magic != REQUEST_MAGIC:
            raise ProtocolError(f"request magic {magic:#x}")
        request = Request(command, flags, cookie, offset, length)
        if command != Command.WRITE:
            self._begin = begin + REQUEST_SIZE
            self._large_last = False
            return request
        if length > IN_PLACE_MAX:
            return self._begin_large(request, available)
        if available < length:
            self._large_last = False
            return None
        begin += REQUEST_SIZE
        self._begin = begin + length
        request.payload = self._view[begin : begin + length]
        return request

    def _begin_large(self, request: Request, available: int) -> Request | None:
        begin = self._begin + REQUEST_SIZE
        count = min(request.length, available)
        if request.length <= PAYLOAD_MAX:
            request.payload = self._memory(request.length)
            request.payload[:count] = self._view[begin : begin + count]
        self._begin = begin + count
        self._large, self._filled = request, count
        return self._finish_large()

    def _finish_large(self) -> Request | None:
        request = self._large
        assert request is not None
        if self._filled < request.length:
            return None
        self._large = None
        self._large_last = True
        return request

    def _memory(self, size: int) -> memoryview:
        """Memory for the payload of a large write."""
        if self._spare is None or len(self._spare) < size:
            self._spare = bytearray(size)
        self._lent, self._spare = self._spare, None
        return memoryview(self._lent)[:size]

    def _reclaim(self) -> None:
        """The payload of the large write handed out last is needed no more, if it was not kept."""
        if self._lent is not None:
            self._spare, self._lent = self._lent, None

    def _compact(self) -> None:
        """Move what is not decoded to the start of the buffer."""
        rest = self._end - self._begin
        if rest:
            self._view[:rest] = bytes(self._view[self._begin : self._end])
        self._begin, self._end = 0, rest
