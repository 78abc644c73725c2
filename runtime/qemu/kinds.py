"""The kinds of source `qcow2`, `qed`, `vmdk`, `vdi`, `vpc`, `vhdx`, `parallels`: images that qemu serves for us."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from umlfs.block import BlockDevice
from umlfs.blocks.foreign import format_of
from umlfs.errors import UsageError
from umlfs.sources import OpenOptions, SourceKind, refuse_options

_CLAIM: Final = 80
"""More than a raw image's, less than that of a COW file."""


class QemuKind(SourceKind):
    """One format, by qemu's name for it: `qcow2:FILE`, and `qcow2:///PATH` where a URI is wanted."""

    def __init__(self, image_format: str) -> None:
        self.format = image_format

    def files(self, argument: str) -> tuple[str]:
        return (_path(argument),)

    def claims(self, path: Path) -> int:
        """Sure of a file or block device that begins as one."""
        mode = path.stat().st_mode
        return _CLAIM if (stat.S_ISREG(mode) or stat.S_ISBLK(mode)) and format_of(path) == self.format else 0

    async def open(self, argument: str, options: OpenOptions) -> BlockDevice:
        """Have qemu serve the image. UmlError with qemu's words if it does not take it."""
        path = _path(argument)
        if not path:
            raise UsageError(f"{self.format}: no file given", f"write {self.format}:FILE")
        refuse_options(f"{self.format}:{path}", options)
        if options.shared:
            raise UsageError(f"{path}: an image that qemu serves cannot be shared", "share a raw image")
        # The file's own errors in our own words: qemu's are for what is in it.
        access = os.O_RDONLY if options.read_only else os.O_RDWR
        os.close(os.open(path, access | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY))
        from runtime.qemu.server import QemuDevice  # takes longer to import than to see that it is not wanted

        return await QemuDevice.start(path, self.format, options)


def _path(argument: str) -> str:
    return argument[2:] if argument.startswith("//") else argument


qcow2 = QemuKind("qcow2")
qed = QemuKind("qed")
vmdk = QemuKind("vmdk")
vdi = QemuKind("vdi")
vpc = QemuKind("vpc")
vhdx = QemuKind("vhdx")
parallels = QemuKind("parallels")
