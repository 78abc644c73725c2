"""The caller's terminal, lent to a command in the guest."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import struct
import termios
import tty
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

import trio

from runtime.tty.ptys import TYPED_AT_ONCE, Ends, Pace, Reminder
from runtime.tty.streams import Descriptor
from umlfs.errors import UmlError

INTERRUPT: Final = 0x03
ESCAPE: Final = 0x1D
"""Ctrl-]: three in a row within a second end the guest."""
ESCAPES: Final = 3
ESCAPE_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 0.3
"""How long a command has to answer a Ctrl-C before a second one is taken for impatience."""
ECHO: Final = b"^C\r\n"
"""What a terminal itself says to Ctrl-C, byte by byte perhaps: no answer of the command."""
HANGUP_SECONDS: Final = 2.0
"""How long a command has to end when the person's terminal is gone."""
CHUNK: Final = 65536


class Impatience:
    """Decides from what is typed and shown whether the person wants the guest gone.

    A Ctrl-C goes to the command like any other key. A second one ends the guest, if the command did not say
    anything to the first; so do three Ctrl-] within a second.
    """

    def __init__(self) -> None:
        self._asked: float | None = None
        """When the Ctrl-C came that was not answered yet."""
        self._escapes: list[float] = []

    def typed(self, data: bytes, now: float) -> bool:
        """True if what was typed at `now` (seconds) ends the guest."""
        for key in data:
            if key == ESCAPE:
                self._escapes = [*self._escapes[1 - ESCAPES :], now]
                if len(self._escapes) == ESCAPES and now - self._escapes[0] <= ESCAPE_SECONDS:
                    return True
            else:
                self._escapes = []
            if key == INTERRUPT:
                if self._asked is not None and now - self._asked >= ANSWER_SECONDS:
                    return True
                self._asked = self._asked or now
            else:
                self._asked = None
        return False

    def shown(self, data: bytes) -> None:
        """The guest's terminal said `data`."""
        if data.strip(ECHO):
            self._asked = None


@contextlib.contextmanager
def raw(number: int) -> Iterator[None]:
    """Terminal `number` passes every key on as it is, until the end of the context."""
    try:
        before = termios.tcgetattr(number)
        tty.setraw(number, termios.TCSADRAIN)
    except termios.error as error:
        raise UmlError(f"the terminal cannot be had: {error.args[1]}", "its shell may have ended") from None
    try:
        yield
    finally:
        # Without TCSADRAIN's wait: output may be stopped, and nothing may keep us from ending. It may be gone, too.
        with contextlib.suppress(termios.error):
            termios.tcsetattr(number, termios.TCSANOW, before)


def copy_size(source: int, target: int) -> None:
    """Give terminal `target` the size that `source` has."""
    with contextlib.suppress(OSError):
        size = fcntl.ioctl(source, termios.TIOCGWINSZ, bytes(8))
        if any(struct.unpack("HHHH", size)[:2]):
            fcntl.ioctl(target, termios.TIOCSWINSZ, size)


async def follow_size(source: int, target: int) -> None:
    """Keep the size of `target` that of `source`, until cancelled."""
    with trio.open_signal_receiver(signal.SIGWINCH) as signals:
        copy_size(source, target)
        async for _ in signals:
            copy_size(source, target)


async def relay_input(line: Ends, impatience: Impatience, end: Callable[[int], None]) -> None:
    """What is typed on descriptor 0 goes to `line`, not too fast, until cancellation.

    `end` is called with a signal's number to end the guest: when the person is impatient, and some time after the
    terminal is gone (the command was told by SIGHUP).
    """
    keyboard, pace = Descriptor(0, write=False), Pace()
    try:
        buffer = memoryview(bytearray(CHUNK))
        while count := await keyboard.read_into([buffer]):
            if impatience.typed(bytes(buffer[:count]), trio.current_time()):
                end(signal.SIGINT)
            await type_keys(line.near, buffer[:count], pace)
    finally:
        keyboard.close()
    await trio.sleep(HANGUP_SECONDS)
    end(signal.SIGHUP)


async def type_keys(line: int, data: memoryview, pace: Pace) -> None:
    """Type `data` on the near end of a pty, no faster than a guest can take it."""
    for start in range(0, len(data), TYPED_AT_ONCE):
        piece = data[start : start + TYPED_AT_ONCE]
        await pace.wait(len(piece))
        while piece:
            try:
                piece = piece[os.write(line, piece) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(line)


class Screen:
    """What the guest says on `line` is shown on descriptor 1."""

    def __init__(self, line: Ends, impatience: Impatience) -> None:
        self._line = line.near
        self._reminder = Reminder(line)
        self._impatience = impatience
        self._idle = trio.CancelScope()
        self._finishing = False

    def finish(self) -> None:
        """Let `run` return when all that was said is shown."""
        self._finishing = True
        self._idle.cancel()

    async def run(self) -> None:
        """Show, until `finish` or cancellation."""
        screen = Descriptor(1, write=True)
        try:
            while data := await self._hear():
                self._impatience.shown(data)
                await screen.write_from([memoryview(data)])
        except OSError as error:
            if error.errno != errno.EIO:  # the person's terminal is gone
                raise
        finally:
            screen.close()

    async def _hear(self) -> bytes:
        """The next piece; nothing at the end."""
        while True:
            try:
                data = os.read(self._line, CHUNK)
            except BlockingIOError:
                self._reminder.heard(0, all_=True)
                if self._finishing:
                    return b""
                with trio.CancelScope() as self._idle:
                    await self._reminder.wait_readable()
            except OSError as error:
                if error.errno == errno.EIO:  # the kernel has closed its side
                    return b""
                raise
            else:
                self._reminder.heard(len(data), all_=False)
                return data


@contextlib.asynccontextmanager
async def lent(line: Ends, end: Callable[[int], None]) -> AsyncIterator[None]:
    """Lend the caller's terminal (descriptors 0 and 1) to whatever is on `line`, until the end of the context: raw,
    with its keys, its size, and all that was said by then shown. `end` is as for `relay_input`."""
    impatience = Impatience()
    screen = Screen(line, impatience)
    with raw(0):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow_size, 1, line.near)
            nursery.start_soon(relay_input, line, impatience, end)
            async with trio.open_nursery() as showing:
                showing.start_soon(screen.run)
                try:
                    yield
                finally:
                    screen.finish()
            nursery.cancel_scope.cancel()
