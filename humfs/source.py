"""The kind of source `humfs:DIR`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import trio

from umlfs.errors import UsageError
from umlfs.filesystem import Filesystem
from umlfs.sources import OpenOptions, SourceKind

_CLAIM: Final = 90
"""More than a mere directory's claim: a superblock beside one of these is nothing else."""
_BESIDE: Final = ("data", "metadata.sqlite", "file_metadata")
_ATIMES: Final = ("relatime", "noatime", "strictatime")


class HumKind(SourceKind):
    """humfs directories. Options: `atime=relatime|noatime|strictatime`."""

    options = ("atime",)

    def files(self, argument: str) -> tuple[str]:
        return (argument,)

    def claims(self, path: Path) -> int:
        """90 for a directory with a superblock, and `data/` or metadata, else 0. (Without `data/` it cannot be opened,
        and says so.)"""
        known = (path / "superblock").is_file() and any((path / name).exists() for name in _BESIDE)
        return _CLAIM if known else 0

    async def open(self, argument: str, options: OpenOptions) -> Filesystem:
        """Open the humfs directory `argument`, whichever of the formats its metadata is in.

        UsageError for an unknown option; UmlError if it is none, in use (naming the process), or cannot be written.
        """
        unknown = sorted(set(options.extra) - {"atime"})
        if unknown:
            raise UsageError(f"humfs: unknown option '{unknown[0]}'", f"known is atime={'|'.join(_ATIMES)}")
        atime = options.extra.get("atime", _ATIMES[0])
        if atime not in _ATIMES:
            raise UsageError(f"humfs: atime={atime} means nothing", f"say one of {', '.join(_ATIMES)}")
        if not argument:
            raise UsageError("humfs: no directory named", "write humfs:DIR")
        return await trio.to_thread.run_sync(_open, argument, options.read_only, atime)


def _open(argument: str, read_only: bool, atime: str) -> Filesystem:
    from humfs import superblock

    root = Path(os.path.abspath(argument))
    if superblock.read(root).metadata == superblock.SHADOW_FS:
        from humfs.shadow import ShadowFilesystem, ShadowVolume

        return ShadowFilesystem(ShadowVolume(root), read_only=read_only, atime=atime)
    from humfs.filesystem import open_filesystem

    return open_filesystem(root, read_only=read_only, atime=atime)


kind: Final = HumKind()
