"""The kind of source `archive:FILE`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from umlfs.errors import UsageError
from umlfs.filesystem import Filesystem
from umlfs.sources import OpenOptions, SourceKind, refuse_options

_CLAIM: Final = 60
"""More than a raw image's, less than those that know their own format."""


class ArchiveKind(SourceKind):
    """Archives: tar, compressed or not, and what libarchive reads."""

    def files(self, argument: str) -> tuple[str]:
        return (argument,)

    def claims(self, path: Path) -> int:
        """60 for a regular file that is an archive, else 0."""
        from runtime.archives.kinds import kind_of

        return _CLAIM if path.is_file() and kind_of(path) is not None else 0

    async def open(self, argument: str, options: OpenOptions) -> Filesystem:
        """Open the archive; the index of one that was seen before is kept. UmlError, UsageError; OSError."""
        from runtime.archives.filesystem import open_archive

        refuse_options("archive", options)
        if not argument:
            raise UsageError("archive: no file named", "write archive:FILE")
        return await open_archive(Path(self.absolute(argument)))


kind: Final = ArchiveKind()
