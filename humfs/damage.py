"""Looking for what is wrong with a database of humfs: its tables, and what stands in them. Nothing is changed.

The database is hostile: it is read by a connection of its own, which takes nothing in it for an instruction, and text
in it is never taken for more than bytes.
"""

from __future__ import annotations

import contextlib
import sqlite3
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from humfs import schema

TABLES: Final[Mapping[str, Mapping[str, type]]] = {
    "inode": schema.INODE,
    "dentry": schema.DENTRY,
    "xattr": schema.XATTR,
    "meta": schema.META,
}
"""What metadata is in, with the columns."""
_TYPES: Final = frozenset(
    {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK}
)
_SHOWN: Final = 10
"""So many problems of one table are told."""


@dataclass(frozen=True, slots=True)
class Text:
    """What a column has as text, which need not be UTF-8."""

    data: bytes

    def __str__(self) -> str:
        return self.data.decode("utf-8", "backslashreplace")


Value = int | float | bytes | Text | None
Values = dict[str, Value]


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that reads as much as can be read. sqlite3.Error."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=1)) as connection:
        connection.text_factory = Text
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA writable_schema = ON")  # a schema that makes no sense is no error
        yield connection


def problems(path: Path) -> list[str]:
    """One line for each thing that is wrong; none for a database that is as `humfs.schema` says. Blocks."""
    try:
        with reading(path) as connection:
            return _problems(connection)
    except sqlite3.Error as error:
        return [str(error)]


def _problems(connection: sqlite3.Connection) -> list[str]:
    if connection.execute("PRAGMA user_version").fetchone() != (schema.USER_VERSION,):
        return []  # another's, or of another time: opening it says so
    found = [str(text) for (text,) in connection.execute(f"PRAGMA integrity_check({_SHOWN})") if str(text) != "ok"]
    missing = [name for name in _expected() if name not in _there(connection)]
    found += [f"no {kind} {name}" for kind, name in missing]
    if found:
        return found
    for table in TABLES:
        wrong = (text for row in rows(connection, table) for text in wrong_in(table, row))
        found += [text for text, _ in zip(wrong, range(_SHOWN), strict=False)]
    return found + [f"meta has no number '{key}'" for key in missing_meta(connection)]


def _there(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    return {(str(kind), str(name)) for kind, name in connection.execute("SELECT type, name FROM sqlite_master")}


@cache
def _expected() -> tuple[tuple[str, str], ...]:
    """Tables and indexes that a database of humfs has."""
    from sqlite_utils import Database

    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        schema.create(Database(connection))
        return tuple(connection.execute("SELECT type, name FROM sqlite_master ORDER BY type DESC, name"))


def missing_meta(connection: sqlite3.Connection) -> list[str]:
    known = {str(key) for key, value in connection.execute("SELECT key, value FROM meta") if isinstance(value, int)}
    return [key for key in schema.META_START if key not in known]


def rows(connection: sqlite3.Connection, table: str, *, backwards: bool = False) -> Iterator[Values]:
    """The rows of one of `TABLES` without its indexes, in the order they were put in or the other way round."""
    columns = TABLES[table]
    order = "DESC" if backwards else "ASC"
    select = f"SELECT {', '.join(columns)} FROM {table} NOT INDEXED ORDER BY rowid {order}"
    for values in connection.execute(select):
        yield dict(zip(columns, values, strict=True))


# One row --------------------------------------------------------------------------------------


def wrong_in(table: str, row: Values) -> list[str]:
    """What is wrong in a row; empty if it is as the schema says."""
    return [f"{_named(table, row)}: {column} is {_shown(value)}" for column, value in bad_columns(table, row).items()]


def bad_columns(table: str, row: Values) -> Values:
    """The columns of a row whose values mean nothing."""
    return {column: value for column, value in row.items() if not _is_right(table, column, value)}


def _is_right(table: str, column: str, value: Value) -> bool:
    check = _CHECKS.get((table, column))
    if check is not None:
        return check(value)
    return isinstance(value, bytes if TABLES[table][column] is bytes else int)


def _is_mode(value: Value) -> bool:
    return isinstance(value, int) and 0 <= value < 1 << 16 and stat.S_IFMT(value) in _TYPES


def _is_name(value: Value) -> bool:
    return isinstance(value, bytes) and value not in (b"", b".", b"..") and not {0, ord("/")} & set(value)


_CHECKS: Final[dict[tuple[str, str], Callable[[Value], bool]]] = {
    ("inode", "mode"): _is_mode,
    ("inode", "host_ino"): lambda value: value is None or isinstance(value, int),
    ("dentry", "name"): _is_name,
    ("meta", "key"): lambda value: isinstance(value, Text),
}


def _named(table: str, row: Values) -> str:
    if table == "dentry":
        return f"name {_shown(row['name'])} in inode {_shown(row['parent'])}"
    if table == "meta":
        return f"meta {_shown(row['key'])}"
    return f"{table} {_shown(row['ino'])}"


def _shown(value: Value) -> str:
    if isinstance(value, bytes):
        return "'" + value.decode("utf-8", "backslashreplace") + "'"
    return f"text '{value}'" if isinstance(value, Text) else "empty" if value is None else str(value)
