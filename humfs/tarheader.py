"""One block that begins a member of a tar archive.

Formats: ustar and pax (POSIX.1-2001, pax(1), "ustar Interchange Format"), GNU tar's (its manual, "Basic Tar Format"),
star's ustar (a prefix of 131 bytes), and the seventh edition's, which has no magic.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final, NamedTuple

from umlfs.errors import UmlError

BLOCK: Final = 512
_FIELDS: Final = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_CHECKSUM: Final = slice(148, 156)
_SPACES: Final = 8 * 0x20
"""What the checksum's own field counts as."""
_SIGNED: Final = struct.Struct("512b")
_USTAR: Final = b"ustar\0"
_STAR: Final = slice(508, 512)
_STAR_PREFIX: Final = 131


class DamagedError(UmlError):
    """No archive, or not all of one. Its text goes behind the archive's name."""


class Header(NamedTuple):
    """What a block says."""

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    """Of what follows in the archive."""
    mtime: int
    kind: bytes
    """The type flag."""
    link: bytes
    major: int
    minor: int


def is_header(block: bytes) -> bool:
    """Whether the block begins a member: its checksum is right, and it has a name."""
    try:
        return len(block) == BLOCK and block[0] != 0 and _sums_up(block, number(block[_CHECKSUM]))
    except ValueError:
        return False


def parse(block: bytes) -> Header:
    """What the block says. ValueError with what is wrong."""
    name, mode, uid, gid, size, mtime, checksum, kind, link, magic, _, _, major, minor, prefix = _FIELDS.unpack(block)
    if not _sums_up(block, number(checksum)):
        raise ValueError("a header's checksum is wrong")
    path = name.partition(b"\0")[0]
    if prefix[0] and magic.startswith(_USTAR):  # GNU's header has times there
        path = prefix[: _STAR_PREFIX if block[_STAR] == b"tar\0" else None].partition(b"\0")[0] + b"/" + path
    is_device = kind in (b"3", b"4")
    if kind == b"\0" and path.endswith(b"/"):  # as the seventh edition has a directory
        kind = b"5"
    return Header(
        path,
        number(mode),
        number(uid),
        number(gid),
        number(size),
        number(mtime),
        kind,
        link.partition(b"\0")[0],
        number(major) if is_device else 0,
        number(minor) if is_device else 0,
    )


def _sums_up(block: bytes, checksum: int) -> bool:
    """Some old programs took the bytes for signed ones."""
    return checksum == sum(block) - sum(block[_CHECKSUM]) + _SPACES or checksum == (
        sum(_SIGNED.unpack(block)) - sum(byte - 256 if byte > 127 else byte for byte in block[_CHECKSUM]) + _SPACES
    )


@lru_cache(4096)  # owners, modes and days come again and again
def number(field: bytes) -> int:
    """A number: octal digits, or GNU's binary one. ValueError."""
    if field[0] & 0x80:
        if field[0] not in (0x80, 0xFF):
            raise ValueError("a header has a number that is none")
        return int.from_bytes(field[1:]) - (256 ** (len(field) - 1) if field[0] == 0xFF else 0)
    digits = field.partition(b"\0")[0].strip(b" ")
    if not digits:
        return 0
    if digits.isdigit():  # int() takes an underscore, a sign and spaces, too
        return int(digits, 8)
    raise ValueError("a header has a number that is none")


def rounded(size: int) -> int:
    """Bytes that contents of `size` take in the archive."""
    return -(-size // BLOCK) * BLOCK


def with_size(block: bytes, size: int) -> bytes:
    """The block for contents of another size, of less than 8 GiB."""
    return _with(block, slice(124, 136), b"%011o\0" % size)


def with_mode(block: bytes, mode: int) -> bytes:
    """The block of a member with other permissions."""
    return _with(block, slice(100, 108), b"%07o\0" % mode)


def _with(block: bytes, place: slice, field: bytes) -> bytes:
    made = bytearray(block)
    made[place] = field
    made[_CHECKSUM] = b" " * 8
    made[_CHECKSUM] = b"%06o\0 " % sum(made)
    return bytes(made)
