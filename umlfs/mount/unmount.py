"""Ending a mount: what pyfuse3 has no call for."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
from typing import Final

from umlfs.errors import UmlError
from umlfs.host.programs import run_program

HELPER: Final = "fusermount3"
"""What mounts and unmounts for ordinary users."""
INSTALL_HELPER: Final = "'apt-get install fuse3' as root installs it"

_MNT_DETACH: Final = 2
_UMOUNT_NOFOLLOW: Final = 8

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def flush(mountpoint: str) -> None:
    """What was written through the mount, by mappings too, is with its server on return. Blocks. OSError."""
    fd = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _checked(_libc.syncfs(fd))
    finally:
        os.close(fd)


def unmount(mountpoint: str, *, lazy: bool = False) -> None:
    """Take the mount away, if need be with fusermount3's help. Blocks.

    `lazy` takes it away at once even if it is in use, or dead. OSError: EBUSY if it is in use, EINVAL if nothing is
    mounted there. UmlError if there is no fusermount3.
    """
    flags = _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazy else 0)
    try:
        _checked(_libc.umount2(os.fsencode(mountpoint), flags))
    except PermissionError:
        _unmount_as_user(mountpoint, lazy)


def _unmount_as_user(mountpoint: str, lazy: bool) -> None:
    program = shutil.which(HELPER)
    if program is None:
        raise UmlError(f"{mountpoint}: ordinary users unmount with {HELPER}, which is not there", INSTALL_HELPER)
    done = run_program(
        [program, "-u", *(["-z"] if lazy else []), "--", mountpoint],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C"},
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        code = errno.EBUSY if "busy" in said else errno.EINVAL
        raise OSError(code, said or os.strerror(code))
