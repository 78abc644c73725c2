"""The kind of source `sql:FILE` and `sql:postgresql://…`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from umlfs.errors import UsageError
from umlfs.externfs.arguments import PluginArguments, split
from umlfs.externfs.calls import TIME_LIMIT
from umlfs.externfs.kind import Plant, TreeKind

if TYPE_CHECKING:
    from umlfs.externfs.sql.database import Database

_MAGIC: Final = b"SQLite format 3\0"
_CLAIM: Final = 60
_POSTGRES: Final = ("postgresql://", "postgres://")


class SqlKind(TreeKind):
    """Databases."""

    scheme = "sql"
    summary = "a database: tables, rows and columns as directories and files"
    example = "uml mount sql:app.sqlite ~/db"
    own_options: ClassVar = {"queries": "SELECTs may be put into queries/, which whoever uses the tree then runs"}

    def claims(self, path: Path) -> int:
        """60 for a file that begins as SQLite's do."""
        if not path.is_file():
            return 0
        with open(path, "rb") as file:
            return _CLAIM if file.read(len(_MAGIC)) == _MAGIC else 0

    def files(self, argument: str) -> Sequence[str]:
        return () if "://" in argument else (file_of(argument),)

    def plant(self, given: PluginArguments) -> Plant:
        from umlfs.externfs.sql.nodes import Root
        from umlfs.externfs.sql.tree import SqlTree

        tree = SqlTree(self._database(given), given.writable, "queries" in given.values)
        return Plant(Root(tree), tree.close, changeable=tree.writable or tree.queries_allowed)

    def _database(self, given: PluginArguments) -> Database:
        limit = given.number(self.scheme, "timeout", TIME_LIMIT)
        if given.argument.startswith(_POSTGRES):
            from umlfs.externfs.sql.postgres import PostgresDatabase

            return PostgresDatabase(given.argument, writable=given.writable, time_limit=limit)
        if not given.argument or "://" in given.argument:
            raise UsageError(
                f"sql:{given.argument}: no database that is known", "write sql:FILE or sql:postgresql://USER@HOST/NAME"
            )
        from umlfs.externfs.sql.sqlite import SqliteDatabase

        return SqliteDatabase(os.path.abspath(given.argument), writable=given.writable, time_limit=limit)


def file_of(argument: str) -> str:
    """The file, without the options behind it."""
    return split("sql", argument, {}, SqlKind.own_options).argument


kind: Final = SqlKind()
