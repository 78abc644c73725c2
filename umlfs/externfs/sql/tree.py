"""What the nodes of one database share."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from umlfs.externfs.node import Directory
from umlfs.externfs.sql.database import Database, Key, Refused, Row, Table
from umlfs.externfs.sql.fresh import FreshDirectories
from umlfs.host.syscalls import failure

T = TypeVar("T")

UNLINKED_SECONDS: Final = 0.5
"""How long a row's removed columns wait for the removal of the row, before they become NULL."""
RESULTS_MAX: Final = 64
"""Tables and results that are read at once."""
ROWS_MAX: Final = 10_000
"""Rows and tables that are begun and not yet in the database."""


@dataclass(slots=True)
class Begun:
    """A row that was made by its key, and still lacks columns that the database insists on."""

    key: Key
    row: Row
    why: str


@dataclass(slots=True)
class SqlTree:
    """An open database, and what is under way in it."""

    database: Database
    writable: bool
    queries_allowed: bool = False
    errors: dict[str, str] = field(default_factory=dict)
    """The database's last words of each table."""
    queries: dict[str, str] = field(default_factory=dict)
    begun_tables: set[str] = field(default_factory=set)
    """Directories that are to become tables."""
    begun: dict[tuple[str, str], Begun] = field(default_factory=dict)
    """Rows that are to be, by table and name."""
    unlinked: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    """Columns of which the file was removed, by table and row."""
    fresh: FreshDirectories = field(default_factory=FreshDirectories)
    results: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(RESULTS_MAX))
    _timer: threading.Timer | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _keys: dict[tuple[str, str], Key] = field(default_factory=dict)

    def table(self, name: str) -> Table:
        """ENOENT if there is none."""
        table = self.database.tables().get(name)
        if table is None:
            raise failure(errno.ENOENT)
        return table

    @contextmanager
    def telling(self, table: str) -> Iterator[None]:
        """What the database says no to is put down in the table's `error`; what it takes clears that."""
        try:
            yield
        except Refused as error:
            self.errors[table] = error.words
            raise
        self.errors.pop(table, None)

    # Rows that are not complete ---------------------------------------------------------------

    def begin(self, table: Table, name: str, key: Key) -> None:
        """Make a row that has a key alone: in the database if that can be, else when it has what is missing."""
        row = {} if table.hidden_key else dict(zip(table.key, key, strict=True))
        try:
            with self.telling(table.name):
                self.database.insert(table, row)
        except Refused as error:
            if error.errno == errno.EEXIST or table.hidden_key or len(self.begun) >= ROWS_MAX:
                raise
            self._keep(table, name, Begun(key, row, error.words))

    def _keep(self, table: Table, name: str, begun: Begun) -> None:
        self.begun[table.name, name] = begun
        self.errors[table.name] = f"row {name} is not yet in the table: {begun.why}"

    def complete(self, table: Table, name: str, changes: Row) -> None:
        """More columns of such a row. Refused for what will not do whatever else comes."""
        begun = self.begun[table.name, name]
        row = {**begun.row, **changes}
        try:
            with self.telling(table.name):
                self.database.insert(table, row)
        except Refused as error:
            missing = {column.name for column in table.columns if column.required} - set(row)
            if not missing:
                raise
            self._keep(table, name, Begun(begun.key, row, error.words))
            return
        self.begun.pop((table.name, name), None)

    # Columns that are removed -----------------------------------------------------------------

    def unlink(self, table: Table, name: str, key: Key, column: str) -> None:
        """The column's file is gone. If its row does not follow at once, it becomes NULL."""
        with self._lock:
            self._keys[table.name, name] = key
            self.unlinked.setdefault((table.name, name), set()).add(column)
            if self._timer is None:
                self._timer = threading.Timer(UNLINKED_SECONDS, self.settle)
                self._timer.daemon = True
                self._timer.start()

    def relinked(self, table: str, name: str, column: str) -> None:
        """It was made again."""
        with self._lock:
            self.unlinked.get((table, name), set()).discard(column)

    def gone(self, table: str, name: str) -> None:
        """The row is removed."""
        with self._lock:
            self.unlinked.pop((table, name), None)
            self._keys.pop((table, name), None)
            self.begun.pop((table, name), None)

    def settle(self) -> None:
        """Columns removed whose rows stay become NULL. What cannot be is there again, and `error` says why."""
        with self._lock:
            timer, self._timer = self._timer, None
            unlinked, self.unlinked = self.unlinked, {}
            keys, self._keys = self._keys, {}
        if timer is not None:
            timer.cancel()
        for place, columns in unlinked.items():
            if columns:
                self._set_null(place[0], keys[place], columns)

    def _set_null(self, name: str, key: Key, columns: set[str]) -> None:
        try:
            table = self.table(name)
            changes: dict[str, Any] = {column: None for column in columns if table.column(column) is not None}
            if changes:
                with self.telling(name):
                    self.database.update(table, key, changes)
        except OSError:  # told in `error`
            return

    def close(self) -> None:
        """Settle, and give up the database."""
        self.settle()
        self.database.close()

    def reading(self, start: Callable[[], T]) -> tuple[T, Callable[[], None]]:
        """Begin to read a result; ENFILE if so many are being read. The second is to be called at the end."""
        if not self.results.acquire(blocking=False):
            raise failure(errno.ENFILE)
        try:
            return start(), self.results.release
        except BaseException:
            self.results.release()
            raise


class SqlDirectory(Directory):
    """A directory of a database's tree."""

    __slots__ = ("_tree",)

    def __init__(self, tree: SqlTree) -> None:
        self._tree = tree

    @property
    def mode(self) -> int:  # type: ignore[override]
        return 0o755 if self._tree.writable else 0o555
