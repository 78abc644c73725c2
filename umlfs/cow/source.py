"""The kinds of source `raw` and `cow`."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from umlfs.block import BlockDevice
from umlfs.blocks.raw import open_file, open_raw
from umlfs.cow.file import peek_header
from umlfs.cow.open import open_cow
from umlfs.cow.plain import PlainImage
from umlfs.errors import UmlError, UsageError
from umlfs.sources import OpenOptions

_NOT_WRITABLE: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


def _refuse(scheme: str, argument: str, options: OpenOptions) -> None:
    if not argument:
        raise UsageError(f"{scheme}: no file given", f"write {scheme}:FILE")
    for name in options.extra:
        raise UsageError(f"{scheme}:{argument}: unknown option '{name}'", f"sources of kind {scheme} have none")


@contextlib.contextmanager
def _told_of_read_only(path: str, options: OpenOptions) -> Iterator[None]:
    """UmlError for a file that can be read, and is to be written but cannot."""
    try:
        yield
    except OSError as error:
        if options.read_only or error.errno not in _NOT_WRITABLE or not os.access(path, os.R_OK, effective_ids=True):
            raise
        raise UmlError(f"{path}: cannot be written: {error.strerror}", "open it read-only") from error


class Raw:
    """`raw:FILE`: a file or block device, byte for byte."""

    def claims(self, path: Path) -> int:
        """Any file or block device may be an image; kinds that know it by its contents are surer."""
        mode = path.stat().st_mode
        return 10 if stat.S_ISREG(mode) or stat.S_ISBLK(mode) else 0

    async def open(self, argument: str, options: OpenOptions) -> BlockDevice:
        """Open the image; one that was only taken for raw does not get a COW header. OSError, UmlError."""
        _refuse("raw", argument, options)
        with _told_of_read_only(argument, options):
            if options.detected:
                file = open_file(argument, read_only=options.read_only)
                return PlainImage(file, file.size(), read_only=options.read_only)
            return open_raw(argument, read_only=options.read_only)


class Cow:
    """`cow:COW` or `cow:COW,BACKING`: a COW file, made over BACKING if it is missing."""

    def claims(self, path: Path) -> int:
        """Sure of anything with a COW header."""
        return 90 if peek_header(str(path)) is not None else 0

    async def open(self, argument: str, options: OpenOptions) -> BlockDevice:
        """Open the COW file over its backing file. OSError, UmlError."""
        _refuse("cow", argument, options)
        path, _, backing = argument.partition(",")
        with _told_of_read_only(path, options):
            return await open_cow(path, backing or None, read_only=options.read_only)


raw = Raw()
cow = Cow()
