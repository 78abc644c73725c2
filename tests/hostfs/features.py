"""What a host directory can do, by the user we run as and the filesystem it is on."""

from __future__ import annotations

import os
from pathlib import Path

from tests.contract.filesystem import Features
from umlfs.filesystem import Caller
from umlfs.host.syscalls import filesystem_type

_TMPFS = 0x0102_1994


def features_of(directory: Path) -> Features:
    """The features of a HostFilesystem on `directory`."""
    root = os.geteuid() == 0
    fd = os.open(directory, os.O_PATH)
    try:
        tmpfs = filesystem_type(fd) == _TMPFS
    finally:
        os.close(fd)
    return Features(
        owners=root,
        devices=root,
        zero_range=not tmpfs,
        xattrs=b"trusted." if tmpfs and root else None if tmpfs else b"user.",
        caller=Caller(1000, 1000, 1) if root else Caller(os.geteuid(), os.getegid(), 1),
    )
