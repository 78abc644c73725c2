"""The filesystems that the appliance mounts, and what each needs for that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class MountKind:
    """How the guest's kernel mounts one kind of filesystem."""

    modules: tuple[str, ...] = ()
    options: str = ""
    writable: bool = True
    owners: bool = True
    """Files have owners and modes."""


KINDS: Final[dict[str, MountKind]] = {
    "btrfs": MountKind(),
    "erofs": MountKind(("erofs",), writable=False),
    "ext4": MountKind(),
    "f2fs": MountKind(("f2fs", "crc32_generic")),
    "iso9660": MountKind(("isofs",), "iocharset=utf8", writable=False),
    "jfs": MountKind(("nls_utf8",), "iocharset=utf8"),
    "minix": MountKind(("minix",)),
    "reiserfs": MountKind(),
    "squashfs": MountKind(("squashfs",), writable=False),
    "udf": MountKind(("udf", "nls_utf8"), "iocharset=utf8"),
    "vfat": MountKind(("vfat", "nls_cp437", "nls_ascii"), "codepage=437,iocharset=ascii,utf8", owners=False),
    # Two images that are copies of each other may be looked at together.
    "xfs": MountKind((), "nouuid"),
}
"""By the name that `umlfs.blocks.probe` and the kernel have for it."""
