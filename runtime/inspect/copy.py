"""Copying between trees of any kind: images, humfs trees, directories of this host."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

from runtime.inspect.attribute_copy import REFUSED, AttributeCopier, CopyReport
from runtime.inspect.contents import UNTOLD, close_file, each_piece, open_file
from runtime.inspect.made import Made
from runtime.inspect.paths import Node, failure
from runtime.inspect.walk import DEPTH_MAX, children
from umlfs.filesystem import NO_HANDLE, Attr, Caller, Entry, Filesystem, SetAttr

AT_ONCE: Final = 16
"""Files of a directory that are copied at the same time."""
WITHOUT_HOLES: Final = 64 * 1024
"""Files up to here are not searched for holes."""
_UNNAMED: Final = frozenset({errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG})
"""What a destination answers that cannot have a file of this name."""
_SAME_NAME: Final = "another that was copied has this name there"
_SEEK_UNKNOWN: Final = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF})
T = TypeVar("T")


class Copier:
    """One copy, from `source` to `target`."""

    def __init__(
        self,
        source: Filesystem,
        target: Filesystem,
        *,
        replace: bool = False,
        owner: tuple[int, int] | None = None,
        report: CopyReport | None = None,
        made: Made | None = None,
        progress: Callable[[CopyReport], None] | None = None,
    ) -> None:
        """`replace` lets files take the place of files, and directories be merged. With `owner`, a user and a group,
        everything belongs to them; else to whom it belongs at the source, where the target can keep that. `report` is
        added to, and `progress` is told of it as the copy goes on. `made` is what copies before this one made, which it
        does not replace."""
        self.report = report or CopyReport()
        self._progress = progress
        self._source = source
        self._target = target
        self.replaces = replace
        self._attributes = AttributeCopier(source, target, owner, self.report)
        self._links: dict[int, int] = {}
        """Files with several names: the source's inode and the target's."""
        self._own = made or Made(target, replacing=replace)
        self._top = (0, b"")
        """The name that is copied to: that it is there already is an error."""

    async def copy(self, node: Node, parent: int, name: bytes) -> None:
        """Copy `node`, and if it is a directory all below it, to `name` in the target's directory `parent`.

        If it fails in the middle, what it made is removed, but for what it put into a directory that was there.
        OSError; FileExistsError for what is there already.
        """
        existing = await self._existing(parent, name)
        if existing is not None:
            self._target.forget(existing.ino, 1)
        self._top = (parent, name)
        try:
            await self._copy(node, parent, name, ())
        except BaseException:
            if existing is None:
                with trio.CancelScope(shield=True):
                    await remove(self._target, parent, name)
            raise

    async def _existing(self, parent: int, name: bytes) -> Node | None:
        try:
            entry = await self._target.lookup(parent, name)
        except FileNotFoundError:
            return None
        return Node(name, entry.ino, entry.attr) if entry.ino else None

    async def _copy(self, node: Node, parent: int, name: bytes, trail: tuple[int, ...]) -> None:
        if node.is_directory:
            await self._directory(node, parent, name, trail)
        elif node.attr.nlink > 1 and node.ino in self._links:
            await self._without_contents(
                node, parent, name, lambda: self._target.link(self._links[node.ino], parent, name)
            )
        elif node.is_file:
            await self._file(node, parent, name)
        else:
            await self._special(node, parent, name)

    # Kinds of nodes ---------------------------------------------------------------------------

    async def _directory(self, node: Node, parent: int, name: bytes, trail: tuple[int, ...]) -> None:
        if node.ino in trail or len(trail) > DEPTH_MAX:
            raise failure(errno.ELOOP, node.path)
        present = await self._directory_for(node, parent, name)
        if present is None:
            return
        ino = present.ino
        below = await children(self._source, node)
        files = [each for each in below if not each.is_directory]
        await self._at_once(files, ino)
        for each in below:
            if each.is_directory:
                await self._copy(each, ino, each.name, (*trail, node.ino))
                self._source.forget(each.ino, 1)
        self._own.left(ino, frozenset(self._links.values()))
        await self._attributes.copy(node, ino, present.attr)
        self._own.done(parent, ino)
        self._count()

    async def _directory_for(self, node: Node, parent: int, name: bytes) -> Node | None:
        """A directory for what is in `node`: one that is merged, or a new one, private until all is in it. None for a
        name that the target cannot have."""
        async with self._own.taking_name():
            present = await self._existing(parent, name) if self.replaces else None
            if present is None:
                mode = 0o700
                entry = await self._new(
                    node, parent, name, self._target.mkdir(parent, name, mode, 0, self._caller(node.attr))
                )
                present = Node(name, entry.ino, entry.attr) if entry is not None else None
            elif self._own.has(parent, present.ino):
                self._skip(node, _SAME_NAME)
                return None
            elif not present.is_directory:
                raise failure(errno.EEXIST, name)
            if present is not None:
                self._own.add(parent, present.ino)
            return present

    async def _at_once(self, nodes: list[Node], parent: int) -> None:
        """Copy nodes that are no directories, some at a time. Those with several names one after the other."""
        raised: list[Exception] = []
        limit = trio.CapacityLimiter(AT_ONCE)

        async def one(node: Node) -> None:
            async with limit:
                if raised:
                    return
                try:
                    await self._copy(node, parent, node.name, ())
                    if node.attr.nlink == 1:
                        self._source.forget(node.ino, 1)
                except Exception as error:  # one of them is raised below, out of the nursery's group
                    raised.append(error)

        async with trio.open_nursery() as nursery:
            for node in nodes:
                if node.attr.nlink == 1:
                    nursery.start_soon(one, node)
        for node in nodes:
            if node.attr.nlink != 1 and not raised:
                await one(node)
        if raised:
            raise raised[0]

    async def _file(self, node: Node, parent: int, name: bytes) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        caller = self._caller(node.attr)
        async with self._own.taking_name():
            if not await self._make_room(node, parent, name):
                return
            created = await self._new(node, parent, name, self._target.create(parent, name, 0o600, flags, 0, caller))
            if created is None:
                return
            entry, opened = created
            self._own.add(parent, entry.ino)
        made = Node(name, entry.ino, entry.attr)
        try:
            try:
                await self._contents(node, made, opened.handle)
            finally:
                await self._flush(made, opened.handle)
        except BaseException as error:
            with trio.CancelScope(shield=True):
                await remove(self._target, parent, name)
            if not isinstance(error, OSError) or error.errno != errno.EFBIG:
                raise
            self._skip(node, os.strerror(errno.EFBIG))
            return
        await self._attributes.copy(node, made.ino, made.attr)
        if node.attr.nlink > 1:
            self._links[node.ino] = made.ino
        else:
            self._own.done(parent, made.ino)
        self._count()

    async def _special(self, node: Node, parent: int, name: bytes) -> None:
        attr, caller = node.attr, self._caller(node.attr)
        if node.is_link:
            target = await self._source.readlink(node.ino)
            await self._without_contents(node, parent, name, lambda: self._target.symlink(parent, name, target, caller))
            return
        mode = stat.S_IFMT(attr.mode) | 0o600
        await self._without_contents(
            node, parent, name, lambda: self._target.mknod(parent, name, mode, attr.rdev, 0, caller)
        )

    async def _without_contents(
        self, node: Node, parent: int, name: bytes, make: Callable[[], Awaitable[Entry]]
    ) -> None:
        """Make a node that has no contents. One that the target cannot have is left out, and reported."""
        try:
            async with self._own.taking_name():
                if not await self._make_room(node, parent, name):
                    return
                entry = await make()
                self._own.add(parent, entry.ino)
        except OSError as error:
            if error.errno not in REFUSED and self._why_unnamed(error, parent, name) is None:
                raise failure(error.errno or errno.EIO, name) from None
            self._skip(node, self._why_unnamed(error, parent, name) or os.strerror(error.errno or 0))
            return
        await self._attributes.copy(node, entry.ino, entry.attr)
        if node.attr.nlink > 1 and not node.is_directory:
            self._links.setdefault(node.ino, entry.ino)
        self._count()

    async def _new(self, node: Node, parent: int, name: bytes, making: Awaitable[T]) -> T | None:
        """What `making` makes; None for a name that the target cannot have, which is left out and reported."""
        try:
            return await making
        except OSError as error:
            why = self._why_unnamed(error, parent, name)
            if why is None:
                raise failure(error.errno or errno.EIO, name) from None
            self._skip(node, why)
            return None

    def _why_unnamed(self, error: OSError, parent: int, name: bytes) -> str | None:
        """Why the target cannot have a file of this name; None if the error is another."""
        if error.errno in _UNNAMED:
            return f"no name for a file there ({os.strerror(error.errno or 0)})"
        if error.errno == errno.EEXIST and (parent, name) != self._top:
            return _SAME_NAME
        return None

    def _skip(self, node: Node, why: str) -> None:
        self.report.skipped.append(f"{os.fsdecode(node.path)}: {why}")

    async def _make_room(self, node: Node, parent: int, name: bytes) -> bool:
        """Remove what `node` replaces; False, and `node` is left out, if that is the copy's own. EISDIR for a
        directory."""
        present = await self._existing(parent, name) if self.replaces else None
        if present is None:
            return True
        try:
            if self._own.has(parent, present.ino):
                self._skip(node, _SAME_NAME)
                return False
            if present.is_directory:
                raise failure(errno.EISDIR, name)
            await self._target.unlink(parent, name)
            return True
        finally:
            self._target.forget(present.ino, 1)

    # What nodes hold --------------------------------------------------------------------------

    async def _contents(self, node: Node, made: Node, handle: int) -> None:
        size = node.attr.size
        if not size and not self._source.traits.untold_sizes:
            return
        reading = await open_file(self._source, node)

        async def write(offset: int, data: memoryview) -> None:
            done = await self._naming(made.name, self._target.write_from(made.ino, handle, offset, [data]))
            if done < len(data):
                raise failure(errno.ENOSPC, made.name)
            self.report.size += done
            self._tell()

        try:
            reached = 0
            for start, end in await self._data(node, reading):
                reached = await each_piece(self._source, node, reading, write, start, end)
            if reached < size:  # it ends with a hole
                await self._target.setattr(made.ino, SetAttr(size=size), handle)
        finally:
            await close_file(self._source, node, reading)

    async def _data(self, node: Node, handle: int) -> list[tuple[int, int]]:
        """The ranges of a file that are not holes."""
        size = node.attr.size or UNTOLD
        if size <= WITHOUT_HOLES or size == UNTOLD:
            return [(0, size)]
        found: list[tuple[int, int]] = []
        position = 0
        while position < size:
            try:
                start = await self._source.lseek(node.ino, handle, position, os.SEEK_DATA)
                end = await self._source.lseek(node.ino, handle, start, os.SEEK_HOLE)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    break
                if error.errno in _SEEK_UNKNOWN:
                    return [(0, size)]
                raise failure(error.errno or errno.EIO, node.path) from None
            if not position <= start < end:
                return [*found, (position, size)]
            found.append((start, min(end, size)))
            position = end
        return found

    async def _flush(self, made: Node, handle: int) -> None:
        try:
            await self._target.flush(made.ino, handle)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
        if handle != NO_HANDLE:
            await close_file(self._target, made, handle)

    def _count(self) -> None:
        self.report.copied += 1
        self._tell()

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self.report)

    @staticmethod
    async def _naming(name: bytes, operation: Awaitable[T]) -> T:
        try:
            return await operation
        except OSError as error:
            raise failure(error.errno or errno.EIO, name) from None

    # Details ----------------------------------------------------------------------------------

    def _caller(self, attr: Attr) -> Caller:
        return Caller(*self._attributes.owner_of(attr))


async def remove(filesystem: Filesystem, parent: int, name: bytes) -> None:
    """Remove a name and all below it, as far as that can be done."""
    try:
        entry = await filesystem.lookup(parent, name)
        if not entry.ino:
            return
        node = Node(name, entry.ino, entry.attr)
        if not node.is_directory:
            await filesystem.unlink(parent, name)
            return
        for each in await children(filesystem, node):
            await remove(filesystem, node.ino, each.name)
        await filesystem.rmdir(parent, name)
    except OSError:
        return
