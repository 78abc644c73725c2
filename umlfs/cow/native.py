"""What the kernel's own ubd driver must not be given, because it corrupts it or hangs on it."""

from __future__ import annotations

import os
from contextlib import ExitStack

from umlfs.blocks.raw import open_file
from umlfs.cow.backing import is_remote, look_at
from umlfs.cow.check import mixed_groups
from umlfs.cow.device import GROUP
from umlfs.cow.file import load_bitmap, peek_header, read_header, require_not_merging, require_whole
from umlfs.cow.header import Header

HANGS_UP_TO = 32 * 1024
"""A write to a COW device of at most so many bytes never ends."""
OVERFLOWS_FROM = 2**31 * 8 * 512
"""The driver keeps offsets of the bitmap in 31 bits."""


def hazards(path: str, backing: str | None = None, *, raw: bool = False) -> list[str]:
    """Why the file `path` is not safe with the kernel's own ubd driver; empty if it is.

    `path` is a COW file or an image (always one with `raw`, as by the `d` flag), or is to be made a COW file over
    `backing`. Every reason is a sentence without a full stop. OSError; UmlError for a COW file that cannot be
    used at all.
    """
    if backing is not None and not os.path.lexists(path):
        return _of_size(look_at(backing).size, cow=True)
    header = None if raw else peek_header(path)
    if header is None:
        return _of_size(look_at(path).size, cow=False)
    return [*_of_size(header.size, cow=True), *_of_header(header, backing), *_of_bitmap(path)]


def _of_size(size: int, *, cow: bool) -> list[str]:
    found = []
    if size % GROUP:
        found.append(f"its size of {size} bytes is not a multiple of {GROUP}: reads at its end repeat other data")
    if cow and size <= HANGS_UP_TO:
        found.append(f"its size of {size} bytes is at most {HANGS_UP_TO}: the first write hangs the kernel")
    if cow and size >= OVERFLOWS_FROM:
        found.append(f"its size of {size} bytes is too much for its bitmap's offsets")
    return found


def _of_header(header: Header, backing: str | None) -> list[str]:
    named = os.fsdecode(header.backing)
    found = []
    if is_remote(named):
        found.append(f"its backing device {named} is not a file")
    if backing is not None and backing != named and not header.lies_like(header.as_v3()):
        found.append(f"it is {header.name}: a header rewritten for another backing file destroys it")
    return found


def _of_bitmap(path: str) -> list[str]:
    with ExitStack() as opened:
        file = open_file(path, read_only=True, lock=False)
        opened.callback(file.close)
        header = read_header(file.fileno(), path)
        require_not_merging(path, header)
        require_whole(file.fileno(), header, path)
        bitmap = load_bitmap(file.fileno(), header, path)
        opened.callback(bitmap.close)
        if next(mixed_groups(header, bitmap), None) is not None:
            return ["some groups of 4 KiB are only partly in it: reads around them go wrong ('uml cow check --repair')"]
    return []
