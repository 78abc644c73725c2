"""SQLite as the rest of humfs sees it: statements in, rows out, and an `OSError` with an errno for whatever fails.

No `sqlite3.Error` leaves this module. Statements run on one connection, from one thread at a time, and never wait for
another program's lock: that is `EBUSY`, for the caller to try again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from humfs import schema
from umlfs.errors import UmlError

CACHE_KIB: Final = 32 * 1024
"""SQLite's page cache; a transaction that outgrows it spills into the WAL."""
_SETTINGS: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",  # a commit is not durable by itself: `Store.sync_log` makes it so
    "PRAGMA wal_autocheckpoint = 0",
    f"PRAGMA cache_size = -{CACHE_KIB}",
    "PRAGMA trusted_schema = OFF",
)
QUEUED_MAX: Final = 8192
"""Rows that wait to be inserted together: one statement for many takes a fraction of the time."""
OPEN_SECONDS: Final = 5.0
"""How long to wait for another program's lock when the database is opened, or the WAL moved."""

_ERRNOS: Final = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_BUSY: errno.EBUSY,
    sqlite3.SQLITE_LOCKED: errno.EBUSY,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_AUTH: errno.EACCES,
    sqlite3.SQLITE_NOMEM: errno.ENOMEM,
    sqlite3.SQLITE_TOOBIG: errno.EFBIG,
    sqlite3.SQLITE_INTERRUPT: errno.EINTR,
}
"""By SQLite's primary result code. All others (SQLITE_IOERR, SQLITE_CORRUPT, SQLITE_NOTADB, SQLITE_CANTOPEN, …) are
EIO."""

Parameters = Sequence[Any]


def as_oserror(error: sqlite3.Error, path: Path | str) -> OSError:
    """`error` of the database at `path`, with an errno; what SQLite said is its `strerror`, but for a full disk, which
    the host says in its own words."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    number = _ERRNOS.get(code, errno.EIO)
    why = os.strerror(number) if number == errno.ENOSPC else str(error)
    return OSError(number, why, os.fspath(path))


def unusable(path: Path | str, error: Exception) -> UmlError:
    """What to say of a database that cannot be used."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return UmlError(f"{path}: the host's disk is full", "make room there, nothing is lost")
    if isinstance(error, OSError) and error.errno == errno.EBUSY:
        return UmlError(f"{path}: locked by another program", "end what has it open, such as sqlite3")
    why = error.strerror if isinstance(error, OSError) else str(error)
    way_out = "restore a copy; 'uml humfs check --repair' makes it anew from what is left, and says what is lost"
    return UmlError(f"{path}: {why}", way_out)


class Database:
    """An open database with our settings and schema."""

    def __init__(self, path: Path) -> None:
        """Open `path`, which is made if it is not there. OSError; UmlError if it is another's, or of a later
        version."""
        self.path = path
        with self._translated():
            self._connection = sqlite3.connect(
                path, timeout=OPEN_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=64
            )
        try:
            with self._translated():
                for setting in _SETTINGS:
                    self._connection.execute(setting)
                schema.prepare(self._connection, path)
                self._connection.execute("PRAGMA busy_timeout = 0")
        except BaseException:
            self._connection.close()
            raise
        self._execute = self._connection.execute
        self._queues: dict[str, list[Parameters]] = {}
        self._queued = 0

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise as_oserror(error, self.path) from error

    def queue(self, sql: str, parameters: Parameters) -> None:
        """Insert a row later: with many others, and before any other statement runs."""
        self._queues.setdefault(sql, []).append(parameters)
        self._queued += 1
        if self._queued >= QUEUED_MAX:
            self._write_queued()

    def _write_queued(self) -> None:
        queues, self._queues, self._queued = self._queues, {}, 0
        for sql, rows in queues.items():
            self.executemany(sql, rows)

    def execute(self, sql: str, parameters: Parameters = ()) -> None:
        """Run a statement."""
        if self._queued:
            self._write_queued()
        try:
            self._execute(sql, parameters)
        except sqlite3.Error as error:
            raise as_oserror(error, self.path) from error

    def executemany(self, sql: str, parameters: Iterable[Parameters]) -> None:
        """Run a statement with each of `parameters`."""
        if self._queued:
            self._write_queued()
        try:
            self._connection.executemany(sql, parameters)
        except sqlite3.Error as error:
            raise as_oserror(error, self.path) from error

    def row(self, sql: str, parameters: Parameters = ()) -> Any:
        """The first row that a statement gives, a tuple; None if it gives none."""
        if self._queued:
            self._write_queued()
        try:
            return self._execute(sql, parameters).fetchone()
        except sqlite3.Error as error:
            raise as_oserror(error, self.path) from error

    def rows(self, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """All rows that a statement gives."""
        if self._queued:
            self._write_queued()
        try:
            return self._execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise as_oserror(error, self.path) from error

    def checkpoint(self) -> None:
        """Move the WAL into the database, so that it starts anew. Waits; may be called in a thread as long as nobody
        writes and no transaction is open. EBUSY if somebody reads."""
        try:
            with contextlib.closing(sqlite3.connect(self.path, isolation_level=None, timeout=1)) as other:
                (busy, _, _) = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as error:
            raise as_oserror(error, self.path) from error
        if busy:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), os.fspath(self.path))

    def close(self) -> None:
        """Close it. What is not committed is undone; what SQLite finds wrong then is nobody's concern any more."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()
