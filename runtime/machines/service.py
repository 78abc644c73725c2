"""A machine's socket `control`: its owner's commands to the supervisor, see `control_wire`."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

import trio

from runtime.machines.channel import ControlChannel
from runtime.machines.control_wire import Message, ProtocolError, failure
from runtime.machines.directory import LOG
from umlfs.errors import UmlError, described, sole
from umlfs.host.listening import unix_listener

log = logging.getLogger(__name__)

Handler = Callable[[ControlChannel, Message], Awaitable[Message]]
"""Does what a request asks for, and returns what to answer. UmlError and OSError become answers."""

CLIENTS_MAX: Final = 256
REQUEST_SECONDS: Final = 10.0
"""How long a client may take for its request."""
ACCEPT_PAUSE_SECONDS: Final = 0.1


async def serve(
    path: Path, handlers: Mapping[str, Handler], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Answer requests at `path` by the handlers of their names, until cancelled. UmlError if that cannot be."""
    with unix_listener(path) as listening:
        listener = trio.socket.from_stdlib_socket(listening)
        async with trio.open_nursery() as clients:
            task_status.started()
            while True:
                try:
                    connection, _ = await listener.accept()
                except OSError as error:
                    log.error("control: a connection was not accepted: %s", error)
                    await trio.sleep(ACCEPT_PAUSE_SECONDS)
                    continue
                if len(clients.child_tasks) >= CLIENTS_MAX:
                    connection.close()
                else:
                    clients.start_soon(_serve, ControlChannel(connection), handlers, path.parent / LOG)


async def _serve(channel: ControlChannel, handlers: Mapping[str, Handler], log_file: Path) -> None:
    """One client, from its request to the answer."""
    with channel, contextlib.suppress(trio.BrokenResourceError):
        if channel.uid not in (os.geteuid(), 0):
            await channel.send(failure(UmlError("the machine is another user's")))
            return
        answer: Message | None = None
        try:
            answer = await _answer(channel, handlers)
        except Exception as error:
            answer = failure(_as_answer(error, log_file))
        if answer is not None:
            await channel.send(answer)


def _as_answer(error: BaseException, log_file: Path) -> UmlError:
    """What the client is told of `error`, whose traceback is in the machine's log: no request may end the machine."""
    error = sole(error)
    if isinstance(error, UmlError):
        return error
    if isinstance(error, ProtocolError):
        return UmlError(f"not the protocol of this socket: {error}")
    if isinstance(error, trio.BrokenResourceError):
        return UmlError("the client has gone")
    if isinstance(error, OSError):
        return UmlError(described(error))
    log.error("control: a request failed", exc_info=error)
    return UmlError(f"internal error: {type(error).__name__}: {error}", f"{log_file} has more, please report it")


async def _answer(channel: ControlChannel, handlers: Mapping[str, Handler]) -> Message | None:
    with trio.move_on_after(REQUEST_SECONDS) as limit:
        request = await channel.receive()
    if limit.cancelled_caught or request is None:
        return None
    handler = handlers.get(str(request.get("do")))
    if handler is None:
        raise ProtocolError(f"unknown request {request.get('do')!r}")
    return await handler(channel, request)
