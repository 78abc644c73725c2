"""`uml console`: a line of a running machine on this terminal, or as a pipe."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import termios
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import trio

from runtime.consoles.channels.base import PIECE
from runtime.consoles.escape import Escape
from runtime.consoles.sharing_wire import Answer, Decoder, Frame, FrameKind, ProtocolError, Request, size_frame
from runtime.tty.streams import Descriptor
from runtime.tty.terminal import raw
from umlfs.errors import UmlError, UsageError

SOCKET: Final = "lines"
"""The name of the socket in a machine's directory."""
ENDING: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
_LIST: Final = "'uml ps' lists the machines that run"
ANSWER_SECONDS: Final = 10.0
"""How long a machine may take to answer."""


def find_socket(name: str) -> Path:
    """The socket of machine `name`, an umid or the path of a machine's directory or socket. UmlError without one."""
    path = Path(name) if "/" in name else Path.home() / ".uml" / name
    if not name or name in (".", ".."):
        raise UsageError(f"'{name}' is not the name of a machine", _LIST)
    if path.is_socket():
        return path
    if not path.is_dir():
        raise UmlError(f"{name}: no such machine", _LIST)
    if not (path / SOCKET).is_socket():
        way_out = "its consoles are where its own con= and ssl= put them"
        raise UmlError(f"{name}: the machine shares no lines: it was not started by 'uml boot'", way_out)
    return path / SOCKET


class Client:
    """A connection to a machine's lines."""

    def __init__(self, stream: trio.SocketStream, path: Path) -> None:
        self._stream = stream
        self._path = path
        self._decoder = Decoder()

    async def ask(self, request: Request) -> Answer:
        """Ask for a line. UmlError if the machine refuses, or does not answer as one."""
        silent = UmlError(f"{self._path}: no answer", "'uml ps' says how the machine is")
        try:
            with trio.fail_after(ANSWER_SECONDS):
                await self._stream.send_all(request.encode())
                while self._decoder.greeting is None:
                    data = await self._stream.receive_some(PIECE)
                    if not data:
                        raise silent
                    self._decoder.receive(data)
            answer = Answer.decode(self._decoder.greeting)
        except (trio.TooSlowError, trio.BrokenResourceError):
            raise silent from None
        except ProtocolError as error:
            raise UmlError(f"{self._path}: what listens there is no machine: {error}", _LIST) from None
        if answer.error:
            raise UmlError(answer.error, answer.way_out or None)
        return answer

    async def receive(self) -> list[Frame]:
        """What the machine sends next; nothing at the end. UmlError for what makes no sense."""
        with contextlib.suppress(trio.BrokenResourceError):
            try:
                while not (frames := list(self._decoder.frames())):
                    data = await self._stream.receive_some(PIECE)
                    if not data:
                        break
                    self._decoder.receive(data)
            except ProtocolError as error:
                raise UmlError(f"{self._path}: what listens there is no machine: {error}", _LIST) from None
            return frames
        return []

    async def send(self, frame: Frame) -> None:
        """Send a frame. BrokenResourceError if the machine is gone."""
        await self._stream.send_all(frame.encode())


async def attach(path: Path, line: str | None, escape: Escape) -> int:
    """Show a line on descriptor 1 and type what comes from descriptor 0, until the line ends or the person leaves.

    `line` is a name, or None for the machine's choice. A terminal is raw meanwhile, and as it was afterwards. The
    result is 0, or 128 + N after signal N. UmlError if the machine cannot be reached or refuses.
    """
    try:
        stream = await trio.open_unix_socket(os.fspath(path))
    except OSError as error:
        raise UmlError(f"{path}: {os.strerror(error.errno or 0)}", _LIST) from None
    async with stream:
        session = _Session(Client(stream, path), escape)
        with trio.open_signal_receiver(*ENDING) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.end_by, signals, nursery.cancel_scope)
                await session.run(line)
                nursery.cancel_scope.cancel()
    return session.status


class _Session:
    """One person, or program, at one line."""

    def __init__(self, client: Client, escape: Escape) -> None:
        self.status = 0
        self._client = client
        self._escape = escape
        self._on_terminal = os.isatty(0)
        self._sending = trio.Lock()

    async def end_by(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        """Cancel at the first signal."""
        async for number in signals:
            self.status = 128 + number
            scope.cancel()

    async def run(self, line: str | None) -> None:
        """From the request to the end."""
        answer = await self._client.ask(Request(line, *_window()))
        if self._escape.hint:
            self._tell(f"{answer.line}; {self._escape.hint}" + ("" if answer.writer else "; somebody else types"))
        with raw(0) if self._on_terminal else contextlib.nullcontext():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._type, nursery.cancel_scope)
                nursery.start_soon(self._follow_size)
                await self._show()
                nursery.cancel_scope.cancel()
            if self._escape.hint:
                self._tell(f"{answer.line} is left")

    async def _show(self) -> None:
        with _opened(1) as screen:
            while frames := await self._client.receive():
                for frame in frames:
                    if frame.kind is FrameKind.DATA:
                        await screen.write_from([memoryview(frame.content)])
                    elif frame.kind is FrameKind.NOTICE:
                        self._tell(frame.content.decode(errors="replace"))

    async def _type(self, scope: trio.CancelScope) -> None:
        """Send what is typed; a pipe that is at its end types no more, but goes on reading."""
        buffer = memoryview(bytearray(PIECE))
        with _opened(0) as keyboard, contextlib.suppress(trio.BrokenResourceError):
            while count := await keyboard.read_into([buffer]):
                keys, leaves = bytes(buffer[:count]), False
                if self._on_terminal:
                    keys, leaves = self._escape.typed(keys)
                if keys:
                    await self._send(Frame(FrameKind.DATA, keys))
                if leaves:
                    scope.cancel()
            if self._on_terminal:
                scope.cancel()

    async def _follow_size(self) -> None:
        with trio.open_signal_receiver(signal.SIGWINCH) as signals, contextlib.suppress(trio.BrokenResourceError):
            async for _ in signals:
                await self._send(size_frame(*_window()))

    async def _send(self, frame: Frame) -> None:
        async with self._sending:
            await self._client.send(frame)

    def _tell(self, text: str) -> None:
        """A word to the person, if there is one."""
        if self._on_terminal:
            printable = "".join(each if each.isprintable() else "?" for each in text)
            print(f"[{printable}]", end="\r\n", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _opened(number: int) -> Iterator[Descriptor]:
    with contextlib.closing(Descriptor(number, write=number > 0)) as descriptor:
        yield descriptor


def _window() -> tuple[int, int]:
    """Rows and columns of our terminal; zeros if we have none."""
    for number in (1, 0):
        with contextlib.suppress(OSError, termios.error):
            return termios.tcgetwinsize(number)
    return 0, 0
