"""What a captive guest can have mounted: objects of this very process, or sources by their words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from runtime.machine.equipment import HostMount
from umlfs.errors import UmlError, UsageError
from umlfs.externfs.filesystem import NodeFilesystem
from umlfs.externfs.node import Directory
from umlfs.filesystem import Filesystem
from umlfs.sources import OpenOptions, Source, SourceKind
from umlfs.views.view import View

Tree: TypeAlias = "Filesystem | Directory | Source | str"
"""A `Filesystem`, which stays the caller's to close; the directory node of a tree (`umlfs.externfs`); a source or its
word, such as `hostfs:DIR`."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A tree, and how it is mounted."""

    tree: Tree
    read_only: bool = False


class Borrowed(View):
    """A filesystem that stays open when the guest is gone."""

    async def close(self) -> None:
        self.disconnect()


class ObjectKind(SourceKind):
    """The source that is one object, for one guest at a time."""

    def __init__(self, tree: Filesystem | Directory, name: str, time_limit: float) -> None:
        self._tree = tree
        self._name = name
        self._time_limit = time_limit

    async def open(self, argument: str, options: OpenOptions) -> Filesystem:
        if isinstance(self._tree, Directory):
            read_only = options.read_only
            return NodeFilesystem(self._tree, name=self._name, read_only=read_only, time_limit=self._time_limit)
        if self._tree.failure is not None:
            raise UmlError(f"{self._name}: {type(self._tree).__name__} has failed: {self._tree.failure}")
        return Borrowed(self._tree)


def source_of(tree: Tree, name: str, time_limit: float) -> Source | str:
    """`tree` as machines take it; the log calls it `name`. UsageError."""
    if isinstance(tree, Source | str):
        return tree
    if not isinstance(tree, Filesystem | Directory):
        why = f"{name}: a {type(tree).__name__} is not a tree of files"
        raise UsageError(why, "give a Filesystem, a Directory of umlfs.externfs, or a source such as hostfs:DIR")
    return Source("object", type(tree).__name__, ObjectKind(tree, name, time_limit))


def mounts_of(mounts: Mapping[str, Tree | Mount], time_limit: float) -> list[HostMount]:
    """Every place with what is mounted there. UsageError."""
    found = []
    for place, value in mounts.items():
        it = value if isinstance(value, Mount) else Mount(value)
        found.append(HostMount(place, source_of(it.tree, place, time_limit), it.read_only))
    return found
