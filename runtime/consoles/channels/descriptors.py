"""`fd:N` and `tty:/dev/ttyN`: a descriptor that we were given, or a terminal device of the host."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import termios
import tty
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from runtime.consoles.channels.base import PIECE, Tap, failed, show
from runtime.consoles.spec import ChannelSpec
from runtime.tty.streams import Descriptor
from runtime.tty.terminal import copy_size, follow_size
from umlfs.errors import UmlError

_GONE: Final = (errno.EIO, errno.EPIPE, errno.ECONNRESET)
"""The far end of a terminal, a pipe or a socket is gone."""


class _Socket:
    """A socket that we were given: its flags are shared with others, and stay as they are."""

    def __init__(self, number: int) -> None:
        self._socket = socket.socket(fileno=os.dup(number))

    def close(self) -> None:
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()

    async def read(self) -> bytes:
        while True:
            try:
                return self._socket.recv(PIECE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._socket)

    async def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._socket.send(rest, socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._socket)


class _Other:
    """A pipe, a terminal, a file."""

    def __init__(self, number: int, *, write: bool) -> None:
        self._descriptor = Descriptor(number, write=write)
        self._buffer = memoryview(bytearray(PIECE))

    def close(self) -> None:
        self._descriptor.close()

    async def read(self) -> bytes:
        count = await self._descriptor.read_into([self._buffer])
        return bytes(self._buffer[:count])

    async def write(self, data: bytes) -> None:
        await self._descriptor.write_from([memoryview(data)])


class Descriptors:
    """A descriptor as a channel. A terminal is raw meanwhile if it is the input, and its window's size is passed on."""

    def __init__(self, description: str, number: int, tap: Tap) -> None:
        """OSError if it is not open. It stays the caller's."""
        self.description = description
        self._number = number
        self._tap = tap
        self._stack = contextlib.ExitStack()
        self._is_terminal = os.isatty(number)
        # Never the other direction: the end of a pipe is noticed by its having no other end.
        self._source = self._open(write=False) if tap.types else None
        self._sink = self._open(write=True) if tap.shows else None
        if self._is_terminal and tap.types:
            self._stack.callback(_restore, number, termios.tcgetattr(number))
            tty.setraw(number, termios.TCSANOW)

    def _open(self, *, write: bool) -> _Socket | _Other:
        is_socket = stat.S_ISSOCK(os.fstat(self._number).st_mode)
        stream = _Socket(self._number) if is_socket else _Other(self._number, write=write)
        self._stack.callback(stream.close)
        return stream

    def close(self) -> None:
        """Leave the terminal as it was found."""
        self._stack.close()

    async def run(self) -> None:
        """Pass on until the line has ended. When the input is at its end nothing more is typed; the output goes on.

        The guest waits for an output that takes nothing, as a program waits for a pipe.
        """
        async with trio.open_nursery() as nursery:
            if self._source:
                nursery.start_soon(self._listen, self._source)
                if self._is_terminal:
                    nursery.start_soon(self._follow_size)
            await self._show(self._sink.write if self._sink else _drop)
            nursery.cancel_scope.cancel()

    async def _follow_size(self) -> None:
        """Pass on the size, and changes of it where this process is told of them: that is for one terminal alone."""
        copy_size(self._number, self._tap.end.master)
        with contextlib.suppress(OSError):
            os.tcgetpgrp(self._number)
            await follow_size(self._number, self._tap.end.master)

    async def _listen(self, source: _Socket | _Other) -> None:
        try:
            while data := await source.read():
                await self._tap.type(data)
        except OSError as error:
            if error.errno not in _GONE:
                raise

    async def _show(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        try:
            await show(self._tap, write, patient=True)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            # Nobody sees it any more, but the line has other readers.
            await show(self._tap, _drop)


async def _drop(data: bytes) -> None:
    """To nobody."""


def _restore(number: int, before: list[object]) -> None:
    # It may be gone.
    with contextlib.suppress(termios.error):
        termios.tcsetattr(number, termios.TCSANOW, before)  # type: ignore[arg-type]


def open_fd(channel: ChannelSpec, tap: Tap) -> Descriptors:
    """A descriptor of this process. UmlError if it is not open."""
    try:
        return Descriptors(str(channel), int(channel.argument), tap)
    except OSError as error:
        raise failed(f"{tap.end.line}={channel}", error, "name a descriptor that is open") from error


class Device(Descriptors):
    """A terminal device of the host."""

    def __init__(self, channel: ChannelSpec, tap: Tap) -> None:
        """UmlError if it is no terminal, or this user may not open it."""
        what = f"{tap.end.line}={channel}"
        mode = os.O_RDWR if tap.types and tap.shows else os.O_RDONLY if tap.types else os.O_WRONLY
        try:
            # Without O_NONBLOCK a serial line without carrier would hold us up for ever.
            self._fd = os.open(channel.argument, mode | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise failed(what, error, "name a terminal that you may open, such as /dev/tty8") from error
        try:
            if not os.isatty(self._fd):
                raise UmlError(f"{what}: not a terminal", "log: writes to files, unix: makes a socket")
            super().__init__(str(channel), self._fd, tap)
        except BaseException:
            os.close(self._fd)
            raise

    def close(self) -> None:
        """Leave the terminal as it was found, and close it."""
        super().close()
        os.close(self._fd)
