"""All that we need to know of pyfuse3's inside, and cannot ask of it: tricks, each checked when it is imported.

A third one, for requests that pyfuse3 does not know, is in `umlfs.mount.libfuse`.

Versions are bounded in pyproject.toml. Where a check fails the trick is left out, which costs what is said below, and
a warning tells of it. docs/architecture.md says what would make each of them unnecessary.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final

import pyfuse3
import trio
from pyfuse3 import EntryAttributes

from umlfs.mount import libfuse
from umlfs.mount.eager_trio import EagerTrio

log = logging.getLogger(__name__)

# An inode's second number -----------------------------------------------------------------------
#
# The contract has two numbers for an inode: the one it is asked for by, and the one that stat(2) shows. pyfuse3
# carries both to libfuse but has one property that sets both. So the place of the second within its object is looked
# for once. Without it stat(2) shows the first, and no listing has names alone.

_MARK: Final = 0x5EED_1E55_CAB1_E5A7
_STAT_INO_OFFSET: Final = 24
"""From `ino` to `attr.st_ino` in libfuse's struct fuse_entry_param, on machines of 64 bits."""


def _find_shown() -> int | None:
    """Where in an EntryAttributes the number for stat(2) is, in bytes."""
    probe = EntryAttributes()
    probe.st_ino = _MARK
    content = ctypes.string_at(id(probe), EntryAttributes.__basicsize__)
    mark = struct.pack("=Q", _MARK)
    first = content.find(mark)
    second = first + _STAT_INO_OFFSET
    if first < 0 or not content.startswith(mark, second) or content.count(mark) != 2:
        return None
    probe.st_mode, probe.st_size = 0o100644, 1 << 40
    ctypes.c_uint64.from_address(id(probe) + second).value = 1
    kept = probe.st_ino in (_MARK, 1) and probe.st_mode == 0o100644 and probe.st_size == 1 << 40
    return second if kept else None


_SHOWN: Final = _find_shown()
HAS_SHOWN_NUMBER: Final = _SHOWN is not None
"""Whether `set_shown_number` does anything."""
_number_at = ctypes.c_uint64.from_address


def set_shown_number(attributes: EntryAttributes, number: int) -> None:
    """Have stat(2) show `number`, whatever the inode is asked for by."""
    if _SHOWN is not None:
        _number_at(id(attributes) + _SHOWN).value = number


# Reading requests -------------------------------------------------------------------------------
#
# pyfuse3's loop waits for each request by way of trio's, which costs more than most requests do. It looks trio up by
# that name in its module, so that its own asyncio mode can put something else there. Without it, mounts are slower.

_module: Any = pyfuse3
HAS_OWN_TRIO: Final = getattr(_module, "trio", None) is trio
"""Whether pyfuse3 takes trio from where we can put something else."""


@contextlib.contextmanager
def reading_eagerly(is_busy: Callable[[], bool]) -> Iterator[None]:
    """Within, `pyfuse3.main` takes the next request at once if it is there. `is_busy` tells whether requests are under
    way that wait for something."""
    if not HAS_OWN_TRIO:
        yield
        return
    _module.trio = EagerTrio(is_busy)
    try:
        yield
    finally:
        _module.trio = trio


# Its words --------------------------------------------------------------------------------------


def is_news(record: logging.LogRecord) -> bool:
    """ENOENT for an answer is none: the mount went, or whoever asked was killed, while it was worked on."""
    return "fuse_reply_*" not in record.msg or record.args != (os.strerror(errno.ENOENT),)


def check() -> None:
    """Warn of what this version of pyfuse3 does not let us do."""
    lost = []
    if not HAS_SHOWN_NUMBER:
        lost.append("stat(2) shows other inode numbers")
    if not HAS_OWN_TRIO:
        lost.append("requests are slower")
    if not libfuse.CAN_ADD:
        lost.append("locks are not shared with others, files have no holes")
    if lost:
        log.warning("pyfuse3 %s is not as we know it: %s", pyfuse3.__version__, ", ".join(lost))
