"""POSIX access control lists, as the kernel keeps them in `system.posix_acl_access` and `system.posix_acl_default`.

The format is that of include/uapi/linux/posix_acl_xattr.h: version 2, then entries of tag, permissions and id. The
kernel that uses the filesystem enforces them; what is here is what it leaves to a filesystem: inheriting a
directory's default list, and keeping list and permission bits in step.
"""

from __future__ import annotations

import contextlib
import grp
import pwd
import re
import struct
from typing import Final, NamedTuple

ACCESS: Final = b"system.posix_acl_access"
DEFAULT: Final = b"system.posix_acl_default"

USER_OBJ: Final = 0x01
USER: Final = 0x02
GROUP_OBJ: Final = 0x04
GROUP: Final = 0x08
MASK: Final = 0x10
OTHER: Final = 0x20

_VERSION: Final = 2
_HEADER: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<HHI")
_NO_ID: Final = 0xFFFF_FFFF
_ORDER: Final = (USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER)


class AclEntry(NamedTuple):
    tag: int
    permissions: int
    id: int = _NO_ID


Acl = list[AclEntry]


def decode(value: bytes) -> Acl:
    """The entries, in the kernel's order. ValueError for what the kernel would not take; an empty list is one."""
    if len(value) < _HEADER.size or (len(value) - _HEADER.size) % _ENTRY.size:
        raise ValueError("length")
    if _HEADER.unpack_from(value) != (_VERSION,):
        raise ValueError("version")
    entries = [AclEntry(*fields) for fields in _ENTRY.iter_unpack(value[_HEADER.size :])]
    if entries:
        _check(entries)
    return entries


def _check(entries: Acl) -> None:
    """Each of the three bases once, a mask if there are named entries, everything in order, no id twice."""
    tags = [entry.tag for entry in entries]
    if any(tag not in _ORDER for tag in tags) or any(entry.permissions & ~7 for entry in entries):
        raise ValueError("entry")
    places = [_ORDER.index(tag) for tag in tags]
    if places != sorted(places):
        raise ValueError("order")
    if any(tags.count(tag) != 1 for tag in (USER_OBJ, GROUP_OBJ, OTHER)) or tags.count(MASK) > 1:
        raise ValueError("base entries")
    named = [(entry.tag, entry.id) for entry in entries if entry.tag in (USER, GROUP)]
    if len(named) != len(set(named)) or (named and MASK not in tags):
        raise ValueError("named entries")


def encode(entries: Acl) -> bytes:
    return _HEADER.pack(_VERSION) + b"".join(
        _ENTRY.pack(tag, permissions, who if tag in (USER, GROUP) else _NO_ID) for tag, permissions, who in entries
    )


def _group_tag(entries: Acl) -> int:
    """Which entry the group bits of the mode stand for."""
    return MASK if any(entry.tag == MASK for entry in entries) else GROUP_OBJ


def mode_of(entries: Acl) -> int:
    """The nine permission bits that go with the list."""
    found = {entry.tag: entry.permissions for entry in entries}
    return found[USER_OBJ] << 6 | found[_group_tag(entries)] << 3 | found[OTHER]


def is_minimal(entries: Acl) -> bool:
    """The list says no more than permission bits do."""
    return all(entry.tag in (USER_OBJ, GROUP_OBJ, OTHER) for entry in entries)


def with_mode(entries: Acl, mode: int) -> Acl:
    """The list after chmod to `mode`."""
    bits = {USER_OBJ: mode >> 6 & 7, _group_tag(entries): mode >> 3 & 7, OTHER: mode & 7}
    return [AclEntry(tag, bits.get(tag, permissions), who) for tag, permissions, who in entries]


def inherit(default: Acl, mode: int) -> tuple[Acl, int]:
    """The access list and permission bits of what is created with `mode` under the default list `default`.

    Each permission must be in both; the umask plays no part.
    """
    bits = {USER_OBJ: mode >> 6 & 7, _group_tag(default): mode >> 3 & 7, OTHER: mode & 7}
    entries = [AclEntry(tag, permissions & bits.get(tag, 7), who) for tag, permissions, who in default]
    return entries, mode & ~0o777 | mode_of(entries)


_TAGS: Final = {"user": (USER_OBJ, USER), "group": (GROUP_OBJ, GROUP), "mask": (MASK, MASK), "other": (OTHER, OTHER)}
_LETTERS: Final = {"u": "user", "g": "group", "m": "mask", "o": "other"}
_PERMISSIONS: Final = re.compile(r"(?=[rwx-]{1,3}\Z)(r?)-?(w?)-?(x?)-?\Z")


def from_text(text: str) -> Acl:
    """The list that acl_to_text(3) writes, also with star's fourth field, the number of who is named. ValueError for
    what is none; LookupError for a name without a number that this host does not know."""
    lines = (line.partition("#")[0].strip() for line in re.split(r"[,\n]", text))
    entries = [_entry(line) for line in lines if line]
    entries.sort(key=lambda entry: (_ORDER.index(entry.tag), entry.id))
    _check(entries)
    return entries


def _entry(line: str) -> AclEntry:
    kind, *fields = line.removeprefix("default:").split(":")
    tags = _TAGS.get(_LETTERS.get(kind, kind))
    if tags is None or not fields:
        raise ValueError("entry")
    if len(fields) == 1 and tags[0] in (MASK, OTHER):  # as Solaris has it
        fields = ["", *fields]
    if len(fields) not in (2, 3):
        raise ValueError("entry")
    found = _PERMISSIONS.match(fields[1])
    if found is None:
        raise ValueError("permissions")
    permissions = 4 * bool(found[1]) | 2 * bool(found[2]) | bool(found[3])
    if not fields[0]:
        return AclEntry(tags[0], permissions)
    return AclEntry(tags[1], permissions, _id(tags[1], fields[2] if len(fields) == 3 else fields[0]))


def _id(tag: int, word: str) -> int:
    if word.isascii() and word.isdecimal() and len(word) < 11:
        found = int(word)
    else:
        with contextlib.suppress(ValueError, UnicodeError):
            return pwd.getpwnam(word).pw_uid if tag == USER else grp.getgrnam(word).gr_gid
        raise LookupError(word)
    if found >= _NO_ID:
        raise ValueError("id")
    return found
