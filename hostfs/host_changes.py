"""What others do on the host, as the changes of a filesystem: inotify's events, without those that are our own doing.

inotify does not tell who did something. So what has happened is read before and after each change that the consumer
makes itself, and what comes in between to the same name is its own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from hostfs.inodes import Inode
from hostfs.resolver import Resolver
from umlfs.filesystem import Attr, Change, ChangeKind, Entry
from umlfs.host.watch import (
    ATTRIB,
    CLOSE_WRITE,
    CREATE,
    DELETE,
    IGNORED,
    ISDIR,
    MODIFY,
    MOVED_FROM,
    MOVED_TO,
    OVERFLOW,
    WANTED,
    Event,
    Watch,
)

SWEEP_SECONDS: Final = 60.0
"""How long a directory that the consumer has forgotten may go on being watched."""
RENAME_SECONDS: Final = 0.01
"""How long the second event of a rename is waited for."""
NAMES_MAX: Final = 65536
"""Names of one directory of which it is known what the consumer was told."""

Place = tuple[Inode, bytes]
"""A directory and a name in it."""


class _Directory:
    """A directory that is watched."""

    __slots__ = ("inode", "modified", "names", "watch")

    def __init__(self, inode: Inode, watch: int) -> None:
        self.inode = inode
        self.watch = watch
        self.names: dict[bytes, int] = {}
        """What the consumer was told of names: inode numbers."""
        self.modified: set[bytes] = set()
        """Names that others have written to since they were closed last."""


class _Leaving(NamedTuple):
    """The first event of a rename."""

    cookie: int
    directory: _Directory
    name: bytes
    mode: int


class HostChanges:
    """The changes of one `HostFilesystem`, in the directories given to `watch`. `run` must be running."""

    def __init__(self, resolver: Resolver) -> None:
        """OSError: EMFILE if the user has too many inotify instances."""
        self._nodes = resolver.table.nodes
        self._table = resolver.table
        self._watch = Watch(WANTED | CLOSE_WRITE)
        self._by_inode: dict[Inode, _Directory] = {}
        self._by_watch: dict[int, _Directory] = {}
        self._own: Counter[Place] = Counter()
        """What the consumer is changing just now."""
        self._leaving: _Leaving | None = None
        self._hear: Callable[[Change], None] = lambda change: None
        self._closed = False
        self.refused = 0
        """How many directories are not watched because of the system's limit."""

    # The contract of `Changes` ----------------------------------------------------------------

    def listen(self, hear: Callable[[Change], None]) -> None:
        self._hear = hear

    def path(self, ino: int) -> bytes | None:
        names: list[bytes] = []
        step = self._nodes.get(ino)
        while step is not None:
            if step is self._table.root:
                return b"/".join(reversed(names))
            names.append(step.name)
            step = step.parent
        return None

    def known(self, parent: int, name: bytes) -> int:
        directory = self._directory(parent)
        return 0 if directory is None else directory.names.get(name, 0)

    def again(self, ino: int) -> Entry | None:
        inode = self._nodes.get(ino)
        if inode is None:
            return None
        inode.lookups += 1
        # Whoever goes on using it asks again.
        return Entry(inode.node, Attr(inode.key[1], inode.kind | 0o600, 1, 0, 0, 0, 0, 0, 0, 0, 0))

    def lost(self, parent: int, name: bytes) -> None:
        if (directory := self._directory(parent)) is not None:
            directory.names.pop(name, None)

    def _directory(self, ino: int) -> _Directory | None:
        inode = self._nodes.get(ino)
        return None if inode is None else self._by_inode.get(inode)

    # What the consumer knows, and does itself -------------------------------------------------

    def note(self, parent: int, name: bytes, ino: int) -> None:
        """The consumer is told that `name` is `ino`."""
        directory = self._directory(parent)
        if directory is not None and (len(directory.names) < NAMES_MAX or name in directory.names):
            directory.names[name] = ino

    def watches(self, inode: Inode) -> bool:
        """Whether the directory is watched."""
        return inode in self._by_inode

    def watch(self, inode: Inode) -> None:
        """Watch a directory that holds a descriptor, as far as that is possible."""
        if self._closed or inode in self._by_inode or inode.fd < 0:
            return
        try:
            watch = self._watch.add(inode.fd)
        except OSError as error:
            self.refused += error.errno == errno.ENOSPC
            return
        former = self._by_watch.get(watch)
        if former is not None:
            if self._nodes.get(former.inode.node) is former.inode:
                return  # a directory mounted below itself
            del self._by_inode[former.inode]
        self._by_inode[inode] = self._by_watch[watch] = _Directory(inode, watch)

    @contextlib.contextmanager
    def own(self, *places: Place) -> Iterator[None]:
        """What happens to these names within is the consumer's own doing."""
        self._drain()
        self._own.update(places)
        try:
            yield
        finally:
            self._drain()
            self._own -= Counter(places)

    # What happens on the host -----------------------------------------------------------------

    async def run(self) -> None:
        """Pass on what happens, until `close`."""
        while not self._closed:
            if not await self._watch.wait(SWEEP_SECONDS):
                self._sweep()
            self._drain()
            if (leaving := self._leaving) is not None:
                await self._watch.wait(RENAME_SECONDS)
                self._drain()
                if self._leaving is leaving:
                    self._has_left()

    def close(self) -> None:
        """Nothing more is passed on. It may be called again."""
        self._closed = True
        self._watch.close()
        self._by_inode.clear()
        self._by_watch.clear()

    def _sweep(self) -> None:
        for directory in list(self._by_inode.values()):
            if self._nodes.get(directory.inode.node) is not directory.inode:
                with contextlib.suppress(OSError):
                    self._watch.remove(directory.watch)
                self._drop(directory)
                continue
            gone = [name for name, ino in directory.names.items() if ino not in self._nodes]
            for name in gone:
                del directory.names[name]

    def _drop(self, directory: _Directory) -> None:
        self._by_watch.pop(directory.watch, None)
        if self._by_inode.get(directory.inode) is directory:
            del self._by_inode[directory.inode]

    def _drain(self) -> None:
        while not self._closed and (events := self._watch.read()):
            for event in events:
                self._happened(event)

    def _happened(self, event: Event) -> None:
        if event.mask & OVERFLOW:
            for each in self._by_inode.values():
                self._hear(Change(ChangeKind.ATTRIBUTES, each.inode.node, b"", stat.S_IFDIR))
            return
        directory = self._by_watch.get(event.watch)
        if directory is None:
            return
        if event.mask & IGNORED:
            self._drop(directory)
        elif event.name and (directory.inode, event.name) not in self._own:
            self._changed(directory, event)

    def _changed(self, directory: _Directory, event: Event) -> None:
        """Others have changed a name."""
        node, name, mask = directory.inode.node, event.name, event.mask
        mode = stat.S_IFDIR if mask & ISDIR else stat.S_IFREG
        if mask & MOVED_TO:
            self._arrived(event.cookie, node, name, mode)
            return
        self._has_left()
        if mask & MOVED_FROM:
            directory.modified.discard(name)
            self._leaving = _Leaving(event.cookie, directory, name, mode)
        elif mask & CREATE:
            self._created(directory, name)
        elif mask & DELETE:
            directory.modified.discard(name)
            self._hear(Change(ChangeKind.REMOVED, node, name, mode))
        elif mask & MODIFY:
            directory.modified.add(name)
            self._hear(Change(ChangeKind.MODIFIED, node, name, mode))
        elif mask & ATTRIB:
            self._hear(Change(ChangeKind.ATTRIBUTES, node, name, mode))
        elif mask & CLOSE_WRITE and name in directory.modified:
            directory.modified.discard(name)
            self._hear(Change(ChangeKind.WRITTEN, node, name, mode))

    def _created(self, directory: _Directory, name: bytes) -> None:
        try:
            found = os.stat(name, dir_fd=directory.inode.fd, follow_symlinks=False)
        except OSError:
            return  # it is gone again: that will be told
        kind = stat.S_IFMT(found.st_mode)
        if kind == stat.S_IFREG:
            directory.modified.add(name)
        self._hear(Change(ChangeKind.CREATED, directory.inode.node, name, kind, found.st_rdev))

    def _arrived(self, cookie: int, node: int, name: bytes, mode: int) -> None:
        """Something was moved to `name`: the second event of a rename, or all that is seen of it."""
        leaving, self._leaving = self._leaving, None
        if leaving is not None and leaving.cookie == cookie:
            self._follow(leaving, node, name)
            self._hear(Change(ChangeKind.MOVED, leaving.directory.inode.node, leaving.name, mode, 0, node, name))
            return
        self._leaving = leaving
        self._has_left()
        self._hear(Change(ChangeKind.MOVED, 0, b"", mode, 0, node, name))

    def _follow(self, leaving: _Leaving, node: int, name: bytes) -> None:
        """What the consumer knows keeps its number where it is now."""
        inode = self._nodes.get(leaving.directory.names.get(leaving.name, 0))
        target = self._nodes.get(node)
        if inode is None or target is None:
            return
        with contextlib.suppress(OSError):
            found = os.stat(name, dir_fd=target.fd, follow_symlinks=False)
            if (found.st_dev, found.st_ino) == inode.key[:2]:
                self._table.move(inode, leaving.directory.inode, leaving.name, target, name)

    def _has_left(self) -> None:
        """What was moved away went where nobody looks."""
        leaving, self._leaving = self._leaving, None
        if leaving is not None:
            self._hear(Change(ChangeKind.MOVED, leaving.directory.inode.node, leaving.name, leaving.mode))
