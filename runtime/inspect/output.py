"""Contents to a descriptor of this process."""

from __future__ import annotations

import errno
import os

import trio

from runtime.inspect.contents import UNTOLD, close_file, each_piece, open_file
from runtime.inspect.paths import failure, resolve
from runtime.tty import stdout
from umlfs.filesystem import Filesystem


async def cat(filesystem: Filesystem, path: bytes, descriptor: int) -> None:
    """Write the contents of the file at `path` to `descriptor`. OSError."""
    node = await resolve(filesystem, path)
    if not node.is_file:
        raise failure(errno.EISDIR if node.is_directory else errno.EINVAL, path)
    handle = await open_file(filesystem, node)
    end = node.attr.size or UNTOLD
    try:
        await each_piece(filesystem, node, handle, lambda _, data: write_all(descriptor, data), 0, end)
    finally:
        await close_file(filesystem, node, handle)


async def write_all(descriptor: int, data: memoryview) -> None:
    """Write all of `data`, waiting in a thread. OSError, which names standard output where that is it."""
    while data:
        try:
            data = data[await trio.to_thread.run_sync(os.write, descriptor, data) :]
        except OSError as error:
            if descriptor == 1:
                error.filename = stdout.NAME
            raise
