"""`pts` and `pty`: a new terminal of the host, for any program to open."""

from __future__ import annotations

import contextlib
import errno
import os
import termios
import tty

import trio

from runtime.consoles.channels.base import PIECE, Tap, show


class Pts:
    """A pty whose far end is announced. Raw, as the guest does what a terminal does.

    We hold the far end open ourselves: programs come and go, and the line stays.
    """

    def __init__(self, tap: Tap) -> None:
        self._tap = tap
        self._near, self._far = os.openpty()
        os.set_blocking(self._near, False)
        tty.setraw(self._far, termios.TCSANOW)
        self.description = f"pts:{os.ttyname(self._far)}"

    def close(self) -> None:
        """Hang up."""
        trio.lowlevel.notify_closing(self._near)
        os.close(self._near)
        os.close(self._far)

    async def run(self) -> None:
        """Pass on until the line has ended."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen)
            await show(self._tap, self._write)
            nursery.cancel_scope.cancel()

    async def _listen(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._near)
            with contextlib.suppress(BlockingIOError):
                data = os.read(self._near, PIECE)
                self._tap.end.resize(*termios.tcgetwinsize(self._near))
                await self._tap.type(data)

    async def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._near, rest) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._near)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                return
