"""Rows as directories, their columns as files, foreign keys as links."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Hashable, Iterator
from typing import Any, Final

import trio

from umlfs.externfs.calls import instant
from umlfs.externfs.names import quoted, unquoted
from umlfs.externfs.node import Attributes, Child, Directory, File, Link, Node
from umlfs.externfs.sql.database import ForeignKey, Key, Row, Table
from umlfs.externfs.sql.keys import key_name, named_key, value_name
from umlfs.externfs.sql.tree import SqlTree
from umlfs.externfs.sql.values import contents, from_json, json_line, value
from umlfs.filesystem import Caller
from umlfs.host.syscalls import failure

JSON: Final = ".json"
LINK: Final = "@"
"""What the name of a link ends with: beside the column `customer` the link `customer@` leads to the row."""
_PAGE: Final = 1024
_FRESH_SECONDS: Final = 0.5
"""How long a column's size is believed that came with its row."""


class Rows(Directory):
    """All rows of a table."""

    __slots__ = ("_table", "_tree")

    def __init__(self, tree: SqlTree, table: str) -> None:
        self._tree, self._table = tree, table

    @property
    def key(self) -> Hashable:
        return "rows", self._table

    @property
    def mode(self) -> int:  # type: ignore[override]
        return 0o755 if self._tree.writable else 0o555

    def children(self) -> Iterator[Child]:
        self._tree.fresh.end(self.key)
        table = self._tree.table(self._table)
        for key in keys(self._tree, table):
            name = key_name(table, key)
            yield name, RowDirectory(self._tree, table, key, name)
        for place, begun in list(self._tree.begun.items()):
            if place[0] == table.name:
                yield place[1], RowDirectory(self._tree, table, begun.key, place[1])

    def lookup(self, name: str) -> Node:
        if not self._tree.fresh.shows(self.key, name):
            raise failure(errno.ENOENT)
        if name.endswith(JSON):
            text = name[: -len(JSON)]
            table, key, row = find(self._tree, self._table, text)
            return RowJson(self._tree, table, key, text, row)
        table, key, row = find(self._tree, self._table, name)
        return RowDirectory(self._tree, table, key, name, row)

    def mkdir(self, name: str, mode: int, caller: Caller) -> Node:
        table = self._tree.table(self._table)
        key = named_key(table, name)
        if not (self._tree.fresh.is_fresh(self.key) and self._is_there(name)):
            self._tree.begin(table, name, key)
        self._tree.fresh.make(self.key, name)
        made = RowDirectory(self._tree, table, key, name)
        self._tree.fresh.begin(made.key)
        return made

    def _is_there(self, name: str) -> bool:
        try:
            find(self._tree, self._table, name)
        except FileNotFoundError:
            return False
        return True

    def create(self, name: str, mode: int, caller: Caller) -> Node:
        """`KEY.json`: the row comes to be when it is closed."""
        if not name.endswith(JSON):
            raise failure(errno.EPERM)
        table = self._tree.table(self._table)
        text = name[: -len(JSON)]
        return RowJson(self._tree, table, named_key(table, text), text, None)

    def remove(self, name: str, node: Node) -> None:
        if not isinstance(node, RowDirectory | RowJson):
            raise failure(errno.EPERM)
        table = self._tree.table(self._table)
        if (self._table, node.name) not in self._tree.begun:
            with self._tree.telling(self._table):
                self._tree.database.delete(table, node.id)
        self._tree.gone(self._table, node.name)

    def rename(self, name: str, node: Node, to: Directory, new_name: str, replaced: Node | None) -> None:
        """Change the key."""
        if not isinstance(to, Rows) or to._table != self._table or not isinstance(node, RowDirectory):
            raise failure(errno.EXDEV)
        if replaced is not None:
            raise failure(errno.EEXIST)
        table = self._tree.table(self._table)
        if table.hidden_key:
            raise failure(errno.EPERM)
        self._tree.settle()
        changes = dict(zip(table.key, named_key(table, new_name), strict=True))
        with self._tree.telling(self._table):
            self._tree.database.update(table, node.id, changes)


def keys(tree: SqlTree, table: Table, where: str = "", values: Key = ()) -> Iterator[Key]:
    """The keys of all rows, or of those that the condition tells, however many there are."""
    if not table.key:
        return
    after: Key | None = None
    places = len(tree.database.order(table))
    while True:
        page = tree.database.page(table, after, _PAGE, where, values)
        for row in page:
            yield row[places:]
        if len(page) < _PAGE:
            return
        after = page[-1][:places]


