"""How filesystems are made larger while they are mounted."""

from __future__ import annotations

from typing import Final

from runtime.images.inside import NAME

GROW: Final = {
    "xfs": ("xfs_growfs", "xfs_growfs /mnt"),
    "btrfs": ("btrfs", "btrfs filesystem resize max /mnt"),
}
"""By filesystem: the program that makes it larger while it is mounted at /mnt, and how."""
GROW_OR_EXT4: Final = GROW | {"ext4": ("resize2fs", f"resize2fs /dev/{NAME}")}
"""With ext4, which grows while it is mounted too: nothing has to be checked before."""
