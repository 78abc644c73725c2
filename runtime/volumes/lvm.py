"""LVM2: from physical volumes to logical ones.

The label, the header of a physical volume and that of a metadata area are defined in LVM2's
`lib/format_text/layout.h`; what the text says, in lvm.conf(5) and vgcfgbackup(8). Linear and striped volumes are put
together of ranges of the disks; of a mirrored one (raid1) one leg is read. What else there is, is named, and refused.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from runtime.volumes import lvm_text
from runtime.volumes.lvm_text import Section
from runtime.volumes.mapped import Mapped, Piece
from umlfs.block import BlockDevice

SECTOR: Final = 512
_LABEL: Final = struct.Struct("<8sQII8s")
_LABEL_SECTORS: Final = 4
_AREA: Final = struct.Struct("<QQ")
_METADATA_HEADER: Final = struct.Struct("<I16sIQQ")
_METADATA_MAGIC: Final = b" LVM2 x[5A%r0N*>"
_LOCATION: Final = struct.Struct("<QQII")
_INITIAL_CRC: Final = 0xF597A6CF
_TEXT_MAX: Final = 32 << 20
_AREAS_MAX: Final = 16
_PIECES_MAX: Final = 1 << 22
"""Of a striped volume: one for each stripe's chunk."""


class UnusableError(Exception):
    """Why a volume cannot be used."""


@dataclass(frozen=True, slots=True)
class PhysicalVolume:
    """A disk or partition that belongs to a volume group."""

    identifier: str
    """Its UUID, without dashes."""
    device: BlockDevice
    text: str
    """What its metadata area says; empty if it has none."""


@dataclass(frozen=True, slots=True)
class LogicalVolume:
    """One, and its blocks, or why there are none."""

    group: str
    name: str
    device: BlockDevice | None
    problem: str = ""


async def read(device: BlockDevice, offset: int, length: int) -> bytes:
    """ValueError if the device ends before that."""
    if offset < 0 or offset + length > device.size:
        raise ValueError("it is cut short")
    data = bytearray(length)
    await device.read_into(offset, [memoryview(data)])
    return bytes(data)


async def physical_volume(device: BlockDevice) -> PhysicalVolume:
    """What the label on `device` says. ValueError for one that is damaged."""
    for sector in range(_LABEL_SECTORS):
        head = await read(device, sector * SECTOR, SECTOR)
        name, number, checksum, start, kind = _LABEL.unpack_from(head)
        if name == b"LABELONE" and kind == b"LVM2 001":
            break
    else:
        raise ValueError("it has no label")
    if number != sector or checksum != _crc(head[20:]) or not _LABEL.size <= start <= SECTOR - 40:
        raise ValueError("its label is damaged")
    identifier = head[start : start + 32].decode("ascii", "replace")
    areas = _areas(head, start + 40)
    text = ""
    for offset, size in areas[areas.index((0, 0)) + 1 :]:
        if size and not text:
            text = await _text(device, offset, size)
    return PhysicalVolume(identifier, device, text)


def _areas(head: bytes, at: int) -> list[tuple[int, int]]:
    """Of data, then (0, 0), then of metadata."""
    found: list[tuple[int, int]] = []
    ends = 0
    while ends < 2:
        if at + _AREA.size > len(head) or len(found) > _AREAS_MAX:
            raise ValueError("its label is damaged")
        area = _AREA.unpack_from(head, at)
        ends += area == (0, 0)
        found.append(area)
        at += _AREA.size
    return found[:-1]


async def _text(device: BlockDevice, offset: int, size: int) -> str:
    """The newest text of a metadata area, which is a ring."""
    head = await read(device, offset, SECTOR)
    checksum, magic, version, start, length = _METADATA_HEADER.unpack_from(head)
    if magic != _METADATA_MAGIC or version != 1 or checksum != _crc(head[4:]) or start != offset or length > size:
        raise ValueError("the header of its metadata is damaged")
    place, count, expected, flags = _LOCATION.unpack_from(head, _METADATA_HEADER.size)
    if not place or flags & 1:
        return ""  # it belongs to no group yet, or has its metadata elsewhere
    if not SECTOR <= place < length or count > min(length - SECTOR, _TEXT_MAX):
        raise ValueError("its metadata lies outside of the place for it")
    first = min(count, length - place)
    data = await read(device, offset + place, first)
    if first < count:
        data += await read(device, offset + SECTOR, count - first)
    if _crc(data) != expected:
        raise ValueError("its metadata is damaged (checksum)")
    return data.rstrip(b"\0").decode("utf-8", "replace")


