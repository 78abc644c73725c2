"""A plugin as a kind of source: an entry point of the group `umlfs.sources` names a `TreeKind`."""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import ClassVar, Final

import trio

from umlfs.errors import UmlError
from umlfs.externfs.arguments import OF_ALL, PluginArguments, split
from umlfs.externfs.calls import TIME_LIMIT
from umlfs.externfs.filesystem import NodeFilesystem
from umlfs.externfs.node import Directory
from umlfs.filesystem import Filesystem
from umlfs.sources import OpenOptions, SourceKind

_URI: Final = r"[a-z][a-z0-9+.-]*://(?:[^/@]*@)?(?:\[[^\]]*\]|[^/:]*)(?::\d+)?(?:/[^:]*)?"
_URIS: Final = re.compile(rf"{_URI}(?:::{_URI})*")

_URI_VALUE: Final = r"[a-z][a-z0-9+.-]*://[^,/:]*(?::\d+)?(?:/[^,:]*)?"


@dataclass(frozen=True, slots=True)
class Plant:
    """What a plugin opened."""

    root: Directory
    on_close: Callable[[], object] | None = None
    """Lets go of what the nodes use."""
    changeable: bool | None = None
    """Whether anything in the tree can be changed; None: if `rw` was said."""
    tasks: Sequence[Callable[[], Awaitable[object]]] = ()
    """What is done beside answering, while the tree is served."""


class TreeKind(SourceKind):
    """A kind of source whose tree consists of nodes. A plugin says what it is called and what its root is."""

    scheme: ClassVar[str]
    summary: ClassVar[str]
    """What it shows, in a line."""
    example: ClassVar[str]
    own_options: ClassVar[Mapping[str, str]] = {}
    """Its own options, and what each is for."""

    @property
    def options(self) -> Mapping[str, str]:  # type: ignore[override]
        return {**OF_ALL, **self.own_options}

    def divided(self, argument: str) -> tuple[str, str | None]:
        """At the first colon behind the options, if there are any; else at the first that no URI has in it, nor a chain
        of them (`zip://…::https://…`)."""
        names = "|".join(map(re.escape, self.options))
        found = re.search(rf"(?:,(?:{names})(?:=(?:{_URI_VALUE}|[^,:]*))?)+(?=:|\Z)", argument) or _URIS.match(argument)
        end = argument.find(":", found.end() if found else 0)
        return (argument, None) if end < 0 else (argument[:end], argument[end + 1 :])

    def absolute(self, argument: str) -> str:
        """With the options behind it."""
        for path in self.files(argument):
            if argument.startswith(path):
                argument = os.path.abspath(path) + argument[len(path) :]
        return argument

    def plant(self, given: PluginArguments) -> Plant | Directory:
        """Open what `given` name. Runs in a thread. UmlError, UsageError; OSError."""
        raise NotImplementedError

    async def open(self, argument: str, options: OpenOptions) -> Filesystem:
        """The tree. It can be changed only if `rw` was said. UmlError where it cannot be opened."""
        # Whoever serves it may be in another directory later.
        given = split(self.scheme, self.absolute(argument), options.extra, self.own_options)
        planted = await trio.to_thread.run_sync(self.plant, given)
        plant = planted if isinstance(planted, Plant) else Plant(planted)
        return NodeFilesystem(
            plant.root,
            name=f"{self.scheme}:{given.argument}",
            read_only=options.read_only or not (given.writable if plant.changeable is None else plant.changeable),
            time_limit=given.number(self.scheme, "timeout", TIME_LIMIT),
            on_close=plant.on_close,
            tasks=plant.tasks,
        )


def needed(module: str, extra: str, source: str) -> ModuleType:
    """A library that a plugin uses. UmlError that names what to install."""
    try:
        return import_module(module)
    except ImportError as error:
        package = (error.name or module).partition(".")[0]
        raise UmlError(
            f"{source}: the Python package '{package}' is missing", f"pip install 'umlfs[{extra}]'"
        ) from None
