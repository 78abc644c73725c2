"""What kind of archive a file is, by its first bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from humfs.compression import LOOK, beginning, compression
from humfs.tarheader import BLOCK, is_header

OTHERS: Final = (
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"070701", "cpio"),
    (b"070702", "cpio"),
    (b"070707", "cpio"),
    (b"\xc7\x71", "cpio"),
    (b"Rar!\x1a\x07", "rar"),
    (b"xar!", "xar"),
    (b"MSCF", "cab"),
)
"""What archives begin with that libarchive reads."""


def kind_of(path: Path) -> str | None:
    """`tar`, or what else the archive in a file is; None for none. OSError."""
    with open(path, "rb") as file:
        head = file.read(BLOCK)
        pressed = compression(head)
        if pressed is not None:
            head = beginning(head + file.read(LOOK), BLOCK)
    if is_header(head):
        return "tar"
    return next((name for magic, name in OTHERS if head.startswith(magic)), None)


def is_plain(path: Path) -> bool:
    """Whether the file is a tar archive without compression."""
    with open(path, "rb") as file:
        return is_header(file.read(BLOCK))
