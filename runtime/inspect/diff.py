"""Two trees compared, file by file."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

import trio

from runtime.inspect.contents import PIECE, UNTOLD, close_file, open_file
from runtime.inspect.fields import type_of
from runtime.inspect.paths import Node, failure
from runtime.inspect.walk import children
from umlfs.filesystem import Filesystem

_NO_ATTRIBUTES: Final = frozenset({errno.ENOSYS, errno.EOPNOTSUPP})


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs at one path."""

    path: str
    kind: str
    """`added`, `removed` or `changed`: from the first tree to the second."""
    type: str
    """Of the node in the tree that has it, the second if both do."""
    what: list[str] = field(default_factory=list)
    """Of a changed one: `type`, `mode`, `owner`, `size`, `contents`, `target`, `device`, `attributes`, `time`."""
    details: dict[str, list[object]] = field(default_factory=dict)
    """The two values of those that are short."""

    def line(self) -> str:
        """For a person."""
        sign = {"added": "+", "removed": "-", "changed": "!"}[self.kind]
        slash = "/" if self.type == "directory" and not self.path.endswith("/") else ""
        values = {name: f" {old} -> {new}" for name, (old, new) in self.details.items()}
        what = ", ".join(name + values.get(name, "") for name in self.what)
        return f"{sign} {self.path}{slash}" + (f"  ({what})" if what else "")


class Comparison:
    """Two trees and how closely they are looked at."""

    def __init__(self, one: Filesystem, other: Filesystem, *, times: bool = False) -> None:
        """With `times` a different mtime counts, too."""
        self._trees = (one, other)
        self._times = times

    async def changes(self, old: Node, new: Node) -> AsyncIterator[Difference]:
        """All that differs at and below two nodes, in the order of paths. What is in an added or removed directory
        comes too. OSError for what cannot be read: half a comparison would say that all is well."""
        stack: list[tuple[bytes, Node | None, Node | None]] = [(b"", old, new)]
        while stack:
            place, one, other = stack.pop()
            change = await self._change(place, one, other)
            if change is not None:
                yield change
            stack += reversed(await self._below(place, one, other))
            # The tops are the caller's.
            if place:
                self._forget(one, other)

    def _forget(self, *nodes: Node | None) -> None:
        for tree, node in zip(self._trees, nodes, strict=True):
            if node is not None:
                tree.forget(node.ino, 1)

    async def _below(
        self, place: bytes, one: Node | None, other: Node | None
    ) -> list[tuple[bytes, Node | None, Node | None]]:
        """The names in either directory, in order."""
        found: list[dict[bytes, Node]] = [{}, {}]

        async def read(index: int, node: Node | None) -> None:
            if node is not None and node.is_directory:
                found[index] = {child.name: child for child in await children(self._trees[index], node)}

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, 0, one)
            nursery.start_soon(read, 1, other)
        names = sorted({*found[0], *found[1]})
        return [(place + b"/" + name, found[0].get(name), found[1].get(name)) for name in names]

    async def _change(self, place: bytes, one: Node | None, other: Node | None) -> Difference | None:
        path = os.fsdecode(place or b"/")
        if one is None or other is None:
            node = one or other
            assert node is not None
            return Difference(path, "removed" if other is None else "added", type_of(node.attr))
        details = _differing(one, other, self._times)
        what = list(details)
        if "type" not in details:
            what += await self._inside(one, other)
        return Difference(path, "changed", type_of(other.attr), what, details) if what else None

    async def _inside(self, one: Node, other: Node) -> list[str]:
        """What differs in what the nodes hold."""
        what = []
        if one.is_link:
            targets = [await tree.readlink(node.ino) for tree, node in zip(self._trees, (one, other), strict=True)]
            return ["target"] if targets[0] != targets[1] else []
        if _untouched(one, other):
            return []
        if one.is_file and not await self._same_file(one, other):
            what.append("contents")
        if await self._attributes(0, one) != await self._attributes(1, other):
            what.append("attributes")
        return what

    async def _attributes(self, index: int, node: Node) -> dict[bytes, bytes]:
        tree = self._trees[index]
        try:
            return {name: await tree.getxattr(node.ino, name) for name in await tree.listxattr(node.ino)}
        except OSError as error:
            if error.errno in _NO_ATTRIBUTES:
                return {}
            raise failure(error.errno or errno.EIO, node.path) from None

    async def _same_file(self, one: Node, other: Node) -> bool:
        """Whether two files hold the same; how much that is, some trees only tell whoever reads it."""
        nodes = zip(self._trees, (one, other), strict=True)
        if any(not node.attr.size and tree.traits.untold_sizes for tree, node in nodes):
            return await self._same_contents(one, other, UNTOLD)
        return one.attr.size == other.attr.size and await self._same_contents(one, other, one.attr.size)

    async def _same_contents(self, one: Node, other: Node, size: int) -> bool:
        """Whether the first `size` bytes of two files are the same."""
        nodes = (one, other)
        handles = [await open_file(tree, node) for tree, node in zip(self._trees, nodes, strict=True)]
        buffers = [bytearray(min(PIECE, size)) for _ in nodes]
        counts = [0, 0]

        async def read(index: int, offset: int) -> None:
            view = memoryview(buffers[index])[: size - offset]
            node = nodes[index]
            try:
                counts[index] = await self._trees[index].read_into(node.ino, handles[index], offset, [view])
            except OSError as error:
                raise failure(error.errno or errno.EIO, node.path) from None

        try:
            for offset in range(0, size, PIECE):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(read, 0, offset)
                    nursery.start_soon(read, 1, offset)
                if counts[0] != counts[1] or buffers[0][: counts[0]] != buffers[1][: counts[1]]:
                    return False
                if counts[0] < PIECE:
                    break
            return True
        finally:
            for tree, node, handle in zip(self._trees, nodes, handles, strict=True):
                await close_file(tree, node, handle)


def _untouched(one: Node, other: Node) -> bool:
    """Whether the two are one file of which no state was changed since the trees were the same: nobody can set a
    ctime back."""
    mine, theirs = one.attr, other.attr
    return (mine.ino, mine.size, mine.mtime_ns, mine.ctime_ns) == (
        theirs.ino,
        theirs.size,
        theirs.mtime_ns,
        theirs.ctime_ns,
    )


def _differing(one: Node, other: Node, times: bool) -> dict[str, list[object]]:
    """The attributes that differ, with both values."""
    mine, theirs = one.attr, other.attr
    if stat.S_IFMT(mine.mode) != stat.S_IFMT(theirs.mode):
        return {"type": [type_of(mine), type_of(theirs)]}
    pairs: dict[str, tuple[object, object]] = {
        "mode": (f"{stat.S_IMODE(mine.mode):04o}", f"{stat.S_IMODE(theirs.mode):04o}"),
        "owner": (f"{mine.uid}:{mine.gid}", f"{theirs.uid}:{theirs.gid}"),
    }
    if one.is_file:
        pairs["size"] = (mine.size, theirs.size)
    if mine.rdev or theirs.rdev:
        pairs["device"] = (_device(mine.rdev), _device(theirs.rdev))
    if times:
        pairs["time"] = (mine.mtime_ns, theirs.mtime_ns)
    return {name: [old, new] for name, (old, new) in pairs.items() if old != new}


def _device(number: int) -> str:
    return f"{os.major(number)}:{os.minor(number)}"
