"""tar archives in, compressed or not: as a stream, so that a pipe will do, with memory for one member at a time."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final, cast

import trio

from humfs.compression import Forward, damage_explained, decompressed
from humfs.importer import Importer, Member
from humfs.losses import Losses
from humfs.tarheader import BLOCK, is_header
from humfs.tarreader import Reader

_BUFFER: Final = 1 << 20
_PAUSE: Final = 200
"""After so many members other tasks get a turn."""


@contextlib.contextmanager
def plain(stream: BinaryIO) -> Iterator[BinaryIO]:
    """The stream without its compression, if it has any; an uncompressed file as it is. DamagedError."""
    if _is_plain_file(stream):
        yield stream
        return
    with damage_explained(), decompressed(Forward(stream)) as source:
        yield cast(BinaryIO, source)
        while source.read(_BUFFER):  # to the checksum; and whoever writes to a pipe is not cut off
            pass


@contextlib.contextmanager
def opened(stream: BinaryIO, losses: Losses | None = None) -> Iterator[Reader]:
    """The archive in a stream, compressed or not. DamagedError if it is none."""
    with damage_explained(), plain(stream) as source:
        yield Reader(source, losses)


def _is_plain_file(stream: BinaryIO) -> bool:
    """An uncompressed archive in a regular file, of which contents can be copied by the kernel."""
    try:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            return False
    except (OSError, AttributeError):
        return False
    start = stream.tell()
    block = stream.read(BLOCK)
    stream.seek(start)
    return is_header(block) or not block.strip(b"\0")


async def add_tar(importer: Importer, stream: BinaryIO, progress: Callable[[int], None] = lambda count: None) -> int:
    """Put everything in a tar archive (compressed or not) into the importer's filesystem; returns how much that was.

    `progress` is told the number of members so far. UmlError for what is no archive, or does not fit.
    """
    count = 0
    with opened(stream, importer.losses) as archive:
        for member in archive:
            await add_member(importer, member)
            count += 1
            if not count % _PAUSE:
                progress(count)
                await trio.lowlevel.checkpoint()
        if not archive.is_complete:
            importer.warn("the archive has no end mark: it may have been cut off")
    return count


async def add_member(importer: Importer, member: Member) -> int:
    """Put one member in; returns its inode number, 0 for a further name of one."""
    if member.link is not None:
        await importer.link(member.path, member.link)
        return 0
    return await importer.add(member)
