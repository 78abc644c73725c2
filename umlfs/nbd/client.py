"""A BlockDevice that is an export of an NBD server.

The protocol is in `umlfs.wire.nbd_handshake` and `nbd_reply_wire`. Many requests may be under way on the one
connection. There is no task behind the device: one of those who wait for replies receives for all of them.

A connection that broke stays broken: every request under way and every later one fails with an error that says so.
Requests are never repeated on a new connection, since the server may have lost what was written and not flushed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

import trio

from umlfs.block import BlockDevice, Extent, ExtentKind
from umlfs.errors import UmlError, described
from umlfs.wire import nbd_reply as wire
from umlfs.wire.nbd import (
    PAYLOAD_MAX,
    STATE_ZERO,
    Command,
    CommandFlag,
    ExportFlag,
    ProtocolError,
    error_from_wire,
)
from umlfs.wire.nbd_client_handshake import ClientHandshake, Refused
from umlfs.wire.nbd_handshake import Phase
from umlfs.wire.nbd_reply import Pending

Connect = Callable[[], Awaitable[trio.socket.SocketType]]

TIMEOUT_SECONDS: Final = 60.0
"""How long a server may owe us replies without completing any: a disk that spins up, or a flush of much, takes less."""

HANDSHAKE_SECONDS: Final = 15.0
COOKIE_MASK: Final = (1 << 64) - 1
SIZE_MAX: Final = (1 << 63) - 1
ZERO_PIECE: Final = 1 << 20
RANGE_MAX: Final = 1 << 30
"""The most bytes that one request without data covers: its length has 32 bits, and it should be done in time."""

PIECE_MAX: Final = 4 << 20
"""The most bytes that one read or write asks for, so that over a slow network too it is done within the timeout."""

GATHER_MAX: Final = 64
"""How many buffers go into one sendmsg; the kernel takes 1024."""

GOODBYE_SECONDS: Final = 1.0


class NbdDevice(BlockDevice):
    """An export of an NBD server. Made by `NbdDevice.connect`."""

    def __init__(
        self, name: str, connection: trio.socket.SocketType, handshake: ClientHandshake, timeout: float
    ) -> None:
        """`connection` is done with the `handshake`; `name` is for messages."""
        export = handshake.export
        self.name = name
        self.size = export.size
        self.block_size = max(512, export.minimum_block)
        if export.size > SIZE_MAX or export.maximum_payload < self.block_size:
            raise ProtocolError(f"an export of {export.size} bytes in requests of {export.maximum_payload}")
        self._flags = export.flags if export.flags & ExportFlag.HAS_FLAGS else 0
        self.read_only = bool(self._flags & ExportFlag.READ_ONLY)
        self.can_discard = bool(self._flags & ExportFlag.SEND_WRITE_ZEROES)
        self._piece = min(export.maximum_payload, PAYLOAD_MAX, PIECE_MAX) // self.block_size * self.block_size
        self._socket = connection
        self._decoder = wire.ReplyDecoder(handshake.rest, handshake.structured, handshake.context)
        self._context = handshake.context is not None
        self._timeout = timeout
        self._progress = 0.0
        """When a reply was last completed, or the first of those under way was asked for (trio's clock)."""
        self._asking = 0
        """How many requests somebody waits for; given up ones may be under way besides."""
        self._cookie = 0
        self._sending = trio.Lock()
        self._waiters: dict[Pending, trio.Event] = {}
        """Those who wait while another receives; the event tells to look again."""
        self._receiving = False
        """Somebody receives for all."""
        self._broken: str | None = None
        """Why the connection is of no more use."""

    @classmethod
    async def connect(cls, name: str, connect: Connect, export: str, *, timeout: float = TIMEOUT_SECONDS) -> NbdDevice:
        """Connect and choose the `export` (its name; empty is the default one).

        `timeout` (seconds) is how long the server may owe us a reply. UmlError if there is no server, or no such
        export, or nothing that speaks the protocol.
        """
        handshake = ClientHandshake(export)
        try:
            with trio.fail_after(min(timeout, HANDSHAKE_SECONDS)):
                connection = await connect()
                try:
                    await _shake_hands(connection, handshake)
                    return cls(name, connection, handshake, timeout)
                except BaseException:
                    connection.close()
                    raise
        except Refused as refusal:
            raise UmlError(f"{name}: the server refused: {refusal}", "'nbdinfo --list' shows its exports") from None
        except trio.TooSlowError:
            raise UmlError(f"{name}: no answer from the server", "is it an NBD server?") from None
        except ProtocolError as error:
            raise UmlError(f"{name}: {error}", "is it an NBD server of today?") from None
        except OSError as error:
            raise UmlError(f"{name}: {described(error)}", "is the server running?") from None

    async def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        self._check_range(offset, sum(map(len, buffers)))
        await trio.lowlevel.checkpoint()
        for at, piece in _pieces(offset, buffers, self._piece):
            length = sum(map(len, piece))
            await self._ask(Pending(Command.READ, at, length, piece), 0)

    async def write_from(self, offset: int, buffers: Sequence[memoryview]) -> None:
        self._check_writable(offset, sum(map(len, buffers)))
        await trio.lowlevel.checkpoint()
        for at, piece in _pieces(offset, buffers, self._piece):
            await self._ask(Pending(Command.WRITE, at, sum(map(len, piece))), 0, piece)

    async def flush(self) -> None:
        """As the contract says. A server that does not offer flushing is one where every write is durable."""
        self._check_alive()
        await trio.lowlevel.checkpoint()
        if self._flags & ExportFlag.SEND_FLUSH:
            await self._ask(Pending(Command.FLUSH, 0, 0), 0)

    async def discard(self, offset: int, length: int) -> None:
        """Asked for as zeroes that may be holes: what a trimmed range reads as, the protocol leaves open."""
        self._check_writable(offset, length)
        await trio.lowlevel.checkpoint()
        if self.can_discard:
            await self._cover(Command.WRITE_ZEROES, 0, offset, length)

    async def write_zeroes(self, offset: int, length: int, unmap: bool = True) -> None:
        self._check_writable(offset, length)
        await trio.lowlevel.checkpoint()
        if self._flags & ExportFlag.SEND_WRITE_ZEROES:
            await self._cover(Command.WRITE_ZEROES, 0 if unmap else CommandFlag.NO_HOLE, offset, length)
            return
        zeroes = memoryview(bytes(min(length, ZERO_PIECE)))
        for at in range(offset, offset + length, ZERO_PIECE):
            await self.write_from(at, [zeroes[: offset + length - at]])

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        """As the contract says; a server without block status holds nothing but data."""
        self._check_range(offset, length)
        await trio.lowlevel.checkpoint()
        if not length:
            return []
        if not self._context:
            return [Extent(offset, length, ExtentKind.DATA)]
        pending = Pending(Command.BLOCK_STATUS, offset, min(length, RANGE_MAX))
        await self._ask(pending, 0)
        assert pending.extents is not None
        return _as_extents(offset, pending.length, pending.extents)

    async def close(self) -> None:
        """Say goodbye and hang up. Whatever is under way fails."""
        try:
            with trio.move_on_after(GOODBYE_SECONDS):
                if self._broken is None:
                    await self._send([memoryview(wire.request(Command.DISC, 0, 0, 0, 0))])
        except OSError:
            pass
        finally:
            self._break("closed")

    # Requests ---------------------------------------------------------------------------------

    def _check_alive(self) -> None:
        if self._broken is not None:
            raise OSError(errno.ENOTCONN, f"{self.name}: {self._broken}; nothing more can be done with it")

    def _check_range(self, offset: int, length: int) -> None:
        self._check_alive()
        if offset < 0 or length < 0 or offset + length > self.size:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    def _check_writable(self, offset: int, length: int) -> None:
        if self.read_only:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        self._check_range(offset, length)

    async def _cover(self, command: Command, flags: int, offset: int, length: int) -> None:
        for at in range(offset, offset + length, RANGE_MAX):
            await self._ask(Pending(command, at, min(RANGE_MAX, offset + length - at)), flags)

    async def _ask(self, pending: Pending, flags: int, payload: Sequence[memoryview] = ()) -> None:
        """Send a request and wait for its reply. OSError with what the server says went wrong."""
        self._check_alive()
        if not self._asking:
            self._progress = trio.current_time()
        self._asking += 1
        self._cookie = cookie = (self._cookie + 1) & COOKIE_MASK
        try:
            head = wire.request(pending.command, flags, cookie, pending.offset, pending.length)
            await self._send([memoryview(head), *payload], (cookie, pending))
            while not pending.done:
                await self._wait(pending)
        finally:
            self._asking -= 1
            if not pending.done:
                pending.abandon()
        if pending.error:
            number = error_from_wire(pending.error)
            raise OSError(number, os.strerror(number))

    async def _send(self, buffers: list[memoryview], expect: tuple[int, Pending] | None = None) -> None:
        """Send all of `buffers`, the request for which to `expect` a reply. If it ends in between, all has ended."""
        async with self._sending:
            self._check_alive()
            if expect is not None:
                self._decoder.pending[expect[0]] = expect[1]
            try:
                with trio.fail_after(self._timeout):
                    while buffers:
                        buffers = _after(buffers, await self._socket.sendmsg(buffers[:GATHER_MAX]))
            except trio.TooSlowError:
                self._break("the server takes nothing any more")
            except (OSError, trio.ClosedResourceError) as error:
                self._break(f"connection lost: {error}")
            finally:
                if buffers:
                    self._break("a request was given up half sent")
            self._check_alive()

    async def _wait(self, pending: Pending) -> None:
        """Wait for something to happen: receive for everyone if nobody does, else be told."""
        self._check_alive()
        if self._receiving:
            await self._wait_for_receiver(pending)
            return
        self._receiving = True
        try:
            await self._receive_until(pending)
        except ProtocolError as error:
            self._break(f"the server makes no sense: {error}")
        except trio.TooSlowError:
            self._break(f"no reply from the server for {self._timeout:g} seconds")
        except (OSError, trio.ClosedResourceError) as error:
            self._break(f"connection lost: {error}")
        finally:
            self._receiving = False
            self._wake_next()

    async def _wait_for_receiver(self, pending: Pending) -> None:
        self._waiters[pending] = event = trio.Event()
        try:
            await event.wait()
        except trio.Cancelled:
            del self._waiters[pending]
            # It may have been this one's turn to receive.
            if not self._receiving:
                self._wake_next()
            raise
        del self._waiters[pending]

    async def _receive_until(self, pending: Pending) -> None:
        """Take replies, whosever they are, until that to `pending` is complete."""
        while True:
            for finished in self._decoder.completed():
                self._progress = trio.current_time()
                if (event := self._waiters.get(finished)) is not None:
                    event.set()
            if pending.done:
                return
            with trio.fail_at(self._progress + self._timeout):
                count = await self._socket.recv_into(self._decoder.space())
            if not count:
                raise ConnectionResetError("the server hung up")
            self._decoder.received(count)

    def _wake_next(self) -> None:
        """Somebody else has to receive from now on."""
        for pending, event in self._waiters.items():
            if not pending.done:
                event.set()
                return

    def _break(self, why: str) -> None:
        """The connection is of no more use: everyone who waits is told."""
        if self._broken is not None:
            return
        self._broken = why
        self._socket.close()
        for pending in self._decoder.pending.values():
            pending.abandon()
        for event in self._waiters.values():
            event.set()


async def _shake_hands(connection: trio.socket.SocketType, handshake: ClientHandshake) -> None:
    while handshake.phase is not Phase.TRANSMISSION:
        data = await connection.recv(4096)
        if not data:
            raise ProtocolError("the server hung up in the handshake")
        answer = memoryview(handshake.feed(data))
        while answer:
            answer = answer[await connection.send(answer) :]


def _after(buffers: list[memoryview], count: int) -> list[memoryview]:
    """What is left of `buffers` without their first `count` bytes."""
    for index, buffer in enumerate(buffers):
        if count < len(buffer):
            return [buffer[count:], *buffers[index + 1 :]]
        count -= len(buffer)
    return []


def _pieces(offset: int, buffers: Sequence[memoryview], size: int) -> Iterator[tuple[int, list[memoryview]]]:
    """`buffers` in pieces of at most `size` bytes, each with its offset."""
    piece: list[memoryview] = []
    room = size
    for buffer in buffers:
        while buffer:
            part, buffer = buffer[:room], buffer[room:]
            piece.append(part)
            room -= len(part)
            if not room:
                yield offset, piece
                offset, piece, room = offset + size, [], size
    if piece:
        yield offset, piece


def _as_extents(offset: int, length: int, found: Sequence[tuple[int, int]]) -> list[Extent]:
    """What a server found from `offset`, without what it says beyond `length`."""
    extents = []
    end = offset + length
    for size, state in found:
        kind = ExtentKind.ZERO if state & STATE_ZERO else ExtentKind.DATA
        extents.append(Extent(offset, min(size, end - offset), kind))
        offset += size
    return extents
