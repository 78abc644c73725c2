"""The maps of members with holes: which ranges of the file the archive has.

Formats: GNU tar's manual, "Sparse Formats": the old one in the header itself and blocks behind it; pax 0.0 and 0.1 in
records; 1.0 in front of the data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from humfs.tarheader import BLOCK, number
from humfs.tarpax import number as record

Ranges = list[tuple[int, int]]
"""Offset and length, ascending."""

RANGES_MAX: Final = 1 << 22
_OLD: Final = 386
_OLD_ENTRIES: Final = 4
_OLD_MORE: Final = 482
_OLD_SIZE: Final = slice(483, 495)
_MORE_ENTRIES: Final = 21
_MORE_MORE: Final = 504
_FIELD: Final = 12
_DIGITS_MAX: Final = 20
_WRONG: Final = "its sparse map is damaged"


def check(ranges: Sequence[tuple[int, int]], size: int, stored: int) -> None:
    """ValueError unless the ranges ascend, end within the file, and are all in the archive."""
    at = total = 0
    for start, length in ranges:
        if start < at or length < 0:
            raise ValueError(_WRONG)
        at = start + length
        total += length
    if at > size or total > stored:
        raise ValueError(_WRONG)


def old(block: bytes, more: Callable[[], bytes]) -> tuple[Ranges, int]:
    """The map in a header of the old format, with blocks that `more` reads; and the file's size."""
    ranges, ended = _entries(block, _OLD, _OLD_ENTRIES)
    size, extended = number(block[_OLD_SIZE]), block[_OLD_MORE]
    while extended:
        block = more()
        if not ended:
            found, ended = _entries(block, 0, _MORE_ENTRIES)
            ranges += found
        if len(ranges) > RANGES_MAX:
            raise ValueError(_WRONG)
        extended = block[_MORE_MORE]
    return ranges, size


def _entries(block: bytes, at: int, count: int) -> tuple[Ranges, bool]:
    """Those in a block, and whether the map has ended."""
    found: Ranges = []
    for start in range(at, at + count * 2 * _FIELD, 2 * _FIELD):
        if not block[start + _FIELD]:
            return found, True
        found.append((number(block[start : start + _FIELD]), number(block[start + _FIELD : start + 2 * _FIELD])))
    return found, False


def in_records(records: Mapping[bytes, bytes]) -> tuple[Ranges, int] | None:
    """The map of format 0.0 or 0.1, and the file's size; None if there is none."""
    text = records.get(b"GNU.sparse.map")
    if text is None:
        return None
    numbers = text.split(b",") if text else []
    if len(numbers) % 2 or len(numbers) > 2 * RANGES_MAX or not all(map(_is_number, numbers)):
        raise ValueError(_WRONG)
    values = list(map(int, numbers))
    return list(zip(values[::2], values[1::2], strict=True)), record(records, b"GNU.sparse.size")


def before_data(read: Callable[[], bytes]) -> Ranges:
    """The map of format 1.0: decimal numbers, each on a line, in the blocks that `read` gives."""
    lines: list[bytes] = []
    rest = b""
    wanted = 1
    while len(lines) < wanted:
        *more, rest = (rest + read()).split(b"\n")
        lines += more
        if len(rest) > BLOCK or not all(map(_is_number, lines[:wanted])):
            raise ValueError(_WRONG)
        wanted = 1 + 2 * int(lines[0]) if lines else 1
        if wanted > 2 * RANGES_MAX:
            raise ValueError(_WRONG)
    if not all(map(_is_number, lines[:wanted])):
        raise ValueError(_WRONG)
    values = list(map(int, lines[1:wanted]))
    return list(zip(values[::2], values[1::2], strict=True))


def _is_number(text: bytes) -> bool:
    return text.isdigit() and len(text) < _DIGITS_MAX
