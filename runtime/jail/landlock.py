"""What the running host's Landlock can refuse, and the rights that its rules speak of (landlock(7))."""

from __future__ import annotations

import ctypes
import errno
from enum import IntFlag
from functools import cache
from typing import Final, NamedTuple

_CREATE_RULESET: Final = 444
_ABI_VERSION: Final = 1


class Access(IntFlag):
    """Rights to files, as bits of the system call."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


OF_FILES: Final = Access.EXECUTE | Access.WRITE_FILE | Access.READ_FILE | Access.TRUNCATE | Access.IOCTL_DEV
"""The rights that a rule for a file, and not a directory, may have."""

_FILES_SINCE: Final = {1: (1 << 13) - 1, 2: Access.REFER, 3: Access.TRUNCATE, 5: Access.IOCTL_DEV}
_NETWORK_SINCE: Final = {4: 0b11}
"""Binding and connecting TCP."""
_SCOPES_SINCE: Final = {6: 0b11}
"""Abstract Unix sockets, and signals."""
_SIZES: Final = {1: 8, 4: 16, 6: 24}
"""Of the attributes, in bytes."""


class Features(NamedTuple):
    """What one version of Landlock refuses where no rule allows it."""

    abi: int
    """0 for a host without Landlock."""

    @property
    def files(self) -> Access:
        return Access(_sum(_FILES_SINCE, self.abi))

    @property
    def network(self) -> int:
        return _sum(_NETWORK_SINCE, self.abi)

    @property
    def scopes(self) -> int:
        return _sum(_SCOPES_SINCE, self.abi)

    @property
    def size(self) -> int:
        """Of the system call's attributes."""
        return max((size for abi, size in _SIZES.items() if abi <= self.abi), default=0)

    @property
    def lacks(self) -> list[str]:
        """What a newer version would refuse besides, for a person."""
        newer = {3: "truncation", 4: "TCP", 5: "devices", 6: "abstract sockets and signals"}
        return [what for abi, what in newer.items() if abi > self.abi]


def _sum(since: dict[int, int], abi: int) -> int:
    return sum(bits for first, bits in since.items() if first <= abi)


@cache
def features() -> Features:
    """Those of this host."""
    libc = ctypes.CDLL(None, use_errno=True)
    found = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(_ABI_VERSION))
    return Features(max(found, 0))


def why_absent() -> str:
    """Why this host has none."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(_ABI_VERSION)) >= 0:
        return ""
    absent = ctypes.get_errno() == errno.ENOSYS
    return "this host's kernel was built without it" if absent else "it is switched off on this host"
