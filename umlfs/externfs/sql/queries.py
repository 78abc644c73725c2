"""Queries as files, and their results."""

from __future__ import annotations

import errno
import os
from collections.abc import Hashable
from typing import Final

from umlfs.externfs.contents import Contents
from umlfs.externfs.node import Child, File, Node, Text
from umlfs.externfs.sql.results import PIECES, spooled
from umlfs.externfs.sql.tree import SqlDirectory, SqlTree
from umlfs.filesystem import Caller
from umlfs.host.syscalls import failure

QUERIES: Final = "queries"
QUERY_MAX: Final = 1 << 20
QUERIES_MAX: Final = 1000


class Queries(SqlDirectory):
    """`NAME.sql` and, beside each, `NAME/` with its results. They are kept as long as the tree is open."""

    __slots__ = ()

    @property
    def key(self) -> Hashable:
        return QUERIES

    @property
    def mode(self) -> int:  # type: ignore[override]
        return 0o755 if self._tree.queries_allowed else 0o555

    def children(self) -> list[Child]:
        found: list[Child] = []
        for name in sorted(self._tree.queries):
            found += [(f"{name}.sql", Query(self._tree, name)), (name, Results(self._tree, name))]
        return found

    def create(self, name: str, mode: int, caller: Caller) -> Node:
        stem = name.removesuffix(".sql")
        if not self._tree.queries_allowed or stem == name or not stem:
            raise failure(errno.EPERM)
        if len(self._tree.queries) >= QUERIES_MAX or stem.endswith(".sql"):
            raise failure(errno.EINVAL)
        self._tree.queries[stem] = ""
        return Query(self._tree, stem)

    def remove(self, name: str, node: Node) -> None:
        if isinstance(node, Query):
            self._tree.queries.pop(node.name, None)


class Query(File):
    """The text of a query."""

    __slots__ = ("_tree", "name")
    mode = 0o644
    size_max = QUERY_MAX

    def __init__(self, tree: SqlTree, name: str) -> None:
        self._tree, self.name = tree, name

    @property
    def key(self) -> Hashable:
        return "query", self.name

    def read(self) -> str:
        return self._tree.queries[self.name]

    def write(self, data: bytes) -> None:
        if self.name not in self._tree.queries:
            raise failure(errno.ENOENT)
        self._tree.queries[self.name] = data.decode(errors="surrogateescape")


class Results(SqlDirectory):
    """`result.csv` and `result.jsonl` of a query; `error` if there was one."""

    __slots__ = ("_name",)
    mode = 0o555

    def __init__(self, tree: SqlTree, name: str) -> None:
        super().__init__(tree)
        self._name = name

    @property
    def key(self) -> Hashable:
        return "results", self._name

    def children(self) -> list[Child]:
        found: list[Child] = [(f"result.{one}", ResultFile(self._tree, self._name, one)) for one in PIECES]
        words = self._tree.errors.get(f"{QUERIES}/{self._name}")
        return found if words is None else [*found, ("error", Text(f"{words}\n", ("words", self._name, words)))]

    def remove(self, name: str, node: Node) -> None:
        """They go with the query."""


class ResultFile(File):
    """What a query gives when the file is opened."""

    __slots__ = ("_format", "_name", "_tree")
    size = -1

    def __init__(self, tree: SqlTree, name: str, format_: str) -> None:
        self._tree, self._name, self._format = tree, name, format_

    @property
    def key(self) -> Hashable:
        return "result", self._name, self._format

    def open(self, flags: int) -> Contents:
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise failure(errno.EACCES)
        sql = self._tree.queries.get(self._name)
        if sql is None:
            raise failure(errno.ENOENT)
        with self._tree.telling(f"{QUERIES}/{self._name}"):
            result, done = self._tree.reading(lambda: self._tree.database.query(sql))
        return spooled(result, self._format, done)
