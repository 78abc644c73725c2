"""The label and the UUID of a filesystem, from its superblock.

Layouts: ext4 `fs/ext4/ext4.h`, XFS `fs/xfs/libxfs/xfs_format.h`, btrfs `include/uapi/linux/btrfs_tree.h`, FAT as every
DOS writes it, ISO 9660 (ECMA-119) section 8.4, JFS `fs/jfs/jfs_superblock.h`, reiserfs `fs/reiserfs/reiserfs.h`, swap
`include/linux/swap.h`. The bytes come from strangers: what is no text is shown as replacement characters.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Final

from umlfs.block import BlockDevice


@dataclass(frozen=True, slots=True)
class Label:
    """What a filesystem calls itself."""

    label: str | None = None
    uuid: str | None = None


_PLACES: Final[dict[str, tuple[tuple[int, int] | None, int | None]]] = {
    "ext4": ((1144, 16), 1128),
    "xfs": ((108, 12), 32),
    "btrfs": ((65536 + 299, 256), 65536 + 32),
    "jfs": ((32768 + 152, 16), 32768 + 136),
    "reiserfs": ((65536 + 100, 16), 65536 + 84),
    "swap": ((1052, 16), 1036),
    "iso9660": ((32768 + 40, 32), None),
}
"""Where the label (offset and length) and the UUID (offset of 16 bytes) are."""
_HEAD: Final = 68 * 1024


async def label_of(device: BlockDevice, kind: str | None) -> Label:
    """The label and UUID of the filesystem of that kind (as `umlfs.blocks.probe` has it) on `device`. OSError."""
    data = bytearray(min(_HEAD, device.size))
    if data:
        await device.read_into(0, [memoryview(data)])
    head = bytes(data)
    if kind == "vfat":
        return _fat(head)
    label, identity = _PLACES.get(kind or "", (None, None))
    return Label(_text(head[label[0] : sum(label)]) if label else None, _uuid(head, identity))


def _text(field: bytes) -> str | None:
    return field.partition(b"\0")[0].decode(errors="replace").rstrip() or None


def _uuid(head: bytes, offset: int | None) -> str | None:
    if offset is None or len(head) < offset + 16 or not any(head[offset : offset + 16]):
        return None
    return str(uuid.UUID(bytes=head[offset : offset + 16]))


def _fat(head: bytes) -> Label:
    """FAT32 has its fields further on than FAT12 and FAT16."""
    start = 67 if head[82:87] == b"FAT32" else 39
    number = int.from_bytes(head[start : start + 4], "little")
    label = _text(head[start + 4 : start + 15])
    return Label(None if label == "NO NAME" else label, f"{number >> 16:04X}-{number & 0xFFFF:04X}" if number else None)
