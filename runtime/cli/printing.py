"""Text of others, made fit for a terminal: names come from guests and images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

_ENDLESS = 1 << 14
"""The width of what is no terminal: a line for each row, whatever is in it."""


def printable(text: str) -> str:
    """`text` in one line, with every character that could drive a terminal escaped. Bytes that are no text are shown as
    such."""
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def printable_lines(text: str) -> str:
    """`text` likewise, in as many lines as it has."""
    return "\n".join(map(printable, text.split("\n")))


def print_table(headings: Sequence[str], rows: Iterable[Iterable[str]]) -> None:
    """Print rows below their headings; on a terminal as wide as that is."""
    print_once(table(headings, rows))


def table(headings: Sequence[str], rows: Iterable[Iterable[str]]) -> Table:
    """Rows below their headings."""
    from rich.table import Table
    from rich.text import Text

    made = Table(*headings, box=None, pad_edge=False)
    for row in rows:
        made.add_row(*(Text(printable(cell), overflow="fold") for cell in row))
    return made


def print_once(shown: Table) -> None:
    """Print a table; on a terminal as wide as that is."""
    from rich.console import Console

    Console(width=None if Console().is_terminal else _ENDLESS).print(shown)


def _escaped(character: str) -> str:
    try:
        byte = character.encode("ascii", "surrogateescape")
    except UnicodeEncodeError:
        return character.encode("unicode_escape").decode()
    return f"\\x{byte[0]:02x}" if byte[0] > 127 else character.encode("unicode_escape").decode()
