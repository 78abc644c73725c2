"""What a block device holds, told by its first bytes.

Magic numbers as the kernel's own drivers check them: ext4 `fs/ext4/ext4.h`, XFS `fs/xfs/libxfs/xfs_format.h`, btrfs
`include/uapi/linux/btrfs_tree.h`, squashfs, JFS and reiserfs likewise; ocfs2 `fs/ocfs2/ocfs2_fs.h`, gfs2
`include/uapi/linux/gfs2_ondisk.h`; GPT as in the UEFI specification.
"""

from __future__ import annotations

from typing import Final

from umlfs.block import BlockDevice

PARTITIONED: Final = "partitions"
"""What `probe` calls a device with a partition table."""
_MAGICS: Final = (
    ("crypto_LUKS", 0, b"LUKS\xba\xbe"),
    *(("LVM2_member", sector * 512 + 24, b"LVM2 001") for sector in range(4)),
    ("linux_raid_member", 0, b"\xfc\x4e\x2b\xa9\1\0\0\0"),
    ("linux_raid_member", 4096, b"\xfc\x4e\x2b\xa9\1\0\0\0"),
    # A GPT lies where the superblock of an ext4 would, and mke2fs wipes it.
    (PARTITIONED, 512, b"EFI PART"),
    ("erofs", 1024, b"\xe2\xe1\xf5\xe0"),
    ("f2fs", 1024, b"\x10\x20\xf5\xf2"),
    ("ext4", 1080, b"\x53\xef"),
    ("xfs", 0, b"XFSB"),
    ("btrfs", 65600, b"_BHRfS_M"),
    # In the third block, of 4 KiB or less.
    *(("ocfs2", 2 * size, b"OCFSV2") for size in (4096, 2048, 1024, 512)),
    ("gfs2", 65536, b"\x01\x16\x19\x70\0\0\0\1"),
    ("squashfs", 0, b"hsqs"),
    ("jfs", 32768, b"JFS1"),
    ("reiserfs", 65588, b"ReIsEr"),
    ("iso9660", 32769, b"CD001"),
    ("udf", 32769, b"BEA01"),
    ("swap", 4086, b"SWAPSPACE2"),
    ("zfs_member", 131072 + 1024, b"\x0c\xb1\xba\0\0\0\0\0"),
    ("bcachefs", 4120, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"),
    ("apfs", 32, b"NXSB"),
    ("hfsplus", 1024, b"H+\0\x04"),
    # A boot sector is FAT's or that of a table.
    ("BitLocker", 3, b"-FVE-FS-"),
    ("ntfs", 3, b"NTFS    "),
    ("exfat", 3, b"EXFAT   "),
    ("vfat", 54, b"FAT"),
    ("vfat", 82, b"FAT32"),
    (PARTITIONED, 510, b"\x55\xaa"),
    *(("minix", 1040, magic + b"\1\0") for magic in (b"\x7f\x13", b"\x8f\x13", b"\x68\x24", b"\x78\x24")),
    ("minix", 1048, b"\x5a\x4d"),
)
HEAD: Final = 136 << 10
"""So many bytes tell."""


async def probe(device: BlockDevice) -> str | None:
    """The kernel's name for the filesystem on `device`, `swap`, `PARTITIONED`, or None for what is not known. OSError.

    Only a guess of what may be worth trying: the guest's kernel looks for itself.
    """
    head = memoryview(bytearray(min(HEAD, device.size)))
    if head:
        await device.read_into(0, [head])
    return kind_of(bytes(head))


def kind_of(head: bytes) -> str | None:
    """What a device that begins with `head` holds: see `probe`."""
    return next((name for name, offset, magic in _MAGICS if head.startswith(magic, offset)), None)
