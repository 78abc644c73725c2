"""The filesystems that the appliance mounts, and what each needs for that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Kind:
    """How the guest's kernel mounts one kind of filesystem."""

    modules: tuple[str, ...] = ()
    options: str = ""
    writable: bool = True
    owners: bool = True
    """Files have owners and modes."""


KINDS: Final[dict[str, Kind]] = {
    "btrfs": Kind(),
    "erofs": Kind(("erofs",), writable=False),
    "ext4": Kind(),
    "f2fs": Kind(("f2fs",)),
    "iso9660": Kind(("isofs",), "iocharset=utf8", writable=False),
    "jfs": Kind(("nls_utf8",), "iocharset=utf8"),
    "minix": Kind(("minix",)),
    "reiserfs": Kind(),
    "squashfs": Kind(("squashfs",), writable=False),
    "udf": Kind(("udf", "nls_utf8"), "iocharset=utf8"),
    "vfat": Kind(("vfat", "nls_cp437", "nls_ascii"), "codepage=437,iocharset=ascii,utf8", owners=False),
    # Two images that are copies of each other may be looked at together.
    "xfs": Kind((), "nouuid"),
}
"""By the name that `umlfs.blocks.probe` and the kernel have for it."""
