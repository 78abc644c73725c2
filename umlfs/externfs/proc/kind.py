"""The kind of source `proc:`."""

from __future__ import annotations

from typing import Final

from umlfs.errors import UsageError
from umlfs.externfs.arguments import PluginArguments
from umlfs.externfs.kind import TreeKind
from umlfs.externfs.node import Directory


class ProcKind(TreeKind):
    """The processes of this host."""

    scheme = "proc"
    summary = "the processes of this host, with signals and niceness to write; systemd's units"
    example = "uml ls proc:"

    def plant(self, given: PluginArguments) -> Directory:
        """UsageError for an argument."""
        if given.argument:
            raise UsageError(f"proc:{given.argument}: there is only this host", "write proc:")
        from umlfs.externfs.proc.nodes import Root

        return Root(given.writable)


kind: Final = ProcKind()
