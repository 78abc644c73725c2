"""The files of a running machine, for programs of the host: the client's side."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import trio

from runtime.appliance.mounting import mount
from runtime.machines.channel import ControlChannel
from runtime.machines.client import answer_of, connected
from umlfs.errors import UmlError
from umlfs.stream.connection import StreamConnection
from umlfs.stream.filesystem import FuseStream
from umlfs.wire import stream_requests as requests
from umlfs.wire.fuse import Opcode

START_SECONDS: Final = 60.0
"""How long the machine's agent may take to begin."""
PIECE: Final = 256 * 1024


@contextlib.asynccontextmanager
async def inside(path: Path, *, writable: bool = False) -> AsyncIterator[FuseStream]:
    """What the machine with the directory `path` has at /, with all that is mounted there, as its root user sees it.

    The guest goes on meanwhile, and changes what it likes. UmlError if the machine refuses, is stopped, or has no
    agent that answers.
    """
    async with contextlib.AsyncExitStack() as stack:
        channel = await stack.enter_async_context(connected(path))
        connection = StreamConnection()
        sending, receiving = await _begin(channel, path)
        await stack.enter_async_context(sending)
        await stack.enter_async_context(receiving)
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        nursery.start_soon(_send, connection, sending)
        nursery.start_soon(_receive, connection, receiving)
        nursery.start_soon(_watch, connection, channel, path)
        nursery.start_soon(connection.watch)
        yield await _root(connection, path.name, writable)


async def _begin(channel: ControlChannel, path: Path) -> tuple[trio.lowlevel.FdStream, trio.lowlevel.FdStream]:
    """Have the machine's filer started: our ends of its input and of its output. UmlError."""
    with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
        reading, writing = os.pipe()
        theirs.callback(os.close, reading)
        ours.callback(os.close, writing)
        answers, answering = os.pipe()
        ours.callback(os.close, answers)
        theirs.callback(os.close, answering)
        null = os.open(os.devnull, os.O_WRONLY)
        theirs.callback(os.close, null)
        try:
            await channel.send({"do": "look"}, [reading, answering, null])
            await answer_of(channel, path)
        except trio.BrokenResourceError:
            raise UmlError(f"{path.name}: the machine ended", "'uml ps' lists those that run") from None
        ours.pop_all()
        return trio.lowlevel.FdStream(writing), trio.lowlevel.FdStream(answers)


async def _root(connection: StreamConnection, name: str, writable: bool) -> FuseStream:
    with trio.move_on_after(START_SECONDS):
        try:
            await connection.ask(Opcode.INIT, 0, requests.init())
            root = await mount(connection, "", "root", "", writable=writable)
        except OSError:
            raise UmlError(f"{name}: cannot be looked into: {connection.broken}", "see the machine's log") from None
        return FuseStream(connection, root, read_only=not writable)
    raise UmlError(f"{name}: the agent in the machine does not answer", "it may hang, or its guest have ended it")


async def _send(connection: StreamConnection, stream: trio.lowlevel.FdStream) -> None:
    buffer = memoryview(bytearray(PIECE))
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while count := await connection.pull([buffer]):
            await stream.send_all(buffer[:count])


async def _receive(connection: StreamConnection, stream: trio.lowlevel.FdStream) -> None:
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while data := await stream.receive_some(PIECE):
            connection.push([memoryview(data)])


async def _watch(connection: StreamConnection, channel: ControlChannel, path: Path) -> None:
    """Nobody is to wait for a filer that is gone."""
    try:
        await answer_of(channel, path)
    except UmlError as error:
        connection.lose(error.what.removeprefix(f"{path.name}: "))
    else:
        connection.lose("what reads them in the machine has ended, as when the guest is out of memory")
