"""Statements that make a table, from one database for another."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from typing import Final

from umlfs.externfs.sql.database import quote

_CAST: Final = re.compile(r"::[A-Za-z_][A-Za-z0-9_ ]*(?:\([0-9, ]*\))?(?:\[\])?")
_NAME: Final = re.compile(
    r"""(CREATE\s+TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?)((?:"(?:[^"]|"")*"|[\w$]+)(?:\.(?:"(?:[^"]|"")*"|[\w$]+))?)""",
    re.IGNORECASE,
)


def affinity(type_: str) -> str:
    """The affinity that SQLite gives a column of this declared type (https://sqlite.org/datatype3.html); a type of
    PostgreSQL's for bytes counts as BLOB."""
    upper = type_.upper()
    if "INT" in upper:
        return "INTEGER"
    if any(word in upper for word in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if "BLOB" in upper or not upper:
        return "BLOB"
    if any(word in upper for word in ("REAL", "FLOA", "DOUB")):
        return "REAL"
    return "NUMERIC"


def renamed(sql: str, name: str) -> str:
    """The statement, making the table `name`."""

    def made(found: re.Match[str]) -> str:
        return found[1] + (found[2] if found[2] in (name, quote(name)) else quote(name))

    return _NAME.sub(made, sql.strip().rstrip(";"), count=1)


def portable_to_sqlite(sql: str, name: str) -> str:
    """A statement of PostgreSQL's for SQLite, which has no casts and no type for bytes but BLOB."""
    return re.sub(r"\bbytea\b", "BLOB", _CAST.sub("", renamed(sql, name)), flags=re.IGNORECASE)


_WORDS: Final = {"blob": "bytea", "datetime": "timestamp", "double": "double precision", "autoincrement": ""}
_TOKEN: Final = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|[A-Za-z_]+""")


def words_for_postgres(sql: str, name: str) -> str:
    """The statement with PostgreSQL's names for types that only SQLite has."""

    def translated(found: re.Match[str]) -> str:
        return _WORDS.get(found[0].lower(), found[0])

    return _TOKEN.sub(translated, renamed(sql, name))


_POSTGRES: Final = {"INTEGER": "bigint", "TEXT": "text", "BLOB": "bytea", "REAL": "double precision"}
_KNOWN: Final = re.compile(
    r"(?:date|time|timestamp|timestamptz|boolean|bool|uuid|json|jsonb|interval|numeric|decimal"
    r"|(?:numeric|decimal|varchar|char|character varying)\s*\([0-9, ]+\))\Z",
    re.IGNORECASE,
)


def sqlite_to_postgres(sql: str, name: str) -> str | None:
    """A statement of SQLite's for PostgreSQL, by its structure. None if it has what that does not show (checks and
    generated columns), or is none of SQLite's."""
    if re.search(r"\b(CHECK|GENERATED|COLLATE)\b", sql, re.IGNORECASE):
        return None
    with closing(sqlite3.connect(":memory:")) as database:
        database.set_authorizer(_no_files)
        try:
            database.execute(renamed(sql, name))
        except (sqlite3.Error, sqlite3.Warning):
            return None
        database.set_authorizer(None)
        columns = database.execute('SELECT name, type, "notnull", dflt_value, pk FROM pragma_table_info(?)', (name,))
        described = columns.fetchall()
        lines = [_line(*column[:4]) for column in described]
        keys = [column[0] for column in sorted((c for c in described if c[4]), key=lambda c: c[4])]
        if keys:
            lines.append(f"PRIMARY KEY ({', '.join(map(quote, keys))})")
        lines += _uniques(database, name) + _foreign(database, name)
    body = ",\n  ".join(lines)
    return f"CREATE TABLE {quote(name)} (\n  {body}\n)"


def _no_files(action: int, *_: object) -> int:
    return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_ATTACH else sqlite3.SQLITE_OK


def _line(name: str, type_: str, notnull: int, default: str | None) -> str:
    kind = type_ if _KNOWN.match(type_) else _POSTGRES.get(affinity(type_), "numeric")
    return f"{quote(name)} {kind}" + (" NOT NULL" if notnull else "") + (f" DEFAULT {default}" if default else "")


def _uniques(database: sqlite3.Connection, name: str) -> list[str]:
    found = []
    for index, origin in database.execute("SELECT name, origin FROM pragma_index_list(?)", (name,)).fetchall():
        if origin == "u":
            columns = database.execute("SELECT name FROM pragma_index_info(?) ORDER BY seqno", (index,)).fetchall()
            found.append(f"UNIQUE ({', '.join(quote(column) for (column,) in columns)})")
    return found


def _foreign(database: sqlite3.Connection, name: str) -> list[str]:
    rows = database.execute(
        'SELECT id, "table", "from", "to", on_update, on_delete FROM pragma_foreign_key_list(?) ORDER BY id, seq',
        (name,),
    ).fetchall()
    found: dict[int, list[tuple[str, ...]]] = {}
    for row in rows:
        found.setdefault(row[0], []).append(row[1:])
    lines = []
    for parts in found.values():
        others = [part[2] for part in parts if part[2] is not None]
        to = f" ({', '.join(map(quote, others))})" if others else ""
        columns = ", ".join(quote(part[1]) for part in parts)
        actions = f" ON UPDATE {parts[0][3]} ON DELETE {parts[0][4]}"
        lines.append(f"FOREIGN KEY ({columns}) REFERENCES {quote(parts[0][0])}{to}{actions}")
    return lines
