"""Announcing changes: a kernel that cannot be told of them sees them made, and tells its programs (inotify).

Linux makes an inotify event of what a program does to a file, and has no other way (FUSE_NOTIFY_* make none). So a
small program beside the consumer's others, the *announcer*, repeats each change through the mount: it makes the name
that others have made already, removes the one that is gone, and so on. Nothing of it reaches the filesystem: its
requests are known by who makes them, and are answered here, as if the change had just happened.

No request of the announcer ever changes anything: what is not being announced just now is refused.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from umlfs.filesystem import FOREVER, ROOT, Attr, Change, ChangeKind, Changes, Entry, Filesystem, Opened
from umlfs.wire.announcer import OUTSIDE

_OUTSIDE_INODE: Final = (1 << 62) + 1
_GHOST_INODE: Final = (1 << 62) + 2
"""What is removed and was never known."""
HANDLE: Final = (1 << 62) + 1
"""Of every file that the announcer opens."""

QUEUE_MAX: Final = 10_000
"""Changes that may wait. With more, each directory concerned is announced once, as one whose attributes changed."""

Perform = Callable[[Change, bytes, bytes], Awaitable[None]]
"""Has the announcer repeat a change, by the paths of the directory and the new directory; returns when it has tried."""

_OF_CONTENTS: Final = (ChangeKind.MODIFIED, ChangeKind.WRITTEN, ChangeKind.ATTRIBUTES)
_Key = tuple[ChangeKind, int, bytes]


def _failure(code: int) -> OSError:
    return OSError(code, os.strerror(code))


def _made_up(mode: int) -> Attr:
    return Attr(1, mode, 1, 0, 0, 0, 0, 0, 0, 0, 0)


class Announcer:
    """The changes of one filesystem, and the answers to the program that repeats them."""

    def __init__(self, filesystem: Filesystem, changes: Changes) -> None:
        """`changes` are `filesystem`'s."""
        self._filesystem = filesystem
        self._changes = changes
        self._waiting: deque[Change] = deque()
        self._keys: set[_Key] = set()
        """Of those that wait, and need not wait twice."""
        self._arrived = trio.Event()
        self._now: Change | None = None
        """What is being announced."""
        self._done = False
        """The kernel has done it."""
        self._known = self._replaced = 0
        """The inode numbers that the consumer knows by the name, and the new name, before the change; or 0."""
        changes.listen(self._hear)

    # Waiting ----------------------------------------------------------------------------------

    def _hear(self, change: Change) -> None:
        if len(self._waiting) >= QUEUE_MAX:
            self._summarize()
        key = change.kind, change.parent, change.name
        if change.kind in _OF_CONTENTS:
            if key in self._keys:
                return
            self._keys.add(key)
        else:
            for kind in _OF_CONTENTS:
                self._keys.discard((kind, change.parent, change.name))
                self._keys.discard((kind, change.new_parent, change.new_name))
        self._waiting.append(change)
        self._arrived.set()

    def _summarize(self) -> None:
        directories = dict.fromkeys(each.parent or each.new_parent for each in self._waiting)
        self._waiting.clear()
        self._keys.clear()
        for directory in directories:
            change = Change(ChangeKind.ATTRIBUTES, directory, b"", stat.S_IFDIR)
            self._keys.add((change.kind, directory, b""))
            self._waiting.append(change)

    async def run(self, perform: Perform) -> None:
        """Announce what happens, one change after the other."""
        while True:
            while self._waiting:
                change = self._waiting.popleft()
                self._keys.discard((change.kind, change.parent, change.name))
                await self._announce(change, perform)
            self._arrived = trio.Event()
            await self._arrived.wait()

    async def _announce(self, change: Change, perform: Perform) -> None:
        parent, new_parent = self._path(change.parent), self._path(change.new_parent)
        if parent is None or new_parent is None:
            return  # the directory is gone
        self._now, self._done = change, False
        self._known = self._changes.known(change.parent, change.name) if change.parent else 0
        self._replaced = self._changes.known(change.new_parent, change.new_name) if change.new_parent else 0
        try:
            await perform(change, parent, new_parent)
        finally:
            self._now = None
        if change.kind in (ChangeKind.REMOVED, ChangeKind.MOVED):
            self._changes.lost(change.parent, change.name)
        if not self._done and (instead := _instead(change)) is not None:
            await self._announce(instead, perform)

    def _path(self, ino: int) -> bytes | None:
        return self._changes.path(ino) if ino else OUTSIDE

    # Answers to the announcer -----------------------------------------------------------------

    def _is(self, kind: ChangeKind, parent: int, name: bytes) -> bool:
        now = self._now
        return now is not None and now.kind is kind and (now.parent, now.name) == (parent, name)

    def _is_target(self, parent: int, name: bytes) -> bool:
        now = self._now
        if now is None or now.kind is not ChangeKind.MOVED:
            return False
        return (now.new_parent, now.new_name) == (parent, name)

    @staticmethod
    def _inside(parent: int, name: bytes) -> tuple[int, bytes]:
        """Directory and name as a `Change` has them."""
        return (0, b"") if parent == _OUTSIDE_INODE else (parent, name)

    async def lookup(self, parent: int, name: bytes) -> Entry:
        """Before a change, the names as they were before it; all others as they are."""
        if (parent, name) == (ROOT, OUTSIDE):
            return Entry(_OUTSIDE_INODE, _made_up(stat.S_IFDIR | 0o700), 0, FOREVER)
        place = self._inside(parent, name)
        if self._is(ChangeKind.CREATED, *place):
            return Entry(0, _made_up(0))
        if self._is(ChangeKind.REMOVED, *place):
            return self._former()
        if self._is(ChangeKind.MOVED, *place):
            return await self._moved()
        if self._is_target(*place):
            return self._changes.again(self._replaced) or Entry(0, _made_up(0))
        if parent == _OUTSIDE_INODE:
            raise _failure(errno.ENOENT)
        return await self._filesystem.lookup(parent, name)

    def _former(self) -> Entry:
        """What the name was before the change."""
        assert self._now is not None
        return self._changes.again(self._known) or Entry(_GHOST_INODE, _made_up(self._now.mode | 0o600))

    async def _moved(self) -> Entry:
        """What was moved: it is found where it is by now."""
        now = self._now
        assert now is not None
        if now.new_parent:
            entry = await self._filesystem.lookup(now.new_parent, now.new_name)
            if entry.ino:
                entry.entry_valid_ns = 0
                return entry
        return self._former()

    async def make(self, parent: int, name: bytes) -> Entry:
        """MKNOD, MKDIR, SYMLINK."""
        if not self._is(ChangeKind.CREATED, parent, name):
            raise _failure(errno.EPERM)
        entry = await self._filesystem.lookup(parent, name)
        if not entry.ino:
            raise _failure(errno.ENOENT)
        self._done = True
        return entry

    def remove(self, parent: int, name: bytes) -> None:
        """UNLINK, RMDIR."""
        if not self._is(ChangeKind.REMOVED, parent, name):
            raise _failure(errno.EPERM)
        self._done = True

    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes) -> None:
        """RENAME."""
        source, target = self._inside(parent, name), self._inside(new_parent, new_name)
        if not self._is(ChangeKind.MOVED, *source) or not self._is_target(*target):
            raise _failure(errno.EPERM)
        self._done = True

    async def getattr(self, ino: int) -> tuple[Attr, int]:
        """GETATTR, and SETATTR, which changes nothing."""
        if ino == _OUTSIDE_INODE:
            return _made_up(stat.S_IFDIR | 0o700), FOREVER
        if ino == _GHOST_INODE:
            return _made_up(stat.S_IFREG | 0o600), 0
        self._done = True
        return await self._filesystem.getattr(ino)

    def open(self) -> Opened:
        """OPEN: nothing can be done with the handle but to close it."""
        self._done = True
        return Opened(HANDLE)


def _instead(change: Change) -> Change | None:
    """What to announce if the kernel would not do it, since some program has found the new name in the meantime."""
    if change.kind is ChangeKind.CREATED:
        return Change(ChangeKind.ATTRIBUTES, change.parent, change.name, change.mode)
    if change.kind is ChangeKind.MOVED and change.new_parent:
        return Change(ChangeKind.ATTRIBUTES, change.new_parent, change.new_name, change.mode)
    return None
