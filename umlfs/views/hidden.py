"""Names that are not shown."""

from __future__ import annotations

import errno
import fnmatch
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import replace

from umlfs.filesystem import Attr, Caller, Change, ChangeKind, Changes, DirSink, Entry, Filesystem, Opened
from umlfs.views.changes import ShownChanges
from umlfs.views.view import View

Hides = Callable[[int, bytes], bool]
"""Whether a name in a directory (by its inode number) is hidden."""


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


def patterns(texts: Iterable[str]) -> Hides:
    """Hides names that match one of `texts`, shell patterns as of fnmatch(3), in every directory."""
    expression = re.compile("|".join(map(fnmatch.translate, texts)))

    def hides(parent: int, name: bytes) -> bool:
        return expression.match(os.fsdecode(name)) is not None

    return hides


class Hidden(View):
    """`inner` without some names: looked up they are not there, and they cannot be made (EPERM)."""

    def __init__(self, inner: Filesystem, hides: Hides) -> None:
        super().__init__(inner)
        self._hides = hides

    @property
    def changes(self) -> Changes | None:
        changes = self.inner.changes
        return None if changes is None else ShownChanges(changes, self._shown)

    def _shown(self, change: Change) -> Iterable[Change]:
        """A hidden name is where the consumer does not look."""
        if change.kind is not ChangeKind.MOVED:
            return [] if self._hides(change.parent, change.name) else [change]
        if change.parent and self._hides(change.parent, change.name):
            change = replace(change, parent=0, name=b"")
        if change.new_parent and self._hides(change.new_parent, change.new_name):
            change = replace(change, new_parent=0, new_name=b"")
        return [change] if change.parent or change.new_parent else []

    def _absent(self, parent: int, name: bytes) -> None:
        if self._hides(parent, name):
            raise _error(errno.ENOENT)

    def _makeable(self, parent: int, name: bytes) -> None:
        if self._hides(parent, name):
            raise _error(errno.EPERM)

    async def lookup(self, parent: int, name: bytes) -> Entry:
        if self._hides(parent, name):
            return Entry(0, Attr(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
        return await self.inner.lookup(parent, name)

    async def readdir(self, ino: int, handle: int, offset: int, add: DirSink, plus: bool = False) -> None:
        directory = ino

        def shown(name: bytes, offset: int, ino: int, mode: int, entry: Entry | None) -> bool:
            if not self._hides(directory, name):
                return add(name, offset, ino, mode, entry)
            if entry is not None:
                self.inner.forget(entry.ino, 1)
            return True

        await self.inner.readdir(ino, handle, offset, shown, plus)

    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int, umask: int, caller: Caller) -> Entry:
        self._makeable(parent, name)
        return await self.inner.mknod(parent, name, mode, rdev, umask, caller)

    async def mkdir(self, parent: int, name: bytes, mode: int, umask: int, caller: Caller) -> Entry:
        self._makeable(parent, name)
        return await self.inner.mkdir(parent, name, mode, umask, caller)

    async def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Entry:
        self._makeable(parent, name)
        return await self.inner.symlink(parent, name, target, caller)

    async def link(self, ino: int, new_parent: int, new_name: bytes) -> Entry:
        self._makeable(new_parent, new_name)
        return await self.inner.link(ino, new_parent, new_name)

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, umask: int, caller: Caller
    ) -> tuple[Entry, Opened]:
        self._makeable(parent, name)
        return await self.inner.create(parent, name, mode, flags, umask, caller)

    async def unlink(self, parent: int, name: bytes) -> None:
        self._absent(parent, name)
        await self.inner.unlink(parent, name)

    async def rmdir(self, parent: int, name: bytes) -> None:
        self._absent(parent, name)
        await self.inner.rmdir(parent, name)

    async def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> None:
        self._absent(parent, name)
        self._makeable(new_parent, new_name)
        await self.inner.rename(parent, name, new_parent, new_name, flags)
