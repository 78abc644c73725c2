"""Maps as pictures: a square for each part of the disk, in the colour of the file that holds it.

PNG: W3C Recommendation, third edition (one palette, filter 0). SVG 1.1.
"""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Iterator
from typing import Final
from xml.sax.saxutils import escape

from runtime.images.mapping import Layer, Map
from umlfs.block import ExtentKind

COLUMNS: Final = 128
ROWS_MAX: Final = 128
CELL: Final = 5
"""Pixels of a square's side."""
_EMPTY: Final = (0xF0, 0xF0, 0xF0)
_COLOURS: Final = (
    (0xD5, 0x5E, 0x00),
    (0x00, 0x72, 0xB2),
    (0x00, 0x9E, 0x73),
    (0xCC, 0x79, 0xA7),
    (0xE6, 0x9F, 0x00),
    (0x56, 0xB4, 0xE9),
    (0x60, 0x60, 0x60),
)
"""From the top of the chain down; those that a person who sees few colours can tell apart (Okabe and Ito)."""
_LINE: Final = 18
_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_STEP: Final = 4096


def cells(found: Map) -> tuple[int, list[int]]:
    """How many bytes a square stands for, and of each square 0 if nothing is held there, else twice the number of the
    topmost file that holds something in it, plus 1, and plus 1 more where it holds zeroes alone."""
    squares = COLUMNS * ROWS_MAX
    each = max(_STEP, -(-found.size // squares // _STEP) * _STEP)
    states = [0] * max(1, -(-found.size // each))
    for one in found.ranges:
        state = 1 + 2 * one.depth + (one.kind is ExtentKind.ZERO)
        for number in range(one.offset // each, min(-(-(one.offset + one.length) // each), len(states))):
            before = states[number]
            states[number] = state if not before else min(before, state)
    return each, states


def _colour(state: int) -> tuple[int, int, int]:
    """Zeroes are as their file, but pale."""
    if not state:
        return _EMPTY
    red, green, blue = _COLOURS[(state - 1) // 2 % len(_COLOURS)]
    if state % 2:
        return red, green, blue
    return (red + 2 * 255) // 3, (green + 2 * 255) // 3, (blue + 2 * 255) // 3


def png(found: Map) -> bytes:
    """The picture alone."""
    _, states = cells(found)
    palette = sorted(set(states) | {0})[:256]
    number_of = {state: number for number, state in enumerate(palette)}
    rows = -(-len(states) // COLUMNS)
    width, height = COLUMNS * CELL, rows * CELL
    lines = bytearray()
    for row in range(rows):
        line = states[row * COLUMNS : (row + 1) * COLUMNS]
        pixels = b"".join(bytes([number_of.get(state, 0)]) * CELL for state in line).ljust(width, b"\0")
        lines += (b"\0" + pixels) * CELL
    colours = b"".join(bytes(_colour(state)) for state in palette)
    return b"".join(
        (
            _SIGNATURE,
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            _chunk(b"PLTE", colours),
            _chunk(b"IDAT", zlib.compress(bytes(lines), 9)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def svg(found: Map) -> str:
    """The picture, with a line for each file of the chain: its name, and when it was changed last."""
    each, states = cells(found)
    rows = -(-len(states) // COLUMNS)
    top = rows * CELL + _LINE
    height = top + _LINE * (len(found.layers) + 1)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{COLUMNS * CELL}" height="{height}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="100%" height="{rows * CELL}" fill="{_hex(_EMPTY)}"/>',
        *_runs(states),
        f'<text y="{rows * CELL + 13}">{found.size} bytes, {each} a square</text>',
    ]
    for number, layer in enumerate(found.layers):
        y = top + _LINE * number
        lines.append(f'<rect y="{y + 4}" width="10" height="10" fill="{_hex(_colour(1 + 2 * number))}"/>')
        lines.append(f'<text x="16" y="{y + 13}">{escape(_printable(layer))}</text>')
    return "\n".join([*lines, "</svg>", ""])


def _printable(layer: Layer) -> str:
    name = "".join(letter if letter.isprintable() else "?" for letter in layer.path)
    when = "" if layer.mtime is None else time.strftime(", changed %Y-%m-%d %H:%M:%S", time.localtime(layer.mtime))
    return f"{name}{when}"


def _runs(states: list[int]) -> Iterator[str]:
    """Squares of one colour that lie side by side are one rectangle."""
    for row in range(-(-len(states) // COLUMNS)):
        line = states[row * COLUMNS : (row + 1) * COLUMNS]
        start = 0
        for at in range(1, len(line) + 1):
            if at == len(line) or line[at] != line[start]:
                if line[start]:
                    place = f'x="{start * CELL}" y="{row * CELL}" width="{(at - start) * CELL}" height="{CELL}"'
                    yield f'<rect {place} fill="{_hex(_colour(line[start]))}"/>'
                start = at


def _hex(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
