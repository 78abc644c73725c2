"""Changing how a mount of ours is mounted, as `mount -o remount` asks for: the kernel does it, the server goes on."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable
from typing import Final

from runtime.mounts.table import find
from umlfs.errors import UmlError

REMOUNT: Final = "remount"
_MS_REMOUNT: Final = 0x20
_FLAGS: Final = {
    "ro": 0x1,
    "nosuid": 0x2,
    "nodev": 0x4,
    "noexec": 0x8,
    "sync": 0x10,
    "dirsync": 0x80,
    "noatime": 0x400,
    "nodiratime": 0x800,
    "relatime": 0x200000,
    "strictatime": 0x1000000,
}
_OPPOSITES: Final = {
    "rw": "ro",
    "suid": "nosuid",
    "dev": "nodev",
    "exec": "noexec",
    "async": "sync",
    "atime": "noatime",
}


def flags(words: Iterable[str]) -> int:
    """The flags of mount(2) for words of `-o`, of which the last counts. What is no flag is the source's, and stays."""
    found: set[str] = set()
    for word in words:
        if word in _FLAGS:
            found.add(word)
        found.discard(_OPPOSITES.get(word, ""))
    return sum(_FLAGS[word] for word in found)


def remount(mountpoint: str, words: Iterable[str]) -> None:
    """Give the mount at `mountpoint` the flags in `words`. UmlError if nothing of ours is there, if the kernel refuses,
    or if it is to become writable and its source was opened for reading only."""
    words = list(words)
    mount = find(mountpoint)
    if mount is None:
        raise UmlError(f"{mountpoint}: nothing of ours is mounted there", "'uml mount' lists what is")
    if not flags(words) & _FLAGS["ro"] and _is_read_only(mountpoint):
        raise UmlError(f"{mountpoint}: its source was opened for reading only", "unmount it, and mount it anew with rw")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(None, os.fsencode(mount.path), None, ctypes.c_ulong(_MS_REMOUNT | flags(words)), None):
        number = ctypes.get_errno()
        busy = "something is open for writing there" if number == errno.EBUSY else "only root may do that"
        raise UmlError(f"{mount.path}: cannot be remounted: {os.strerror(number)}", busy)


def _is_read_only(mountpoint: str) -> bool:
    """Whether the server took it to be read only."""
    mount = find(mountpoint)
    assert mount is not None
    try:
        return mount.status().read_only
    except OSError as error:
        raise UmlError(f"{mountpoint}: the mount does not answer: {error.strerror}") from None
