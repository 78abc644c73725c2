"""What a block device holds, told by its first bytes.

Magic numbers as the kernel's own drivers check them: ext4 `fs/ext4/ext4.h`, XFS `fs/xfs/libxfs/xfs_format.h`, btrfs
`include/uapi/linux/btrfs_tree.h`, squashfs, JFS and reiserfs likewise; GPT as in the UEFI specification.
"""

from __future__ import annotations

from typing import Final

from umlfs.block import BlockDevice

PARTITIONED: Final = "partitions"
"""What `probe` calls a device with a partition table."""
_MAGICS: Final = (
    # A GPT lies where the superblock of an ext4 would, and mke2fs wipes it.
    (PARTITIONED, 512, b"EFI PART"),
    ("ext4", 1080, b"\x53\xef"),
    ("xfs", 0, b"XFSB"),
    ("btrfs", 65600, b"_BHRfS_M"),
    ("squashfs", 0, b"hsqs"),
    ("jfs", 32768, b"JFS1"),
    ("reiserfs", 65588, b"ReIsEr"),
    ("iso9660", 32769, b"CD001"),
    ("swap", 4086, b"SWAPSPACE2"),
    # A boot sector is FAT's or that of a table.
    ("vfat", 54, b"FAT"),
    ("vfat", 82, b"FAT32"),
    (PARTITIONED, 510, b"\x55\xaa"),
)
_HEAD: Final = 128 << 10


async def probe(device: BlockDevice) -> str | None:
    """The kernel's name for the filesystem on `device`, `swap`, `PARTITIONED`, or None for what is not known. OSError.

    Only a guess of what may be worth trying: the guest's kernel looks for itself.
    """
    head = memoryview(bytearray(min(_HEAD, device.size)))
    if head:
        await device.read_into(0, [head])
    data = bytes(head)
    return next((name for name, offset, magic in _MAGICS if data.startswith(magic, offset)), None)
