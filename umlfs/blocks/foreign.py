"""Image formats that qemu knows and we do not, told by their bytes (its `docs/interop` and `block/*.c`)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_MAGICS: Final = (
    (b"QFI\xfb", "qcow2"),
    (b"QED\0", "qed"),
    (b"KDMV", "vmdk"),
    (b"# Disk DescriptorFile", "vmdk"),
    (b"conectix", "vpc"),
    (b"vhdxfile", "vhdx"),
    (b"<<< ", "vdi"),
    (b"WithoutFreeSpace", "parallels"),
    (b"WithouFreSpacExt", "parallels"),
)
"""The first bytes of an image, and qemu's name for its format."""
HEAD: Final = max(len(magic) for magic, _ in _MAGICS)
"""So many bytes tell."""


def format_of_head(head: bytes) -> str | None:
    """qemu's name for the format of an image that begins with `head`; None for one that is none of qemu's own."""
    return next((name for magic, name in _MAGICS if head.startswith(magic)), None)


_FOOTER: Final = b"conectix"
_FOOTER_SIZE: Final = 512


def format_of(path: str | Path) -> str | None:
    """qemu's name for the format of the image at `path`; None for one that is none of qemu's own. OSError.

    A VHD image of fixed size has its mark at the end alone.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        found = format_of_head(os.pread(fd, HEAD, 0))
        if found is None and (end := os.lseek(fd, 0, os.SEEK_END)) > _FOOTER_SIZE:
            return "vpc" if os.pread(fd, len(_FOOTER), end - _FOOTER_SIZE) == _FOOTER else None
        return found
    finally:
        os.close(fd)
