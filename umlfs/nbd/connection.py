"""One client of an NBD server, from its handshake to its end.

A leader takes requests one after the other. A request that never waits is answered on the spot, without a task of
its own; one that does wait gives up the lead: another task goes on with the requests meanwhile. Replies are
gathered, and sent together when there is nothing more to decode.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from umlfs.block import BlockDevice, ExtentKind
from umlfs.host.waiting import noticing_waits
from umlfs.nbd.eager_socket import EagerSocket
from umlfs.nbd.rules import DF, FAST_ZERO, FUA, NO_HOLE, REQ_ONE, RULES
from umlfs.wire import nbd as wire
from umlfs.wire.nbd import Command, ExportFlag, ProtocolError, Request
from umlfs.wire.nbd_handshake import CONTEXT_ID, Export, Phase, ServerHandshake

log = logging.getLogger(__name__)

HANDSHAKE_SECONDS: Final = 30
"""How long a client may take to choose its export: long for any network, short for one who only holds a place."""

LINGER_SECONDS: Final = 30
"""How long a client that said goodbye has for taking the replies that are still to be sent."""

HELD_MAX: Final = 16 << 20
"""How many bytes of requests being worked on and replies being sent one client may make us hold before we take its
next request: half of the largest request, so that it is held for one and a half of them, 48 MiB, at most."""

REQUEST_WEIGHT: Final = 64 << 10
"""What a request counts for apart from its data: at most 256 at a time."""

PIECE_SIZE: Final = 256 << 10
"""Large reads are read and sent in pieces of this size: the client takes one while we read the next, and the piece
is still in the processor's cache when it is sent."""

SEND_AT: Final = 256 << 10
"""Replies gathered are sent when there are so many bytes, even if there are more requests to decode."""

GATHER_MAX: Final = 64
"""How many buffers go into one sendmsg; the kernel takes 1024."""

SPARE_BUFFERS: Final = 8
"""How many buffers for pieces are kept for use again: fresh memory costs more than reading into it."""

_PIECE_BUFFER: Final = PIECE_SIZE + wire.DATA_CHUNK_SIZE