def find(tree: SqlTree, table_name: str, name: str) -> tuple[Table, Key, Row]:
    """The row that is called so. ENOENT."""
    table = tree.table(table_name)
    begun = tree.begun.get((table_name, name))
    if begun is not None:
        return table, begun.key, begun.row
    if not table.key:
        raise failure(errno.ENOENT)
    found = tree.database.row(table, named_key(table, name))
    if found is None or key_name(table, found[0]) != name:
        raise failure(errno.ENOENT)
    return table, *found


class RowDirectory(Directory):
    """A row: a file for each column that is not NULL."""

    __slots__ = ("_read_at", "_row", "_table", "_tree", "id", "name")

    def __init__(self, tree: SqlTree, table: Table, key: Key, name: str, row: Row | None = None) -> None:
        self._tree, self._table, self.id, self.name = tree, table, key, name
        self._row, self._read_at = row, time.monotonic()

    @property
    def key(self) -> Hashable:
        return "row", self._table.name, self.name

    @property
    def mode(self) -> int:  # type: ignore[override]
        return 0o755 if self._tree.writable else 0o555

    def row(self) -> Row:
        """What is in the row now, or was a moment ago."""
        if self._row is None or time.monotonic() - self._read_at > _FRESH_SECONDS:
            self._table, self.id, self._row = find(self._tree, self._table.name, self.name)
            self._read_at = time.monotonic()
        return self._row

    def _present(self) -> Row:
        hidden = self._tree.unlinked.get((self._table.name, self.name), ())
        return {name: one for name, one in self.row().items() if one is not None and name not in hidden}

    def children(self) -> list[Child]:
        self._tree.fresh.end(self.key)
        self._row = None
        row = self._present()
        found: dict[str, Node] = {quoted(name): ColumnFile(self, name, one) for name, one in row.items()}
        hidden = self._tree.unlinked.get((self._table.name, self.name), ())
        for name, link in self._links(self.row()):
            if name not in hidden:
                found.setdefault(name, link)
        return list(found.items())

    def _links(self, row: Row) -> Iterator[tuple[str, Link]]:
        for foreign in self._table.foreign:
            target = self._target(foreign, row)
            if target is not None:
                yield link_name(foreign), Link(os.fsencode(target))

    def _target(self, foreign: ForeignKey, row: Row) -> str | None:
        """Where the link leads. None where there is no such row to be told by its name."""
        other = self._tree.database.tables().get(foreign.table)
        values = [row.get(column) for column in foreign.columns]
        if other is None or any(one is None for one in values):
            return None
        others = foreign.others or other.key
        if set(others) == set(other.key) and not other.hidden_key:
            by_name = dict(zip(others, values, strict=True))
            return f"../../../{quoted(other.name)}/rows/{key_name(other, tuple(by_name[name] for name in other.key))}"
        if len(others) == 1 and (column := other.column(others[0])) is not None:
            return f"../../../{quoted(other.name)}/by/{quoted(others[0])}/{value_name(values[0], typed=column.typed)}"
        return None

    def lookup(self, name: str) -> Node:
        if not self._tree.fresh.shows(self.key, name):
            raise failure(errno.ENOENT)
        row = self._present()
        for other, link in self._links(self.row()):
            if other == name and name not in self._tree.unlinked.get((self._table.name, self.name), ()):
                return link
        column = unquoted(name)
        if column not in row:
            raise failure(errno.ENOENT)
        return ColumnFile(self, column, row[column])

    def create(self, name: str, mode: int, caller: Caller) -> Node:
        """A value for what was NULL, once it is written."""
        column = unquoted(name)
        if self._table.column(column) is None:
            raise failure(errno.EINVAL)
        self._tree.fresh.make(self.key, name)
        return ColumnFile(self, column, None)

    def symlink(self, name: str, target: bytes, caller: Caller) -> Node:
        """Let a foreign key name another row."""
        foreign = next((one for one in self._table.foreign if link_name(one) == name), None)
        if foreign is None:
            raise failure(errno.EPERM)
        where = os.fsdecode(target).split("/")
        other = self._tree.table(foreign.table)
        if len(where) < 3 or where[-2] != "rows" or where[-3] != quoted(other.name):
            raise failure(errno.EINVAL)
        key = find(self._tree, other.name, where[-1])[1]
        by_name = dict(zip(other.key, key, strict=True))
        others = foreign.others or other.key
        self.change_row({mine: by_name[its] for mine, its in zip(foreign.columns, others, strict=True)})
        self._tree.relinked(self._table.name, self.name, name)
        self._tree.fresh.make(self.key, name)
        return Link(target)

    def remove(self, name: str, node: Node) -> None:
        column = name if isinstance(node, Link) else unquoted(name)
        self._tree.unlink(self._table, self.name, self.id, column)

    def change_row(self, changes: Row) -> None:
        """Set columns of the row. Refused."""
        place = self._table.name, self.name
        if place in self._tree.begun:
            self._tree.complete(self._table, self.name, changes)
        else:
            present = self.row()
            changes = {name: one for name, one in changes.items() if not _same(present.get(name), one)}
            if changes:
                with self._tree.telling(self._table.name):
                    if not self._tree.database.update(self._table, self.id, changes):
                        raise failure(errno.ENOENT)
        self._row = None

    def store(self, name: str, data: bytes) -> None:
        """Set one column to what a file holds."""
        column = self._table.column(name)
        if column is None:
            raise failure(errno.ENOENT)
        with self._tree.telling(self._table.name):
            new = value(column, data, self.row().get(name))
        self._tree.relinked(self._table.name, self.name, name)
        self.change_row({name: new})

    @property
    def table_name(self) -> str:
        return self._table.name


