"""The client's half of NBD's transmission phase: requests encoded, replies decoded. No input or output.

Defined in https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md, section "Transmission phase". A
server may be hostile: whatever it sends fills nothing but the buffers of the request it answers, and a read is
complete only when every byte of it was filled once.
"""

from __future__ import annotations

import bisect
import enum
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from umlfs.wire import nbd as wire
from umlfs.wire.nbd import ChunkType, Command, ProtocolError

RECEIVE_SIZE: Final = 64 << 10
"""The size of the buffer for heads and short contents; longer data goes straight to where it is wanted."""

CONTENT_MAX: Final = 4 + 8 * wire.EXTENTS_MAX * 16
"""The most bytes that a chunk other than data may have: a block status of 65536 descriptors."""

ZERO_FILL: Final = bytes(64 << 10)

_REQUEST: Final = struct.Struct(">IHHQQI")
_MAGIC: Final = struct.Struct(">I")
_SIMPLE: Final = struct.Struct(">IQ")
_CHUNK: Final = struct.Struct(">HHQI")
_ERROR: Final = struct.Struct(">IH")
_OFFSET: Final = struct.Struct(">Q")
_HOLE: Final = struct.Struct(">QI")


def request(command: int, flags: int, cookie: int, offset: int, length: int) -> bytes:
    """A request; the payload of a write follows it."""
    return _REQUEST.pack(wire.REQUEST_MAGIC, flags, command, cookie, offset, length)


@dataclass(slots=True, eq=False)
class Pending:
    """A request that was sent, and what has come back for it."""

    command: int
    offset: int
    length: int
    buffers: Sequence[memoryview] = ()
    """For a read: what to fill, `length` bytes in all."""
    error: int = 0
    """The protocol's number for what went wrong."""
    message: str = ""
    """What the server says about it, if it does: text of a stranger."""
    extents: list[tuple[int, int]] | None = None
    """For a block status: lengths and states."""
    done: bool = False
    abandoned: bool = False
    """Nobody waits for it any more, and its buffers are not to be touched."""
    _starts: list[int] = field(default_factory=list)
    """The ranges of a read that were filled: where they start and end, in order, apart from each other."""
    _ends: list[int] = field(default_factory=list)
    _chunks: int = 0

    def abandon(self) -> None:
        """What comes for it is thrown away from now on."""
        self.abandoned = True
        self.buffers = ()

    def claim(self, offset: int, length: int) -> None:
        """The range is being filled now. ProtocolError if it is not wanted, or was filled before."""
        start, end = offset - self.offset, offset - self.offset + length
        if self.command != Command.READ or start < 0 or end > self.length or not length:
            raise ProtocolError(f"{length} bytes at {offset} that nobody asked for")
        self.count_chunk()
        at = bisect.bisect_right(self._starts, start)
        if (at and self._ends[at - 1] > start) or (at < len(self._starts) and self._starts[at] < end):
            raise ProtocolError(f"{length} bytes at {offset} sent twice")
        if at and self._ends[at - 1] == start:
            self._ends[at - 1] = end
        else:
            self._starts.insert(at, start)
            self._ends.insert(at, end)
            at += 1
        if at < len(self._starts) and self._starts[at] == end:
            self._ends[at - 1] = self._ends.pop(at)
            del self._starts[at]

    def count_chunk(self) -> None:
        self._chunks += 1
        if self._chunks > wire.CHUNKS_MAX:
            raise ProtocolError(f"a reply of more than {wire.CHUNKS_MAX} chunks")

    def destination(self, offset: int) -> memoryview:
        """The rest of the buffer that the byte at `offset` belongs in."""
        at = offset - self.offset
        for buffer in self.buffers:
            if at < len(buffer):
                return buffer[at:]
            at -= len(buffer)
        raise AssertionError("outside the request")

    def finish(self) -> None:
        """No more comes. ProtocolError if what should have come did not."""
        if self.error:
            self.done = True
            return
        if self.command == Command.READ and self.length and (self._starts, self._ends) != ([0], [self.length]):
            raise ProtocolError("a read answered in part")
        if self.command == Command.BLOCK_STATUS and self.extents is None:
            raise ProtocolError("a block status without extents")
        self.done = True


