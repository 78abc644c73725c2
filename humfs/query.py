"""The metadata of a humfs directory as tables, to be asked and never changed: here sqlite-utils reads what it made."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlite_utils import Database

from humfs import schema, superblock
from umlfs.errors import UmlError, UsageError

_ALLOWED: Final = frozenset(
    {
        *(sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE),
        *(sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_SAVEPOINT),  # sqlite-utils looks with one whether it is a question
    }
)
"""What a question may do: no other file is opened, and nothing is set."""
_NAME: Final = re.compile(r"\w+\Z")
_WAIT_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the database."""

    name: str
    rows: int
    columns: tuple[str, ...]


def tables(root: Path) -> list[Table]:
    """The tables. UmlError if `root` has no metadata in SQLite. Blocks."""
    with _opened(root) as database:
        return [Table(each.name, each.count, tuple(each.columns_dict)) for each in database.tables]


def query(root: Path, question: str) -> list[dict[str, Any]]:
    """The rows that the name of a table, or a SELECT of SQL, asks for: what was committed so far, if the filesystem is
    in use. Values are numbers, text, None, and bytes as text where they are names.

    UsageError for SQL that makes no sense or would change something; UmlError for a database that cannot be read.
    Blocks.
    """
    with _opened(root) as database:
        sql = f"SELECT * FROM [{question}]" if _NAME.match(question) else question
        database.conn.set_authorizer(_authorize)
        try:
            return [{name: _plain(value) for name, value in row.items()} for row in database.query(sql)]
        except (sqlite3.Error, ValueError) as error:
            raise UsageError(f"{question}: {error}", "ask for a table, or write a SELECT of SQL") from None


def _authorize(action: int, *_: object) -> int:
    return sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY


def _plain(value: object) -> object:
    """Names are bytes, of which each is kept; contents of other kinds are hexadecimal digits."""
    if not isinstance(value, bytes):
        return value
    text = os.fsdecode(value)
    return text if text.isprintable() or not text else f"0x{value.hex()}"


@contextmanager
def _opened(root: Path) -> Iterator[Database]:
    if superblock.read(root).metadata == superblock.SHADOW_FS:
        raise UmlError(f"{root}: its metadata is in files, not in SQLite", "'uml humfs convert --to sqlite' does that")
    path = root / schema.FILE
    uri = f"file:{quote(os.path.abspath(path))}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=_WAIT_SECONDS)) as connection:
            connection.execute("PRAGMA trusted_schema = OFF")
            yield Database(connection)
    except sqlite3.Error as error:
        raise UmlError(f"{path}: {error}", "see 'uml humfs check'") from None
