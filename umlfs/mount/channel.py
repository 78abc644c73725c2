"""Requests read from /dev/fuse and answered by a session.

Defined in Linux `Documentation/filesystems/fuse.rst` and `fs/fuse/dev.c`: read(2) gives one whole request, write(2)
takes one whole answer. A leader reads requests one after the other and does them on the spot. One that waits gives up
the lead: another task goes on reading, so that a slow disk delays nobody else.
"""

from __future__ import annotations

import errno
import os
import time
from typing import Final

import trio

from umlfs.fuse.files import CONTENTS_MAX
from umlfs.fuse.session import FuseSession
from umlfs.host.loop_wait import LoopWait, Outcome
from umlfs.host.waiting import noticing_waits
from umlfs.wire.fuse import BODY_MAX, OUT_HEADER

TURN_SECONDS: Final = 2e-3
"""How long the leader may go on without letting other tasks run."""
PATIENCE_SECONDS: Final = 500e-6
"""How long it waits for a request by itself, while nobody else has anything to do."""
KEPT_MAX: Final = 8
"""Buffers that are kept for the next requests that wait."""

_REQUEST_MAX: Final = CONTENTS_MAX + max(4096, BODY_MAX - CONTENTS_MAX)
_ANSWER_MAX: Final = CONTENTS_MAX + OUT_HEADER.size

_UNMOUNTED: Final = (errno.ENODEV, errno.ECONNABORTED, errno.EBADF)
_NOTHING_LOST: Final = (errno.ENOENT, errno.EINTR)
"""Whoever asked was killed before the request was read."""


class _Buffers:
    """Where one request lies, and its answer."""

    __slots__ = ("answer", "request")

    def __init__(self) -> None:
        self.request = memoryview(bytearray(_REQUEST_MAX))
        self.answer = memoryview(bytearray(_ANSWER_MAX))


class Channel:
    """The requests of one mount."""

    def __init__(self, descriptor: int, session: FuseSession) -> None:
        """`descriptor` is a mounted /dev/fuse that does not block; it stays the caller's."""
        self._descriptor = descriptor
        self._session = session
        self._wait = LoopWait()
        self._resumed = True
        """Trio has run the leader since it last let others run."""
        self._kept: list[_Buffers] = []
        self._terminated = False

    async def serve(self) -> None:
        """Answer until it is unmounted. Cancelled, what is under way is given up without an answer. OSError."""
        async with trio.open_nursery() as workers:
            workers.start_soon(self._lead, workers)

    def terminate(self) -> None:
        """Read no more: `serve` returns once what is under way is done."""
        self._terminated = True
        trio.lowlevel.notify_closing(self._descriptor)

    async def _lead(self, workers: trio.Nursery) -> None:
        """Read requests until it is unmounted, or somebody else has taken the lead."""
        buffers = self._kept.pop() if self._kept else _Buffers()
        self._resumed = True
        try:
            while await self._take_turn(buffers, workers):
                await self._readable()
        except trio.ClosedResourceError:
            assert self._terminated
        finally:
            if len(self._kept) < KEPT_MAX:
                self._kept.append(buffers)

    async def _readable(self) -> None:
        """Wait for a request."""
        if self._resumed:  # let those run who were woken together with us
            self._resumed = False
            await trio.lowlevel.checkpoint()
        if self._wait.wait(self._descriptor, PATIENCE_SECONDS) is not Outcome.READY:
            await trio.lowlevel.wait_readable(self._descriptor)
            self._resumed = True

    async def _take_turn(self, buffers: _Buffers, workers: trio.Nursery) -> bool:
        """Do what there is; False once there is no more to come, or the lead went to another task."""
        leading = True

        def pass_on() -> None:
            nonlocal leading
            leading = False
            workers.start_soon(self._lead, workers)

        statistics, clock = self._session.statistics, time.monotonic
        turn_ends = clock() + TURN_SECONDS
        while not self._terminated:
            try:
                length = os.readv(self._descriptor, (buffers.request,))
            except BlockingIOError:
                return True
            except OSError as error:
                if error.errno in _UNMOUNTED:
                    workers.cancel_scope.cancel()  # nobody is left to be answered
                    return False
                if error.errno not in _NOTHING_LOST:
                    raise
                continue
            began = clock()
            quick = self._session.quick_answer
            written = -1 if quick is None else quick([buffers.request[:length]], [buffers.answer])
            if written < 0:
                work = self._session.handle([buffers.request[:length]], [buffers.answer])
                written = await noticing_waits(work, pass_on)
            if written:
                self._give(buffers.answer[:written])
                statistics.took(clock() - began)
            if not leading:
                return False
            if began > turn_ends:
                await trio.lowlevel.checkpoint()
                self._resumed = True
                turn_ends = clock() + TURN_SECONDS
        return False

    def _give(self, answer: memoryview) -> None:
        try:
            os.write(self._descriptor, answer)
        except OSError as error:
            if error.errno not in _UNMOUNTED and error.errno != errno.ENOENT:  # nobody asks any more
                raise
