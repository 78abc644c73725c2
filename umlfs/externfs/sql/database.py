"""What a database is to the tree, whichever it is.

Identifiers in SQL come from the database's own catalogue, never from a guest, and are quoted; values are bound as
parameters. All methods block, and may be called from any thread.
"""

from __future__ import annotations

import errno
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Value: TypeAlias = "int | float | str | bytes | bool | None"
Key: TypeAlias = tuple[Any, ...]
"""The values that tell a row of a table, in the order of `Table.key`."""
Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    name: str
    type: str
    required: bool = False
    """NOT NULL, without a default."""
    binary: bool = False
    """Its values are bytes."""
    typed: bool = True
    """The database makes values be of the column's type."""
    numeric: bool = False
    """Blanks around a value mean nothing."""


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """Columns that name a row of another table, or of the same."""

    columns: tuple[str, ...]
    table: str
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table or a view."""

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    """The columns of the primary key, or the pseudo-column that stands for it; empty for a view."""
    hidden_key: bool = False
    """The key is no column."""
    foreign: tuple[ForeignKey, ...] = ()
    place: str | None = None
    """A pseudo-column in whose order rows are listed, if there is a better one than the key."""

    def column(self, name: str) -> Column | None:
        return next((column for column in self.columns if column.name == name), None)


@dataclass(frozen=True, slots=True)
class Result:
    """Rows as they were at one moment. `close` ends that."""

    names: list[str]
    rows: Iterator[Sequence[Any]]
    close: Callable[[], None]
    at_once: bool = False
    """While it is being read nobody can write."""


class Refused(OSError):
    """What the database said no to; `words` are its own."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(code, words)
        self.words = words


def quote(identifier: str) -> str:
    """An identifier in SQL. EINVAL for one that cannot be."""
    if "\0" in identifier or not identifier:
        raise Refused(errno.EINVAL, "not a name")
    return '"' + identifier.replace('"', '""') + '"'


