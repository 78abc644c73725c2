"""`HumFilesystem`: a guest's filesystem with true ownership, in plain files of one host user."""

from __future__ import annotations

from pathlib import Path

from humfs.attributes import Attributes
from humfs.names import Names
from humfs.volume import Progress, Volume


class HumFilesystem(Names, Attributes):
    """A humfs directory, served to one consumer.

    It is exclusively ours while open, so the consumer may cache everything for ever. Permissions are the consumer's
    to check. `open`, `opendir` and `flush` answer ENOSYS: nothing is kept for an open file but what its inode has.

    Durability: `fsync` and `fsyncdir` make everything durable that was changed before them, names and metadata of
    all files included; without them rows are so after some five seconds, names and contents whenever the host writes
    them, and the next open after a power cut compares all of it. A killed server loses nothing that
    it answered, but the last times and sizes that it had not written down.
    """


def _quiet(count: int) -> None:
    pass


def open_filesystem(
    root: Path, *, read_only: bool = False, atime: str = "relatime", progress: Progress = _quiet
) -> HumFilesystem:
    """Open the humfs directory `root`. Waits for the disk; after a crash it compares the whole tree first.

    UmlError if it is none, is in use, or cannot be written to.
    """
    return HumFilesystem(Volume(root, progress=progress), read_only=read_only, atime=atime)
