"""Rows that contradict each other: names that lead nowhere, inodes that nothing leads to, counts of links."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from humfs import store as sql
from humfs.findings import Finding, Kind, display
from humfs.store import Store
from umlfs.filesystem import ROOT


@dataclass(slots=True)
class Rows:
    """Those of one store, during a comparison. Changes are left in its open transaction."""

    store: Store
    report: Callable[[Finding], None]
    relink: set[int] = field(default_factory=set)
    """Inodes of which names were changed."""

    def execute(self, statement: str, *values: int | bytes | None) -> None:
        self.store.begin()
        self.store.execute(statement, values)
        self.store.uncommitted = True

    def drop_below(self, ino: int) -> None:
        """Remove an inode without names and, of a directory, everything in it."""
        pending = [ino]
        while pending:
            at = pending.pop()
            children = self.store.select("SELECT name, ino FROM dentry WHERE parent = ?", at)
            for name, child in children:
                self.store.apply((sql.DELETE_NAME, (at, name)))
                if not self.store.select("SELECT 1 FROM dentry WHERE ino = ? LIMIT 1", child):
                    pending.append(child)
                else:
                    self.relink.add(child)
            self.store.apply((sql.DELETE_XATTRS, (at,)), (sql.DELETE_INODE, (at,)))
            self.relink.discard(at)

    def drop_dangling(self) -> None:
        """Names in directories that are none, names of inodes that are not there."""
        for parent, name in self.store.select(
            "SELECT parent, name FROM dentry d WHERE NOT EXISTS (SELECT 1 FROM inode i WHERE i.ino = d.ino) "
            "OR NOT EXISTS (SELECT 1 FROM inode i WHERE i.ino = d.parent AND i.mode & 61440 = 16384)"
        ):
            self.say(Kind.UNREACHABLE, name, f"in inode {parent}")
            self.store.apply((sql.DELETE_NAME, (parent, name)))
            self.relink.add(parent)

    def drop_unreachable(self) -> None:
        """Inodes without a name, and what hangs on them."""
        self.drop_dangling()
        for ino, nlink in self.store.select(
            "SELECT ino, nlink FROM inode i WHERE ino != 1 AND NOT EXISTS (SELECT 1 FROM dentry d WHERE d.ino = i.ino)"
        ):
            if nlink:  # with 0 it is an orphan, which goes without saying
                self.say(Kind.UNREACHABLE, b"", f"inode {ino}")
            self.drop_below(ino)
        self._drop_islands()
        if self.store.select("SELECT 1 FROM xattr WHERE ino NOT IN (SELECT ino FROM inode) LIMIT 1"):
            self.say(Kind.UNREACHABLE, b"", "extended attributes")
            self.execute("DELETE FROM xattr WHERE ino NOT IN (SELECT ino FROM inode)")

    def _drop_islands(self) -> None:
        """Directories that lead only to each other."""
        island = self.store.select(
            "WITH RECURSIVE reached(ino) AS (SELECT 1 UNION SELECT d.ino FROM dentry d JOIN reached r "
            "ON d.parent = r.ino) SELECT parent, name FROM dentry WHERE parent NOT IN (SELECT ino FROM reached)"
        )
        for parent, name in island:
            self.say(Kind.UNREACHABLE, name, f"in inode {parent}")
            self.store.apply((sql.DELETE_NAME, (parent, name)))
        if island:
            for (ino,) in self.store.select(
                "SELECT ino FROM inode i WHERE ino != 1 AND NOT EXISTS (SELECT 1 FROM dentry d WHERE d.ino = i.ino)"
            ):
                self.drop_below(ino)

    def recount(self) -> None:
        """Set the number of links of every inode whose names changed; after a whole comparison, of all."""
        if self.relink:
            for ino in self.relink:
                self.execute(
                    "UPDATE inode SET nlink = CASE WHEN mode & 61440 = 16384 THEN 2 + (SELECT count(*) FROM dentry d "
                    "JOIN inode c ON c.ino = d.ino WHERE d.parent = inode.ino AND c.mode & 61440 = 16384) "
                    "ELSE (SELECT count(*) FROM dentry d WHERE d.ino = inode.ino) END WHERE ino = ?",
                    ino,
                )
            self.relink.clear()
        files = self.store.select(
            "SELECT i.ino, count(*) FROM inode i JOIN dentry d ON d.ino = i.ino WHERE i.mode & 61440 != 16384 "
            "GROUP BY i.ino HAVING count(*) != i.nlink"
        )
        directories = self.store.select(
            "SELECT p.ino, 2 + count(c.ino) FROM inode p LEFT JOIN dentry d ON d.parent = p.ino LEFT JOIN inode c "
            "ON c.ino = d.ino AND c.mode & 61440 = 16384 WHERE p.mode & 61440 = 16384 AND p.nlink > 0 GROUP BY p.ino "
            "HAVING 2 + count(c.ino) != p.nlink"
        )
        for ino, count in (*files, *directories):
            path = path_of(self.store, ino)
            self.say(Kind.LINKS, path or b"", f"inode {ino} has {count}")
            self.execute("UPDATE inode SET nlink = ? WHERE ino = ?", count, ino)

    def say(self, kind: Kind, path: bytes, detail: str = "") -> None:
        self.report(Finding(kind, display(path), detail))


def path_of(store: Store, ino: int) -> bytes | None:
    """One path of the inode, without a leading slash; None if no name leads to it."""
    parts: list[bytes] = []
    while ino != ROOT:
        found = store.name_of(ino)
        if found is None or len(parts) > 1 << 16:
            return None
        ino, name = found
        parts.append(name)
    return b"/".join(reversed(parts))
