"""What a UML kernel needs of those who hold the near end of its pty."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from typing import Final, NamedTuple

import trio

FULL: Final = 4096
"""A pty that is full holds at least so many bytes: who has read fewer since the last reminder need not remind."""

REMINDED_AGAIN: Final = (0.002, 0.02, 0.2, 1.0)
"""Seconds of silence after which a kernel that may have looked too early is reminded once more, and then again."""
TYPED_AT_ONCE: Final = 512
"""Bytes for the guest without a pause. A UML kernel whose tty is full (4 KiB that no program has read) stops reading
the line, and never begins again: so what is typed is spread out, and a program that reads at all keeps up."""
TYPING_PAUSE: Final = 0.05
"""Seconds of such a pause."""


class Ends(NamedTuple):
    """Both ends of a pty."""

    near: int
    """Ours, without blocking."""
    far: int
    """What the kernel inherited; open here too, for `remind`."""


def open_ends() -> Ends:
    """A new pty."""
    ends = Ends(*os.openpty())
    os.set_blocking(ends.near, False)
    return ends


class Reminder:
    """Counts what is read from a pty, and reminds its kernel when that is due."""

    def __init__(self, ends: Ends) -> None:
        self._ends = ends
        self._count = 0
        self._reminded = False

    def heard(self, count: int, *, all_: bool) -> None:
        """`count` bytes were read; `all_` if there was no more."""
        self._count += count
        if all_ and self._count >= FULL:
            self._count = 0
            self._reminded = True
            remind(self._ends.far)

    async def wait_readable(self) -> None:
        """Wait until there is more. Reminds again at first: the host may have made no room by then."""
        if self._reminded:
            self._reminded = False
            for pause in REMINDED_AGAIN:
                with trio.move_on_after(pause):
                    return await trio.lowlevel.wait_readable(self._ends.near)
                remind(self._ends.far)
        await trio.lowlevel.wait_readable(self._ends.near)


class Pace:
    """How fast a guest is typed to: `TYPED_AT_ONCE` bytes, then a pause."""

    def __init__(self) -> None:
        self._typed = 0
        self._pause_until = 0.0
        """`_typed` bytes were typed in the time before this, by trio's clock."""

    async def wait(self, count: int) -> None:
        """Return when `count` more bytes may be typed, at most `TYPED_AT_ONCE`: waits if much was typed just now."""
        if trio.current_time() >= self._pause_until:
            self._typed = 0
        elif self._typed + count > TYPED_AT_ONCE:
            await trio.sleep_until(self._pause_until)
            self._typed = 0
        if not self._typed:
            self._pause_until = trio.current_time() + TYPING_PAUSE
        self._typed += count


def remind(slave: int) -> None:
    """Tell the kernel that inherited `slave` that it can write again; to be called when all it wrote was read.

    A UML kernel that filled a pty waits for SIGIO. It gets one, once, when we read, but the host makes room only a
    little later: if the kernel looks before that, it waits for ever. So does it with its own `pts` channel.
    `slave` must be the descriptor that it inherited, and not another on the same terminal.
    """
    owner = fcntl.fcntl(slave, fcntl.F_GETOWN)
    # The kernel takes this flag back before it lets go of its handler: without it the signal would kill.
    if owner > 0 and fcntl.fcntl(slave, fcntl.F_GETFL) & os.O_ASYNC:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(owner, signal.SIGIO)
