"""Tap devices of the host: the ioctls of /dev/net/tun (Documentation/networking/tuntap.rst of the kernel)."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path
from typing import Final

CLONE: Final = Path("/dev/net/tun")
NAME_MAX: Final = 15
_TUNSETIFF: Final = 0x400454CA
_TUNSETPERSIST: Final = 0x400454CB
_TUNSETOWNER: Final = 0x400454CC
_TUNSETGROUP: Final = 0x400454CE
_TAP: Final = 0x0002
_NO_PI: Final = 0x1000
_REQUEST: Final = struct.Struct("16sH22x")


def open_tap(name: str = "", clone: Path = CLONE) -> tuple[int, str]:
    """A descriptor of the tap device `name`, made if need be, and what it is called: without a name the kernel chooses
    one. It carries bare frames. OSError; ValueError for what is no name."""
    data = os.fsencode(name)
    if len(data) > NAME_MAX or b"/" in data:
        raise ValueError(f"{name!r} is not the name of a device")
    fd = os.open(clone, os.O_RDWR | os.O_CLOEXEC)
    try:
        answer = fcntl.ioctl(fd, _TUNSETIFF, _REQUEST.pack(data, _TAP | _NO_PI))
    except BaseException:
        os.close(fd)
        raise
    return fd, os.fsdecode(_REQUEST.unpack(answer)[0].partition(b"\0")[0])


def set_owner(fd: int, uid: int) -> None:
    """Let a user open the device."""
    fcntl.ioctl(fd, _TUNSETOWNER, uid)


def set_group(fd: int, gid: int) -> None:
    """Let the members of a group open the device."""
    fcntl.ioctl(fd, _TUNSETGROUP, gid)


def set_persistent(fd: int, stays: bool) -> None:
    """Whether the device stays when nobody has it open."""
    fcntl.ioctl(fd, _TUNSETPERSIST, int(stays))
