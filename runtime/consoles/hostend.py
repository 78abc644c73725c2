"""The host's end of a line: a pty whose far end is the kernel's, the last of what was said, and all who read and type.

The kernel puts what it is given into epoll and polls it: a pty is what it gets on best with. Whatever the channel, the
kernel sees the same pty, from its start to its end; channels and viewers come and go on our side of it.
"""

from __future__ import annotations

import contextlib
import math
import os
import termios
import tty
from collections.abc import Callable, Iterator
from typing import Final

import trio

from runtime.consoles.spec import Line
from runtime.consoles.tty_log import Direction, TtyLog
from runtime.tty.ptys import TYPED_AT_ONCE, Pace, Reminder, open_ends

KEPT: Final = 64 << 10
"""Bytes of output that are kept for those who come later or are slow."""
PIECE: Final = 16 << 10
"""The most that is read from the guest, or handed to a reader, at once."""
PATIENCE: Final = 1.0
"""Seconds that the guest is held up for a reader that takes nothing: then that one counts as absent, until it reads."""
SIZE_MAX: Final = 0xFFFF


def _always() -> bool:
    return True


class Reader:
    """One who reads what the guest says, from what is kept on."""

    def __init__(self, end: HostEnd, position: int, *, patient: bool) -> None:
        self.position = position
        """How much of all that was ever said lies behind."""
        self.patient = patient
        """The guest waits for this one however long it takes, as a program waits for a pipe."""
        self.absent = False
        self.scope = trio.CancelScope()
        """Around whatever is done with what was read: cancelled when the line ends while this reader is absent."""
        self.skipped = 0
        """Bytes that were never handed out, as they came while this reader took nothing."""
        self._end = end

    async def read(self) -> bytes:
        """What was said next, `PIECE` bytes at most; waits for it. Nothing at the end of the line."""
        while (data := self._end.since(self)) == b"" and not self._end.ended:
            await self._end.wait_for_output()
        return data


class HostEnd:
    """The host's end of one line.

    Output that nobody reads goes by, but for the last `KEPT` bytes. The guest is held up (its writes wait) while a
    reader has more than that to catch up with: by a patient one for as long as it takes, by others for `PATIENCE`.
    """

    def __init__(self, line: Line, log: TtyLog | None = None) -> None:
        self.line = line
        self.said = 0
        """Bytes of output so far."""
        self.ended = False
        """There is no more output to come."""
        self._log = log
        self._kept = bytearray()
        self._readers: set[Reader] = set()
        self._output = trio.lowlevel.ParkingLot()
        self._progress = trio.lowlevel.ParkingLot()
        self._keyboard = trio.Lock()
        self._pace = Pace()
        self._finishing = False
        self._idle = trio.CancelScope()
        ends = open_ends()
        self.master, self.slave = ends
        """`slave` is for the kernel to inherit, `master` ours, without blocking."""
        self._reminder = Reminder(ends)
        # Until the guest opens the line nothing else would: what is typed by then must not be echoed.
        tty.setraw(self.slave, termios.TCSANOW)

    def close(self) -> None:
        """Close both ends of the pty."""
        trio.lowlevel.notify_closing(self.master)
        os.close(self.master)
        os.close(self.slave)

    # Output -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take what the guest says, until `finish` and the last byte. OSError if the pty fails."""
        if self._log:
            await self._log.opened()
        while data := await self._hear():
            if self._log:
                await self._log.wrote(Direction.WRITTEN, data)
            self._keep(data)
            await self._wait_for_readers()
            # A guest that never stops talking must not keep the others from their turn.
            await trio.lowlevel.checkpoint()
        if self._log:
            await self._log.closed()
        self.ended = True
        for reader in self._readers:
            if reader.absent:
                reader.scope.cancel()
        self._output.unpark_all()

    def finish(self) -> None:
        """The kernel is gone: let `run` return when it has all that was said."""
        self._finishing = True
        self._idle.cancel()

    async def _hear(self) -> bytes:
        """What was said next, up to `PIECE` bytes; nothing when all was heard after `finish`."""
        while True:
            data = self._read()
            if data or self._finishing:
                return data
            with trio.CancelScope() as self._idle:
                await self._reminder.wait_readable()

    def _read(self) -> bytes:
        """All that is there, up to `PIECE` bytes: a pty gives a quarter of that at a time."""
        data = b""
        try:
            while len(data) < PIECE:
                data += os.read(self.master, PIECE - len(data))
        except BlockingIOError:
            self._reminder.heard(len(data), all_=True)
        else:
            self._reminder.heard(len(data), all_=False)
        return data

    def _keep(self, data: bytes) -> None:
        self._kept += data
        if len(self._kept) > KEPT:
            del self._kept[: len(self._kept) - KEPT]
        self.said += len(data)
        self._output.unpark_all()

    async def _wait_for_readers(self) -> None:
        """Return when all have room for another piece, but for those that were given up."""
        while behind := [each for each in self._readers if self._holds_up(each)]:
            with trio.move_on_after(math.inf if all(each.patient for each in behind) else PATIENCE) as limit:
                await self._progress.park()
            if limit.cancelled_caught:
                for each in behind:
                    each.absent = not each.patient

    def _holds_up(self, reader: Reader) -> bool:
        return not reader.absent and self.said + PIECE - reader.position > KEPT

    @contextlib.contextmanager
    def reader(self, *, patient: bool = False, replay: bool = True) -> Iterator[Reader]:
        """Read along; with `replay` from the oldest byte that is kept."""
        reader = Reader(self, self.said - (len(self._kept) if replay else 0), patient=patient)
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.remove(reader)
            self._progress.unpark_all()

    def since(self, reader: Reader) -> bytes:
        """The next piece for `reader`, who is there again; nothing if it has all."""
        reader.absent = False
        oldest = self.said - len(self._kept)
        if reader.position < oldest:
            reader.skipped += oldest - reader.position
            reader.position = oldest
        start = reader.position - oldest
        data = bytes(memoryview(self._kept)[start : start + PIECE])
        reader.position += len(data)
        self._progress.unpark_all()
        return data

    async def wait_for_output(self) -> None:
        """Return when something was said, or the line has ended."""
        await self._output.park()

    # Input ------------------------------------------------------------------------------------

    async def type(self, data: bytes, still_there: Callable[[], bool] = _always) -> bool:
        """Give the guest `data`; waits until it takes it, or until `still_there` says that nobody waits any more.

        Two who type at once take turns. Cancellation leaves a part typed, and so does False.
        """
        if self._log:
            await self._log.wrote(Direction.READ, data)
        async with self._keyboard:
            for start in range(0, len(data), TYPED_AT_ONCE):
                piece = memoryview(data)[start : start + TYPED_AT_ONCE]
                await self._pace.wait(len(piece))
                if start and not still_there():
                    return False
                if not await self._type(piece, still_there):
                    return False
        return True

    async def _type(self, rest: memoryview, still_there: Callable[[], bool]) -> bool:
        while rest:
            try:
                rest = rest[os.write(self.master, rest) :]
            except BlockingIOError:
                with trio.move_on_after(PATIENCE) as limit:
                    await trio.lowlevel.wait_writable(self.master)
                if limit.cancelled_caught and not still_there():
                    return False
        return True

    def resize(self, rows: int, columns: int) -> None:
        """Tell the guest the size of the window. What is no size is none."""
        if 0 < rows <= SIZE_MAX and 0 < columns <= SIZE_MAX:
            termios.tcsetwinsize(self.master, (rows, columns))
