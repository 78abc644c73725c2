"""`uml cp`: from places to a place."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Sequence

from runtime.inspect.attribute_copy import CopyReport
from runtime.inspect.copy import Copier
from runtime.inspect.location import Location
from runtime.inspect.made import Made
from runtime.inspect.paths import Node, resolve
from runtime.inspect.place import destination, own_name, place_of
from runtime.inspect.tree import OpenTree, open_tree
from umlfs.errors import UmlError, UsageError
from umlfs.filesystem import Filesystem
from umlfs.sources import Source


async def copy(
    words: Sequence[str],
    target: str,
    *,
    recursive: bool = False,
    replace: bool = False,
    owner: tuple[int, int] | None = None,
    progress: Callable[[CopyReport], None] | None = None,
) -> CopyReport:
    """Copy what `words` name to `target`: places inside of sources, or paths of this host. `progress` is told how far
    it has come, again and again.

    Owners, modes, times, links and holes are kept where the target can keep them. UmlError, UsageError, OSError.
    """
    to = place_of(target)
    places = [place_of(word, follow=not recursive, there=True) for word in words]
    if any(_same_image(place, to) for place in places):
        raise UsageError(f"{to.source}: cannot be read and written at once", "copy by way of a directory")
    total = CopyReport()
    async with contextlib.AsyncExitStack() as stack:
        written = await stack.enter_async_context(open_tree(to, writable=True))
        into = written.filesystem
        if into.traits.read_only:
            raise UmlError(f"{target}: can only be read", "copy to somewhere else")
        if len(words) > 1 and not await _is_directory(into, to):
            raise UsageError(f"{target}: not a directory", "several sources go into a directory that is there")
        made = Made(into, replacing=replace)
        trees: dict[tuple[Source, int | None], OpenTree] = {}
        for word, place in zip(words, places, strict=True):
            key = (place.source, place.partition)
            if key not in trees:
                trees[key] = await stack.enter_async_context(open_tree(place))
            with trees[key].naming():
                node = await resolve(trees[key].filesystem, place.inside, follow=not recursive)
            if node.is_directory and not recursive:
                raise UsageError(f"{word}: a directory", "copy it with --recursive")
            source = trees[key].filesystem
            copier = Copier(source, into, replace=replace, owner=owner, report=total, made=made, progress=progress)
            await _copy(copier, into, node, to, word, target)
        await written.synchronize()
    return total


def _same_image(one: Location, other: Location) -> bool:
    return any(
        os.path.isfile(a) and os.path.isfile(b) and os.path.samefile(a, b)
        for a in one.source.files
        for b in other.source.files
    )


async def _is_directory(filesystem: Filesystem, to: Location) -> bool:
    try:
        return (await resolve(filesystem, to.inside)).is_directory
    except FileNotFoundError:
        return False


async def _copy(copier: Copier, into: Filesystem, node: Node, to: Location, word: str, target: str) -> None:
    where = await destination(into, to.inside, own_name(word), target)
    try:
        await copier.copy(node, where.parent.ino, where.name)
    except FileExistsError as error:
        name = os.fsdecode(error.filename or where.name)
        raise UmlError(f"{name}: is there already", "--force replaces files") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            why = os.strerror(error.errno)
            left = "the copy is not whole" if copier.replaces else "nothing is left of the copy"
            raise UmlError(f"{target}: {why}; {left}", "make room there") from None
        raise
