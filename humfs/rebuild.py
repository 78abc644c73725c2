"""A damaged database made anew: from what can still be read in it, and from data/.

Rows that make sense are taken over. An inode of which some columns make none has those from its file under data/. All
else is for the comparison that follows, see `humfs.reconcile`: a file without metadata is given the default owner. The
damaged database is kept beside the new one.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from humfs import damage, journal, schema
from humfs.damage import Value, Values
from humfs.findings import Finding, Kind, display
from humfs.host import DATA
from humfs.reconcile import adopted, same_type
from humfs.store import COLUMNS
from umlfs.filesystem import ROOT
from umlfs.host.newfile import sync_path

DAMAGED: Final = ".damaged"
"""What is put behind the name of the database that is kept."""
_DEPTH_MAX: Final = 1 << 12


def rebuild(root: Path, problems: list[str]) -> list[Finding]:
    """Replace the database of `root`, in which `problems` were found; returns these and what was lost. Durable, and
    whole whenever it is broken off. The caller holds the lock of `root`. OSError."""
    path = root / schema.FILE
    temporary = root / f".{schema.FILE}.{os.getpid()}"
    findings = [Finding(Kind.DATABASE, path.name, text) for text in problems]
    try:
        with contextlib.closing(sqlite3.connect(temporary, isolation_level=None)) as connection:
            _create(connection)
            _Rebuilding(root, connection, findings).run()
        _replace(path, temporary)
    except sqlite3.Error as error:
        raise OSError(5, str(error), os.fspath(path)) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    findings.append(Finding(Kind.REBUILT, path.name, f"the damaged one is {path.name}{DAMAGED}"))
    return findings


def _create(connection: sqlite3.Connection) -> None:
    from sqlite_utils import Database

    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN")
    schema.create(Database(connection))


def _replace(path: Path, new: Path) -> None:
    """Keep the old database under another name, and put the new one in its place."""
    kept = path.with_name(path.name + DAMAGED)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(kept)
    with contextlib.suppress(FileNotFoundError):
        os.link(path, kept)
    for behind in ("-wal", "-shm"):  # what could be read of the log is in the new one; it must not be taken for its log
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{path}{behind}", f"{kept}{behind}")
    os.replace(new, path)
    sync_path(path.parent)


@dataclass(slots=True)
class _Rebuilding:
    root: Path
    new: sqlite3.Connection
    """Within a transaction."""
    findings: list[Finding]
    _bad: list[Values] = field(default_factory=list)
    """Inodes with columns that mean nothing."""

    def run(self) -> None:
        try:
            with damage.reading(self.root / schema.FILE) as old:
                with contextlib.suppress(sqlite3.Error):
                    old.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                for table in damage.TABLES:
                    self._take_over(old, table)
        except sqlite3.Error as error:
            self._say(f"nothing of it can be read: {error}")
        for row in self._bad:
            self._complete(row)
        self._count()
        self.new.execute("COMMIT")

    def _say(self, detail: str) -> None:
        self.findings.append(Finding(Kind.DATABASE, schema.FILE, detail))

    def _take_over(self, old: sqlite3.Connection, table: str) -> None:
        """What can be read from the start; where that breaks off, what can be read from the end."""
        for backwards in (False, True):
            try:
                for row in damage.rows(old, table, backwards=backwards):
                    self._take_over_row(table, row)
                return
            except sqlite3.Error as error:
                if not backwards:
                    self._say(f"what table {table} had is lost as far as it cannot be read: {error}")

    def _take_over_row(self, table: str, row: Values) -> None:
        bad = damage.bad_columns(table, row)
        if table == "inode" and bad and "ino" not in bad:
            self._bad.append(row)
        elif table == "meta" and not bad:
            self._put(table, {"key": str(row["key"]), "value": row["value"]}, "REPLACE")
        elif not bad:
            self._put(table, row, "IGNORE")

    def _put(self, table: str, row: Mapping[str, Value | str], otherwise: str) -> None:
        columns, marks = ", ".join(row), ", ".join("?" * len(row))
        values = tuple(row.values())
        self.new.execute(f"INSERT OR {otherwise} INTO {table} ({columns}) VALUES ({marks})", values)

    # Inodes -----------------------------------------------------------------------------------

    def _complete(self, row: Values) -> None:
        """An inode whose columns make sense in part: the others are those of its file."""
        ino = row["ino"]
        path = self._path(ino) if isinstance(ino, int) else None
        found = _found(self.root / DATA, path) if path is not None else None
        if found is None or not isinstance(ino, int) or path is None:
            return
        bad = damage.bad_columns("inode", row)
        uid, gid = self._meta("default_uid"), self._meta("default_gid")
        fresh = dict(zip(COLUMNS, adopted(ino, found, uid, gid), strict=True))
        mode = row["mode"]
        if isinstance(mode, int) and "mode" not in bad and not same_type(mode, found.st_mode):
            return
        kept = {column: value for column, value in row.items() if column not in bad}
        self._put("inode", {"host_ctime_ns": 0, **fresh, **kept}, "IGNORE")
        self.findings.append(Finding(Kind.COMPLETED, display(path), ", ".join(bad)))

    def _path(self, ino: int) -> bytes | None:
        parts: list[bytes] = []
        while ino != ROOT:
            found = self.new.execute("SELECT parent, name FROM dentry WHERE ino = ? LIMIT 1", (ino,)).fetchone()
            if found is None or len(parts) > _DEPTH_MAX:
                return None
            ino, name = found
            parts.append(name)
        return b"/".join(reversed(parts))

    # Numbers ----------------------------------------------------------------------------------

    def _meta(self, key: str) -> int:
        (value,) = self.new.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return int(value)

    def _count(self) -> None:
        """Everything is to be compared; no number is given twice; the journal goes on where it can."""
        (highest,) = self.new.execute(
            "SELECT max((SELECT coalesce(max(ino), 1) FROM inode), (SELECT coalesce(max(ino), 1) FROM dentry))"
        ).fetchone()
        self._set("next_ino", max(self._meta("next_ino"), highest + 1))
        self._set("clean", 0)
        records = [sequence for sequence, _ in journal.read(self.root / journal.FILE, self._meta("sequence"))]
        if records:
            self._set("sequence", records[-1])
            self._say(f"{len(records)} changes in the journal, which do not fit what is left")

    def _set(self, key: str, value: int) -> None:
        self.new.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))


def _found(data: Path, path: bytes) -> os.stat_result | None:
    """The file at `path` under data/; None if there is none. No symlink on the way is followed."""
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(data, flags)
    try:
        for part in path.split(b"/") if path else ():
            below = os.open(part, flags, dir_fd=fd)
            os.close(fd)
            fd = below
        return os.fstat(fd)
    except OSError:
        return None
    finally:
        os.close(fd)
