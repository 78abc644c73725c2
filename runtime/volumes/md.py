"""A member of a RAID1 of Linux (mdadm), of which one is enough to read what is on all.

The superblock is defined in the kernel's `include/uapi/linux/raid/md_p.h` (version 1.1 at the start, 1.2 at 4 KiB).
Those of versions 0.90 and 1.0 lie at the end: such a member begins with its filesystem, and is one for every program.
"""

from __future__ import annotations

import struct
from typing import Final

from runtime.volumes.lvm import SECTOR, UnusableError, read
from runtime.volumes.mapped import Mapped, Piece
from umlfs.block import BlockDevice

_MAGIC: Final = 0xA92B4EFC
_PLACES: Final = (0, 4096)
_HEAD: Final = struct.Struct("<4I16s32sQiIQII")
_DATA: Final = struct.Struct("<4Q")
_DATA_AT: Final = 128
_DEVICE_AT: Final = 160
_CHECKSUM_AT: Final = 216
_ROLES_AT: Final = 256
_SPARE: Final = 0xFFFD
"""Roles from here on are no place in the array."""
_RECOVERY: Final = 2
_RESHAPE: Final = 4
_DEVICES_MAX: Final = 1920
_LEVELS: Final = {-4: "multipath", -1: "linear", 0: "raid0", 4: "raid4", 5: "raid5", 6: "raid6", 10: "raid10"}


async def raid_member(device: BlockDevice) -> BlockDevice:
    """What the array that `device` is a member of holds, to be read: a write would make the members differ. ValueError
    for a superblock that is damaged; UnusableError for what one member alone does not tell."""
    block = b""
    for place in _PLACES:
        block = await read(device, place, 4096)
        if int.from_bytes(block[:4], "little") == _MAGIC:
            break
    magic, major, features, _, _, _, _, level, _, size, _, disks = _HEAD.unpack_from(block)
    (count,) = struct.unpack_from("<I", block, _CHECKSUM_AT + 4)
    if magic != _MAGIC or major != 1 or count > _DEVICES_MAX or not _sums_up(block[: _ROLES_AT + 2 * count]):
        raise ValueError("the superblock of its array is damaged")
    if level != 1 and disks != 1:
        raise UnusableError(f"a member of a {_LEVELS.get(level, f'RAID of level {level}')}, which needs the others")
    offset, length, _, _ = _DATA.unpack_from(block, _DATA_AT)
    (number,) = struct.unpack_from("<I", block, _DEVICE_AT)
    role = struct.unpack_from("<H", block, _ROLES_AT + 2 * number)[0] if number < count else _SPARE
    if role >= _SPARE:
        raise UnusableError("a spare or a failed member of its array, so that what is on it may be old")
    if features & (_RECOVERY | _RESHAPE):
        raise UnusableError("a member of an array that was being rebuilt, so that not all is on it")
    if not size or (offset + size) * SECTOR > device.size or size > length:
        raise ValueError("the superblock of its array is damaged")
    return Mapped([Piece(0, size * SECTOR, device, offset * SECTOR)], read_only=True)


def _sums_up(block: bytes) -> bool:
    (expected,) = struct.unpack_from("<I", block, _CHECKSUM_AT)
    padded = block[:_CHECKSUM_AT] + bytes(4) + block[_CHECKSUM_AT + 4 :]
    whole = len(padded) // 4 * 4
    found: int = sum(struct.unpack(f"<{whole // 4}I", padded[:whole]))
    if len(padded) - whole == 2:
        found += int.from_bytes(padded[whole:], "little")
    return int(expected) == ((found & 0xFFFFFFFF) + (found >> 32)) & 0xFFFFFFFF