def _same(one: Any, other: Any) -> bool:
    """Whether a value is there already: as copies that come twice write it."""
    return one is not None and other is not None and type(one) is type(other) and bool(one == other)


def link_name(foreign: ForeignKey) -> str:
    """What the link of a foreign key is called."""
    return ",".join(map(quoted, foreign.columns)) + LINK


class ColumnFile(File):
    """One value."""

    __slots__ = ("_name", "_read_at", "_row", "_size")

    def __init__(self, row: RowDirectory, name: str, one: Any) -> None:
        self._row, self._name = row, name
        self._size = 0 if one is None else len(contents(one))
        self._read_at = time.monotonic()

    @property
    def key(self) -> Hashable:
        return "column", *self._row.key, self._name  # type: ignore[misc]

    @property
    def mode(self) -> int:  # type: ignore[override]
        return 0o644 if self._row.mode == 0o755 else 0o444

    async def attributes(self) -> Attributes:
        if time.monotonic() - self._read_at > _FRESH_SECONDS:
            one = (await trio.to_thread.run_sync(self._row.row)).get(self._name)
            self._size = 0 if one is None else len(contents(one))
            self._read_at = time.monotonic()
        return Attributes(self.mode, self._size)

    def read(self) -> bytes:
        one = find(self._row._tree, self._row.table_name, self._row.name)[2].get(self._name)
        return b"" if one is None else contents(one)

    def write(self, data: bytes) -> None:
        self._row.store(self._name, data)
        self._read_at = 0.0


class RowJson(File):
    """A whole row as a JSON object."""

    __slots__ = ("_row", "_table", "_tree", "id", "name")

    def __init__(self, tree: SqlTree, table: Table, key: Key, name: str, row: Row | None) -> None:
        self._tree, self._table, self.id, self.name, self._row = tree, table, key, name, row

    @property
    def key(self) -> Hashable:
        return "json", self._table.name, self.name

    @property
    def mode(self) -> int:  # type: ignore[override]
        return 0o644 if self._tree.writable else 0o444

    @staticmethod
    def _text(row: Row) -> bytes:
        return json_line(list(row), list(row.values())).encode() + b"\n"

    @instant
    async def attributes(self) -> Attributes:
        return Attributes(self.mode, len(self._text(self._row)) if self._row is not None else 0)

    def read(self) -> bytes:
        self._table, self.id, self._row = find(self._tree, self._table.name, self.name)
        return self._text(self._row)

    def write(self, data: bytes) -> None:
        """Make the row be as the object says; columns that it does not name stay, or get their default."""
        with self._tree.telling(self._table.name):
            changes = from_json(self._table, data)
            if not self._table.hidden_key:
                changes = {**dict(zip(self._table.key, self.id, strict=True)), **changes}
            if self._row is None:
                self._tree.database.insert(self._table, changes)
            else:
                self._tree.database.update(self._table, self.id, changes)
        self._row = self._row or {}
