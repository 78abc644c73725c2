"""Files inside of trees, for the browser: listings, contents, uploads."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runtime.inspect.comparing import compare
from runtime.inspect.contents import close_file, each_piece, open_file, read
from runtime.inspect.copy import Copier
from runtime.inspect.diff import Difference
from runtime.inspect.fields import fields
from runtime.inspect.location import Location
from runtime.inspect.paths import Node, resolve
from runtime.inspect.place import destination
from runtime.inspect.tree import OpenTree, open_tree
from runtime.inspect.walk import children
from runtime.web.open_trees import OpenTrees
from umlfs import sources
from umlfs.errors import UmlError, UsageError

ENTRIES_MAX: Final = 5000
"""Names of a directory that are listed."""
VIEW_MAX: Final = 256 << 10
"""Bytes of a file that are shown."""
CHANGES_MAX: Final = 5000
UPLOAD_MAX: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of something longer, and whether there is more."""

    items: list[dict[str, object]]
    cut: bool


async def listing(tree: OpenTree, path: bytes) -> Piece:
    """What is in a directory. OSError."""
    with tree.naming():
        top = await resolve(tree.filesystem, path)
        if not top.is_directory:
            raise UsageError(f"{os.fsdecode(path)}: not a directory", "name a directory")
        nodes = await children(tree.filesystem, top)
        items = [
            {**await fields(tree.filesystem, node), "name": os.fsdecode(node.name)} for node in nodes[:ENTRIES_MAX]
        ]
        for node in nodes:
            tree.filesystem.forget(node.ino, 1)
        return Piece(items, len(nodes) > ENTRIES_MAX)


async def view(tree: OpenTree, path: bytes) -> dict[str, object]:
    """The beginning of a file as text. OSError, UsageError for what is no file."""
    with tree.naming():
        node = await _file(tree, path)
        data = await read(tree.filesystem, node, VIEW_MAX)
    binary = b"\0" in data
    text = "" if binary else data.decode(errors="replace")
    return {"size": node.attr.size, "binary": binary, "cut": node.attr.size > len(data), "text": text}


async def _file(tree: OpenTree, path: bytes) -> Node:
    node = await resolve(tree.filesystem, path)
    if not node.is_file:
        raise UsageError(f"{os.fsdecode(path)}: not a regular file", "name a file")
    return node


async def download(
    tree: OpenTree,
    path: bytes,
    begin: Callable[[int], Awaitable[None]],
    use: Callable[[memoryview], Awaitable[None]],
) -> None:
    """Call `begin` with the size of a file, then `use` with each piece. OSError; also if it is shorter than that."""
    with tree.naming():
        node = await _file(tree, path)
        handle = await open_file(tree.filesystem, node)
        try:
            await begin(node.attr.size)

            async def each(offset: int, piece: memoryview) -> None:
                await use(piece)

            end = await each_piece(tree.filesystem, node, handle, each, 0, node.attr.size) if node.attr.size else 0
            if end < node.attr.size:
                raise UmlError(f"{os.fsdecode(path)}: became shorter while it was read", "try again")
        finally:
            await close_file(tree.filesystem, node, handle)


async def upload(trees: OpenTrees, place: Location, name: str, body: AsyncIterator[bytes], *, replace: bool) -> int:
    """Put a file called `name` into the directory `place`; its size. UmlError, OSError."""
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise UsageError(f"'{name}' cannot be the name of a file", "choose another")
    with tempfile.TemporaryDirectory(prefix="uml-upload-") as text:
        size = await _receive(Path(text, "upload"), body)
        here = Location(sources.parse(f"hostfs:{text}"))
        async with open_tree(here) as mine, trees.writing(place) as into, _Naming(into):
            if into.filesystem.traits.read_only:
                raise UmlError(f"{place.source}: can only be read", "upload to somewhere else")
            node = await resolve(mine.filesystem, b"/upload")
            where = await destination(into.filesystem, place.inside, os.fsencode(name), str(place))
            copier = Copier(mine.filesystem, into.filesystem, replace=replace, owner=(0, 0))
            try:
                await copier.copy(node, where.parent.ino, where.name)
            except FileExistsError:
                raise UmlError(f"{name}: is there already", "choose to replace it, or another name") from None
            await into.synchronize()
    return size


class _Naming:
    """`OpenTree.naming` among asynchronous contexts."""

    def __init__(self, tree: OpenTree) -> None:
        self._context = tree.naming()

    async def __aenter__(self) -> None:
        self._context.__enter__()

    async def __aexit__(self, *raised: object) -> bool | None:
        return self._context.__exit__(*raised)  # type: ignore[arg-type]


async def _receive(path: Path, body: AsyncIterator[bytes]) -> int:
    size = 0
    with path.open("wb") as file:
        async for piece in body:
            size += len(piece)
            if size > UPLOAD_MAX:
                raise UmlError(f"more than {UPLOAD_MAX >> 20} MiB", "use 'uml cp' for such files")
            file.write(piece)
    return size


async def differences(one: Location, other: Location) -> Piece:
    """What differs from the one to the other: the first of it. UmlError, OSError."""
    found: list[dict[str, object]] = []

    class Enough(Exception):
        pass

    def each(change: Difference) -> None:
        if len(found) >= CHANGES_MAX:
            raise Enough
        found.append({"path": change.path, "kind": change.kind, "line": change.line()})

    cut = False
    try:
        await compare(one, other, each)
    except* Enough:
        cut = True
    return Piece(found, cut)
