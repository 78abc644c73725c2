"""The records of pax headers: numbers, times, extended attributes, access control lists.

Records are POSIX.1-2001's, and those of star (`SCHILY.xattr.NAME` raw, `SCHILY.acl.access` as text), of libarchive
(`LIBARCHIVE.xattr.NAME` in base64) and of GNU tar (`GNU.sparse.*`; `=` and `%` in a name of SCHILY's are quoted).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote_to_bytes

from humfs import acl

Records = dict[bytes, bytes]

_SCHILY: Final = b"SCHILY.xattr."
_LIBARCHIVE: Final = b"LIBARCHIVE.xattr."
_SELINUX: Final = b"RHT.security.selinux"
_ACLS: Final = {b"SCHILY.acl.access": acl.ACCESS, b"SCHILY.acl.default": acl.DEFAULT}
_NUMBER: Final = re.compile(rb"[0-9]{1,40}\Z")
_TIME: Final = re.compile(rb"(-?)([0-9]{0,40})(?:\.([0-9]*))?\Z")
_OFFSET: Final = b"GNU.sparse.offset"
_NUMBYTES: Final = b"GNU.sparse.numbytes"
_MAP: Final = b"GNU.sparse.map"
_LENGTH_MAX: Final = 20
"""Digits of a record's length."""
TIME_MAX: Final = (1 << 63) - 1
"""Nanoseconds that can be stored, in either direction."""
LOST: Final = {
    b"SCHILY.acl.ace": "NFSv4 access lists are left out, Linux has none",
    b"SCHILY.fflags": "file flags (immutable, nodump, ...) are left out",
}
"""Records that say what is not kept, and the words for that."""


def parse(data: bytes) -> Records:
    """The records in an extended header, the last of each key; ValueError with what is wrong.

    The sparse map of GNU tar's format 0.0, which has a record for each number, is put together as that of 0.1.
    """
    found: Records = {}
    places: list[bytes] = []
    position = 0
    while position < len(data):
        key, value, position = _record(data, position)
        if key in (_OFFSET, _NUMBYTES):
            places.append(value)
        else:
            found[key] = value
    if places:
        found[_MAP] = b",".join(places)
    return found


def _record(data: bytes, start: int) -> tuple[bytes, bytes, int]:
    """Key and value of the record at `start`, and where the next one is."""
    space = data.find(b" ", start, start + _LENGTH_MAX)
    digits = data[start:space]
    end = start + int(digits) if space > 0 and digits.isdigit() else 0
    equals = data.find(b"=", space, end)
    if end > len(data) or equals < 0 or data[end - 1 : end] != b"\n":
        raise ValueError("an extended header has a record that is none")
    return data[space + 1 : equals], data[equals + 1 : end - 1], end


def record(key: bytes, value: bytes) -> bytes:
    """A record, whose length counts itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def number(records: Mapping[bytes, bytes], key: bytes) -> int:
    """A number that is not negative. ValueError."""
    if not _NUMBER.match(records.get(key, b"")):
        raise ValueError(f"its {key.decode()} is no number")
    return int(records[key])


def nanoseconds(text: bytes) -> int:
    """A time, seconds with any number of decimals, exactly. ValueError."""
    found = _TIME.match(text)
    if found is None or not (found[2] or found[3]):
        raise ValueError("a time of it is none")
    whole = int(found[2] or b"0") * 10**9 + int(((found[3] or b"") + b"0" * 9)[:9])
    return -whole if found[1] else whole


def xattrs(records: Mapping[bytes, bytes], lost: list[str]) -> list[tuple[bytes, bytes]]:
    """The extended attributes in records. ValueError for one that is damaged. What cannot be kept is told in `lost`."""
    found: dict[bytes, bytes] = {}
    for key, value in records.items():
        if key.startswith(_SCHILY):
            found[_unquoted(key[len(_SCHILY) :])] = value
        elif key.startswith(_LIBARCHIVE):
            found.setdefault(unquote_to_bytes(key[len(_LIBARCHIVE) :]), _decoded(value))
        elif key == _SELINUX:
            found.setdefault(b"security.selinux", value)
        elif key in LOST:
            lost.append(LOST[key])
    for key, name in _ACLS.items():
        if name not in found and (text := records.get(key)):
            found |= _access_list(name, text, lost)
    return list(found.items())


def mode_with_list(mode: int, attributes: list[tuple[bytes, bytes]]) -> int:
    """The mode of a file whose access list is among the attributes: its group bits are the list's mask. ValueError for
    a list that is damaged."""
    for name, value in attributes:
        if name == acl.ACCESS and (entries := acl.decode(value)):
            return mode & ~0o777 | acl.mode_of(entries)
    return mode


def _unquoted(name: bytes) -> bytes:
    return name.replace(b"%3D", b"=").replace(b"%25", b"%") if b"%" in name else name


def _decoded(value: bytes) -> bytes:
    try:
        return base64.b64decode(value + b"=" * (-len(value) % 4))
    except binascii.Error:
        raise ValueError("an attribute of it is no base64") from None


def _access_list(name: bytes, text: bytes, lost: list[str]) -> dict[bytes, bytes]:
    try:
        entries = acl.from_text(text.decode("utf-8", "surrogateescape"))
    except LookupError:
        lost.append("access lists of users that only a name tells, which this host does not know, are left out")
        return {}
    except ValueError:
        raise ValueError("an access list of it is none") from None
    return {name: acl.encode(entries)} if name == acl.DEFAULT or not acl.is_minimal(entries) else {}
