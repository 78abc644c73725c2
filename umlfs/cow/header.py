"""The header of a COW file: bytes to values and back, no input or output.

The format is User-mode Linux's (`arch/um/drivers/cow_user.c`), in four layouts: V1, V2, V3, and the V3 that 64-bit
programs wrote before December 2005 with four bytes of padding in the middle ("broken V3"). docs/cow.md has them.
Behind the header follow the bitmap, one bit for each sector of the backing file, and the data area.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Final, Literal

MAGIC: Final = 0x4F4F4F4D
SECTOR: Final = 512
"""Bytes for each bit of the bitmap. The header could say otherwise; the kernel then returns wrong data."""
ALIGNMENT: Final = 4096
"""What the kernel and uml_mkcow write: bitmap and data area begin at multiples of it."""
READ_SIZE: Final = 4136
"""So many bytes hold the longest header."""
PATH_MAX: Final = 4096
"""The room for the path and its NUL, in V1 256."""
MTIME_MAX: Final = 2**32 - 1
SIZE_MAX: Final = 2**63 - 1
"""The kernel of the host counts the bytes of a file so far."""

_MARKER: Final = struct.Struct(">8sQ")
_MERGING: Final = b"umlfs-m:"
"""With the backing file's inode number it stands in the last bytes of the path's room, where readers do not look,
while a merge in place runs."""

ByteOrder = Literal["big", "little"]
_PREFIX: Final[dict[ByteOrder, str]] = {"big": ">", "little": "<"}


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where a version has its path, and the values around it."""

    fields: str
    """A struct format without the byte order: mtime, size, sector size and, from V3 on, alignment and cow_format."""
    fields_offset: int
    path_offset: int
    path_room: int
    header_size: int


_LAYOUTS: Final = {
    (1, False): _Layout("IQI", 264, 8, 256, 280),
    (2, False): _Layout("IQI", 4104, 8, PATH_MAX, 4120),
    (3, False): _Layout("IQIII", 8, 32, PATH_MAX, 4128),
    (3, True): _Layout("I4xQIII", 8, 36, PATH_MAX, 4136),
}


class NotCow(ValueError):
    """The bytes are not the header of a COW file."""


