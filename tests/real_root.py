"""Root in a chroot: the kernel lets nobody there make a user namespace, as tests do. In a mount namespace of their own
the chroot's directory becomes what `/` is on any host."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

CLONE_NEWNS: Final = 0x00020000
MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 0x1000, 0x4000, 0x40000, 2
PIVOT_ROOT: Final = 155
"""The system call, on x86_64."""


def enter() -> None:
    """Of this process, which has one thread, and all that it starts. Nothing where that is so already, or for users
    other than root. OSError."""
    if os.geteuid() or not _in_chroot():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    here = os.getcwd()
    _check(libc.unshare(CLONE_NEWNS))
    chroot, own = os.open("/", os.O_PATH), os.open("/proc/self/ns/mnt", os.O_RDONLY)
    _check(libc.setns(own, CLONE_NEWNS))  # `/` is now that of the namespace
    _check(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))
    os.fchdir(chroot)
    os.chroot(".")
    _check(libc.mount(b"/", b"/", None, MS_BIND | MS_REC, None))
    mounted = os.open("/..", os.O_PATH)  # what lies over `/`
    _check(libc.setns(own, CLONE_NEWNS))
    os.fchdir(mounted)
    _check(libc.syscall(PIVOT_ROOT, b".", b"."))
    _check(libc.umount2(b".", MNT_DETACH))
    for fd in (chroot, own, mounted):
        os.close(fd)
    os.chdir(here)


def _in_chroot() -> bool:
    """Whether no mount is at `/`."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return all(line.split()[4] != "/" for line in lines)


def _check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), "a root of its own cannot be made")
