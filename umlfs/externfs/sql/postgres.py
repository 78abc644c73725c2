"""PostgreSQL, through psycopg."""

from __future__ import annotations

import contextlib
import errno
import itertools
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from umlfs.errors import UmlError
from umlfs.externfs.kind import needed
from umlfs.externfs.sql.database import Column, Database, ForeignKey, Refused, Result, Table, quote
from umlfs.externfs.sql.dialects import renamed, sqlite_to_postgres, words_for_postgres

_CLASSES: Final = {
    "22": errno.EINVAL,  # the data
    "23": errno.EINVAL,  # a constraint
    "25": errno.EROFS,
    "28": errno.EACCES,
    "40": errno.EAGAIN,
    "42": errno.EINVAL,  # the statement
    "53": errno.ENOSPC,
    "55": errno.EBUSY,
    "57": errno.ETIMEDOUT,
}
_CODES: Final = {"23505": errno.EEXIST, "42501": errno.EACCES, "57P03": errno.EAGAIN, "42P01": errno.ENOENT}
_SCHEMA_SECONDS: Final = 1.0
_BATCH: Final = 1000

_COLUMNS: Final = """
SELECT c.oid, c.relname, c.relkind, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
       pg_get_expr(d.adbin, d.adrelid), a.attidentity, a.attgenerated
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY c.oid, a.attnum
"""
_CONSTRAINTS: Final = """
SELECT k.conrelid, k.contype, pg_get_constraintdef(k.oid), k.conname,
       ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u(n, i)
             JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.n ORDER BY i),
       f.relname,
       ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u(n, i)
             JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.n ORDER BY i)
FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace LEFT JOIN pg_class f ON f.oid = k.confrelid
WHERE n.nspname = current_schema() AND k.conrelid <> 0 ORDER BY k.conrelid, k.conname
"""