class BadHeader(ValueError):
    """A COW file's header with a value that cannot be; the message names it."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a header says, and where it puts the rest of the file."""

    backing: bytes
    """The path of the backing file; absolute, if the kernel is to find it."""
    mtime: int
    """Of the backing file when the COW file was made, in seconds since the epoch."""
    size: int
    """Of the backing file in bytes; any number."""
    version: int = 3
    broken: bool = False
    """A V3 with padding after the mtime."""
    alignment: int = ALIGNMENT
    byte_order: ByteOrder = "big"
    merging: int | None = None
    """A merge into the file of this inode number has begun: it holds some of the changes, whatever its mtime."""

    @property
    def _layout(self) -> _Layout:
        return _LAYOUTS[self.version, self.broken]

    @property
    def name(self) -> str:
        """The version for a person."""
        return f"V{self.version}{' (broken, 64-bit layout)' if self.broken else ''}"

    @property
    def sectors(self) -> int:
        """The sectors of the device, the last perhaps not a whole one."""
        return -(-self.size // SECTOR)

    @property
    def bitmap_offset(self) -> int:
        size = self._layout.header_size
        return size if self.version < 3 else _round_up(size, self.alignment)

    @property
    def bitmap_length(self) -> int:
        """In bytes. V1 and V2 forget the last sectors where their number is not a multiple of 8."""
        if self.version < 3:
            return (self.size + SECTOR - 1) // (8 * SECTOR)
        return -(-self.sectors // 8)

    @property
    def data_offset(self) -> int:
        end = self.bitmap_offset + self.bitmap_length
        return _round_up(end, SECTOR if self.version < 3 else self.alignment)

    @property
    def covers_all(self) -> bool:
        """Whether every sector has a bit."""
        return self.bitmap_length * 8 >= self.sectors

    @property
    def file_size(self) -> int:
        """The length of a file freshly made."""
        return self.data_offset + self.size

    @property
    def marker_offset(self) -> int:
        """Where the marker stands while a merge in place runs."""
        return self._layout.path_offset + self._layout.path_room - _MARKER.size

    @property
    def has_room_for_marker(self) -> bool:
        """Whether the path leaves room for the marker."""
        return len(self.backing) + 1 <= self._layout.path_room - _MARKER.size

    def as_v3(self) -> Header:
        """The same as a proper V3 header, with the same offsets if that can be."""
        same = replace(self, version=3, broken=False, byte_order="big")
        return same if same.lies_like(self) else replace(same, alignment=ALIGNMENT)

    def lies_like(self, other: Header) -> bool:
        """Whether bitmap and data area are at the same places in both."""
        return (self.bitmap_offset, self.bitmap_length, self.data_offset) == (
            other.bitmap_offset,
            other.bitmap_length,
            other.data_offset,
        )


def _round_up(value: int, alignment: int) -> int:
    return -(-value // alignment) * alignment


def pack(header: Header) -> bytes:
    """The bytes of a V3 header up to the NUL that ends the path; what follows up to the bitmap is free.

    BadHeader for values that do not fit, or another version: only V3 is written.
    """
    if header.version != 3 or header.broken or header.byte_order != "big":
        raise BadHeader(f"{header.name} headers are not written")
    _check(header)
    values = (MAGIC, 3, header.mtime, header.size, SECTOR, header.alignment, 0)
    return struct.pack(">IIIQIII", *values) + header.backing + b"\0"


def parse(data: bytes) -> Header:
    """The header that `data`, the first `READ_SIZE` bytes of a file (or all it has), begins with.

    NotCow if there is none, BadHeader naming what is wrong with it.
    """
    order, version = _recognise(data)
    broken = version == 3 and data[32:36] == bytes(4)
    layout = _LAYOUTS[version, broken]
    if len(data) < layout.header_size:
        raise BadHeader(f"cut off after {len(data)} bytes of a V{version} header of {layout.header_size}")
    order, values = _values(data, layout, order)
    header = Header(
        backing=_path(data, layout),
        mtime=values[0],
        size=values[1],
        version=version,
        broken=broken,
        alignment=values[3] if version == 3 else SECTOR,
        byte_order=order,
    )
    _check(header)
    return replace(header, merging=_marker(data, header))


def _recognise(data: bytes) -> tuple[ByteOrder, int]:
    if len(data) < 8:
        raise NotCow(f"only {len(data)} bytes")
    orders: tuple[ByteOrder, ByteOrder] = ("big", "little")
    for order in orders:
        if int.from_bytes(data[:4], order) == MAGIC:
            version = int.from_bytes(data[4:8], order)
            if version not in (1, 2, 3):
                raise BadHeader(f"unknown COW version {version}")
            return order, version
    raise NotCow("no COW magic number")


def _values(data: bytes, layout: _Layout, order: ByteOrder) -> tuple[ByteOrder, tuple[int, ...]]:
    """The numbers, in the byte order in which the sector size makes sense.

    That is mostly the magic number's, but the kernel reads V2 and V3 as big-endian whatever the magic number's.
    """
    other: ByteOrder = "little" if order == "big" else "big"
    tried = [
        (each, struct.unpack_from(_PREFIX[each] + layout.fields, data, layout.fields_offset)) for each in (order, other)
    ]
    for each, values in tried:
        if values[2] == SECTOR:
            if "4x" in layout.fields and not values[0]:  # a 64-bit big-endian writer: the seconds are in the padding
                values = (int.from_bytes(data[12:16], each), *values[1:])
            return each, values
    raise BadHeader(f"sector size {tried[0][1][2]}, only {SECTOR} is known to work")


def _unpack(data: bytes, layout: _Layout, order: ByteOrder) -> tuple[int, ...]:
    return struct.unpack_from(_PREFIX[order] + layout.fields, data, layout.fields_offset)


def _path(data: bytes, layout: _Layout) -> bytes:
    room = data[layout.path_offset : layout.path_offset + layout.path_room]
    path, nul, _ = room.partition(b"\0")
    if not nul:
        raise BadHeader("the path of the backing file has no end")
    return path


def pack_mtime(header: Header, mtime: int) -> tuple[int, bytes]:
    """Where the mtime stands in a header of any version, and its bytes there."""
    return header._layout.fields_offset, (mtime & MTIME_MAX).to_bytes(4, header.byte_order)


def marker(inode: int | None) -> bytes:
    """What to write at `marker_offset` while a merge into the file of that inode number runs; None: after it."""
    return bytes(_MARKER.size) if inode is None else _MARKER.pack(_MERGING, inode)


def _marker(data: bytes, header: Header) -> int | None:
    word, inode = _MARKER.unpack_from(data, header.marker_offset)
    return inode if word == _MERGING and header.has_room_for_marker else None


def _check(header: Header) -> None:
    """BadHeader for what no reader could use."""
    if not header.backing:
        raise BadHeader("the path of the backing file is empty")
    if b"\0" in header.backing or len(header.backing) >= PATH_MAX:
        raise BadHeader(f"a path of {len(header.backing)} bytes, at most {PATH_MAX - 1} fit")
    if not 0 <= header.mtime <= MTIME_MAX:
        raise BadHeader(f"mtime {header.mtime} is not within 0 and {MTIME_MAX} (the years 1970 to 2106)")
    if not 0 < header.alignment <= MTIME_MAX:
        raise BadHeader(f"alignment {header.alignment}")
    if header.size < 0 or header.file_size > SIZE_MAX:
        raise BadHeader(f"size {header.size} is more than a file can have")
