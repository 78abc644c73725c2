"""One command, done in the place of the process that handed it over."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from io import TextIOWrapper
from typing import Final, TextIO

from runtime.host.peer_credentials import peer_of
from runtime.standby import circumstances, finding, request_wire
from runtime.standby.circumstances import Standing
from runtime.standby.client import GO, TAKEN
from runtime.standby.loaded import Files, unchanged
from runtime.tty.stdout import named

REQUEST_SECONDS: Final = 10.0
"""How long a client may take to say what it wants."""
_STREAMS: Final = 4
"""Descriptors that come with a request: the standard ones and the current directory."""
_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, slots=True)
class Commands:
    """What a standby does."""

    suits: Callable[[list[str]], bool]
    """Whether it is for a standby to do `uml ARGUMENTS`."""
    invoke: Callable[[list[str]], int]
    """Does it; returns the exit status."""
    modules: tuple[str, ...] = ()
    """Those to be imported at once."""


@dataclass(frozen=True, slots=True)
class Invocation:
    pid: int
    """Of the client."""
    identity: str
    umask: int
    arguments: list[str]
    environment: dict[bytes, bytes]
    descriptors: list[int]


def work(connection: socket.socket, commands: Commands, files: Files, parent: int) -> int:
    """Do what the client at the other end asks, if that is to be done here; returns the exit status.

    For a process of its own, forked from `parent`, of which nothing is left as it was. It does not outlive that.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        return 1
    try:
        request = receive(connection)
        if not (unchanged(files) and take_place(request) and commands.suits(request.arguments)):
            return 1
    except (OSError, ValueError, EOFError, struct.error):
        return 1
    take_streams(request.descriptors)
    return _status(commands.invoke, request.arguments) if agreed(connection) else 1


def agreed(connection: socket.socket) -> bool:
    """Tell the client that this is going to do it; False if it is gone."""
    worker = os.pidfd_open(os.getpid())
    try:
        socket.send_fds(connection, [TAKEN], [worker])
        return connection.recv(len(GO)) == GO
    except OSError:
        return False
    finally:
        os.close(worker)


def receive(connection: socket.socket) -> Invocation:
    """The request. EOFError, ValueError, OSError."""
    connection.settimeout(REQUEST_SECONDS)
    client = peer_of(connection)
    if client.uid != os.geteuid() or not client.pid:
        raise request_wire.Malformed("somebody else's")
    data, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, _STREAMS)
    try:
        if len(descriptors) != _STREAMS:
            raise request_wire.Malformed("no descriptors")
        return Invocation(client.pid, *_content(connection, data), descriptors)
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise


def _content(connection: socket.socket, data: bytes) -> tuple[str, int, list[str], dict[bytes, bytes]]:
    """What a request says that begins with `data`."""
    size = request_wire.LENGTH_SIZE + request_wire.length(data[: request_wire.LENGTH_SIZE])
    pieces = bytearray(data)
    while len(pieces) < size:
        piece = connection.recv(1 << 16)
        if not piece:
            raise EOFError
        pieces += piece
    return request_wire.decode(bytes(pieces[request_wire.LENGTH_SIZE :]))


def take_place(request: Invocation) -> bool:
    """Be in the client's place; False if that cannot be. OSError, ValueError."""
    if request.identity != finding.identity() or Standing.of(request.pid) != Standing.of("self"):
        return False
    if not circumstances.take_over_environment(request.environment):
        return False
    circumstances.take_over(request.pid)
    os.umask(request.umask)
    os.fchdir(request.descriptors[-1])
    return True


def take_streams(descriptors: list[int]) -> None:
    for number, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, number)
    for descriptor in descriptors:
        os.close(descriptor)
    # As the interpreter makes them when it starts.
    sys.stdin = _stream(0, "rb", sys.stdin)
    sys.stdout = named(sys.stdout)
    sys.stderr = _stream(2, "wb", sys.stderr, lines=True)


def _stream(number: int, mode: str, like: TextIO | None, *, lines: bool = False) -> TextIO:
    newline = "\n" if number else None
    encoding, errors = (like.encoding, like.errors) if like else (None, None)  # None: the standby was started without
    return TextIOWrapper(os.fdopen(number, mode, closefd=False), encoding, errors, newline, lines)


def _status(invoke: Callable[[list[str]], int], arguments: list[str]) -> int:
    try:
        return invoke(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
