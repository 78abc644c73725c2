"""What is known of a node, for people and for programs."""

from __future__ import annotations

import os
import stat
from datetime import datetime
from typing import Final

from runtime.inspect.paths import Node
from umlfs.filesystem import Attr, Filesystem

TYPES: Final = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFBLK: "block device",
    stat.S_IFCHR: "character device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
LETTERS: Final = {
    "f": stat.S_IFREG,
    "d": stat.S_IFDIR,
    "l": stat.S_IFLNK,
    "b": stat.S_IFBLK,
    "c": stat.S_IFCHR,
    "p": stat.S_IFIFO,
    "s": stat.S_IFSOCK,
}
"""As find(1) calls the types."""
UNITS: Final = " KMGTPE"
_SECOND: Final = 10**9


def type_of(attr: Attr) -> str:
    """The type's name."""
    return TYPES.get(stat.S_IFMT(attr.mode), "unknown")


def is_device(attr: Attr) -> bool:
    """Whether it has a device number."""
    return stat.S_ISBLK(attr.mode) or stat.S_ISCHR(attr.mode)


async def fields(filesystem: Filesystem, node: Node) -> dict[str, object]:
    """Everything in the attributes, and a link's target. OSError."""
    attr = node.attr
    found: dict[str, object] = {
        "path": os.fsdecode(node.path),
        "type": type_of(attr),
        "mode": f"{stat.S_IMODE(attr.mode):04o}",
        "links": attr.nlink,
        "uid": attr.uid,
        "gid": attr.gid,
        "size": attr.size,
        "blocks": attr.blocks,
        "inode": attr.ino,
        "atime": time_text(attr.atime_ns),
        "mtime": time_text(attr.mtime_ns),
        "ctime": time_text(attr.ctime_ns),
    }
    if is_device(attr):
        found["device"] = f"{os.major(attr.rdev)}:{os.minor(attr.rdev)}"
    if node.is_link:
        found["target"] = os.fsdecode(await filesystem.readlink(node.ino))
    return found


def time_text(nanoseconds: int) -> str:
    """Local time to the nanosecond, as `2024-05-01 12:00:00.123456789`; the bare number where no calendar reaches."""
    seconds, rest = divmod(nanoseconds, _SECOND)
    try:
        return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S}.{rest:09d}"
    except (OverflowError, OSError, ValueError):
        return str(nanoseconds)


def long_line(
    node: Node, shown: str, widths: tuple[int, int, int, int], target: bytes | None, human: bool = False
) -> str:
    """A line as of `ls -l`, with owners as numbers: their names are the guest's."""
    attr = node.attr
    links, uid, gid, size = widths
    arrow = "" if target is None else f" -> {os.fsdecode(target)}"
    when = time_text(attr.mtime_ns)[:16]
    return (
        f"{stat.filemode(attr.mode)} {attr.nlink:>{links}} {attr.uid:>{uid}} {attr.gid:>{gid}} "
        f"{size_text(attr, human):>{size}} {when} {shown}{arrow}"
    )


def size_text(attr: Attr, human: bool = False) -> str:
    """The size, or the number of a device."""
    if is_device(attr):
        return f"{os.major(attr.rdev)}, {os.minor(attr.rdev)}"
    return human_size(attr.size) if human else str(attr.size)


def human_size(size: int) -> str:
    """As `ls -h` has it: `1.1K`, `12M`, never less than it is."""
    unit = 0
    while size > 999 << 10 * unit and unit < len(UNITS) - 1:
        unit += 1
    tenths = -(-size * 10 >> 10 * unit)
    return (
        f"{size}"
        if not unit
        else f"{tenths / 10:.1f}{UNITS[unit]}"
        if tenths < 100
        else f"{-(-tenths // 10)}{UNITS[unit]}"
    )


def widths_of(nodes: list[Node], human: bool = False) -> tuple[int, int, int, int]:
    """How wide the columns of `long_line` are."""
    rows = [(str(each.attr.nlink), str(each.attr.uid), str(each.attr.gid), size_text(each.attr)) for each in nodes]
    links, uid, gid, size = (max((len(row[column]) for row in rows), default=1) for column in range(4))
    return links, uid, gid, size


def human(size: int) -> str:
    """Bytes in the largest unit that leaves a digit before the point: `3.8G`."""
    value = float(size)
    for unit in "BKMGTP":
        if value < 1024 or unit == "P":
            break
        value /= 1024
    return f"{size}B" if unit == "B" else f"{value:.1f}{unit}"
