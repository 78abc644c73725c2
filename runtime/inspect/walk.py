"""Walking through a tree, in the order of names, without loading all of it."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import trio

from runtime.inspect.paths import Node, failure
from umlfs.filesystem import NO_HANDLE, Entry, Filesystem

AHEAD: Final = 16
"""Directories that are read at once: an answer takes longer to come than to make."""
DEPTH_MAX: Final = 2048
"""How deep a tree may be. Deeper ones are broken, or made to lead walkers astray."""


@dataclass(slots=True)
class Directory:
    """A directory that a walk came to."""

    node: Node
    children: list[Node]
    """In the order of their names."""
    depth: int
    failure: OSError | None = None
    """Why it could not be read."""


async def children(filesystem: Filesystem, directory: Node) -> list[Node]:
    """What is in a directory, in the order of names; each lookup is counted. OSError that names the directory."""
    try:
        handle = (await filesystem.opendir(directory.ino)).handle
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise failure(error.errno or errno.EIO, directory.path) from None
        handle = NO_HANDLE
    found: list[tuple[bytes, Entry | None]] = []
    try:
        await _read(filesystem, directory, handle, found)
    finally:
        with trio.CancelScope(shield=True):
            await _close(filesystem, directory, handle)
    prefix = directory.path.rstrip(b"/") + b"/"
    nodes = [Node(prefix + name, entry.ino, entry.attr) for name, entry in found if entry is not None]
    nodes += [await _looked_up(filesystem, directory, prefix, name) for name, entry in found if entry is None]
    return sorted(nodes, key=lambda node: node.path)


async def _read(filesystem: Filesystem, directory: Node, handle: int, found: list[tuple[bytes, Entry | None]]) -> None:
    """All entries. A call may give some of them only; one that gives none is at the end."""
    at = 0

    def add(name: bytes, offset: int, ino: int, mode: int, entry: Entry | None) -> bool:
        nonlocal at
        at = offset
        if name not in (b".", b".."):
            found.append((name, entry))
        return True

    try:
        before = None
        while before != at:
            before = at
            await filesystem.readdir(directory.ino, handle, at, add, plus=True)
    except OSError as error:
        raise failure(error.errno or errno.EIO, directory.path) from None


async def _looked_up(filesystem: Filesystem, directory: Node, prefix: bytes, name: bytes) -> Node:
    entry = await filesystem.lookup(directory.ino, name)
    if not entry.ino:
        raise failure(errno.ENOENT, prefix + name)
    return Node(prefix + name, entry.ino, entry.attr)


async def _close(filesystem: Filesystem, directory: Node, handle: int) -> None:
    try:
        await filesystem.releasedir(directory.ino, handle)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise


@dataclass(slots=True, eq=False)
class _Waiting:
    """A directory that is still to be visited."""

    node: Node
    trail: tuple[int, ...]
    """The inodes above it. Their lookups are kept for as long: a number that was given back may be another's."""
    result: Directory | None = None
    visited: bool = False
    """All that is left to do is to give its lookup back."""


async def walk(filesystem: Filesystem, top: Node) -> AsyncIterator[Directory]:
    """The directory `top` and all below it, each before those in it. Lookups are given back as the walk goes on, so
    that nodes are to be used only until it does. Symlinks are not followed. What cannot be read comes with its
    `failure`.
    """
    stack = [_Waiting(top, ())]
    while stack:
        waiting = stack[-1]
        if waiting.visited:
            stack.pop()
            if waiting.node is not top:
                filesystem.forget(waiting.node.ino, 1)
            continue
        if waiting.result is None:
            await _read_ahead(filesystem, stack)
        directory, waiting.result, waiting.visited = waiting.result, None, True
        assert directory is not None
        yield directory
        below = []
        for node in directory.children:
            if node.is_directory:
                below.append(_Waiting(node, (*waiting.trail, waiting.node.ino)))
            else:
                filesystem.forget(node.ino, 1)
        stack += reversed(below)


async def _read_ahead(filesystem: Filesystem, stack: list[_Waiting]) -> None:
    """Read the directory on top of the stack, and those that come next."""
    wanted = [waiting for waiting in stack[-AHEAD:] if waiting.result is None and not waiting.visited]
    async with trio.open_nursery() as nursery:
        for waiting in wanted:
            nursery.start_soon(_visit, filesystem, waiting)


async def _visit(filesystem: Filesystem, waiting: _Waiting) -> None:
    node, depth = waiting.node, len(waiting.trail)
    if node.ino in waiting.trail or depth > DEPTH_MAX:
        waiting.result = Directory(node, [], depth, failure(errno.ELOOP, node.path))
        return
    try:
        waiting.result = Directory(node, await children(filesystem, node), depth)
    except OSError as error:
        waiting.result = Directory(node, [], depth, error)


def plain(path: bytes) -> str:
    """A path for people and programs: bytes that are no UTF-8 as surrogates."""
    return os.fsdecode(path)
