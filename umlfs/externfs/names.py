"""Any text as a name in a directory, and back."""

from __future__ import annotations

import errno
import os
import re
from typing import Final

from umlfs.filesystem import NAME_MAX
from umlfs.host.syscalls import failure

EMPTY: Final = "%"
"""The name that stands for the empty text."""
_SPECIAL: Final = re.compile(r"[%/\0]")
_QUOTED: Final = re.compile(r"%([0-9A-F]{2})")


def quoted(text: str) -> str:
    """A name for `text`, itself where that may be: `/`, NUL and `%` are written `%2F`, `%00` and `%25`, as is the first
    dot of `.` and `..`. Two texts never have one name."""
    if not text:
        return EMPTY
    name = _SPECIAL.sub(lambda found: f"%{ord(found[0]):02X}", text)
    return f"%2E{name[1:]}" if name in (".", "..") else name


def unquoted(name: str) -> str:
    """The text that `quoted` names so. ENOENT if no text has that name."""
    text = "" if name == EMPTY else _QUOTED.sub(lambda found: chr(int(found[1], 16)), name)
    if quoted(text) != name:
        raise failure(errno.ENOENT)
    return text


def encoded(name: str) -> bytes:
    """The bytes of a name that a plugin gives. ValueError if it cannot be one, ENAMETOOLONG if it is too long."""
    data = os.fsencode(name)
    if len(data) > NAME_MAX:
        raise failure(errno.ENAMETOOLONG)
    if not data or data in (b".", b"..") or b"/" in data or b"\0" in data:
        raise ValueError(f"{name!r} cannot be the name of a file")
    return data
