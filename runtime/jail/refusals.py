"""Hearing of the system calls that the filter refuses (seccomp_unotify(2)).

The process that made such a call waits until it is answered here: it then fails with EPERM.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import struct
from collections.abc import Callable
from typing import Final

import trio

from runtime.jail import seccomp

HEARD_MAX: Final = 1000
"""Refusals of one kernel that are told apart: after that it is answered by the host's kernel alone (ENOSYS)."""

_RECEIVE: Final = 0xC0502100
_ANSWER: Final = 0xC0182101
_NOTIFICATION: Final = struct.Struct("=QIIiIQ6Q")
"""struct seccomp_notif: id, process, flags, number, architecture, instruction, arguments."""
_RESPONSE: Final = struct.Struct("=QqiI")
"""struct seccomp_notif_resp: id, value, error, flags."""


async def hear(listener: int, refused: Callable[[str], None]) -> None:
    """Answer on the descriptor `listener` until no process is left that it is for, and close it; `refused` is called
    with the name of each system call."""
    try:
        for _ in range(HEARD_MAX):
            await trio.lowlevel.wait_readable(listener)
            if not _has_one(listener):
                return
            name = _answer(listener)
            if name:
                refused(name)
    finally:
        trio.lowlevel.notify_closing(listener)
        os.close(listener)


def _has_one(listener: int) -> bool:
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    return any(events & select.POLLIN for _, events in poll.poll(0))


def _answer(listener: int) -> str:
    """Refuse the next one; its name, or nothing if who made it is gone."""
    notification = bytearray(_NOTIFICATION.size)
    try:
        fcntl.ioctl(listener, _RECEIVE, notification)
        found = _NOTIFICATION.unpack(notification)
        fcntl.ioctl(listener, _ANSWER, _RESPONSE.pack(found[0], 0, -errno.EPERM, 0))
    except OSError:
        return ""
    return _name(found[3], found[4])


def _name(number: int, architecture: int) -> str:
    if architecture != seccomp.AUDIT_ARCH:
        return f"number {number} of another architecture"
    from runtime.jail import syscall_names  # most kernels are refused none

    return syscall_names.name(number)
