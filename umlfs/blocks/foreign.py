"""Image formats that qemu knows and we do not, told by their first bytes (its `docs/interop` and `block/*.c`)."""

from __future__ import annotations

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
