"""Who is at the other end of a Unix socket."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import trio

_CREDENTIALS: Final = struct.Struct("=iII")
"""struct ucred of unix(7)."""


class Peer(NamedTuple):
    """A process, as it was when it connected."""

    pid: int
    """0 for one that this process cannot see."""
    uid: int
    gid: int


def peer_of(connection: socket.socket | trio.socket.SocketType) -> Peer:
    """Who connected, as the host's kernel has it. OSError."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    assert isinstance(raw, bytes)
    return Peer(*_CREDENTIALS.unpack(raw))