class PostgresDatabase(Database):
    """The tables of the first schema on the search path (`public`, if nothing else is said)."""

    placeholder = "%s"

    def __init__(self, url: str, *, writable: bool, time_limit: float) -> None:
        self._psycopg: Any = needed("psycopg", "sql", "sql:postgresql:")
        self._url, self._writable, self._time_limit = url, writable, time_limit
        self._lock = threading.RLock()
        self._tables: dict[str, Table] = {}
        self._schemas: dict[str, str] = {}
        self._read_at = 0.0
        self._names = itertools.count()
        try:
            self._connection = self._connect()
        except self._psycopg.Error as error:
            words = str(error).strip().splitlines()[-1]
            raise UmlError(f"sql: {words}", "name a server that answers, as postgresql://USER@HOST/DATABASE") from None

    def _connect(self, *, read_only: bool = False) -> Any:
        milliseconds = int(self._time_limit * 1000)
        read_only = read_only or not self._writable
        settings = {"statement_timeout": milliseconds, "default_transaction_read_only": "on" if read_only else "off"}
        return self._psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=max(2, int(self._time_limit)),
            options=" ".join(f"-c {name}={value}" for name, value in settings.items()),
        )

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def _saying(self) -> Iterator[None]:
        try:
            yield
        except self._psycopg.Error as error:
            state = error.sqlstate or ""
            usual = errno.EINVAL if isinstance(error, self._psycopg.DataError) else errno.EIO
            code = _CODES.get(state) or _CLASSES.get(state[:2], usual)
            raise Refused(code, str(error).strip() or "the server does not answer") from error
        except UnicodeError as error:
            raise Refused(errno.EILSEQ, str(error)) from error

    def _open(self) -> Any:
        """The connection; a new one if it broke."""
        if self._connection.closed or self._connection.broken:
            self._connection = self._connect()
        return self._connection

    # What there is ----------------------------------------------------------------------------

    def tables(self) -> Mapping[str, Table]:
        with self._lock:
            if not self._tables or time.monotonic() - self._read_at > _SCHEMA_SECONDS:
                self._read_catalogue()
            return self._tables

    def _read_catalogue(self) -> None:
        columns: dict[int, list[tuple[Any, ...]]] = {}
        for row in self.fetch(_COLUMNS):
            columns.setdefault(row[0], []).append(row)
        constraints: dict[int, list[tuple[Any, ...]]] = {}
        for row in self.fetch(_CONSTRAINTS):
            constraints.setdefault(row[0], []).append(row)
        tables, schemas = {}, {}
        for oid, rows in columns.items():
            name, own = rows[0][1], constraints.get(oid, [])
            tables[name] = _table(name, rows, own)
            schemas[name] = _schema(name, rows, own)
        self._tables, self._schemas, self._read_at = tables, schemas, time.monotonic()

    def schema(self, table: Table) -> str:
        self.tables()
        found = self._schemas.get(table.name)
        if found is None:
            raise Refused(errno.ENOENT, "the table is gone")
        return found

    def create(self, name: str, sql: str) -> None:
        """As it is, if the server takes it; else translated from SQLite's, by its words or by its structure."""
        tries = [renamed(sql, name), words_for_postgres(sql, name), sqlite_to_postgres(sql, name)]
        refused: Refused | None = None
        for statement in dict.fromkeys(filter(None, tries)):
            try:
                self._create(name, statement)
            except Refused as error:
                refused = refused or error
                continue
            self._read_at = 0.0
            return
        raise refused or Refused(errno.EINVAL, "no statement")

    def _create(self, name: str, sql: str) -> None:
        with self._lock, self._saying(), self._open().transaction():
            self._open().execute(sql, prepare=True)  # prepared, so it can be but one statement
            if not self.fetch("SELECT 1 FROM pg_class WHERE oid = to_regclass(%s)", [quote(name)]):
                raise Refused(errno.EINVAL, f"this makes no table {name}")

    def drop(self, table: Table) -> None:
        super().drop(table)
        self._read_at = 0.0

    # Rows -------------------------------------------------------------------------------------

    def expression(self, column: Column) -> str:
        plain = column.binary or column.type in _PLAIN
        return quote(column.name) if plain else f"{quote(column.name)}::text"

    def selected_key(self, table: Table) -> list[str]:
        if table.hidden_key:
            return [f"{name}::text" for name in table.key]
        return [self.expression(column) for column in map(table.column, table.key) if column is not None]

    def selected_order(self, table: Table) -> list[str]:
        return self.selected_key(table)

    def fetch(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock, self._saying():
            found: list[tuple[Any, ...]] = self._open().execute(sql, _bound(values)).fetchall()
            return found

    def row(self, table: Table, key: tuple[Any, ...]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        try:
            return super().row(table, key)
        except Refused as error:
            if error.errno == errno.EINVAL:  # the key is none of the column's type
                return None
            raise

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        with self._lock, self._saying():
            return int(self._open().execute(sql, _bound(values)).rowcount)

    def run_many(self, statements: Iterable[tuple[str, Sequence[Any]]]) -> None:
        with self._lock, self._saying():
            connection = self._open()
            with connection.transaction(), connection.pipeline():
                for sql, values in statements:
                    connection.execute(sql, _bound(values))

    def dump(self, table: Table) -> Result:
        columns = ", ".join(map(self.expression, table.columns))
        names = [column.name for column in table.columns]
        return self._result(f"SELECT {columns} FROM {quote(table.name)}{self.ordered(table)}", names)

    def query(self, sql: str) -> Result:
        return self._result(sql.strip().rstrip(";"), None)

    def _result(self, sql: str, names: list[str] | None) -> Result:
        """By a cursor of the server's: that can only be a query, and never holds all rows here."""
        with self._saying():
            connection = self._connect(read_only=True)
            cursor = None
            try:
                connection.autocommit = False
                connection.isolation_level = self._psycopg.IsolationLevel.REPEATABLE_READ
                cursor = connection.cursor(name=f"rows{next(self._names)}")
                cursor.itersize = _BATCH
                cursor.execute(sql)
                found = names or [one.name for one in cursor.description]
            except BaseException:
                if cursor is not None:
                    with contextlib.suppress(self._psycopg.Error):
                        cursor.close()
                connection.close()
                raise

        def close() -> None:
            with contextlib.suppress(self._psycopg.Error):
                cursor.close()
            connection.close()

        return Result(found, self._rows(cursor), close)

    def _rows(self, cursor: Any) -> Iterator[Sequence[Any]]:
        with self._saying():
            yield from cursor


def _bound(values: Sequence[Any]) -> list[Any] | None:
    """Parameters, of whose types the server decides: all but bytes are given as text."""
    return [one if one is None or isinstance(one, bytes | bytearray) else str(one) for one in values] or None


_PLAIN: Final = ("smallint", "integer", "bigint", "real", "double precision", "boolean")
"""Types whose values Python has too; all others are text as the server writes them."""
_NUMERIC: Final = ("smallint", "integer", "bigint", "real", "double precision", "numeric")


def _table(name: str, rows: list[tuple[Any, ...]], constraints: list[tuple[Any, ...]]) -> Table:
    columns = tuple(
        Column(
            row[3], row[4], bool(row[5] and row[6] is None and not row[7]), row[4] == "bytea", True, row[4] in _NUMERIC
        )
        for row in rows
    )
    primary = next((tuple(row[4]) for row in constraints if row[1] == "p"), ())
    foreign = tuple(ForeignKey(tuple(row[4]), row[5], tuple(row[6])) for row in constraints if row[1] == "f")
    if primary:
        return Table(name, columns, primary, False, foreign)
    has_ctid = rows[0][2] in ("r", "m")
    return Table(name, columns, ("ctid",) if has_ctid else (), True, foreign)


def _schema(name: str, rows: list[tuple[Any, ...]], constraints: list[tuple[Any, ...]]) -> str:
    lines = [_column_line(row) for row in rows]
    lines += [row[2] for row in constraints if row[1] in "pufc"]
    body = ",\n  ".join(lines)
    return f"CREATE TABLE {quote(name)} (\n  {body}\n);\n"


def _column_line(row: tuple[Any, ...]) -> str:
    line = f"{quote(row[3])} {row[4]}"
    if row[8]:
        line += f" GENERATED ALWAYS AS ({row[6]}) STORED"
    elif row[7]:
        line += f" GENERATED {'ALWAYS' if row[7] == 'a' else 'BY DEFAULT'} AS IDENTITY"
    elif row[6] is not None:
        line += f" DEFAULT {row[6]}"
    return line + (" NOT NULL" if row[5] else "")