class Database(ABC):
    """An open database."""

    placeholder = "?"

    # What there is ----------------------------------------------------------------------------

    @abstractmethod
    def tables(self) -> Mapping[str, Table]:
        """All tables and views, by name."""

    @abstractmethod
    def schema(self, table: Table) -> str:
        """The SQL that makes it."""

    @abstractmethod
    def create(self, name: str, sql: str) -> None:
        """Make the table `name` as `sql`, of this database or of another, says. Refused."""

    def drop(self, table: Table) -> None:
        self.run(f"DROP TABLE {quote(table.name)}")

    # Rows -------------------------------------------------------------------------------------

    @abstractmethod
    def fetch(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows that a statement gives. Refused."""

    @abstractmethod
    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        """One statement as a transaction: how many rows it changed. Refused."""

    @abstractmethod
    def run_many(self, statements: Iterable[tuple[str, Sequence[Any]]]) -> None:
        """All of them as one transaction, or none. Refused."""

    def ordered(self, table: Table) -> str:
        """The clause that gives a whole table in the order of its key, so that two can be compared."""
        return "" if table.hidden_key or not table.key else f" ORDER BY {', '.join(self.identity(table))}"

    @abstractmethod
    def dump(self, table: Table) -> Result:
        """All rows as they are now."""

    @abstractmethod
    def query(self, sql: str) -> Result:
        """What a query of somebody's gives, who may read all and change nothing. Refused."""

    @abstractmethod
    def close(self) -> None:
        """Give up the connections."""

    def expression(self, column: Column) -> str:
        """What is selected for a column's value."""
        return quote(column.name)

    def identity(self, table: Table) -> list[str]:
        """The key's columns in SQL."""
        return [name if table.hidden_key else quote(name) for name in table.key]

    def selected_key(self, table: Table) -> list[str]:
        """What is selected for the key."""
        return self.identity(table)

    def where(self, table: Table) -> str:
        """The condition that tells one row."""
        return " AND ".join(f"{name} = {self.placeholder}" for name in self.identity(table))

    def condition(self, column: Column) -> str:
        """The condition that a column has a value."""
        return f"{quote(column.name)} = {self.placeholder}"

    def order(self, table: Table) -> list[str]:
        """The columns in whose order rows are listed, each row having values of its own."""
        return self.identity(table)

    def page(self, table: Table, after: Key | None, limit: int, where: str = "", values: Key = ()) -> list[Key]:
        """Keys of rows, each behind its place in the listing, from behind the place `after`."""
        place, key = self.order(table), self.selected_key(table)
        conditions = [where] if where else []
        if after is not None:
            marks = ", ".join([self.placeholder] * len(place))
            conditions.append(f"({', '.join(place)}) > ({marks})")
        clause = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        # The place is selected as the key is: what comes back is bound again.
        selected = ", ".join([*self.selected_order(table), *key])
        sql = f"SELECT {selected} FROM {quote(table.name)}{clause} ORDER BY {', '.join(place)} LIMIT {limit}"
        return self.fetch(sql, [*values, *(after or ())])

    def selected_order(self, table: Table) -> list[str]:
        return self.order(table)

    def row(self, table: Table, key: Key) -> tuple[Key, Row] | None:
        """One row and its key as the database has it, if it is there."""
        columns = [self.expression(column) for column in table.columns]
        selected = ", ".join([*self.selected_key(table), *columns])
        found = self.fetch(f"SELECT {selected} FROM {quote(table.name)} WHERE {self.where(table)}", key)
        if not found:
            return None
        count = len(table.key)
        names = [column.name for column in table.columns]
        return found[0][:count], dict(zip(names, found[0][count:], strict=True))

    def values(self, table: Table, column: Column, after: Any, limit: int) -> list[Any]:
        """The distinct values of a column but NULL, in order, from behind `after` (None: all)."""
        name = quote(column.name)
        condition = f"{name} IS NOT NULL" + ("" if after is None else f" AND {name} > {self.placeholder}")
        what = self.expression(column)
        sql = f"SELECT {what} FROM {quote(table.name)} WHERE {condition} GROUP BY {name} ORDER BY {name} LIMIT {limit}"
        return [value for (value,) in self.fetch(sql, [] if after is None else [after])]

    def insert(self, table: Table, row: Row) -> None:
        self.run(*self.insertion(table, row))

    def insertion(self, table: Table, row: Row) -> tuple[str, list[Any]]:
        if not row:
            return f"INSERT INTO {quote(table.name)} DEFAULT VALUES", []
        marks = ", ".join([self.placeholder] * len(row))
        return f"INSERT INTO {quote(table.name)} ({', '.join(map(quote, row))}) VALUES ({marks})", list(row.values())

    def upsertion(self, table: Table, row: Row) -> tuple[str, list[Any]]:
        """Insert the row, or make the one of that key like it."""
        sql, values = self.insertion(table, row)
        if table.hidden_key or not set(table.key) <= set(row):
            return sql, values
        rest = [name for name in row if name not in table.key]
        change = "UPDATE SET " + ", ".join(f"{quote(n)} = excluded.{quote(n)}" for n in rest) if rest else "NOTHING"
        return f"{sql} ON CONFLICT ({', '.join(map(quote, table.key))}) DO {change}", values

    def update(self, table: Table, key: Key, changes: Row) -> int:
        sets = ", ".join(f"{quote(name)} = {self.placeholder}" for name in changes)
        sql = f"UPDATE {quote(table.name)} SET {sets} WHERE {self.where(table)}"
        return self.run(sql, [*changes.values(), *key])

    def delete(self, table: Table, key: Key) -> int:
        return self.run(f"DELETE FROM {quote(table.name)} WHERE {self.where(table)}", key)

    def upsert(self, table: Table, rows: Iterable[Row]) -> None:
        """All of them in one transaction, or none. Rows without a key cannot be told: they replace all there are."""
        first: list[tuple[str, Sequence[Any]]] = [(f"DELETE FROM {quote(table.name)}", [])] if table.hidden_key else []
        self.run_many(itertools.chain(first, (self.upsertion(table, row) for row in rows)))
