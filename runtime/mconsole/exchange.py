"""One request and its reply on a socket of its own, without waiting: whoever uses it waits as they like.

The socket is new for each request, so that a late answer to an earlier one finds nobody. Its name is abstract: no
file is left. Everybody on the host may send to such a name, so answers count only from those who can be the machine.

The kernel does not wait for a full queue, and a queue is full with eleven datagrams: an answer of many pieces loses
its end, even with a C program that does nothing but read. But there is no such limit for a socket that is connected
to the one that sends. So the socket is connected where the kernel prints its answer, line by line.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from runtime.mconsole.datagrams import PATH_MAX, new_socket, reachable, receive
from runtime.mconsole.wire import TEXT_MAX, encode_request
from umlfs.errors import UmlError, UsageError

ANSWER_SECONDS: Final = 10.0
"""How long a machine may be silent. It takes a millisecond; on a busy host with many guests a second or two."""

FULL_SECONDS: Final = 0.01
"""How long to wait before sending again where the machine's queue is full: nothing tells when it is not."""

LIVELY_SECONDS: Final = 200e-6
"""How long a loop may be held to wait for an answer: a kernel with nothing else to do takes half of it. Going to sleep
in the loop and being woken again takes longer."""

SELECT_MAX: Final = 1024
"""select(2) takes descriptors below this. Of the waiting calls it is the one with a timeout in microseconds."""

STRANGERS_MAX: Final = 1000
"""How many datagrams of strangers are passed over before we have waited long enough."""

_PRINTED: Final = ("sysrq", "stack", "proc")
"""Requests with an answer of many pieces."""


class Exchange:
    """A request on its way to the socket at `path`. A context manager.

    Entering raises UsageError for a request that is too long, UmlError if there is no such socket.
    """

    def __init__(self, path: Path, text: str, replies: Path | None = None) -> None:
        """`replies` is the directory that the answer's socket has to lie in; a kernel in a jail sees no other."""
        self.path = path
        self._text = text
        self._replies = replies
        self._bound: Path | None = None
        self._stack: contextlib.ExitStack | None = None

    def __enter__(self) -> Self:
        try:
            self._datagram = encode_request(self._text)
        except ValueError as error:
            raise UsageError(str(error), f"shorten it; 'log' alone splits what is over {TEXT_MAX}") from None
        self.socket = new_socket()
        try:
            self._address = self._reach()
            owner = os.stat(self._address)
            self._trusted = (os.geteuid(), 0, owner.st_uid)
            self._bind(owner)
            if self._text.startswith(_PRINTED):
                self.socket.connect(self._address)
        except OSError as error:
            self._close()
            raise explained(self.path, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _reach(self) -> str:
        """The machine's address."""
        name = os.fspath(self.path)
        if len(os.fsencode(name)) <= PATH_MAX:
            return name
        self._stack = contextlib.ExitStack()
        return self._stack.enter_context(reachable(self.path))

    def _bind(self, owner: os.stat_result) -> None:
        """Have a name that the machine, whose socket has this owner, can answer to."""
        if self._replies is None:
            self.socket.bind("")
            return
        self._bound = self._replies / f"reply-{os.urandom(6).hex()}"
        self.socket.bind(os.fspath(self._bound))
        os.chmod(self._bound, 0o600)
        if owner.st_uid != os.geteuid():
            os.chown(self._bound, owner.st_uid, owner.st_gid)

    def _close(self) -> None:
        self.socket.close()
        if self._bound is not None:
            with contextlib.suppress(FileNotFoundError):
                self._bound.unlink()
        if self._stack is not None:
            self._stack.close()

    def send(self) -> bool:
        """Send the request; False if the machine's queue is full just now. UmlError if it will not be taken."""
        try:
            self.socket.sendto(self._datagram, socket.MSG_DONTWAIT, self._address)
        except BlockingIOError:
            return False
        except OSError as error:
            raise explained(self.path, error) from error
        return True

    def receive(self) -> bytes | None:
        """The next datagram of the answer; None if there is none yet (wait until `socket` is readable)."""
        for _ in range(STRANGERS_MAX):
            try:
                found = receive(self.socket)
            except BlockingIOError:
                return None
            if found.uid in self._trusted:
                return found.data
        return None

    def await_lively(self) -> None:
        """Wait for an answer, but no longer than a lively machine needs."""
        if self.socket.fileno() < SELECT_MAX:
            select.select([self.socket], [], [], LIVELY_SECONDS)

    def block(self, seconds: float) -> None:
        """From now on `receive` waits up to so long for each datagram that comes: one system call, and no other."""
        self.socket.setblocking(True)
        whole = int(seconds)
        limit = struct.pack("ll", whole, max(1, int((seconds - whole) * 1e6)))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)


_REASONS: Final = {
    errno.ENOENT: ("no such machine", "'uml ps' lists those that run"),
    errno.ENOTDIR: ("no such machine", "'uml ps' lists those that run"),
    errno.ECONNREFUSED: ("nobody answers there any more", "the machine is gone; boot it again"),
    errno.ENOTSOCK: ("not a socket", "name a machine, or its socket 'mconsole'"),
    errno.EPROTOTYPE: ("not the socket of a management console", "name a machine, or its socket 'mconsole'"),
    errno.EACCES: ("the machine is another user's", "ask as that user"),
    errno.EPERM: ("the machine is another user's", "ask as that user"),
}


def explained(path: Path, error: OSError) -> UmlError:
    """What `error` means when it comes from the socket at `path`."""
    what, way_out = _REASONS.get(error.errno or 0, (error.strerror or str(error), None))
    return UmlError(f"{path}: {what}", way_out)


def silence(path: Path, seconds: float, begun: str = "") -> UmlError:
    """What to raise when no answer came for so long, or nothing more of one that has `begun`."""
    what = "the rest of the answer did not come" if begun else "no answer"
    return UmlError(
        f"{path}: {what} within {seconds:g} s",
        "the guest may hang; --timeout S waits longer",
        details=begun.rstrip("\n"),
    )


def nonsense(path: Path, why: Exception) -> UmlError:
    """What to raise when the answer is none."""
    return UmlError(f"{path}: {why}", "this is not the management console of a machine")
