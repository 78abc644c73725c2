"""What can be read of a file without waiting for a disk, and what is written sooner than a thread would begin."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Final

from umlfs.blocks.sparse import IOV_MAX

INLINE_WRITE: Final = 64 * 1024
"""A write up to this many bytes ends in the host's page cache sooner than in a thread."""

_NOT_NOW: Final = (errno.EAGAIN, errno.EOPNOTSUPP)


def read_now(fd: int, buffers: Sequence[memoryview], offset: int, flags: int = os.RWF_NOWAIT) -> int | None:
    """Fill `buffers` in turn with what the page cache has from `offset`; returns the bytes read, which may be fewer
    than there are. None if none can be had so: the rest is a thread's (`sparse.read_into`). OSError.

    `flags` 0 is for files that lie in memory, on filesystems that do not know RWF_NOWAIT.
    """
    if len(buffers) > IOV_MAX:
        return None
    try:
        return os.preadv(fd, buffers, offset, flags)
    except OSError as error:
        if error.errno not in _NOT_NOW:
            raise
        return None