class NbdConnection:
    """Serves `device` as `export` on one connected socket."""

    def __init__(self, device: BlockDevice, export: Export, channel: EagerSocket, busy: Callable[[int], None]) -> None:
        """`busy` is told 1 when a request begins to wait and -1 when it is done."""
        self._device = device
        self._export = export
        self._channel = channel
        self._busy = busy
        self._decoder = wire.RequestDecoder()
        self._read_only = bool(export.flags & ExportFlag.READ_ONLY)
        self._structured = False
        self._block_status = False
        self._nursery: trio.Nursery | None = None
        self._replies: deque[memoryview] = deque()
        self._reply_bytes = 0
        self._waiting_bytes = 0
        """The weight of requests that wait, each with a task of its own."""
        self._room: trio.Event | None = None
        """Set when a leader that waits for room may look again."""
        self._sending = False
        """There is a task that waits for the client to take replies."""
        self._spares: list[bytearray] = []
        self._commands: dict[int, Callable[[Request], Awaitable[None]]] = {
            int(Command.READ): self._read,
            int(Command.WRITE): self._write,
            int(Command.FLUSH): self._flush,
            int(Command.TRIM): self._trim,
            int(Command.CACHE): self._cache,
            int(Command.WRITE_ZEROES): self._write_zeroes,
            int(Command.BLOCK_STATUS): self._report_status,
        }

    async def run(self) -> None:
        """Serve until the client hangs up or breaks the protocol. Never raises for what a client does."""
        try:
            if await self._shake_hands():
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    await self._lead()
        except* ProtocolError as group:
            log.info("NBD client dropped: %s", group.exceptions[0])
        except* (OSError, MemoryError, trio.TooSlowError) as group:
            # Of the socket: what the device raises has been answered.
            log.info("NBD client lost: %r", group.exceptions[0])
        finally:
            self._channel.close()

    async def _shake_hands(self) -> bool:
        """Agree on the export. False if the client does not want it."""
        handshake = ServerHandshake(self._export)
        space = memoryview(bytearray(4096))
        with trio.fail_after(HANDSHAKE_SECONDS):
            await self._send_all(handshake.greeting())
            while handshake.phase not in (Phase.TRANSMISSION, Phase.CLOSED):
                count = await self._channel.receive_into(space)
                if not count:
                    return False
                await self._send_all(handshake.feed(bytes(space[:count])))
        self._structured, self._block_status = handshake.structured, handshake.block_status
        self._decoder = wire.RequestDecoder(handshake.rest)
        return handshake.phase is Phase.TRANSMISSION

    async def _send_all(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            sent = self._channel.send_now([rest])
            if not sent:
                await self._channel.wait_writable()
            rest = rest[sent:]

    # Taking requests --------------------------------------------------------------------------

    async def _lead(self) -> None:
        """Take requests until there are no more or somebody else has taken the lead."""
        while (request := await self._next()) is not None:
            if not await self._work(request):
                return
        # A client that has gone without taking its replies must not hold its place for ever.
        assert self._nursery is not None
        self._nursery.cancel_scope.deadline = trio.current_time() + LINGER_SECONDS

    async def _next(self) -> Request | None:
        """The next request; None when the client hung up or said goodbye."""
        while True:
            await self._channel.turn()
            while self._reply_bytes + self._waiting_bytes > HELD_MAX:
                self._push()
                self._room = trio.Event()
                await self._room.wait()
            request = self._decoder.next()
            if request is not None:
                return request if request.command != Command.DISC else None
            self._push()
            count = await self._channel.receive_into(self._decoder.space())
            if not count:
                if self._decoder.partial:
                    raise ProtocolError("a request cut short")
                return None
            self._decoder.received(count)

    async def _work(self, request: Request) -> bool:
        """Answer `request`. False if the lead went to another task meanwhile."""
        weight = 0

        def pass_on() -> None:
            nonlocal weight
            weight = REQUEST_WEIGHT + (request.length if RULES[request.command].payload else 0)
            self._waiting_bytes += weight
            if request.payload is not None:
                self._decoder.keep()
            self._busy(1)
            assert self._nursery is not None
            self._nursery.start_soon(self._lead)

        try:
            await noticing_waits(self._answer(request), pass_on)
        finally:
            if weight:
                self._waiting_bytes -= weight
                self._busy(-1)
        if not weight:
            return True
        self._push()
        self._make_room()
        return False

    def _make_room(self) -> None:
        if self._room is not None:
            self._room.set()

    # Sending replies --------------------------------------------------------------------------

    def _reply(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data`, whole and in turn, when its time comes."""
        self._replies.append(memoryview(data))
        self._reply_bytes += len(data)
        if self._reply_bytes >= SEND_AT:
            self._push()

    def _push(self) -> None:
        """Send what the client takes now, and have a task wait for it to take the rest."""
        while self._replies:
            sent = self._channel.send_now(list(itertools.islice(self._replies, GATHER_MAX)))
            if not sent:
                break
            self._sent(sent)
        if self._replies and not self._sending:
            self._sending = True
            assert self._nursery is not None
            self._nursery.start_soon(self._send_rest)

    def _sent(self, count: int) -> None:
        self._reply_bytes -= count
        replies = self._replies
        while count:
            first = replies[0]
            if count < len(first):
                replies[0] = first[count:]
                return
            count -= len(first)
            replies.popleft()
            buffer = first.obj
            if isinstance(buffer, bytearray) and len(buffer) == _PIECE_BUFFER and len(self._spares) < SPARE_BUFFERS:
                self._spares.append(buffer)

    async def _send_rest(self) -> None:
        try:
            while self._replies:
                await self._channel.wait_writable()
                self._push()
                self._make_room()
        finally:
            self._sending = False

    # Answering --------------------------------------------------------------------------------

    async def _answer(self, request: Request) -> None:
        error, message = self._refusal(request), ""
        if not error:
            try:
                await self._commands[request.command](request)
                return
            except OSError as failure:
                error, message = failure.errno or errno.EIO, failure.strerror or ""
            except MemoryError:
                error = errno.ENOMEM
        self._fail(request, error, message)

    def _fail(self, request: Request, error: int, message: str, offset: int | None = None) -> None:
        number = wire.error_to_wire(error)
        if self._structured and request.command in (Command.READ, Command.BLOCK_STATUS):
            self._reply(wire.error_chunk(request.cookie, number, message or os.strerror(error), offset))
        else:
            self._reply(wire.simple_reply(request.cookie, number))

    def _refusal(self, request: Request) -> int:
        """The errno of what is wrong with the request itself, 0 if nothing is."""
        rule = RULES.get(request.command)
        if rule is None or request.flags & ~rule.flags:
            return errno.EINVAL
        if rule.modifies and self._read_only:
            return errno.EPERM
        if not rule.ranged:
            return 0
        if rule.payload and request.length > wire.PAYLOAD_MAX:
            return errno.EOVERFLOW if request.flags & DF else errno.EINVAL
        end = request.offset + request.length
        size, block = self._export.size, self._export.minimum_block
        if end > size:
            return rule.beyond
        if request.offset % block or (end % block and end != size):
            return errno.EINVAL
        return self._unsupported(request)

    def _unsupported(self, request: Request) -> int:
        """The errno of asking for what was not offered."""
        flags, offered = request.flags, self._export.flags
        if request.command == Command.READ:
            return errno.EINVAL if flags & DF and not self._structured else 0
        if request.command == Command.BLOCK_STATUS:
            return 0 if self._block_status and request.length else errno.EINVAL
        if request.command == Command.TRIM and not offered & ExportFlag.SEND_TRIM:
            return errno.EINVAL
        if flags & FAST_ZERO:
            if not offered & ExportFlag.SEND_FAST_ZERO:
                return errno.EINVAL
            # Whether zeroes can be allocated quickly, only the provider knows: the promise is for holes.
            return errno.EOPNOTSUPP if flags & NO_HOLE else 0
        return 0

    async def _read(self, request: Request) -> None:
        if not self._structured:
            await self._read_simple(request)
        elif not request.length:
            self._reply(wire.none_chunk(request.cookie))
        elif request.flags & DF:
            await self._read_piece(request, request.offset, request.length)
        else:
            await self._read_pieces(request)

    async def _read_simple(self, request: Request) -> None:
        # Once the head is sent there is no way to report an error, so all is read first.
        head, length = wire.SIMPLE_REPLY_SIZE, request.length
        buffer = self._memory(head + length)
        view = memoryview(buffer)[: head + length]
        wire.put_simple_reply(buffer, request.cookie)
        if length:
            await self._device.read_into(request.offset, [view[head:]])
        self._reply(view)

    async def _read_pieces(self, request: Request) -> None:
        offset, end = request.offset, request.offset + request.length
        while offset < end:
            length = min(PIECE_SIZE, end - offset)
            try:
                await self._read_piece(request, offset, length)
            except OSError as failure:
                self._fail(request, failure.errno or errno.EIO, failure.strerror or "", offset)
                return
            offset += length

    async def _read_piece(self, request: Request, offset: int, length: int) -> None:
        """Read and send one chunk, which is the last if it reaches the end of what was asked."""
        head = wire.DATA_CHUNK_SIZE
        buffer = self._memory(head + length)
        view = memoryview(buffer)[: head + length]
        done = offset + length == request.offset + request.length
        wire.put_data_chunk(buffer, request.cookie, offset, length, done)
        await self._device.read_into(offset, [view[head:]])
        self._reply(view)

    def _memory(self, size: int) -> bytearray:
        """Memory for a reply of `size` bytes or more."""
        if size == _PIECE_BUFFER and self._spares:
            return self._spares.pop()
        return bytearray(size)

    async def _write(self, request: Request) -> None:
        assert request.payload is not None
        if request.length:
            await self._device.write_from(request.offset, [request.payload])
        await self._done(request)

    async def _done(self, request: Request) -> None:
        """Answer a request that changed something."""
        if request.flags & FUA:
            await self._device.flush()
        self._reply(wire.simple_reply(request.cookie))

    async def _flush(self, request: Request) -> None:
        await self._device.flush()
        self._reply(wire.simple_reply(request.cookie))

    async def _trim(self, request: Request) -> None:
        if request.length:
            await self._device.discard(request.offset, request.length)
        await self._done(request)

    async def _write_zeroes(self, request: Request) -> None:
        if request.length:
            unmap = not request.flags & NO_HOLE
            await self._device.write_zeroes(request.offset, request.length, unmap)
        await self._done(request)

    async def _cache(self, request: Request) -> None:
        """Read it once, so that what lies below has it at hand."""
        buffer = memoryview(self._memory(_PIECE_BUFFER))
        offset, end = request.offset, request.offset + request.length
        while offset < end:
            length = min(PIECE_SIZE, end - offset)
            await self._device.read_into(offset, [buffer[:length]])
            await self._channel.turn()
            offset += length
        self._reply(wire.simple_reply(request.cookie))

    async def _report_status(self, request: Request) -> None:
        """The allocation map, neighbours of one kind as one; cut off where it is long."""
        limit = 1 if request.flags & REQ_ONE else wire.EXTENTS_MAX
        found: list[tuple[int, int]] = []
        for extent in await self._device.extents(request.offset, request.length):
            state = wire.STATE_HOLE | wire.STATE_ZERO if extent.kind is ExtentKind.ZERO else 0
            if found and found[-1][1] == state:
                found[-1] = (found[-1][0] + extent.length, state)
            elif len(found) < limit:
                found.append((extent.length, state))
            else:
                break
        self._reply(wire.block_status_chunk(request.cookie, CONTEXT_ID, found))
