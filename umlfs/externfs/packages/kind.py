"""The kind of source `packages:` and `packages:DIR`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from umlfs.errors import UmlError
from umlfs.externfs.arguments import PluginArguments, split
from umlfs.externfs.kind import TreeKind
from umlfs.externfs.node import Directory


class PackagesKind(TreeKind):
    """The packages of a system."""

    scheme = "packages"
    summary = "the packages of a Debian system: installed, available, and by file"
    example = "uml ls packages::/installed"

    def files(self, argument: str) -> Sequence[str]:
        path = split(self.scheme, argument, {}, self.own_options).argument
        return (path,) if path else ()

    def plant(self, given: PluginArguments) -> Directory:
        """UmlError where there is no database of dpkg's."""
        from umlfs.externfs.packages.database import PackageDatabase
        from umlfs.externfs.packages.nodes import Manager, Root

        root = Path(os.path.abspath(given.argument or "/"))
        database = PackageDatabase(root)
        if not database.present:
            raise UmlError(
                f"packages:{given.argument}: no package database of dpkg's", "name the root of a Debian system"
            )
        return Root(Manager(database, given.writable))


kind: Final = PackagesKind()
