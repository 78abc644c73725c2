"""FUSE requests as bytes, as the one who asks writes them. No sockets.

The layouts are those of `umlfs.wire.fuse`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final

from umlfs.filesystem import NOW, Caller, SetAttr
from umlfs.wire import fuse as wire
from umlfs.wire.fuse import Opcode

MOUNT: Final = 65537
"""A request that FUSE has not: mount a disk (see `runtime/appliance/filer.c`)."""
MOUNT_IN: Final = struct.Struct("<I")
MOUNT_WRITABLE: Final = 1
PACK: Final = 65538
"""Another: an archive of all below a node follows the last answer."""
CONTENTS_MAX: Final = 1 << 20
"""The most bytes that one READ asks for or one WRITE carries."""


def request(opcode: int, unique: int, node: int, parts: Sequence[bytes | memoryview], caller: Caller | None) -> bytes:
    """The header of a request whose body is `parts`."""
    who = caller or Caller()
    length = wire.IN_HEADER.size + sum(map(len, parts))
    return wire.IN_HEADER.pack(length, opcode, unique, node, who.uid, who.gid, who.pid, 0, 0)


def init() -> bytes:
    """INIT: nothing is offered; what the other side needs to know is the version."""
    return wire.INIT_IN.pack(wire.MAJOR, wire.MINOR, CONTENTS_MAX, 0) + bytes(48)


def mount(device: str, kind: str, options: str, *, writable: bool) -> bytes:
    """MOUNT, a request of our own."""
    words = "".join(f"{word}\0" for word in (device, kind, options))
    return MOUNT_IN.pack(MOUNT_WRITABLE if writable else 0) + words.encode()


def strings(*texts: bytes) -> bytes:
    """Each with a NUL after it."""
    return b"".join(text + b"\0" for text in texts)


def forgets(counts: Iterable[tuple[int, int]]) -> bytes:
    """BATCH_FORGET of pairs of node and count."""
    rows = [wire.FORGET_ONE.pack(*pair) for pair in counts]
    return wire.BATCH_FORGET_IN.pack(len(rows), 0) + b"".join(rows)


def setattr_body(changes: SetAttr, handle: int) -> bytes:
    """SETATTR; a `handle` of 0 is none."""
    given = {
        wire.FATTR_MODE: changes.mode is not None,
        wire.FATTR_UID: changes.uid is not None,
        wire.FATTR_GID: changes.gid is not None,
        wire.FATTR_SIZE: changes.size is not None,
        wire.FATTR_ATIME: changes.atime_ns is not None,
        wire.FATTR_MTIME: changes.mtime_ns is not None,
        wire.FATTR_CTIME: changes.ctime_ns is not None,
        wire.FATTR_ATIME_NOW: changes.atime_ns == NOW,
        wire.FATTR_MTIME_NOW: changes.mtime_ns == NOW,
        wire.FATTR_FH: bool(handle),
        wire.FATTR_KILL_SUIDGID: changes.kill_set_id,
    }
    valid = sum(bit for bit, is_given in given.items() if is_given)
    times = [_time(each) for each in (changes.atime_ns, changes.mtime_ns, changes.ctime_ns)]
    seconds, nanoseconds = [time[0] for time in times], [time[1] for time in times]
    owner = (changes.uid or 0, changes.gid or 0)
    size = changes.size or 0
    return wire.SETATTR_IN.pack(valid, 0, handle, size, 0, *seconds, *nanoseconds, changes.mode or 0, 0, *owner, 0)


def _time(nanoseconds: int | None) -> tuple[int, int]:
    return (0, 0) if nanoseconds is None or nanoseconds == NOW else divmod(nanoseconds, wire.SECOND)


def read(handle: int, offset: int, size: int) -> bytes:
    """READ, READDIR and READDIRPLUS."""
    return wire.READ_IN.pack(handle, offset, size, 0, 0, 0, 0)


def write(handle: int, offset: int, size: int, *, kill_set_id: bool) -> bytes:
    """WRITE; the contents follow."""
    return wire.WRITE_IN.pack(handle, offset, size, wire.WRITE_KILL_SUIDGID if kill_set_id else 0, 0, 0, 0)


def mknod(mode: int, rdev: int, umask: int) -> bytes:
    """MKNOD; the name follows."""
    return wire.MKNOD_IN.pack(mode, wire.device_out(rdev), umask, 0)


def rename(new_parent: int, flags: int) -> tuple[int, bytes]:
    """RENAME or, with `flags`, RENAME2: the opcode, and what the two names follow."""
    if flags:
        return Opcode.RENAME2, wire.RENAME2_IN.pack(new_parent, flags, 0)
    return Opcode.RENAME, wire.RENAME_IN.pack(new_parent)
