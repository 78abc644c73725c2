"""Datagram sockets of the host: bound for their owner alone, and told who sends."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from runtime.mconsole.wire import DATAGRAM_MAX
from umlfs.errors import UmlError
from umlfs.host.socket_holder import holder_of_unix

PATH_MAX: Final = 107
"""The most bytes of a socket's path."""

_CREDENTIALS: Final = struct.Struct("=iII")
_ROOM: Final = socket.CMSG_SPACE(_CREDENTIALS.size)
"""Room for the sender's credentials and nothing else: the kernel drops descriptors that somebody sends along."""


class Datagram(NamedTuple):
    """What came, and from whom."""

    data: bytes
    uid: int | None
    """The sender's."""
    address: str | bytes | None
    """Where an answer goes: bytes are an abstract name; None if the sender has no name."""


def new_socket() -> socket.socket:
    """A datagram socket without blocking that is told who sends."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return made


def receive(receiver: socket.socket) -> Datagram:
    """The next datagram. BlockingIOError if there is none."""
    data, ancillary, _, address = receiver.recvmsg(DATAGRAM_MAX, _ROOM, socket.MSG_CMSG_CLOEXEC)
    uid = None
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            uid = _CREDENTIALS.unpack(content)[1]
    return Datagram(data, uid, address or None)


@contextlib.contextmanager
def bound(path: Path) -> Iterator[socket.socket]:
    """A socket of `new_socket` at `path`, only for its owner, which is removed again.

    The socket of a process that is gone is replaced. UmlError if one is still in use, if something else has that
    name, if others may write to the directory, or if it cannot be made.
    """
    with new_socket() as made:
        try:
            _check_directory(path.parent)
            _remove_stale(path)
            made.bind(os.fspath(path))
            os.chmod(path, 0o600)
            ours = _identity(path)
        except OSError as error:
            raise UmlError(f"{path}: cannot be made: {error.strerror or error}") from error
        try:
            yield made
        finally:
            # Somebody may have removed ours and put up another.
            with contextlib.suppress(FileNotFoundError):
                if _identity(path) == ours:
                    os.unlink(path)


def _check_directory(path: Path) -> None:
    found = os.stat(path)
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise UmlError(f"{path}: others may put sockets there", f"chown it to yourself and `chmod 700 {path}`")


def _identity(path: Path) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def _remove_stale(path: Path) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise UmlError(f"{path}: is there, and is not a socket", "remove it, or choose another directory")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise UmlError(f"{path}: in use by {holder_of_unix(path)}", "end that first")


@contextlib.contextmanager
def reachable(path: Path) -> Iterator[str]:
    """The address of the socket at `path`: a short way to it where the path is too long for one. OSError."""
    if len(os.fsencode(path)) <= PATH_MAX:
        yield os.fspath(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        short = f"/proc/self/fd/{directory}/{path.name}"
        if len(os.fsencode(short)) > PATH_MAX:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), os.fspath(path))
        yield short
    finally:
        os.close(directory)
