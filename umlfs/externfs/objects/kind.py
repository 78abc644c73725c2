"""The kind of source `objects:MODULE.NAME`."""

from __future__ import annotations

import importlib
from typing import Any, ClassVar, Final

from umlfs.errors import UsageError
from umlfs.externfs.arguments import PluginArguments
from umlfs.externfs.kind import TreeKind
from umlfs.externfs.node import Directory


class ObjectsKind(TreeKind):
    """A Python object of a module; programs hand any object to `umlfs.externfs.objects.nodes.ObjectDirectory`."""

    scheme = "objects"
    summary = "a Python object: attributes, keys and items as a tree"
    example = "uml ls objects:myprogram.settings"
    own_options: ClassVar = {"call": "names of methods that may be called, with + between (call=start+stop)"}

    def plant(self, given: PluginArguments) -> Directory:
        """UsageError if there is no such object."""
        from umlfs.externfs.objects.nodes import Allowed, ObjectDirectory

        value = _named(given.argument)
        methods = frozenset(given.values.get("call", "").split("+")) - {""}
        return ObjectDirectory(value, Allowed((type(value),), methods, given.writable))


def _named(argument: str) -> Any:
    module, _, name = argument.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        raise UsageError(f"objects:{argument}: no such object", "write objects:MODULE.NAME") from None


kind: Final = ObjectsKind()
