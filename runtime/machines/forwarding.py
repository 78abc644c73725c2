"""Ports of this host that lead into a running machine by way of its agent: the guest needs no network for it."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import trio

from runtime.machine.script import BUSYBOX
from runtime.machines.client import answer_of, connected
from umlfs.errors import UmlError, UsageError
from umlfs.host.listening import tcp_listeners

FORM: Final = "[ADDR:]PORT:[HOST:]PORT"
LOOPBACK: Final = "127.0.0.1"
CONNECTIONS_MAX: Final = 200
"""At a time; a machine serves some more clients than that."""
_HOST: Final = r"\[[^\]]+\]|[^:\[\]]+"
_WORD: Final = re.compile(
    rf"(?:(?!\d+:)(?P<address>{_HOST}):)?(?P<local>\d{{1,5}})(?::(?:(?P<host>{_HOST}):)?(?P<port>\d{{1,5}}))?\Z"
)


@dataclass(frozen=True, slots=True)
class Target:
    """A TCP port that the guest can connect to, of its own or of a neighbour."""

    port: int
    host: str = LOOPBACK

    @property
    def command(self) -> list[str]:
        """What connects its standard streams to it, in the guest."""
        return [BUSYBOX, "nc", self.host, str(self.port)]

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Forward:
    """A port of this host, and where it leads."""

    address: str
    port: int
    """0 for any that is free."""
    target: Target


def target(word: str) -> Target:
    """`[HOST:]PORT`. UsageError."""
    host, _, port = word.rpartition(":")
    return Target(_port(word, port), host.strip("[]") or LOOPBACK)


def parse(word: str) -> Forward:
    """`[ADDR:]PORT:[HOST:]PORT`, or one PORT for both. UsageError."""
    found = _WORD.match(word)
    if found is None:
        raise UsageError(f"{word}: not of the form {FORM}", "for example 8080:80")
    local = _port(word, found["local"], least=0)
    remote = _port(word, found["port"] or found["local"])
    host = (found["host"] or LOOPBACK).strip("[]")
    return Forward((found["address"] or LOOPBACK).strip("[]"), local, Target(remote, host))


def _port(word: str, text: str, *, least: int = 1) -> int:
    if not text.isdigit() or not least <= int(text) < 65536:
        raise UsageError(f"{word}: '{text}' is not a port", f"ports are {least} to 65535")
    return int(text)


async def serve(path: Path, forwards: Sequence[Forward], tell: Callable[[str], None]) -> None:
    """Listen for all of `forwards`, say so, and carry connections to the machine with the directory `path` until
    cancelled. `tell` is called with a line for each port, and for each connection that the guest refused. UmlError if a
    port cannot be had."""
    with ExitStack() as stack:
        listening: list[tuple[socket.socket, Forward]] = []
        for forward in forwards:
            found = stack.enter_context(tcp_listeners(forward.address, forward.port))
            listening += [(listener, forward) for listener in found]
            tell(f"{forward.address} port {found[0].getsockname()[1]} leads to {path.name} {forward.target}")
        async with trio.open_nursery() as nursery:
            room = trio.Semaphore(CONNECTIONS_MAX)
            for listener, forward in listening:
                nursery.start_soon(_accept, listener, partial(_carry, path, forward.target, tell), room)


async def _accept(listener: socket.socket, carry: Callable[[int], Awaitable[None]], room: trio.Semaphore) -> None:
    accepting = trio.socket.from_stdlib_socket(listener)
    async with trio.open_nursery() as nursery:
        while True:
            await room.acquire()
            connection, _ = await accepting.accept()
            nursery.start_soon(_serve, connection, carry, room)


async def _serve(
    connection: trio.socket.SocketType, carry: Callable[[int], Awaitable[None]], room: trio.Semaphore
) -> None:
    with connection:
        await carry(connection.fileno())
    room.release()


async def _carry(path: Path, where: Target, tell: Callable[[str], None], connection: int) -> None:
    """One connection, from its descriptor to its end."""
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        async with connected(path) as channel:
            await channel.send(request(where), (connection, connection, null))
            await answer_of(channel, path)
            if (await answer_of(channel, path)).get("exit"):
                tell(f"{path.name}: the guest could not connect to {where}")
    except UmlError as error:
        tell(str(error))
    except trio.BrokenResourceError:
        tell(f"{path.name}: the machine has ended")
    finally:
        os.close(null)


def request(where: Target) -> dict[str, object]:
    """What a machine is asked, with the streams that are to be connected."""
    return {
        "do": "exec",
        "command": where.command,
        "terminal": False,
        "directory": "/",
        "environment": {},
        "user": None,
    }