class _State(enum.Enum):
    """What the next undecoded bytes are."""

    HEAD = "head"
    DATA = "data"
    """Of a read, on its way to the reader's buffers."""
    CONTENT = "content"
    """Of a structured reply chunk, taken whole."""


class ReplyDecoder:
    """What a server sends, for its client.

    Enter each request in `pending` under its cookie before it is sent; receive into `space()`, tell
    `received(count)`, and `completed` gives the requests that were answered in full.
    """

    def __init__(self, start: bytes, structured: bool, context: int | None) -> None:
        """`start` is what was received beyond the handshake; the rest is what was negotiated in it."""
        self.pending: dict[int, Pending] = {}
        self._structured = structured
        self._context = context
        self._buffer = bytearray(max(RECEIVE_SIZE, CONTENT_MAX, len(start)))
        self._buffer[: len(start)] = start
        self._view = memoryview(self._buffer)
        self._begin = 0
        self._end = len(start)
        self._scratch = memoryview(bytearray(RECEIVE_SIZE))
        """Where the data of abandoned reads goes."""
        self._state = _State.HEAD
        self._current: Pending | None = None
        self._cookie = 0
        self._kind = 0
        self._done = False
        self._position = 0
        """Where the next byte of data belongs, and how many are still to come (or of content)."""
        self._remaining = 0
        self._direct = False
        """The last `space` was the destination of data itself."""

    def space(self) -> memoryview:
        """Where to receive to. Never empty."""
        self._direct = self._state is _State.DATA and self._begin == self._end
        if self._direct:
            return self._destination()[: self._remaining]
        if self._begin:
            rest = bytes(self._view[self._begin : self._end])
            self._view[: len(rest)] = rest
            self._begin, self._end = 0, len(rest)
        return self._view[self._end :]

    def received(self, count: int) -> None:
        """`count` bytes were put at the start of what `space` gave."""
        if self._direct:
            self._position += count
            self._remaining -= count
            self._direct = False
        else:
            self._end += count

    def completed(self) -> Iterator[Pending]:
        """Decode what was received; the requests answered in full by it. ProtocolError if it makes no sense."""
        while True:
            finished = self._step()
            if finished is None:
                return
            if isinstance(finished, Pending):
                yield finished

    def _step(self) -> Pending | bool | None:
        """Decode one thing: the request that it completed, if it did; True if it did not; None if more is needed."""
        if self._state is _State.HEAD:
            return self._take_head()
        if self._state is _State.DATA:
            return self._take_data()
        if self._end - self._begin < self._remaining:
            return None
        content = bytes(self._take(self._remaining))
        self._take_content(content)
        return self._end_chunk()

    def _take(self, count: int) -> memoryview:
        self._begin += count
        return self._view[self._begin - count : self._begin]

    def _take_head(self) -> Pending | bool | None:
        available = self._end - self._begin
        if available < _MAGIC.size:
            return None
        magic = _MAGIC.unpack_from(self._buffer, self._begin)[0]
        if magic == wire.SIMPLE_REPLY_MAGIC:
            return self._take_simple() if available >= wire.SIMPLE_REPLY_SIZE else None
        if magic != wire.STRUCTURED_REPLY_MAGIC or not self._structured:
            raise ProtocolError(f"reply magic {magic:#x}")
        return self._take_chunk(available)

    def _find(self, cookie: int) -> Pending:
        found = self.pending.get(cookie)
        if found is None:
            raise ProtocolError(f"a reply to {cookie:#x}, which was never asked")
        self._cookie, self._current = cookie, found
        return found

    def _take_simple(self) -> Pending | bool:
        error, cookie = _SIMPLE.unpack_from(self._buffer, self._begin + _MAGIC.size)
        self._begin += wire.SIMPLE_REPLY_SIZE
        pending = self._find(cookie)
        self._done = True
        if error:
            pending.error = error
        elif pending.command == Command.READ and pending.length:
            if self._structured:
                raise ProtocolError("data in a simple reply")
            self._begin_data(pending, pending.offset, pending.length)
            return True
        return self._end_chunk()

    def _take_chunk(self, available: int) -> bool | None:
        if available < _MAGIC.size + _CHUNK.size:
            return None
        flags, kind, cookie, length = _CHUNK.unpack_from(self._buffer, self._begin + _MAGIC.size)
        pending = self._find(cookie)
        head = _MAGIC.size + _CHUNK.size
        self._done = bool(flags & wire.CHUNK_DONE)
        self._kind = kind
        if kind != ChunkType.OFFSET_DATA:
            if length > CONTENT_MAX:
                raise ProtocolError(f"a chunk of type {kind:#x} with {length} bytes")
            pending.count_chunk()
            self._begin += head
            self._remaining, self._state = length, _State.CONTENT
            return True
        if length <= _OFFSET.size:
            raise ProtocolError(f"a data chunk of {length} bytes")
        if available < head + _OFFSET.size:
            return None
        offset = _OFFSET.unpack_from(self._buffer, self._begin + head)[0]
        self._begin += head + _OFFSET.size
        self._begin_data(pending, offset, length - _OFFSET.size)
        return True

    def _begin_data(self, pending: Pending, offset: int, length: int) -> None:
        pending.claim(offset, length)
        self._position, self._remaining, self._state = offset, length, _State.DATA

    def _destination(self) -> memoryview:
        assert self._current is not None
        return self._scratch if self._current.abandoned else self._current.destination(self._position)

    def _take_data(self) -> Pending | bool | None:
        while self._remaining:
            available = min(self._end - self._begin, self._remaining)
            if not available:
                return None
            into = self._destination()[:available]
            into[:] = self._take(len(into))
            self._position += len(into)
            self._remaining -= len(into)
        return self._end_chunk()

    def _end_chunk(self) -> Pending | bool:
        pending, self._current = self._current, None
        assert pending is not None
        self._state = _State.HEAD
        if not self._done:
            return True
        del self.pending[self._cookie]
        pending.finish()
        return pending

    def _take_content(self, content: bytes) -> None:
        pending, kind = self._current, self._kind
        assert pending is not None
        try:
            if kind & wire.CHUNK_ERROR_BIT:
                _take_error(pending, content)
            elif kind == ChunkType.OFFSET_HOLE:
                self._fill_hole(pending, *_HOLE.unpack(content))
            elif kind == ChunkType.BLOCK_STATUS:
                self._take_extents(pending, content)
            elif kind != ChunkType.NONE or content or not self._done:
                raise ProtocolError(f"a chunk of type {kind:#x} with {len(content)} bytes")
        except struct.error:
            raise ProtocolError(f"a chunk of type {kind:#x} with {len(content)} bytes") from None

    def _fill_hole(self, pending: Pending, offset: int, length: int) -> None:
        pending.claim(offset, length)
        while length and not pending.abandoned:
            into = pending.destination(offset)[: min(length, len(ZERO_FILL))]
            into[:] = ZERO_FILL[: len(into)]
            offset += len(into)
            length -= len(into)

    def _take_extents(self, pending: Pending, content: bytes) -> None:
        numbers = struct.unpack(f">{len(content) // 4}I", content)
        if len(numbers) < 3 or len(numbers) % 2 == 0 or pending.command != Command.BLOCK_STATUS:
            raise ProtocolError("a block status that makes no sense")
        lengths = numbers[1::2]
        # The last one may reach further than was asked, but they must get there at all, and not on and on.
        if numbers[0] != self._context or pending.extents is not None or 0 in lengths:
            raise ProtocolError("a block status that makes no sense")
        if sum(lengths[:-1]) >= pending.length:
            raise ProtocolError("a block status beyond what was asked")
        pending.extents = list(zip(lengths, numbers[2::2], strict=True))


def _take_error(pending: Pending, content: bytes) -> None:
    error, length = _ERROR.unpack_from(content)
    if not error or length > len(content) - _ERROR.size:
        raise ProtocolError("an error that makes no sense")
    text = content[_ERROR.size : _ERROR.size + min(length, wire.MESSAGE_MAX)]
    # The first error is kept: what follows is usually because of it.
    if not pending.error:
        pending.error, pending.message = error, text.decode(errors="replace")
