"""The metadata store: the rows of `metadata.sqlite`, written in one open transaction that is committed now and then.

Everything runs on one connection, from one thread at a time. A statement takes a few microseconds: pages are in
SQLite's cache, and a commit only appends them to the WAL. What waits for the disk (`sync_log`, `checkpoint`) is for a
thread and uses descriptors and a connection of its own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from humfs import journal, schema
from humfs.database import Database, unusable
from humfs.journal import Change, Journal
from umlfs.host.syscalls import failure


class Row(NamedTuple):
    """An inode as the table `inode` has it; see `humfs.schema` for what the columns mean."""

    ino: int
    mode: int
    uid: int
    gid: int
    rdev: int
    nlink: int
    size: int
    blocks: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    xattrs: int
    host_ino: int | None


def require_sound(row: Row) -> None:
    """OSError EIO for a row of a damaged database, of which the columns are no numbers."""
    try:
        _ = row.mode | row.uid | row.gid | row.rdev | row.nlink | row.size | row.blocks
        _ = row.atime_ns | row.mtime_ns | row.ctime_ns | row.xattrs
    except TypeError:
        text = f"the metadata of inode {row.ino} is damaged, see 'uml humfs check'"
        raise OSError(errno.EIO, text, schema.FILE) from None


COLUMNS: Final = Row._fields
"""The columns of a `Row`."""
_row_of: Final = partial(tuple.__new__, Row)
"""A `Row` of what SQLite gave, which has just these columns. (`Row._make` counts them once more.)"""

ADD_INODE: Final = 0
"""Parameters: a `Row`."""
PUT_INODE: Final = 1
"""Parameters: a `Row` without its number, then the number."""
DELETE_INODE: Final = 2
ADD_NAME: Final = 3
"""Parameters: parent, name, inode."""
DELETE_NAME: Final = 4
"""Parameters: parent, name."""
MOVE_NAME: Final = 5
"""Parameters: new parent, new name, parent, name."""
TURN_NAME: Final = 6
"""Parameters: inode, parent, name."""
PUT_XATTR: Final = 7
"""Parameters: inode, name, value."""
DELETE_XATTR: Final = 8
"""Parameters: inode, name."""
DELETE_XATTRS: Final = 9
"""Parameter: inode."""

_ALL: Final = ", ".join(COLUMNS)
_JOINED: Final = ", ".join(f"i.{column}" for column in COLUMNS)
_SET: Final = ", ".join(f"{column} = ?" for column in COLUMNS[1:])
STATEMENTS: Final = (
    f"INSERT INTO inode ({_ALL}) VALUES ({', '.join('?' * len(COLUMNS))})",
    f"UPDATE inode SET {_SET} WHERE ino = ?",
    "DELETE FROM inode WHERE ino = ?",
    "INSERT INTO dentry (parent, name, ino) VALUES (?, ?, ?)",
    "DELETE FROM dentry WHERE parent = ? AND name = ?",
    "UPDATE dentry SET parent = ?, name = ? WHERE parent = ? AND name = ?",
    "UPDATE dentry SET ino = ? WHERE parent = ? AND name = ?",
    "INSERT OR REPLACE INTO xattr (ino, name, value) VALUES (?, ?, ?)",
    "DELETE FROM xattr WHERE ino = ? AND name = ?",
    "DELETE FROM xattr WHERE ino = ?",
)
"""What changes rows, by number: the journal names a statement by its place here, so these are part of the format."""

_GET: Final = f"SELECT {_ALL} FROM inode WHERE ino = ?"
_FIND: Final = f"SELECT {_JOINED} FROM dentry d JOIN inode i ON i.ino = d.ino WHERE d.parent = ? AND d.name = ?"
_LIST: Final = (
    f"SELECT d.id, d.name, {_JOINED} FROM dentry d INDEXED BY dentry_in_order JOIN inode i ON i.ino = d.ino "
    "WHERE d.parent = ? AND d.id > ? ORDER BY d.id LIMIT ?"
)
_NAME: Final = "SELECT parent, name FROM dentry WHERE ino = ? LIMIT 1"

LOCK_SECONDS: Final = 1.0
"""How long `begin` waits for another program's lock. (Operations of a guest wait without holding up the loop, before
they change anything.)"""


class Store:
    """The rows of one humfs directory."""

    def __init__(self, root: Path) -> None:
        """Open (and if need be create) the database in `root`, and apply what the journal has beyond it."""
        self.path = root / schema.FILE
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            self._database = Database(self.path)
        except OSError as error:
            raise unusable(self.path, error) from error
        self.execute = self._database.execute
        self.executemany = self._database.executemany
        self._row = self._database.row
        self._rows = self._database.rows
        self.in_transaction = False
        self.uncommitted = False
        """Rows were changed since the last commit."""
        self.unsynced = False
        """Commits may not be on the disk yet."""
        self.journaling = True
        """Changes go to the journal too: all but those of a comparison, which is done again if it is broken off."""
        self._log_fd = -1
        self._journal: Journal | None = None
        try:
            self.meta: dict[str, int] = dict(self._database.rows("SELECT key, value FROM meta"))
            self._require_numbers()
            self.sequence = self.meta["sequence"]
            self.next_ino = self.meta["next_ino"]
            self.replayed = self._replay(root / journal.FILE)
            """How many records of the journal were applied: more than 0 means that the last server died."""
            self._journal = Journal(root / journal.FILE)
            self.begin()
            self.execute("UPDATE meta SET value = value WHERE key = 'clean'")
            self.commit()
            self._log_fd = os.open(f"{self.path}-wal", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            self.close()
            raise unusable(self.path, error) from error
        except BaseException:
            self.close()
            raise

    def _require_numbers(self) -> None:
        for key in schema.META_START:
            if not isinstance(self.meta.get(key), int):
                raise OSError(errno.EIO, f"damaged: meta has no number '{key}'", os.fspath(self.path))

    def _replay(self, path: Path) -> int:
        count = 0
        for sequence, changes in journal.read(path, self.sequence):
            self.begin()
            for statement, values in changes:
                self.execute(STATEMENTS[statement], values)
                if statement == ADD_INODE and isinstance(values[0], int):
                    self.next_ino = max(self.next_ino, values[0] + 1)
            self.sequence = sequence
            self.uncommitted = True
            count += 1
        self.commit()
        return count

    # Writing ----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin a transaction unless one is open. EBUSY if another program has the database locked, and does not let
        go within `LOCK_SECONDS`, for which the caller waits. See `try_begin`."""
        deadline = 0.0
        while not self.try_begin():
            now = time.monotonic()
            deadline = deadline or now + LOCK_SECONDS
            if now >= deadline:
                raise failure(errno.EBUSY)
            time.sleep(0.02)

    def try_begin(self) -> bool:
        """Begin a transaction unless one is open; False, at once, if another program has the database locked."""
        if not self.in_transaction:
            try:
                self.execute("BEGIN IMMEDIATE")
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                return False
            self.in_transaction = True
        return True

    def apply(self, *changes: Change) -> None:
        """Make the changes of one operation; a kill leaves all of them or none. OSError ENOSPC or EIO."""
        if not self.in_transaction:
            self.begin()
        execute = self.execute
        for statement, values in changes:
            execute(STATEMENTS[statement], values)
        self.uncommitted = True
        self.sequence += 1
        if self._journal is not None and self.journaling:
            try:
                self._journal.append(self.sequence, changes)
            except OSError:
                self.commit()  # what the journal cannot hold, the database may

    def add_whole(self, row: Sequence[int], parent: int, name: bytes) -> None:
        """Add an inode (a `Row`) with its name, of a filesystem that counts only once it is complete: nothing of it is
        in the journal, and the rows are written with many others."""
        if not self.in_transaction:
            self.begin()
        queue = self._database.queue
        queue(STATEMENTS[ADD_INODE], row)
        queue(STATEMENTS[ADD_NAME], (parent, name, row[0]))
        self.uncommitted = True

    def put_inodes(self, rows: Iterable[Sequence[Any]]) -> None:
        """Write what need not survive a kill to the journal's exactness: times and sizes (`PUT_INODE` parameters)."""
        self.begin()
        self.executemany(STATEMENTS[PUT_INODE], rows)
        self.uncommitted = True

    def commit(self) -> None:
        """Commit what is open. A kill cannot undo it from now on; `sync_log` makes it safe from a power cut."""
        if not self.in_transaction:
            return
        self.set_meta(sequence=self.sequence, next_ino=self.next_ino)
        self.execute("COMMIT")
        self.in_transaction = False
        if self.uncommitted:
            self.unsynced = True
        self.uncommitted = False
        if self._journal is not None:
            self._journal.clear()

    def rollback(self) -> None:
        """Undo what is open."""
        if self.in_transaction:
            self.execute("ROLLBACK")
            self.in_transaction = False

    def set_meta(self, **values: int) -> None:
        """Change rows of `meta` in the open transaction; those that are as they should be are left alone."""
        changed = {key: value for key, value in values.items() if self.meta.get(key) != value}
        if not changed:
            return
        self.begin()
        self.executemany(
            "INSERT OR REPLACE INTO meta (value, key) VALUES (?, ?)", [(value, key) for key, value in changed.items()]
        )
        self.meta.update(changed)

    def add_repairs(self, lines: Sequence[str]) -> None:
        """Write down what was mended."""
        if not lines:
            return
        self.begin()
        now = time.time_ns()
        kept = lines[-schema.REPAIRS_KEPT :]
        self.executemany("INSERT INTO repair (at_ns, what) VALUES (?, ?)", [(now, line) for line in kept])
        self.execute(
            "DELETE FROM repair WHERE id <= (SELECT max(id) FROM repair) - ?",
            (schema.REPAIRS_KEPT,),
        )
        self.uncommitted = True

    @property
    def journal_size(self) -> int:
        return self._journal.size if self._journal is not None else 0

    # Reading ----------------------------------------------------------------------------------

    def get(self, ino: int) -> Row | None:
        """The inode of that number."""
        row = self._row(_GET, (ino,))
        return None if row is None else _row_of(row)

    def find(self, parent: int, name: bytes) -> Row | None:
        """The inode that `name` in `parent` leads to."""
        row = self._row(_FIND, (parent, name))
        return None if row is None else _row_of(row)

    def entries(self, parent: int, after: int, limit: int) -> list[tuple[Any, ...]]:
        """Names in `parent` whose id is above `after`, in the order of ids: id, name, and the columns of a `Row`."""
        return self._rows(_LIST, (parent, after, limit))

    def name_of(self, ino: int) -> tuple[int, bytes] | None:
        """Parent and name of one name of the inode; None if it has none."""
        found: tuple[int, bytes] | None = self._row(_NAME, (ino,))
        return found

    def xattr(self, ino: int, name: bytes) -> bytes | None:
        found = self._row("SELECT value FROM xattr WHERE ino = ? AND name = ?", (ino, name))
        return None if found is None else found[0]

    def xattrs(self, ino: int) -> list[tuple[bytes, bytes]]:
        """Names and values of all extended attributes."""
        return self._rows("SELECT name, value FROM xattr WHERE ino = ? ORDER BY name", (ino,))

    def select(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """The rows of any SELECT."""
        return self._rows(sql, parameters)

    # The disk ---------------------------------------------------------------------------------

    def sync_log(self) -> None:
        """Have all commits so far on the disk. Waits; may be called in a thread while others use the store."""
        os.fdatasync(self._log_fd)

    def log_size(self) -> int:
        """Bytes of the WAL."""
        return os.fstat(self._log_fd).st_size

    def checkpoint(self) -> None:
        """Move the WAL into the database, so that it starts anew. Waits; may be called in a thread as long as nobody
        writes and no transaction is open."""
        self._database.checkpoint()

    def close(self) -> None:
        """Close the database. What is not committed is left to the journal."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        if self._log_fd >= 0:
            os.close(self._log_fd)
            self._log_fd = -1
        if self.in_transaction:
            with contextlib.suppress(OSError):
                self.execute("ROLLBACK")
            self.in_transaction = False
        self._database.close()
