"""Websockets: consoles, commands on terminals, and events."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Final

import trio
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from runtime.machines import client
from runtime.web import terminal
from runtime.web.access import Visitor
from runtime.web.following import Events
from umlfs.errors import UmlError, described, sole

COMMAND_MAX: Final = 4096
"""Characters of a command line."""
OPEN_MAX: Final = 128
"""Websockets at a time."""


class _Browser:
    """A terminal in a browser."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def show(self, data: bytes) -> None:
        try:
            await self._socket.send_bytes(data)
        except (WebSocketDisconnect, RuntimeError):
            raise terminal.Left from None

    async def tell(self, text: str) -> None:
        try:
            await self._socket.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            raise terminal.Left from None

    async def typed(self) -> bytes | tuple[int, int]:
        while True:
            try:
                return terminal.parse(await self._socket.receive_text())
            except (WebSocketDisconnect, RuntimeError, KeyError):
                raise terminal.Left from None
            except ValueError:
                continue  # a browser of ours sends no such thing


class SocketRoutes:
    """What is answered on websockets."""

    def __init__(self, events: Events, *, read_only: bool) -> None:
        self._events = events
        self._read_only = read_only
        self._open = 0

    def routes(self) -> list[WebSocketRoute]:
        """What is answered."""
        return [
            WebSocketRoute("/ws/console/{umid}", self._console),
            WebSocketRoute("/ws/exec/{umid}", self._exec),
            WebSocketRoute("/ws/events", self._follow),
        ]

    async def _console(self, socket: WebSocket) -> None:
        umid, line = socket.path_params["umid"], socket.query_params.get("line") or None
        browser = _Browser(socket)
        if await self._let_in(socket, umid):
            await self._run(
                socket, lambda: terminal.console(client.find(umid), line, browser, types=not self._read_only)
            )

    async def _exec(self, socket: WebSocket) -> None:
        umid, command = socket.path_params["umid"], socket.query_params.get("command", "")
        browser = _Browser(socket)
        if self._read_only or len(command) > COMMAND_MAX or "\0" in command:
            await socket.close(1008, "this page may only read")
        elif await self._let_in(socket, umid):
            words = ["/bin/sh", "-c", command] if command else ["/bin/sh", "-l"]
            await self._run(socket, lambda: terminal.command(client.find(umid), words, browser))

    async def _let_in(self, socket: WebSocket, umid: str) -> bool:
        who: Visitor = socket.state.visitor
        if (who.is_student and who.umid != umid) or "/" in umid:
            await socket.close(1008, "not your machine")
        elif self._open >= OPEN_MAX:
            await socket.close(1013, "too many are open")
        else:
            await socket.accept()
            return True
        return False

    async def _run(self, socket: WebSocket, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work`; what fails is told in the end."""
        self._open += 1
        try:
            await work()
        except (Exception, BaseExceptionGroup) as error:
            cause = _cause(error)
            if isinstance(cause, terminal.Left):
                return
            if not isinstance(cause, UmlError | OSError):
                raise
            await _last_word(socket, described(cause) if isinstance(cause, OSError) else str(cause))
            return
        finally:
            self._open -= 1
        await _last_word(socket, "")

    async def _follow(self, socket: WebSocket) -> None:
        if socket.state.visitor.is_student:
            await socket.close(1008, "only the teacher may do that")
            return
        await socket.accept()
        sending, receiving = self._events.follow()

        async def send() -> None:
            async for event in receiving:
                await socket.send_text(json.dumps(json.loads(event.encode())))
            await _last_word(socket, "")

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                while True:
                    await socket.receive_text()
        except* (WebSocketDisconnect, RuntimeError, KeyError):
            pass
        finally:
            self._events.leave(sending)
            receiving.close()


def _cause(error: BaseException) -> BaseException:
    """The one error; that the browser left, if that is among several."""
    if isinstance(error, BaseExceptionGroup):
        left, _ = error.split(terminal.Left)
        return terminal.Left() if left is not None else sole(error)
    return error


async def _last_word(socket: WebSocket, text: str) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        if text:
            await socket.send_text(text)
        await socket.close()
