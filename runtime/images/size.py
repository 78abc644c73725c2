"""How large a filesystem must be to hold an image's files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from humfs.tarball import opened
from humfs.tools import info
from runtime.images.formats import Format, Image

BLOCK: Final = 4096
_INODE: Final = 256
_MIB: Final = 1 << 20
_LEAST: Final = 64 * _MIB
"""Room for a journal and a little more."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a tree takes."""

    blocks: int
    files: int

    @property
    def size(self) -> int:
        """Bytes of a filesystem in which it leaves a fifth free."""
        taken = self.blocks * BLOCK + self.files * _INODE
        return -(-(taken * 5 // 4 + _LEAST) // _MIB) * _MIB

    @property
    def inodes(self) -> int:
        """Files that the filesystem must have room for, with as many to spare as blocks."""
        return self.files * 5 // 4 + 64


def needs(image: Image) -> Needs:
    """What the image's files take; reads it through if it is an archive. Waits. UmlError for what is no archive."""
    if image.format is Format.TAR:
        with open(image.path, "rb") as stream:
            return _sum(_in_archive(stream))
    if image.format is Format.HUMFS:
        facts = info(image.path)
        return Needs(facts.used // BLOCK + 1, facts.names or facts.used // BLOCK)
    return _sum(_in_directory(image.path))


def _sum(sizes: Iterator[int]) -> Needs:
    blocks = files = 0
    for size in sizes:
        blocks += -(-size // BLOCK)
        files += 1
    return Needs(blocks, files)


def _in_archive(stream: BinaryIO) -> Iterator[int]:
    """The bytes of each member, as they are in the archive: of a sparse one those that are there."""
    with opened(stream) as archive:
        for member in archive:
            yield member.stored + BLOCK


def _in_directory(path: Path) -> Iterator[int]:
    for directory, names, files in os.walk(path):
        yield BLOCK * (1 + len(names + files) // 64)
        for name in files:
            found = os.lstat(os.path.join(directory, name))
            yield min(found.st_size, found.st_blocks * 512) + BLOCK if stat.S_ISREG(found.st_mode) else BLOCK
