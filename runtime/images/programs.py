"""The programs that an image is made with, looked for before anything is done."""

from __future__ import annotations

from typing import Final

from runtime.host.needs import find_program
from runtime.images.formats import Format, Image

_MAKERS: Final = {
    Format.RAW: "mkfs.ext4",
    Format.EXT4: "mkfs.ext4",
    Format.XFS: "mkfs.xfs",
    Format.BTRFS: "mkfs.btrfs",
    Format.SQUASHFS: "mksquashfs",
    Format.EROFS: "mkfs.erofs",
    Format.DIRECTORY: "tar",
}
_BY_EXT4: Final = frozenset({Format.XFS, Format.BTRFS, Format.SQUASHFS, Format.EROFS})
"""What is made out of an ext4 with the same files, in a guest."""


def require_programs(target: Image) -> None:
    """UmlError, naming its package, for a program that this host does not have and making `target` of files takes."""
    needed = [_MAKERS[target.format]] if target.format in _MAKERS else []
    if target.format in _BY_EXT4 or target.format.qemu is not None:
        needed.append("mkfs.ext4")
    if target.format.qemu is not None:
        needed.append("qemu-img")
    if target.format is Format.TAR and target.compressor is not None:
        needed.append(target.compressor)
    for name in needed:
        find_program(name)
