"""inotify(7): being told what happens in a directory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from typing import Final, NamedTuple

import trio

from umlfs.host.syscalls import failure

MODIFY: Final = 0x0002
ATTRIB: Final = 0x0004
CLOSE_WRITE: Final = 0x0008
MOVED_FROM: Final = 0x0040
MOVED_TO: Final = 0x0080
CREATE: Final = 0x0100
DELETE: Final = 0x0200
DELETE_SELF: Final = 0x0400
MOVE_SELF: Final = 0x0800
UNMOUNT: Final = 0x2000
OVERFLOW: Final = 0x4000
IGNORED: Final = 0x8000
_ONLYDIR: Final = 0x0100_0000
ISDIR: Final = 0x4000_0000
"""In a mask: what happened to a name happened to a directory."""

NAMES: Final = MOVED_FROM | MOVED_TO | CREATE | DELETE
"""Events that change what is in the directory."""
WANTED: Final = MODIFY | ATTRIB | NAMES | DELETE_SELF | MOVE_SELF | _ONLYDIR
"""What is usually watched for."""

_EVENT: Final = struct.Struct("=iIII")
_ROOM: Final = 64 * 1024

_libc = ctypes.CDLL(None, use_errno=True)
_add_watch = _libc.inotify_add_watch
_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)


class Event(NamedTuple):
    """Something that happened; `name` is empty if it was to the directory itself."""

    watch: int
    mask: int
    name: bytes
    cookie: int = 0
    """The same in the two events of a rename."""


def _checked(result: int) -> int:
    if result < 0:
        raise failure(ctypes.get_errno())
    return result


class Watch:
    """An inotify instance. Nothing here blocks. `wait` and `close` are for tasks of trio."""

    def __init__(self, wanted: int = WANTED) -> None:
        """`wanted` are the events to be told of. OSError: EMFILE if the user has too many of them."""
        self._wanted = wanted
        self.fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def add(self, directory: int) -> int:
        """Watch what the descriptor `directory` is; returns the watch, the same one if there was one already.

        OSError: ENOSPC past the user's limit, EACCES for a directory that we may not read.
        """
        return _checked(_add_watch(self.fd, b"/proc/self/fd/%d" % directory, self._wanted))

    def remove(self, watch: int) -> None:
        """Watch no longer. What has happened may still be read. OSError: EINVAL if it has ended by itself."""
        _checked(_libc.inotify_rm_watch(self.fd, watch))

    def read(self) -> list[Event]:
        """What has happened since, in order; nothing if nothing has, or the watch is closed."""
        if self.fd < 0:
            return []
        try:
            data = os.read(self.fd, _ROOM)
        except BlockingIOError:
            return []
        events = []
        position = 0
        while position < len(data):
            watch, mask, cookie, length = _EVENT.unpack_from(data, position)
            start = position + _EVENT.size
            events.append(Event(watch, mask, data[start : start + length].rstrip(b"\0"), cookie))
            position = start + length
        return events

    async def wait(self, seconds: float) -> bool:
        """Wait until there is something to read, or the watch is closed; False if neither was within `seconds`."""
        if self.fd < 0:
            return True
        with trio.move_on_after(seconds) as patience, contextlib.suppress(trio.ClosedResourceError):
            await trio.lowlevel.wait_readable(self.fd)
        return not patience.cancelled_caught

    def close(self) -> None:
        """End all watches. It may be called again."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            trio.lowlevel.notify_closing(fd)
            os.close(fd)
