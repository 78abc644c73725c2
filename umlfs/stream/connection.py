"""Requests and answers over one stream, many under way at once."""

from __future__ import annotations

import errno
import itertools
import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from umlfs.filesystem import Caller
from umlfs.wire import stream_requests as requests
from umlfs.wire.fuse import Opcode
from umlfs.wire.stream_replies import Pending, ProtocolError, ReplyDecoder

TIMEOUT_SECONDS: Final = 120.0
"""How long one answer may take. Writing back a full cache to a slow disk takes less."""
FORGETS_MAX: Final = 512
"""Nodes that are given back with the next request; with so many, at once."""
ANSWER_MAX: Final = 4096
"""Bytes of an answer that is a structure."""

Undo = Callable[[bytearray], None]
"""Gives back what an answer granted that nobody waited for any more."""


@dataclass(slots=True, eq=False)
class _Asked:
    """A request under way."""

    pending: Pending
    answered: trio.Event
    since: float
    """When, by trio's clock."""
    undo: Undo | None = None
    """Set when nobody waits any more."""


class StreamConnection:
    """The asking end. It does no input or output: what carries the bytes calls `pull` and `push`, and `lose` at the
    end of the stream.

    A connection that broke, by its other end's fault or silence, stays broken: every request is EIO from then on.
    """

    def __init__(self, timeout: float = TIMEOUT_SECONDS) -> None:
        """`timeout` is in seconds."""
        self._timeout = timeout
        self._unique = itertools.count(2, 2)
        self._decoder = ReplyDecoder()
        self._asked: dict[Pending, _Asked] = {}
        """In the order of their times."""
        self._first: trio.Event | None = None
        """Set by the next request, while `watch` waits for one."""
        self._queue: deque[memoryview] = deque()
        self._wanted = trio.Event()
        """There is something in the queue, or there never will be."""
        self._forgets: dict[int, int] = {}
        self._ended = False
        self.broken: str | None = None
        """Why nothing can be asked any more."""
        self.passed_on: Callable[[memoryview], None] | None = None
        """Gets the answers as bytes, to be looked at elsewhere, while there is one; nothing is asked here meanwhile."""
        self.on_loss: Callable[[], None] = _nothing
        """Called when that comes about, before those who wait for answers hear of it."""

    # Asking -----------------------------------------------------------------------------------

    async def ask(
        self,
        opcode: int,
        node: int,
        *parts: bytes | memoryview,
        caller: Caller | None = None,
        into: Sequence[memoryview] = (),
        limit: int = ANSWER_MAX,
        undo: Undo | None = None,
    ) -> Pending:
        """Send a request and wait for its answer. OSError with the errno in it, EIO if there will be none.

        Contents go `into` buffers where given, at most `limit` bytes. If the caller is cancelled, `undo` gets the
        answer when it comes.
        """
        if self.broken is not None:
            raise self._lost()
        if self._forgets:
            self._send_forgets()
        pending = Pending(limit, into)
        asked = self._asked[pending] = _Asked(pending, trio.Event(), trio.current_time())
        self._send(opcode, node, parts, caller, pending)
        if self._first is not None:
            self._first.set()
        try:
            await asked.answered.wait()
        except trio.Cancelled:
            self._abandon(asked, undo)
            raise
        if not pending.done:
            raise self._lost()
        if pending.error:
            raise OSError(pending.error, os.strerror(pending.error))
        return pending

    async def watch(self) -> None:
        """Lose the connection once an answer is overdue. Whoever carries the bytes has this running beside, until the
        connection ends: one task for all requests, for a time-out of each takes longer than most answers."""
        while self.broken is None:
            if not self._asked:
                self._first = trio.Event()
                await self._first.wait()
                self._first = None
                continue
            oldest = next(iter(self._asked.values()))
            left = oldest.since + self._timeout - trio.current_time()
            if left <= 0:
                self.lose(f"no answer for {self._timeout:g} seconds")
            else:
                await trio.sleep(left)

    def forget(self, node: int, count: int) -> None:
        """Give back lookups, with the next request."""
        self._forgets[node] = self._forgets.get(node, 0) + count
        if len(self._forgets) >= FORGETS_MAX and self.broken is None:
            self._send_forgets()

    def post(self, opcode: int, node: int, *parts: bytes) -> None:
        """Send a request whose answer matters to nobody."""
        if self.broken is None:
            self._send(opcode, node, parts, None, Pending(ANSWER_MAX))

    def pass_on(self, request: bytes) -> None:
        """Send a request that was put together elsewhere, and whose answer `passed_on` takes."""
        if self.broken is None:
            self._queue.append(memoryview(request))
            self._wanted.set()

    def _send_forgets(self) -> None:
        body = requests.forgets(self._forgets.items())
        self._forgets.clear()
        self._send(Opcode.BATCH_FORGET, 0, [body], None, None)

    def _send(
        self,
        opcode: int,
        node: int,
        parts: Sequence[bytes | memoryview],
        caller: Caller | None,
        pending: Pending | None,
    ) -> None:
        unique = next(self._unique)
        if pending is not None:
            self._decoder.pending[unique] = pending
        head = requests.request(opcode, unique, node, parts, caller)
        small = [each for each in parts if isinstance(each, bytes)]
        self._queue.append(memoryview(b"".join([head, *small])))
        self._queue.extend(each for each in parts if isinstance(each, memoryview))
        self._wanted.set()

    def _abandon(self, asked: _Asked, undo: Undo | None) -> None:
        if asked.pending.done or self.broken is not None:
            if undo is not None and asked.pending.done and not asked.pending.error:
                undo(asked.pending.data)
            return
        asked.pending.abandon()
        asked.undo = undo
        # What the caller owns must not be looked at any more.
        self._queue = deque(memoryview(bytes(each)) if not _is_bytes(each) else each for each in self._queue)

    def _lost(self) -> OSError:
        return OSError(errno.EIO, f"{os.strerror(errno.EIO)}: {self.broken}")

    # Carrying ---------------------------------------------------------------------------------

    async def pull(self, buffers: Sequence[memoryview]) -> int:
        """Wait for requests and fill `buffers` with what there is of them; 0 after `finish`."""
        while not self._queue:
            if self._ended or self.broken is not None:
                return 0
            self._wanted = trio.Event()
            await self._wanted.wait()
        done = 0
        for buffer in buffers:
            space = buffer
            while space and self._queue:
                piece = self._queue[0][: len(space)]
                space[: len(piece)] = piece
                space = space[len(piece) :]
                done += len(piece)
                if len(piece) == len(self._queue[0]):
                    self._queue.popleft()
                else:
                    self._queue[0] = self._queue[0][len(piece) :]
        return done

    def push(self, buffers: Sequence[memoryview]) -> int:
        """Take answers, cut in any way; how many bytes they are. What cannot be an answer breaks the connection."""
        taken = 0
        for buffer in buffers:
            taken += len(buffer)
            if self.broken is not None:
                continue
            if self.passed_on is not None:
                self.passed_on(buffer)
                continue
            try:
                completed = self._decoder.feed(buffer)
            except ProtocolError as error:
                self.lose(f"the other end makes no sense: {error}")
                continue
            for pending in completed:
                self._complete(pending)
        return taken

    def _complete(self, pending: Pending) -> None:
        asked = self._asked.pop(pending, None)
        if asked is None:
            return
        asked.answered.set()
        if asked.undo is not None and not pending.error:
            asked.undo(pending.data)

    def finish(self) -> None:
        """No more requests come: the other end reads the end of the stream after those that are queued."""
        self._ended = True
        self._wanted.set()

    def lose(self, why: str) -> None:
        """The other end is of no more use. The first reason stays."""
        if self.broken is None:
            self.broken = why
            self.on_loss()
        self._queue.clear()
        self._wanted.set()
        if self._first is not None:
            self._first.set()
        for asked in self._asked.values():
            asked.answered.set()
        self._asked.clear()


def _nothing() -> None:
    pass


def _is_bytes(view: memoryview) -> bool:
    return isinstance(view.obj, bytes)
