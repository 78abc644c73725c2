"""Listening sockets for servers: found by path or by port, and gone when the server is."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from umlfs.errors import UmlError
from umlfs.host.socket_holder import holder_of_port, holder_of_unix

BACKLOG: Final = 64


class SocketInUseError(UmlError):
    """Another server listens there."""


@contextlib.contextmanager
def unix_listener(path: str | Path) -> Iterator[socket.socket]:
    """A listening socket at `path`, only for its owner, which is removed again.

    The socket of a server that is gone is replaced. UmlError if one still listens there, if something else has
    that name, or if it cannot be made.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with listener:
        listener.setblocking(False)
        try:
            with _only_one(path):
                _remove_stale(path)
                listener.bind(os.fspath(path))
                os.chmod(path, 0o600)
                listener.listen(BACKLOG)
                ours = _identity(path)
        except OSError as error:
            reason = error.strerror or str(error)
            raise UmlError(f"{path}: cannot listen: {reason}", "choose another path for the socket") from None
        try:
            yield listener
        finally:
            # Somebody may have removed ours and put up another.
            with contextlib.suppress(FileNotFoundError), _only_one(path):
                if _identity(path) == ours:
                    os.unlink(path)


def remove_stale(path: str | Path) -> None:
    """Remove the socket at `path`, if there is one and nobody listens there any more."""
    with contextlib.suppress(OSError, UmlError), _only_one(path):
        _remove_stale(path)


@contextlib.contextmanager
def tcp_listeners(address: str, port: int) -> Iterator[list[socket.socket]]:
    """Listening sockets for each address that `address` stands for; `port` 0 is any free one.

    UmlError if none can be had.
    """
    with contextlib.ExitStack() as stack:
        try:
            found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            listeners: list[socket.socket] = []
            for family, *_, where in found:
                listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
                listener.setblocking(False)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                if listeners and not port:
                    where = (where[0], listeners[0].getsockname()[1], *where[2:])
                listener.bind(where)
                listener.listen(BACKLOG)
                listeners.append(listener)
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno == errno.EADDRINUSE:
                who = holder_of_port(port)
                raise UmlError(f"{address} port {port} is taken by {who}", "choose another port") from None
            raise UmlError(f"{address} port {port}: cannot listen: {reason}", "choose another port") from None
        yield listeners


@contextlib.contextmanager
def _only_one(path: str | Path) -> Iterator[None]:
    """Hold off others who look after sockets in the directory of `path`: none must remove what another just made."""
    directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _identity(path: str | Path) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def _remove_stale(path: str | Path) -> None:
    """Remove a socket that nobody listens on. UmlError if somebody does, or if it is none."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise UmlError(f"{path}: is there, and is not a socket", "choose another path for the socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                os.unlink(path)
                return
            if error.errno != errno.EAGAIN:
                raise
    who = holder_of_unix(path)
    raise SocketInUseError(f"{path}: in use by {who}", "end that, or choose another path for the socket")
