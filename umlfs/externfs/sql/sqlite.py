"""SQLite, through sqlite-utils."""

from __future__ import annotations

import errno
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote as percent

from umlfs.errors import UmlError, no_such
from umlfs.externfs.sql.database import Column, Database, ForeignKey, Refused, Result, Table, quote
from umlfs.externfs.sql.dialects import affinity, portable_to_sqlite

_ERRNOS: Final = {
    "SQLITE_CONSTRAINT_UNIQUE": errno.EEXIST,
    "SQLITE_CONSTRAINT_PRIMARYKEY": errno.EEXIST,
    "SQLITE_BUSY": errno.EBUSY,
    "SQLITE_LOCKED": errno.EBUSY,
    "SQLITE_READONLY": errno.EROFS,
    "SQLITE_FULL": errno.ENOSPC,
    "SQLITE_TOOBIG": errno.EFBIG,
    "SQLITE_AUTH": errno.EPERM,
    "SQLITE_INTERRUPT": errno.ETIMEDOUT,
    "SQLITE_ERROR": errno.EINVAL,
    "SQLITE_MISMATCH": errno.EINVAL,
    "SQLITE_RANGE": errno.EINVAL,
}
_SCHEMA_SECONDS: Final = 1.0
"""How long what is known of the tables is believed."""
_READING: Final = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, getattr(sqlite3, "SQLITE_RECURSIVE", 33)}
)


def _refused(error: sqlite3.Error) -> Refused:
    name = getattr(error, "sqlite_errorname", "") or ""
    code = _ERRNOS.get(name) or (errno.EINVAL if name.startswith("SQLITE_CONSTRAINT") else errno.EIO)
    if name.startswith(("SQLITE_BUSY", "SQLITE_READONLY")):
        code = _ERRNOS["_".join(name.split("_")[:2])]
    return Refused(code, str(error))


@contextmanager
def _saying() -> Iterator[None]:
    try:
        yield
    except (OverflowError, sqlite3.InterfaceError, UnicodeError) as error:
        raise Refused(errno.EINVAL, str(error)) from error
    except (sqlite3.Warning, sqlite3.ProgrammingError) as error:  # more than one statement
        raise Refused(errno.EINVAL, str(error)) from error
    except sqlite3.Error as error:
        raise _refused(error) from error


def _text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def _unusable(path: str, error: sqlite3.Error) -> UmlError:
    return UmlError(f"sql:{path}: {error}", "name an SQLite database that you may open")


