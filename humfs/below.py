"""Directories below a descriptor, reached one name at a time: no symlink leads elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_below(root: int, path: bytes, permit: Callable[[int, bytes], None] | None = None) -> int:
    """A descriptor of the directory at `path` below `root`, for listing; an empty path is `root` itself.

    `permit` is given a directory's descriptor and the name of one in it that we may not open, before that is tried
    again. OSError.
    """
    fd = os.open(".", OPEN, dir_fd=root)
    for part in path.split(b"/") if path else ():
        try:
            below = _open(part, fd, permit)
        finally:
            os.close(fd)
        fd = below
    return fd


def _open(name: bytes, fd: int, permit: Callable[[int, bytes], None] | None) -> int:
    try:
        return os.open(name, OPEN, dir_fd=fd)
    except PermissionError:
        if permit is None:
            raise
    permit(fd, name)
    return os.open(name, OPEN, dir_fd=fd)
