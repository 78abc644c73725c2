"""Changing what is inside of a source: the small commands of coreutils, on any tree that can be written."""

from __future__ import annotations

import contextlib
import errno
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final

from runtime.inspect import location
from runtime.inspect.beside import beside, take_place
from runtime.inspect.location import Location
from runtime.inspect.paths import Node, failure, resolve
from runtime.inspect.tree import open_tree
from runtime.inspect.walk import DEPTH_MAX, children
from umlfs.errors import UmlError, UsageError
from umlfs.filesystem import Caller, Filesystem, SetAttr

ROOT_OWNER: Final = Caller(0, 0)
SET_ID: Final = stat.S_ISUID | stat.S_ISGID
_NAMELESS: Final = (b"", b".", b"..")


@dataclass(frozen=True, slots=True)
class WritableTree:
    """A tree that is open for writing."""

    filesystem: Filesystem

    async def parent_of(self, path: bytes) -> tuple[Node, bytes]:
        """The directory that `path` is in, and its name there. OSError; EINVAL for the root."""
        above, _, name = path.rstrip(b"/").rpartition(b"/")
        if name in _NAMELESS:
            raise failure(errno.EINVAL, path)
        parent = await resolve(self.filesystem, above or b"/")
        if not parent.is_directory:
            raise failure(errno.ENOTDIR, above)
        return parent, name

    async def find(self, path: bytes) -> Node | None:
        """What is there, itself if it is a symlink; None if nothing is."""
        try:
            return await resolve(self.filesystem, path, follow=False)
        except FileNotFoundError:
            return None

    async def make_directory(self, path: bytes, mode: int, *, parents: bool = False) -> None:
        """Make a directory; with `parents` those above it as well, and one that is there is right."""
        found = await self._followed(path) if parents else None
        if found is not None:
            if not found.is_directory:
                raise failure(errno.EEXIST, path)
            return
        above = path.rstrip(b"/").rpartition(b"/")[0]
        if parents and above:
            await self.make_directory(above, 0o755, parents=True)
        parent, name = await self.parent_of(path)
        with _named(path):
            entry = await self.filesystem.mkdir(parent.ino, name, mode, 0, ROOT_OWNER)
            await self.filesystem.setattr(entry.ino, SetAttr(mode=mode))

    async def _followed(self, path: bytes) -> Node | None:
        try:
            return await resolve(self.filesystem, path)
        except FileNotFoundError:
            return None

    async def remove(self, path: bytes, *, recursive: bool = False, force: bool = False) -> None:
        """Remove a name; with `recursive` a directory and all below it. With `force` nothing may be there."""
        node = await self.find(path)
        if node is None:
            if force:
                return
            raise failure(errno.ENOENT, path)
        parent, name = await self.parent_of(path)
        if node.is_directory and not recursive:
            raise failure(errno.EISDIR, path)
        await self._remove(parent, name, node, 0)

    async def _remove(self, parent: Node, name: bytes, node: Node, depth: int) -> None:
        if depth > DEPTH_MAX:
            raise failure(errno.ELOOP, node.path)
        if node.is_directory:
            for each in await children(self.filesystem, node):
                await self._remove(node, each.name, each, depth + 1)
        with _named(node.path):
            end = self.filesystem.rmdir if node.is_directory else self.filesystem.unlink
            await end(parent.ino, name)
        self.filesystem.forget(node.ino, 1)

    async def move(self, path: bytes, target: bytes) -> None:
        """Rename, or move into the directory that is there. What is no directory replaces what is none."""
        parent, name = await self.parent_of(path)
        if await self.find(path) is None:
            raise failure(errno.ENOENT, path)
        into = await self._followed(target)
        if into is not None and into.is_directory:
            target = target.rstrip(b"/") + b"/" + name
        new_parent, new_name = await self.parent_of(target)
        with _named(target):
            await self.filesystem.rename(parent.ino, name, new_parent.ino, new_name)

    async def link(self, path: bytes, target: bytes, *, replace: bool = False) -> None:
        """Give what `path` leads to one more name. With `replace` that takes the place of a file, at once."""
        node = await resolve(self.filesystem, path, follow=False)
        await self._new_name(target, replace, lambda parent, name: self.filesystem.link(node.ino, parent, name))

    async def symlink(self, text: bytes, target: bytes, *, replace: bool = False) -> None:
        """Make a symlink to `text`. With `replace` it takes the place of a file, at once."""

        def make(parent: int, name: bytes) -> Awaitable[object]:
            return self.filesystem.symlink(parent, name, text, ROOT_OWNER)

        await self._new_name(target, replace, make)

    async def _new_name(self, target: bytes, replace: bool, make: Callable[[int, bytes], Awaitable[object]]) -> None:
        parent, name = await self.parent_of(target)
        with _named(target):
            if not replace or await self.find(target) is None:
                await make(parent.ino, name)
                return
            draft = beside(name)
            await make(parent.ino, draft)
            await take_place(self.filesystem, parent, draft, name)

    async def change(self, path: bytes, changes: Callable[[Node], SetAttr | None], *, recursive: bool = False) -> None:
        """Change attributes of what `path` leads to, and with `recursive` of all below it; None leaves a node as it
        is."""
        await self._change(await resolve(self.filesystem, path, follow=not recursive), changes, recursive, 0)

    async def _change(self, node: Node, changes: Callable[[Node], SetAttr | None], recursive: bool, depth: int) -> None:
        if depth > DEPTH_MAX:
            raise failure(errno.ELOOP, node.path)
        wanted = changes(node)
        if wanted is not None:
            with _named(node.path):
                await self.filesystem.setattr(node.ino, wanted)
        if recursive and node.is_directory:
            for each in await children(self.filesystem, node):
                await self._change(each, changes, recursive, depth + 1)
                self.filesystem.forget(each.ino, 1)


def mode_of(node: Node) -> int:
    """The permission bits."""
    return stat.S_IMODE(node.attr.mode)


@contextlib.contextmanager
def _named(path: bytes) -> Iterator[None]:
    """An OSError raised within names `path`."""
    try:
        yield
    except OSError as error:
        raise failure(error.errno or errno.EIO, path) from None


def places(words: tuple[str, ...]) -> list[Location]:
    """What the words name, all in one source. UsageError."""
    found = [place(word) for word in words]
    if any((each.source, each.partition) != (found[0].source, found[0].partition) for each in found):
        raise UsageError(f"{words[-1]}: in another source than {words[0]}", "one source at a time; 'uml cp' copies")
    return found


def place(word: str) -> Location:
    """The place inside a source that `word` names. UsageError for one without a path."""
    found = location.parse(word)
    if found.path is None:
        raise UsageError(f"{word}: no path inside", f"write {word}:/PATH")
    return found


@contextlib.asynccontextmanager
async def writable(at: Location) -> AsyncIterator[WritableTree]:
    """The tree that `at` lies in, for changes; durable at the end. UmlError for one that can only be read."""
    async with open_tree(at, writable=True) as tree:
        if tree.filesystem.traits.read_only:
            raise UmlError(f"{at.source}: can only be read", "'uml image convert' makes one that can be written")
        with tree.naming():
            yield WritableTree(tree.filesystem)
        await tree.synchronize()
