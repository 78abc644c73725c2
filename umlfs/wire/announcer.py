"""What an announcer (`runtime/guest/announcer.c`) is told: one change in each message."""

from __future__ import annotations

import os
import struct
from typing import Final

from umlfs.filesystem import Change, ChangeKind

OUTSIDE: Final = b".umlfs-outside"
"""A directory in the root that the announcer alone sees: where things come from, or go, that come from, or go, to where
the consumer has not looked. That it is there shows the announcer who answers it."""
OUTSIDE_NAME: Final = b"x"
"""The one name in it."""

MESSAGE_MAX: Final = 64 * 1024

_CHANGE: Final = struct.Struct("<HHIII")
"""`struct change`: number of the mount, kind, file type, major and minor number of a device."""
_KINDS: Final = {kind: number for number, kind in enumerate(ChangeKind)}


def message(place: int, change: Change, parent: bytes, new_parent: bytes) -> bytes:
    """`change` in the mount number `place`, with the paths of its directories."""
    numbers = place, _KINDS[change.kind], change.mode, os.major(change.rdev), os.minor(change.rdev)
    names = _name(change.parent, change.name), _name(change.new_parent, change.new_name)
    return _CHANGE.pack(*numbers) + b"".join(text + b"\0" for text in (parent, names[0], new_parent, names[1]))


def _name(directory: int, name: bytes) -> bytes:
    return name if directory else OUTSIDE_NAME
