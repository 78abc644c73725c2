"""Results of a database as what is read of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from umlfs.externfs.spool import Spooled
from umlfs.externfs.sql.database import Result
from umlfs.externfs.sql.values import csv_pieces, json_pieces

PIECES: Final[dict[str, Callable[[Sequence[str], Iterable[Sequence[Any]]], Iterator[bytes]]]] = {
    "csv": csv_pieces,
    "jsonl": json_pieces,
}
"""What makes bytes of names and rows, by the format."""


def spooled(result: Result, format_: str, done: Callable[[], None]) -> Spooled:
    """A result in one of the formats."""

    def finish() -> None:
        result.close()
        done()

    contents = Spooled(PIECES[format_](result.names, result.rows), finish)
    if result.at_once:
        try:
            contents.size()
        except BaseException:
            contents.close()
            raise
    return contents