class SqliteDatabase(Database):
    """A file, opened for reading alone unless `writable`."""

    def __init__(self, path: str, *, writable: bool, time_limit: float) -> None:
        import sqlite_utils

        self._path = path
        self._uri = f"file:{percent(path)}?mode={'rw' if writable else 'ro'}"
        self._time_limit = time_limit
        if not Path(path).is_file():
            raise no_such(
                path,
                what="no such file",
                shown=f"sql:{path}",
                way_out="name a database that is there; sqlite3 FILE makes one",
            )
        self._connection = self._connect()
        try:
            self._utils = sqlite_utils.Database(self._connection, execute_plugins=False)
            self._connection.execute("PRAGMA foreign_keys = ON")
            (mode,) = self._connection.execute("PRAGMA journal_mode").fetchone()
            self._write_ahead = mode == "wal"
            """Readers do not keep writers waiting."""
        except sqlite3.Error as error:
            self._connection.close()
            raise _unusable(path, error) from None
        self._lock = threading.RLock()
        self._tables: dict[str, Table] = {}
        self._read_at = 0.0

    def _connect(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(self._uri, uri=True, check_same_thread=False, isolation_level=None, timeout=5)
        except sqlite3.Error as error:
            raise _unusable(self._path, error) from None
        connection.text_factory = _text
        return connection

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    # What there is ----------------------------------------------------------------------------

    def tables(self) -> Mapping[str, Table]:
        with self._lock, _saying():
            if not self._tables or time.monotonic() - self._read_at > _SCHEMA_SECONDS:
                found = {name: self._table(name, False) for name in self._utils.table_names()}
                found |= {name: self._table(name, True) for name in self._utils.view_names()}
                self._tables, self._read_at = found, time.monotonic()
            return self._tables

    def _table(self, name: str, view: bool) -> Table:
        described = self._utils[name].columns
        columns = tuple(
            _column(one.name, one.type, bool(one.notnull and one.default_value is None)) for one in described
        )
        if view:
            return Table(name, columns, ())
        pks = [one.name for one in sorted((one for one in described if one.is_pk), key=lambda one: one.is_pk)]
        hidden = self._hidden_key(name, [one.name for one in described])
        nullable = any(one.is_pk and not one.notnull for one in described) and len(pks) > 0
        if not pks or (nullable and hidden and self._has_null(name, pks)):
            return Table(name, columns, (hidden,) if hidden else (), True, self._foreign(name), hidden)
        return Table(name, columns, tuple(pks), False, self._foreign(name), hidden)

    def _has_null(self, name: str, pks: Sequence[str]) -> bool:
        """SQLite lets a primary key be NULL; such a row is told by its rowid."""
        condition = " OR ".join(f"{quote(pk)} IS NULL" for pk in pks)
        return bool(self._connection.execute(f"SELECT 1 FROM {quote(name)} WHERE {condition} LIMIT 1").fetchone())

    def _hidden_key(self, name: str, columns: Sequence[str]) -> str | None:
        taken = {column.lower() for column in columns}
        for candidate in ("rowid", "_rowid_", "oid"):
            if candidate not in taken:
                try:
                    self._connection.execute(f"SELECT {candidate} FROM {quote(name)} LIMIT 0")
                except sqlite3.Error:  # WITHOUT ROWID
                    return None
                return candidate
        return None

    def _foreign(self, name: str) -> tuple[ForeignKey, ...]:
        found: dict[int, list[tuple[Any, ...]]] = {}
        for row in self._connection.execute(f"PRAGMA foreign_key_list({quote(name)})"):
            found.setdefault(row[0], []).append(row)
        keys = []
        for rows in found.values():
            rows.sort(key=lambda row: row[1])
            others = tuple(row[4] for row in rows if row[4] is not None)
            keys.append(ForeignKey(tuple(row[3] for row in rows), rows[0][2], others))
        return tuple(reversed(keys))

    def schema(self, table: Table) -> str:
        with self._lock, _saying():
            return str(self._utils[table.name].schema).rstrip(";\n ") + ";\n"

    def create(self, name: str, sql: str) -> None:
        statement = portable_to_sqlite(sql, name)
        with self._lock, _saying():
            self._connection.set_authorizer(_making_tables)
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    self._connection.execute(statement)
                    if name not in self._utils.table_names():
                        raise Refused(errno.EINVAL, f"this makes no table {name}")
                    self._connection.execute("COMMIT")
                except BaseException:
                    self._connection.execute("ROLLBACK")
                    raise
            finally:
                self._connection.set_authorizer(None)
        self._read_at = 0.0

    def drop(self, table: Table) -> None:
        super().drop(table)
        self._read_at = 0.0

    # Rows -------------------------------------------------------------------------------------

    def order(self, table: Table) -> list[str]:
        """By rowid where there is one: that is the fastest, and it is never NULL."""
        return [table.place] if table.place else self.identity(table)

    def fetch(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock, _saying():
            return self._connection.execute(sql, tuple(values)).fetchall()

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        with self._lock, _saying():
            return self._connection.execute(sql, tuple(values)).rowcount

    def run_many(self, statements: Iterable[tuple[str, Sequence[Any]]]) -> None:
        with self._lock, _saying():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                for sql, values in statements:
                    self._connection.execute(sql, tuple(values))
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def dump(self, table: Table) -> Result:
        names = [column.name for column in table.columns]
        columns = ", ".join(map(quote, names))
        return self._result(self._connect(), f"SELECT {columns} FROM {quote(table.name)}{self.ordered(table)}", names)

    def query(self, sql: str) -> Result:
        connection = self._connect()
        connection.execute("PRAGMA query_only = ON")
        connection.set_authorizer(_reading)
        end = time.monotonic() + self._time_limit
        connection.set_progress_handler(lambda: time.monotonic() > end, 10000)
        return self._result(connection, sql, None)

    def _result(self, connection: sqlite3.Connection, sql: str, names: list[str] | None) -> Result:
        try:
            with _saying():
                cursor = connection.execute(sql)
                if cursor.description is None:
                    raise Refused(errno.EINVAL, "not a query")
        except OSError:
            connection.close()
            raise
        return Result(
            names or [one[0] for one in cursor.description], _rows(cursor), connection.close, not self._write_ahead
        )


def _rows(cursor: sqlite3.Cursor) -> Iterator[Sequence[Any]]:
    with _saying(), closing(cursor):
        yield from cursor


def _column(name: str, type_: str, required: bool) -> Column:
    kind = affinity(type_)
    binary = kind == "BLOB" and bool(type_)
    return Column(name, type_, required, binary, kind != "BLOB", kind in ("INTEGER", "REAL", "NUMERIC"))


def _reading(action: int, *_: object) -> int:
    return sqlite3.SQLITE_OK if action in _READING else sqlite3.SQLITE_DENY


_FORBIDDEN: Final = frozenset({sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH, sqlite3.SQLITE_PRAGMA})


def _making_tables(action: int, *_: object) -> int:
    return sqlite3.SQLITE_DENY if action in _FORBIDDEN else sqlite3.SQLITE_OK
