"""Copying a COW file that is in use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager

from umlfs.blocks import sparse
from umlfs.blocks.raw import open_file
from umlfs.host.newfile import new_file


@contextmanager
def snapshot(cow: str, target: str) -> Iterator[None]:
    """Copy the COW file at `cow` to a new file, shared (reflink) where the filesystem can, with its holes.

    The context begins when all is copied; at its end the copy is durable and appears as `target`. What was flushed
    before is in it. What is being written meanwhile may be or not, as after a power cut: bitmap and data are copied in
    this order, so that no bit stands for data that was not there yet. FileExistsError, OSError.
    """
    with closing(open_file(cow, read_only=True, lock=False)) as file:
        source = file.fileno()
        found = os.fstat(source)
        with new_file(target, found.st_mode & 0o7777) as fd:
            os.ftruncate(fd, found.st_size)
            sparse.copy_data(source, fd, 0, 0, found.st_size)
            yield
