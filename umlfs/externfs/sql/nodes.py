"""The tree of a database, down to its tables."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Hashable, Iterator
from typing import IO, Any, Final

from umlfs.externfs.contents import Contents
from umlfs.externfs.names import quoted, unquoted
from umlfs.externfs.node import Child, File, Link, Node, Text
from umlfs.externfs.spool import Gathered
from umlfs.externfs.sql.database import Column, Row, Table
from umlfs.externfs.sql.keys import key_name, named_value, value_name
from umlfs.externfs.sql.queries import QUERIES, QUERY_MAX, Queries
from umlfs.externfs.sql.results import spooled
from umlfs.externfs.sql.rows import Rows, keys
from umlfs.externfs.sql.tree import ROWS_MAX, SqlDirectory, SqlTree
from umlfs.externfs.sql.values import rows_of_csv, rows_of_json
from umlfs.filesystem import Caller
from umlfs.host.syscalls import failure

SCHEMA: Final = "schema.sql"
_UNLISTED: Final = ("by", "rows")
_PAGE: Final = 1024


def table_name(name: str) -> str:
    """What the directory of a table is called."""
    return "%queries" if name == QUERIES else quoted(name)


def named_table(name: str) -> str:
    return QUERIES if name == "%queries" else unquoted(name)


class Root(SqlDirectory):
    """The tables, and `queries`."""

    __slots__ = ()

    def children(self) -> list[Child]:
        found: list[Child] = [(QUERIES, Queries(self._tree))]
        names = {*self._tree.database.tables(), *self._tree.begun_tables}
        return found + [(table_name(name), TableDirectory(self._tree, name)) for name in sorted(names)]

    def lookup(self, name: str) -> Node:
        if name == QUERIES:
            return Queries(self._tree)
        text = named_table(name)
        if text not in self._tree.begun_tables:
            self._tree.table(text)
        return TableDirectory(self._tree, text)

    def mkdir(self, name: str, mode: int, caller: Caller) -> Node:
        """A table that comes to be when its `schema.sql` is written."""
        if not self._tree.writable or len(self._tree.begun_tables) >= ROWS_MAX:
            raise failure(errno.ENOSPC if self._tree.writable else errno.EROFS)
        text = named_table(name)
        self._tree.begun_tables.add(text)
        made = TableDirectory(self._tree, text)
        self._tree.fresh.begin(made.key)
        return made

    def remove(self, name: str, node: Node) -> None:
        if not isinstance(node, TableDirectory):
            raise failure(errno.EPERM)
        text = node.name
        if text in self._tree.begun_tables:
            self._tree.begun_tables.discard(text)
            return
        table = self._tree.table(text)
        if not table.key or (not table.hidden_key and next(keys(self._tree, table), None) is not None):
            raise failure(errno.ENOTEMPTY)
        with self._tree.telling(text):
            self._tree.database.drop(table)


class TableDirectory(SqlDirectory):
    """A table: its schema, its rows, and all of it in one file. `by/COLUMN/VALUE/` is there, and not listed, for it
    shows each row once more; so are the `rows` of a table without a key, whose names are no part of it."""

    __slots__ = ("name",)

    def __init__(self, tree: SqlTree, name: str) -> None:
        super().__init__(tree)
        self.name = name

    @property
    def key(self) -> Hashable:
        return "table", self.name

    def _begun(self) -> bool:
        return self.name in self._tree.begun_tables

    def children(self) -> list[Child]:
        self._tree.fresh.end(self.key)
        return [(name, self._child(name)) for name in self._names()]

    def _names(self) -> list[str]:
        names = [] if self._begun() else [SCHEMA, "all.csv", "all.jsonl"]
        if names and self._has_rows() and not self._tree.table(self.name).hidden_key:
            names.append("rows")
        if self.name in self._tree.errors:
            names.append("error")
        return names

    def _has_rows(self) -> bool:
        """Whether its rows can be told from one another."""
        return not self._begun() and bool(self._tree.table(self.name).key)

    def _child(self, name: str) -> Node:
        if name == SCHEMA:
            return Schema(self._tree, self.name)
        if name == "error":
            return Text(f"{self._tree.errors[self.name]}\n", ("error", self.name, self._tree.errors[self.name]))
        if name == "rows":
            return Rows(self._tree, self.name)
        if name == "by":
            return Columns(self._tree, self.name)
        return Whole(self._tree, self.name, name.removeprefix("all."))

    def lookup(self, name: str) -> Node:
        there = name in self._names() or (name in _UNLISTED and self._has_rows())
        if not there or not self._tree.fresh.shows(self.key, name):
            raise failure(errno.ENOENT)
        return self._child(name)

    def create(self, name: str, mode: int, caller: Caller) -> Node:
        if name in ("all.csv", "all.jsonl") or (name == SCHEMA and self._begun()):
            self._tree.fresh.make(self.key, name)
            return self._child(name)
        raise failure(errno.EPERM)

    def mkdir(self, name: str, mode: int, caller: Caller) -> Node:
        """`rows`, in a table that is being copied."""
        if name != "rows" or name not in self._names():
            raise failure(errno.EPERM)
        self._tree.fresh.make(self.key, name)
        made = Rows(self._tree, self.name)
        self._tree.fresh.begin(made.key)
        return made

    def remove(self, name: str, node: Node) -> None:
        """What is made from the table goes with it; `error` is forgotten."""
        if name == "error":
            self._tree.errors.pop(self.name, None)
        if name == "rows" and next(keys(self._tree, self._tree.table(self.name)), None) is not None:
            raise failure(errno.ENOTEMPTY)


class Schema(File):
    """The SQL that makes the table."""

    __slots__ = ("_name", "_tree")
    size_max = QUERY_MAX
    early = 30  # a copy makes the table first

    def __init__(self, tree: SqlTree, name: str) -> None:
        self._tree, self._name = tree, name

    @property
    def key(self) -> Hashable:
        return "schema", self._name

    @property
    def mode(self) -> int:  # type: ignore[override]
        return 0o644 if self._tree.writable else 0o444

    def read(self) -> str:
        if self._name in self._tree.begun_tables:
            return ""
        return self._tree.database.schema(self._tree.table(self._name))

    def write(self, data: bytes) -> None:
        """Make the table. One that is there stays as it is: EEXIST, unless the same is said."""
        text = data.decode(errors="surrogateescape")
        if self._name not in self._tree.begun_tables:
            if text.strip() != self.read().strip():
                raise failure(errno.EEXIST)
            return
        with self._tree.telling(self._name):
            self._tree.database.create(self._name, text)
        self._tree.begun_tables.discard(self._name)


_PARSERS: Final[dict[str, Callable[[Table, IO[bytes]], Iterator[Row]]]] = {"csv": rows_of_csv, "jsonl": rows_of_json}


class Whole(File):
    """All rows in one file, as they were when it was opened. What is written is rows to insert, or to make like it."""

    __slots__ = ("_format", "_name", "_tree")
    size = -1

    def __init__(self, tree: SqlTree, name: str, format_: str) -> None:
        self._tree, self._name, self._format = tree, name, format_

    @property
    def key(self) -> Hashable:
        return "whole", self._name, self._format

    @property
    def early(self) -> int:  # type: ignore[override]
        """Then all rows at once, last by that which keeps the types."""
        return 20 if self._format == "csv" else 10

    @property
    def mode(self) -> int:  # type: ignore[override]
        return 0o644 if self._tree.writable else 0o444

    def open(self, flags: int) -> Contents:
        table = self._tree.table(self._name)
        if flags & os.O_ACCMODE != os.O_RDONLY:
            return Gathered(self._store)
        result, done = self._tree.reading(lambda: self._tree.database.dump(table))
        return spooled(result, self._format, done)

    def _store(self, file: IO[bytes]) -> None:
        table = self._tree.table(self._name)
        with self._tree.telling(self._name):
            self._tree.database.upsert(table, _PARSERS[self._format](table, file))
        self._tree.fresh.make(("table", self._name), f"all.{self._format}")


# Rows by the values of a column ---------------------------------------------------------------


class Columns(SqlDirectory):
    """`by/`: the columns of a table."""

    __slots__ = ("_name",)

    def __init__(self, tree: SqlTree, name: str) -> None:
        super().__init__(tree)
        self._name = name

    mode = 0o555

    @property
    def key(self) -> Hashable:
        return "by", self._name

    def children(self) -> list[Child]:
        table = self._tree.table(self._name)
        return [(quoted(column.name), Values(self._tree, table, column)) for column in table.columns if table.key]

    def lookup(self, name: str) -> Node:
        table = self._tree.table(self._name)
        column = table.column(unquoted(name))
        if column is None or not table.key:
            raise failure(errno.ENOENT)
        return Values(self._tree, table, column)


class Values(SqlDirectory):
    """`by/COLUMN/`: the distinct values of a column."""

    __slots__ = ("_column", "_table")

    def __init__(self, tree: SqlTree, table: Table, column: Column) -> None:
        super().__init__(tree)
        self._table, self._column = table, column

    mode = 0o555

    @property
    def key(self) -> Hashable:
        return "by", self._table.name, self._column.name

    def children(self) -> Iterator[Child]:
        after = None
        while True:
            page = self._tree.database.values(self._table, self._column, after, _PAGE)
            for value in page:
                name = value_name(value, typed=self._column.typed)
                yield name, Matching(self._tree, self._table, self._column, value, name)
            if len(page) < _PAGE:
                return
            after = page[-1]

    def lookup(self, name: str) -> Node:
        value = named_value(name, binary=False)
        found = Matching(self._tree, self._table, self._column, value, name)
        if value is None or next(found.rows(), None) is None:
            raise failure(errno.ENOENT)
        return found


class Matching(SqlDirectory):
    """`by/COLUMN/VALUE/`: links to the rows that have the value."""

    __slots__ = ("_column", "_name", "_table", "_value")

    def __init__(self, tree: SqlTree, table: Table, column: Column, value: Any, name: str) -> None:
        super().__init__(tree)
        self._table, self._column, self._value, self._name = table, column, value, name

    mode = 0o555

    @property
    def key(self) -> Hashable:
        return "by", self._table.name, self._column.name, self._name

    def rows(self) -> Iterator[Any]:
        where = self._tree.database.condition(self._column)
        return keys(self._tree, self._table, where, (self._value,))

    def children(self) -> Iterator[Child]:
        for key in self.rows():
            name = key_name(self._table, key)
            yield name, Link(os.fsencode(f"../../../rows/{name}"))
