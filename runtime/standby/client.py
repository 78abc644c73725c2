"""The caller's side: a command handed over to a standby. Imports next to nothing.

The modules in C below `signal` and `socket` do: those in Python, with enum, selectors and collections, take as long to
import as an interpreter to start.
"""

from __future__ import annotations

import _socket as socket
import os
import sys

from runtime.standby import finding, request_wire

TYPE_CHECKING = False  # as in typing, which takes long to import
if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator
else:
    import _signal as signal

TAKEN = b"+"
"""What a standby answers first if it does the command; a descriptor of the process that does comes with it."""
GO = b"!"
"""What it waits for then: from now on signals are passed on."""
STATUS_MAX = 32
_NUMBER = 4
"""Bytes of a descriptor's number."""
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGWINCH)


def hand_over(arguments: list[str]) -> int | None:
    """Have a standby do `uml ARGUMENTS` with this process's standard descriptors, and all else that it has.

    The exit status; None if none takes it, and nothing was done. Passes signals on, and ends by the signal by which
    the command ended.
    """
    suffix = _suffix(arguments)
    if suffix is None:
        return None
    try:
        for connection in _connections(suffix):
            try:
                worker = _asked(connection, arguments)
                if worker is not None:
                    return _follow(connection, worker)
            finally:
                connection.close()
    except OSError:
        return None  # as if there were none
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return None


def _suffix(arguments: list[str]) -> str | None:
    """How the sockets end of those who may do `uml ARGUMENTS`; None if nobody may."""
    if not arguments:
        return None
    if arguments[0] == "run":
        return None if _is_in_background() else finding.warm_suffix()
    return finding.suffix() if arguments[0] in finding.COMMANDS else None


def _is_in_background() -> bool:
    """Whether this is a job in a shell's background, which is stopped if it asks anything of the terminal."""
    try:
        return os.tcgetpgrp(0) != os.getpgrp()
    except OSError:
        return False


def _connections(suffix: str) -> Iterator[socket.socket]:
    """Connections to those that listen at sockets of such names, one after the other; the caller's to close."""
    directory = finding.directory()
    if not finding.is_ours(directory):
        return
    for name in os.listdir(directory):
        if name.endswith(suffix):
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.connect(os.path.join(directory, name))
            except OSError:
                connection.close()
            else:
                yield connection


def _asked(connection: socket.socket, arguments: list[str]) -> int | None:
    """A descriptor of the process that does it; None if it is refused, or that process is gone."""
    umask = os.umask(0)
    os.umask(umask)
    request = request_wire.encode(finding.identity(), umask, arguments, dict(os.environb))
    place = os.open(".", os.O_PATH | os.O_DIRECTORY)
    try:
        numbers = b"".join(number.to_bytes(_NUMBER, sys.byteorder) for number in (0, 1, 2, place))
        sent = connection.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)])
        connection.sendall(request[sent:])
    finally:
        os.close(place)
    try:
        answer, messages, _, _ = connection.recvmsg(len(TAKEN), socket.CMSG_LEN(_NUMBER))
    except ConnectionResetError:
        return None
    found = [
        data for *kind, data in messages if kind == [socket.SOL_SOCKET, socket.SCM_RIGHTS] and len(data) >= _NUMBER
    ]
    return int.from_bytes(found[0][:_NUMBER], sys.byteorder) if answer == TAKEN and found else None


def _follow(connection: socket.socket, worker: int) -> int:
    """Wait for the end of the command."""
    _pass_on_signals(worker)
    connection.sendall(GO)
    answer = b""
    while not answer.endswith(b"\n"):
        try:
            piece = connection.recv(STATUS_MAX)
        except OSError:
            piece = b""
        if not piece:
            os.write(2, b"uml: the process that did this ended without a word; do it again\n")
            return 1
        answer += piece
    status = int(answer)
    if status < 0:
        _die(-status)
    return abs(status) + 128 * (status < 0)


def _pass_on_signals(worker: int) -> None:
    def send(number: int) -> None:
        try:  # contextlib takes as long to import as all of this to run
            signal.pidfd_send_signal(worker, number)
        except ProcessLookupError:
            return

    def pass_on(number: int, _: object) -> None:
        send(number)

    def stop(_: int, __: object) -> None:
        send(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        send(signal.SIGCONT)

    for number in _PASSED_ON:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, pass_on)
    if signal.getsignal(signal.SIGTSTP) != signal.SIG_IGN:
        signal.signal(signal.SIGTSTP, stop)


def _die(number: int) -> None:
    """End by the same signal, so that the caller's shell sees what it would have seen."""
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
