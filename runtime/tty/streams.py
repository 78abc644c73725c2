"""Descriptors of the host as a command's input and output, without blocking and without a copy.

A descriptor that was given to us is shared with others: its flags are left alone. What can wait is opened
anew without blocking where the host allows it; else a thread waits in our place.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
from collections.abc import Sequence
from typing import Final

import trio

from runtime.tty.caller import in_background
from umlfs.buffers import scatter

CHUNK: Final = 1 << 20
"""The most that is read at once where it has to be copied."""
_NULL: Final = os.makedev(1, 3)


def is_null(number: int) -> bool:
    """Whether descriptor `number` is /dev/null."""
    status = os.fstat(number)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == _NULL


def are_same(one: int, other: int) -> bool:
    """Whether two descriptors lead to the same file, pipe, socket or terminal."""
    return os.path.samestat(os.fstat(one), os.fstat(other))


async def their_turn(terminal: int) -> None:
    """Wait until this process may read from its terminal: a job in a shell's background would be stopped."""
    if not in_background(terminal):
        return
    with trio.open_signal_receiver(signal.SIGCONT) as signals:
        while in_background(terminal):
            await anext(signals)


class Descriptor:
    """A descriptor to read from or write to. It stays the caller's: `close` closes only what was opened here."""

    def __init__(self, number: int, *, write: bool) -> None:
        self._number = number
        self._own: int | None = None
        self._socket: socket.socket | None = None
        mode = os.fstat(number).st_mode
        self._is_terminal = stat.S_ISCHR(mode) and os.isatty(number)
        self._waits = stat.S_ISFIFO(mode) or self._is_terminal
        """It may be that nothing comes for long."""
        if self._waits:
            flags = (os.O_WRONLY if write else os.O_RDONLY) | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            try:
                self._own = os.open(f"/proc/self/fd/{number}", flags)
            except OSError:
                self._own = None
        elif stat.S_ISSOCK(mode):
            # By messages it can be used without waiting, whatever its flags, which are shared with others.
            self._socket = socket.socket(fileno=os.dup(number))

    def close(self) -> None:
        """Close what was opened here."""
        if self._waits:
            trio.lowlevel.notify_closing(self._number)
        if self._own is not None:
            trio.lowlevel.notify_closing(self._own)
            os.close(self._own)
            self._own = None
        if self._socket is not None:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
            self._socket = None

    async def read_into(self, buffers: Sequence[memoryview]) -> int:
        """Wait for input and fill `buffers` as far as it goes; 0 at the end."""
        while self._own is not None:
            if self._is_terminal:
                await their_turn(self._own)
            try:
                return os.readv(self._own, buffers)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._own)
            except OSError as error:
                if error.errno == errno.EIO:  # a terminal whose other side is gone
                    return 0
                raise
        while self._socket is not None:
            try:
                return int(self._socket.recvmsg_into(buffers, 0, socket.MSG_DONTWAIT)[0])
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._socket)
            except ConnectionError:
                return 0
        if self._waits:  # a thread that reads would take what comes after we are gone
            await trio.lowlevel.wait_readable(self._number)
        # Not straight into the buffers: the thread may outlive the wait, and they are another's then.
        size = min(sum(map(len, buffers)), CHUNK)
        data = await trio.to_thread.run_sync(os.read, self._number, size, abandon_on_cancel=True)
        return scatter(data, buffers)

    async def write_from(self, buffers: Sequence[memoryview]) -> int:
        """Wait for room and write all of `buffers`. BrokenPipeError when nobody reads any more."""
        total = 0
        left = list(buffers)
        while left:
            written = await self._write_some(left)
            total += written
            while left and written >= len(left[0]):
                written -= len(left.pop(0))
            if written:
                left[0] = left[0][written:]
        return total

    async def _write_some(self, buffers: Sequence[memoryview]) -> int:
        while self._own is not None:
            try:
                return os.writev(self._own, buffers)
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._own)
        while self._socket is not None:
            try:
                return int(self._socket.sendmsg(buffers, (), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL))
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._socket)
            except ConnectionResetError:
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from None
        return await trio.to_thread.run_sync(os.writev, self._number, buffers, abandon_on_cancel=True)


class Collector:
    """Output gathered in memory, up to `limit` bytes; more is an error to the writer (EFBIG)."""

    def __init__(self, limit: int) -> None:
        self.data = bytearray()
        self._limit = limit

    async def write_from(self, buffers: Sequence[memoryview]) -> int:
        total = sum(map(len, buffers))
        if len(self.data) + total > self._limit:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        for buffer in buffers:
            self.data += buffer
        return total


class Literal:
    """Input that is at hand."""

    def __init__(self, data: bytes) -> None:
        self._rest = memoryview(data)

    async def read_into(self, buffers: Sequence[memoryview]) -> int:
        done = scatter(self._rest, buffers)
        self._rest = self._rest[done:]
        return done
