"""The kinds of source `raw` and `cow`."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Final

from umlfs.block import BlockDevice
from umlfs.blocks.raw import RawDevice, open_file
from umlfs.cow.backing import is_remote
from umlfs.cow.header import READ_SIZE
from umlfs.cow.open import open_cow
from umlfs.cow.plain import PlainImage, begins_cow_file
from umlfs.errors import UsageError
from umlfs.sources import OpenOptions, SourceKind, refuse_options

RAW: Final = "share a raw image"


def _refuse(scheme: str, argument: str, options: OpenOptions) -> None:
    if not argument:
        raise UsageError(f"{scheme}: no file given", f"write {scheme}:FILE")
    refuse_options(f"{scheme}:{argument}", options)


def _is_image(path: Path) -> bool:
    mode = path.stat().st_mode
    return stat.S_ISREG(mode) or stat.S_ISBLK(mode)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(READ_SIZE)


class Raw(SourceKind):
    """`raw:FILE`: a file or block device, byte for byte."""

    def files(self, argument: str) -> tuple[str]:
        return (argument,)

    def claims(self, path: Path) -> int:
        """Any file or block device may be an image; kinds that know it by its contents are surer."""
        return 10 if _is_image(path) else 0

    async def open(self, argument: str, options: OpenOptions) -> BlockDevice:
        """Open the image; one that was only taken for raw does not get a COW header. OSError, UmlError."""
        _refuse("raw", argument, options)
        kind = PlainImage if options.detected else RawDevice
        file = open_file(argument, read_only=options.read_only, sync=options.sync, shared=options.shared)
        return kind(file, file.size(), read_only=options.read_only, discard=options.discard)


class Cow(SourceKind):
    """`cow:COW` or `cow:COW,BACKING`: a COW file, made over BACKING if it is missing."""

    def files(self, argument: str) -> list[str]:
        """The COW file, and the backing file where it is named."""
        return [name for name in argument.split(",", 1) if not is_remote(name)]

    def claims(self, path: Path) -> int:
        """Sure of anything that begins as a COW file, damaged or not: as a raw image it would be damaged further."""
        return 90 if _is_image(path) and begins_cow_file(_head(path)) else 0

    async def open(self, argument: str, options: OpenOptions) -> BlockDevice:
        """Open the COW file over its backing file. OSError, UmlError."""
        _refuse("cow", argument, options)
        path, _, backing = argument.partition(",")
        if options.shared:
            raise UsageError(f"{path}: a COW file cannot be shared: each machine would know its own changes only", RAW)
        return await open_cow(
            path, backing or None, read_only=options.read_only, sync=options.sync, discard=options.discard
        )


raw = Raw()
cow = Cow()