def _crc(data: bytes) -> int:
    return zlib.crc32(data, _INITIAL_CRC ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


# Groups ---------------------------------------------------------------------------------------


def logical_volumes(found: list[PhysicalVolume]) -> list[LogicalVolume]:
    """Those of all volume groups that `found` belong to, the visible ones. ValueError for metadata that are damaged."""
    newest: dict[str, tuple[int, str, Section]] = {}
    for text in {volume.text for volume in found if volume.text}:
        for name, section in lvm_text.parse(text).items():
            if isinstance(section, dict):
                identifier, sequence = _text_of(section, "id"), _number(section, "seqno")
                if identifier not in newest or newest[identifier][0] < sequence:
                    newest[identifier] = sequence, name, section
    devices = {volume.identifier: volume.device for volume in found}
    volumes: list[LogicalVolume] = []
    for _, name, section in sorted(newest.values(), key=lambda each: each[1]):
        volumes += _Group(name, section, devices).volumes()
    return volumes


class _Group:
    """A volume group's metadata, and the disks that are there."""

    def __init__(self, name: str, section: Section, devices: Mapping[str, BlockDevice]) -> None:
        self._name = name
        self._extent = _number(section, "extent_size") * SECTOR
        if self._extent <= 0:
            raise ValueError("its extents have no size")
        self._volumes = _section(section, "logical_volumes")
        self._changes = self._stores_of_snapshots()
        self._disks: dict[str, tuple[BlockDevice | None, int]] = {}
        for disk, each in _section(section, "physical_volumes").items():
            if isinstance(each, dict):
                device = devices.get(_text_of(each, "id").replace("-", ""))
                self._disks[disk] = device, _number(each, "pe_start") * SECTOR

    def volumes(self) -> list[LogicalVolume]:
        found = []
        for name, section in self._volumes.items():
            if isinstance(section, dict) and "VISIBLE" in _list(section, "status"):
                found.append(self._volume(name))
        return found

    def _volume(self, name: str) -> LogicalVolume:
        try:
            return LogicalVolume(self._name, name, self._device(name, ()))
        except UnusableError as error:
            return LogicalVolume(self._name, name, None, str(error))

    def _stores_of_snapshots(self) -> set[str]:
        """The volumes that have only what a snapshot differs in."""
        found = set()
        for volume in self._volumes.values():
            for segment in volume.values() if isinstance(volume, dict) else ():
                if isinstance(segment, dict) and segment.get("type") == "snapshot":
                    found.add(str(segment.get("cow_store")))
        return found

    def _device(self, name: str, within: tuple[str, ...]) -> BlockDevice:
        section = self._volumes.get(name)
        if not isinstance(section, dict) or name in within:
            raise ValueError(f"a volume '{name}' that is named is not there")
        if name in self._changes:
            raise UnusableError("a snapshot, which umlfs does not put together")
        read_only = "WRITE" not in _list(section, "status")
        pieces: list[Piece] = []
        at = 0
        for number in range(1, _number(section, "segment_count") + 1):
            segment = _section(section, f"segment{number}")
            if _number(segment, "start_extent") * self._extent != at:
                raise ValueError(f"the segments of '{name}' leave a gap")
            kind = _text_of(segment, "type")
            length = _number(segment, "extent_count") * self._extent
            if kind == "striped":
                pieces += self._striped(segment, at, length)
            elif kind in ("raid1", "mirror"):
                leg = self._leg(segment, (*within, name))
                pieces.append(Piece(at, length, leg, 0))
                read_only = True
            else:
                raise UnusableError(f"a volume of the type {kind}, which umlfs does not put together")
            if len(pieces) > _PIECES_MAX:
                raise ValueError(f"'{name}' has too many parts")
            at += length
        return Mapped(pieces, read_only=read_only)

    def _striped(self, segment: Section, at: int, length: int) -> list[Piece]:
        """`stripes` are names of physical volumes, and in each the extent that it begins with."""
        words = _list(segment, "stripes")
        count = _number(segment, "stripe_count")
        if count < 1 or len(words) != 2 * count:
            raise ValueError("its stripes are damaged")
        places = [self._place(words[2 * number], words[2 * number + 1]) for number in range(count)]
        if count == 1:
            return [Piece(at, length, *places[0])]
        chunk = _number(segment, "stripe_size") * SECTOR
        if chunk <= 0 or length % (chunk * count) or length // chunk > _PIECES_MAX:
            raise ValueError("its stripes are damaged")
        return [
            Piece(
                at + number * chunk,
                chunk,
                places[number % count][0],
                places[number % count][1] + number // count * chunk,
            )
            for number in range(length // chunk)
        ]

    def _place(self, disk: int | str, extent: int | str) -> tuple[BlockDevice, int]:
        if not isinstance(disk, str) or not isinstance(extent, int) or disk not in self._disks or extent < 0:
            raise ValueError("its stripes are damaged")
        device, start = self._disks[disk]
        if device is None:
            raise UnusableError(f"a part of it lies on another disk ({disk}), which is not here")
        return device, start + extent * self._extent

    def _leg(self, segment: Section, within: tuple[str, ...]) -> BlockDevice:
        """One of the copies of a mirror: the first that is all here."""
        key = "raids" if "raids" in segment else "mirrors"
        words = _list(segment, key)
        names = words[1::2] if key == "raids" else words[0::2]
        missing = "has no copy"
        for name in names:
            try:
                return self._device(str(name), within)
            except UnusableError as error:
                missing = str(error)
        raise UnusableError(missing)


def _section(section: Section, name: str) -> Section:
    found = section.get(name, {} if name in ("logical_volumes", "physical_volumes") else None)
    if not isinstance(found, dict):
        raise ValueError(f"its metadata have no section '{name}'")
    return found


def _number(section: Section, name: str) -> int:
    found = section.get(name)
    if not isinstance(found, int) or found < 0:
        raise ValueError(f"its metadata have no number '{name}'")
    return found


def _text_of(section: Section, name: str) -> str:
    found = section.get(name)
    if not isinstance(found, str):
        raise ValueError(f"its metadata have no text '{name}'")
    return found


def _list(section: Section, name: str) -> list[int | str]:
    found = section.get(name)
    if not isinstance(found, list):
        raise ValueError(f"its metadata have no list '{name}'")
    return found
