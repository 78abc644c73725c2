"""An ocfs2 on a disk: its UUID, and where its nodes leave their heartbeats.

Layout: `fs/ocfs2/ocfs2_fs.h` of Linux. The blocks come from strangers: what they say is checked.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from umlfs.block import BlockDevice
from umlfs.errors import UmlError

SUPERBLOCK: Final = 2
"""The block that holds it."""
BLOCK_BITS: Final = range(9, 13)
SECTOR_BITS: Final = 9
NODES_MAX: Final = 255
DIRECTORY_MAX: Final = 64
"""Blocks of the system directory that are looked at; it has one."""

_INODE: Final = 0xC0
"""What an inode holds besides its attributes begins here."""
_SIZE: Final = struct.Struct("<Q")
_EXTENT_LIST: Final = struct.Struct("<HHHHQ")
_EXTENT: Final = struct.Struct("<IIQ")
_INLINE: Final = struct.Struct("<HHI")
_ENTRY: Final = struct.Struct("<QHBB")
_INLINE_DATA: Final = 1


@dataclass(frozen=True, slots=True)
class Volume:
    """What a node must know of the filesystem to join those that have it mounted."""

    uuid: str
    """32 capital hexadecimal digits: the name of its heartbeat region and of its locks."""
    slots: int
    """How many nodes may have it mounted."""
    stack: str
    """The cluster stack that it was made for: `o2cb`. Empty for none in particular."""
    start: int
    """The sector (of 512 bytes) where the heartbeats begin."""
    count: int
    """For how many nodes there is room."""


class _Damaged(Exception):
    pass


async def read_volume(device: BlockDevice, name: str) -> Volume:
    """The ocfs2 on `device`, which is called `name` in errors. UmlError if there is none, or it is damaged. OSError."""
    try:
        return await _Reader(device).volume()
    except (_Damaged, struct.error) as error:
        raise UmlError(f"{name}: {error}", "'uml cluster init' makes one; fsck.ocfs2 mends what is damaged") from None


class _Reader:
    def __init__(self, device: BlockDevice) -> None:
        self._device = device
        self._bits = 0

    async def volume(self) -> Volume:
        block = await self._superblock()
        system, block_bits, cluster_bits, slots = struct.unpack_from("<QIIH", block, _INODE + 0x30)
        if block_bits != self._bits or not 12 <= cluster_bits <= 20:
            raise _Damaged("its ocfs2 superblock is damaged")
        start, clusters = await self._heartbeat(system)
        blocks = clusters << (cluster_bits - self._bits)
        return Volume(
            block[_INODE + 0x90 : _INODE + 0xA0].hex().upper(),
            slots,
            block[_INODE + 0xA0 : _INODE + 0xA4].rstrip(b"\0").decode("ascii", "replace"),
            start << (self._bits - SECTOR_BITS),
            min(blocks, NODES_MAX),
        )

    async def _superblock(self) -> bytes:
        for bits in BLOCK_BITS:
            self._bits = bits
            if (SUPERBLOCK + 1) << bits > self._device.size:
                break
            block = await self._block(SUPERBLOCK)
            if block.startswith(b"OCFSV2"):
                return block
        raise _Damaged("no ocfs2 on it")

    async def _block(self, number: int) -> bytes:
        offset, length = number << self._bits, 1 << self._bits
        if not 0 < offset <= self._device.size - length:
            raise _Damaged("its ocfs2 names blocks beyond its end")
        data = bytearray(length)
        await self._device.read_into(offset, [memoryview(data)])
        return bytes(data)

    async def _inode(self, number: int) -> bytes:
        block = await self._block(number)
        if not block.startswith(b"INODE01"):
            raise _Damaged("an inode of its ocfs2 is damaged")
        return block

    async def _heartbeat(self, system: int) -> tuple[int, int]:
        """The first block of the system file `heartbeat`, and its clusters."""
        inode = await self._inode(system)
        for block in await self._contents(inode):
            for number, name in _entries(block):
                if name == b"heartbeat":
                    extents = _extents(await self._inode(number))
                    if not extents:
                        raise _Damaged("its ocfs2 has no room for heartbeats: was it made for one machine alone?")
                    return extents[0]
        raise _Damaged("its ocfs2 has no file for heartbeats")

    async def _contents(self, inode: bytes) -> list[bytes]:
        """What a directory holds, by blocks."""
        (features,) = struct.unpack_from("<H", inode, 0x76)
        if features & _INLINE_DATA:
            count, _, _ = _INLINE.unpack_from(inode, _INODE)
            return [inode[_INODE + _INLINE.size :][:count]]
        (size,) = _SIZE.unpack_from(inode, 0x20)
        blocks = min((size + (1 << self._bits) - 1) >> self._bits, DIRECTORY_MAX)
        return [await self._block(start + at) for start, _ in _extents(inode)[:1] for at in range(blocks)]


def _extents(inode: bytes) -> list[tuple[int, int]]:
    """First block and clusters of each extent in the inode itself."""
    depth, count, used, _, _ = _EXTENT_LIST.unpack_from(inode, _INODE)
    if depth or used > count or _INODE + _EXTENT_LIST.size + used * _EXTENT.size > len(inode):
        raise _Damaged("the extents of a system file are damaged")
    rows = [_EXTENT.unpack_from(inode, _INODE + _EXTENT_LIST.size + at * _EXTENT.size) for at in range(used)]
    return [(block, clusters & 0xFFFF) for _, clusters, block in rows]


def _entries(block: bytes) -> Iterator[tuple[int, bytes]]:
    """Inode and name of each entry."""
    at = 0
    while at + _ENTRY.size <= len(block):
        inode, length, name_length, _ = _ENTRY.unpack_from(block, at)
        if length < _ENTRY.size + name_length or at + length > len(block):
            return
        if inode:
            yield inode, block[at + _ENTRY.size :][:name_length]
        at += length
