"""Listings of directories, lines of trees, and what patterns find."""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

from runtime.inspect.fields import LETTERS, fields, long_line, widths_of
from runtime.inspect.paths import Node, resolve
from runtime.inspect.walk import Directory, children, walk
from umlfs.errors import UsageError
from umlfs.filesystem import Filesystem

Trouble = Callable[[OSError], None]
"""Told of each directory that could not be read; the rest goes on."""


@dataclass(frozen=True, slots=True)
class Block:
    """A directory's part of a listing."""

    heading: str | None
    nodes: list[Node]


@dataclass(frozen=True, slots=True)
class Order:
    """In which nodes are listed, as the options of ls(1) say it."""

    by_time: bool = False
    """Newest first."""
    by_size: bool = False
    """Largest first."""
    reverse: bool = False

    def sort(self, nodes: list[Node]) -> list[Node]:
        """The nodes, which come by name, in this order."""
        if self.by_time:
            nodes = sorted(nodes, key=lambda node: -node.attr.mtime_ns)
        elif self.by_size:
            nodes = sorted(nodes, key=lambda node: -node.attr.size)
        return nodes[::-1] if self.reverse else nodes


BY_NAME: Final = Order()


async def listing(
    filesystem: Filesystem,
    path: bytes,
    trouble: Trouble,
    *,
    recursive: bool = False,
    all_names: bool = False,
    order: Order = BY_NAME,
) -> AsyncIterator[Block]:
    """What `ls` shows of `path`: the directory's contents, or the one node that it is. Names that begin with a dot are
    left out, unless `all_names`. OSError if there is nothing at `path`."""
    top = await resolve(filesystem, path)
    if not top.is_directory:
        yield Block(None, [top])
        return
    if not recursive:
        yield Block(None, order.sort(_shown(await children(filesystem, top), all_names)))
        return
    async for directory in walk(filesystem, top):
        if directory.failure is not None:
            trouble(directory.failure)
            continue
        directory.children = order.sort(_kept(filesystem, directory.children, all_names))
        yield Block(os.fsdecode(directory.node.path), directory.children)


def _shown(nodes: list[Node], all_names: bool) -> list[Node]:
    return [node for node in nodes if all_names or not node.name.startswith(b".")]


def _kept(filesystem: Filesystem, nodes: list[Node], all_names: bool) -> list[Node]:
    """Those shown; a walk does not go into the others, so it does not give them back either."""
    shown = _shown(nodes, all_names)
    if len(shown) < len(nodes):
        for node in nodes:
            if node not in shown:
                filesystem.forget(node.ino, 1)
    return shown


async def lines(filesystem: Filesystem, block: Block, *, long: bool = False, human: bool = False) -> list[str]:
    """The lines of one block, names as they are; with `human`, sizes as people say them."""
    if not long:
        return [os.fsdecode(node.name or node.path) for node in block.nodes]
    widths = widths_of(block.nodes, human)
    found = []
    for node in block.nodes:
        target = await filesystem.readlink(node.ino) if node.is_link else None
        found.append(long_line(node, os.fsdecode(node.name or node.path), widths, target, human))
    return found


async def records(filesystem: Filesystem, block: Block) -> list[dict[str, object]]:
    """The nodes of one block, for a program."""
    return [await fields(filesystem, node) for node in block.nodes]


# Trees ----------------------------------------------------------------------------------------


async def tree_lines(filesystem: Filesystem, path: bytes, trouble: Trouble) -> AsyncIterator[str]:
    """The lines of a drawing of the tree below `path`; the last counts it."""
    top = await resolve(filesystem, path)
    yield os.fsdecode(path)
    count = [0, 0]
    pending: list[tuple[Node, str, bool]] = []
    if top.is_directory:
        async for directory in walk(filesystem, top):
            if directory.failure is not None:
                trouble(directory.failure)
            async for line in _drawn(filesystem, directory, pending, count):
                yield line
        for line in _leaves(pending, count):
            yield line
    yield f"{count[0]} directories, {count[1]} files"


async def _drawn(
    filesystem: Filesystem, directory: Directory, pending: list[tuple[Node, str, bool]], count: list[int]
) -> AsyncIterator[str]:
    """The lines up to this directory, whose children then wait in `pending`, the next one last."""
    prefix = ""
    while pending:
        node, before, last = pending.pop()
        yield before + ("└── " if last else "├── ") + _label(node)
        count[0 if node.is_directory else 1] += 1
        if node is directory.node:
            prefix = before + ("    " if last else "│   ")
            break
    children = directory.children
    for index in range(len(children) - 1, -1, -1):
        pending.append((await _labelled(filesystem, children[index]), prefix, index == len(children) - 1))


def _leaves(pending: list[tuple[Node, str, bool]], count: list[int]) -> list[str]:
    """What is left after the last directory."""
    found = []
    while pending:
        node, before, last = pending.pop()
        count[0 if node.is_directory else 1] += 1
        found.append(before + ("└── " if last else "├── ") + _label(node))
    return found


async def _labelled(filesystem: Filesystem, node: Node) -> Node:
    """The node; a link with its target in its path, for `_label`, as it is shown after it was given back."""
    if not node.is_link:
        return node
    return Node(node.path + b"\0" + await filesystem.readlink(node.ino), node.ino, node.attr)


def _label(node: Node) -> str:
    path, _, target = node.path.partition(b"\0")
    name = os.fsdecode(path.rpartition(b"/")[2])
    return f"{name} -> {os.fsdecode(target)}" if target else name


# Searching ------------------------------------------------------------------------------------


async def find(
    filesystem: Filesystem, path: bytes, trouble: Trouble, *, pattern: str | None = None, kind: str | None = None
) -> AsyncIterator[Node]:
    """The nodes at and below `path` whose name (the whole path, if there is a `/` in the pattern) matches a glob
    pattern, and that are of a type, as find(1) calls it. A node is to be used until the next one comes."""
    if kind is not None and kind not in LETTERS:
        raise UsageError(f"--type {kind}: no such type", f"say one of {', '.join(LETTERS)}")
    top = await resolve(filesystem, path, follow=False)

    def matches(node: Node) -> bool:
        if kind is not None and stat.S_IFMT(node.attr.mode) != LETTERS[kind]:
            return False
        return pattern is None or fnmatch.fnmatchcase(os.fsdecode(node.path if "/" in pattern else node.name), pattern)

    if matches(top):
        yield top
    if not top.is_directory:
        return
    async for directory in walk(filesystem, top):
        if directory.failure is not None:
            trouble(directory.failure)
        for node in directory.children:
            if matches(node):
                yield node
