"""Consoles, and commands on terminals, for a browser: between a websocket and a machine's sockets.

The browser sends text: `k` and what was typed, or `s` and `ROWS COLUMNS`. It gets bytes, which the guest said, and
text, which is for the person.
"""

from __future__ import annotations

import contextlib
import errno
import os
import termios
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

import trio

from runtime.consoles.client import Client
from runtime.consoles.sharing_wire import CONTENT_MAX, Frame, FrameKind, Request, size_frame
from runtime.machines.client import answer_of, connected
from runtime.tty.caller import DEFAULT_PATH
from runtime.tty.ptys import Ends, Pace, Reminder
from runtime.tty.terminal import type_keys
from umlfs.errors import UmlError

CHUNK: Final = 32 << 10
SIZE_MAX: Final = 1000
"""Rows or columns of a window."""


class Screen(Protocol):
    """The browser's side. Both raise `Left` once it has gone."""

    async def show(self, data: bytes) -> None:
        """What the guest said."""

    async def tell(self, text: str) -> None:
        """A line for the person."""

    async def typed(self) -> bytes | tuple[int, int]:
        """What was typed next, or the size (rows, columns) that the window has now."""


class Left(Exception):
    """The browser has gone."""


def parse(message: str) -> bytes | tuple[int, int]:
    """What a message of the browser says. ValueError for what says nothing."""
    if message.startswith("k"):
        return message[1:].encode()
    if message.startswith("s"):
        rows, columns = (int(word) for word in message[1:].split())
        if 0 < rows <= SIZE_MAX and 0 < columns <= SIZE_MAX:
            return rows, columns
    raise ValueError(message[:20])


async def console(path: Path, line: str | None, screen: Screen, *, types: bool) -> None:
    """Show a line of the machine with the directory `path`; `types` if the person may type. UmlError."""
    try:
        stream = await trio.open_unix_socket(os.fspath(path / "lines"))
    except OSError as error:
        raise UmlError(
            f"{path.name}: shares no lines: {os.strerror(error.errno or 0)}", "'uml ps' lists machines"
        ) from None
    async with stream:
        client = Client(stream, path)
        answer = await client.ask(Request(line))
        await screen.tell(answer.line if types and answer.writer else f"{answer.line}: you watch")

        async def show() -> None:
            while frames := await client.receive():
                for frame in frames:
                    if frame.kind is FrameKind.DATA:
                        await screen.show(frame.content)
                    elif frame.kind is FrameKind.NOTICE and types:
                        await screen.tell(frame.content.decode(errors="replace"))

        async def listen() -> None:
            with contextlib.suppress(trio.BrokenResourceError):
                while True:
                    said = await screen.typed()
                    if isinstance(said, tuple):
                        await client.send(size_frame(*said))
                    elif types:
                        for start in range(0, len(said), CONTENT_MAX):
                            await client.send(Frame(FrameKind.DATA, said[start : start + CONTENT_MAX]))

        await _first_of(show, listen)
        await screen.tell("the line has ended")


async def command(path: Path, arguments: Sequence[str], screen: Screen) -> None:
    """Run a command on a terminal of its own in the machine, as `uml exec -t` does. UmlError."""
    async with connected(path) as channel:
        request = {
            "do": "exec",
            "command": list(arguments),
            "terminal": True,
            "environment": {"TERM": "xterm-256color", "PATH": DEFAULT_PATH, "HOME": "/root"},
        }
        try:
            await channel.send(request)
            await answer_of(channel, path)
        except trio.BrokenResourceError:
            raise UmlError(f"{path.name}: the machine ended", "'uml ps' lists those that run") from None
        if len(channel.descriptors) != len(Ends._fields):
            raise UmlError(f"{path.name}: gave no terminal", "'uml exec -t' may say why")
        ends, channel.descriptors = Ends(*channel.descriptors), []
        try:
            await _on_line(ends, screen, lambda: _exit_status(answer_of(channel, path)))
        finally:
            trio.lowlevel.notify_closing(ends.near)
            for end in ends:
                os.close(end)


async def _exit_status(answer: Awaitable[dict[str, object]]) -> int:
    return int(str((await answer)["exit"]))


async def _on_line(ends: Ends, screen: Screen, ended: Callable[[], Awaitable[int]]) -> None:
    reminder, pace, finishing = Reminder(ends), Pace(), trio.Event()

    async def show() -> None:
        while True:
            try:
                data = os.read(ends.near, CHUNK)
            except BlockingIOError:
                reminder.heard(0, all_=True)
                if finishing.is_set():
                    return
                with trio.move_on_after(0.2):
                    await reminder.wait_readable()
                continue
            except OSError as error:
                if error.errno == errno.EIO:
                    return
                raise
            reminder.heard(len(data), all_=False)
            await screen.show(data)

    async def listen() -> None:
        while True:
            said = await screen.typed()
            if isinstance(said, tuple):
                with contextlib.suppress(OSError, termios.error):
                    termios.tcsetwinsize(ends.near, said)
            else:
                await type_keys(ends.near, memoryview(said), pace)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        async with trio.open_nursery() as showing:
            showing.start_soon(show)
            status = await ended()
            finishing.set()
        nursery.cancel_scope.cancel()
    await screen.tell(f"exit status {status}")


async def _first_of(*work: Callable[[], Awaitable[None]]) -> None:
    """Until the first of these ends."""
    async with trio.open_nursery() as nursery:

        async def one(each: Callable[[], Awaitable[None]]) -> None:
            await each()
            nursery.cancel_scope.cancel()

        for each in work:
            nursery.start_soon(one, each)
