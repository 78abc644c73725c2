"""The core of hostfs: from inode numbers to verified descriptors.

Confinement. The only path ever opened is one component below a descriptor that was reached the same way, with
O_NOFOLLOW, from the root's; after each step device and inode number must be those the consumer was told of. A
path under `/proc/self/fd` is used only to get from a descriptor of ours to the same file.

Waiting. Everything here is synchronous and runs on the loop. A name that is not in the host's caches raises
BlockingIOError; the operation then has a thread look at it (`warm`), and does the work on the loop afterwards.
Changes of names and attributes are made on the loop: they end in the host's page cache and journal, and a thread
costs ten times as much as most of them.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

import trio

from hostfs.closing import Closer
from hostfs.descriptors import READ, Descriptors, limits
from hostfs.inodes import Inode, InodeTable, Key
from hostfs.kinds import is_memory, is_pseudo, is_read_by_asker
from hostfs.page_cache import Warmth
from umlfs.filesystem import Attr, Entry, Filesystem, Traits
from umlfs.host.syscalls import How, failure, open_cached

T = TypeVar("T")

_SECOND: Final = 1_000_000_000
WARM_SECONDS: Final = 30.0
"""How long a directory that was read, or changed by us, is taken to be in the host's caches."""

DIRECTORY: Final = How(os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK)
PATH: Final = How(os.O_PATH | os.O_NOFOLLOW)
FORMAT: Final = 0o170000
_GONE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)
"""Errors that tell of a name that leads nowhere, or not where it did."""


class Cache(enum.Enum):
    """How long the consumer may believe what it was told."""

    ALWAYS = "always"
    """For an hour: nobody else changes the directory, or it does not matter if somebody does."""
    AUTO = "auto"
    """For a second, and contents until size or mtime change."""
    NEVER = "never"
    """Not at all: every operation asks the host."""


LIFETIMES: Final = {Cache.ALWAYS: 3600 * _SECOND, Cache.AUTO: _SECOND, Cache.NEVER: 0}


def _umask() -> int:
    """This process's umask. (`os.umask` could tell only by changing it, for all threads.)"""
    with open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    return 0o777


def proc_path(fd: int) -> str:
    """A path to just what `fd` is, for system calls that take no O_PATH descriptor."""
    return f"/proc/self/fd/{fd}"


class Export(Filesystem):
    """What all operations of `HostFilesystem` share."""

    def __init__(
        self,
        root: str | bytes | os.PathLike[str],
        *,
        read_only: bool = False,
        cache: Cache = Cache.AUTO,
        stateless: bool | None = None,
        writeback: bool | None = None,
    ) -> None:
        """As `HostFilesystem`'s."""
        fd = self._open_root(os.fsencode(root))
        found = os.fstat(fd)
        self._device = found.st_dev
        self._devices = {found.st_dev: 0}
        """Every device seen, by the index that tells its inode numbers apart."""
        self._pseudo: dict[int, bool] = {}
        """Which devices the host's kernel makes up."""
        self._in_memory: set[int] = set()
        """Devices of filesystems without a disk to wait for. (They cannot tell that they never wait.)"""
        self._warmth: dict[int, Warmth] = {}
        """Of devices where it can be judged."""
        held, pinned, self._handles_max = limits()
        self._closer = Closer()
        self._descriptors = Descriptors(held, pinned, self._closer.close)
        self._table = InodeTable((found.st_dev, found.st_ino), self._descriptors.drop)
        self._nodes = self._table.nodes
        self._keys = self._table.keys
        self._root = self._table.root
        self._root.fd = fd
        self._root.access = READ
        self._root.pseudo = self._examine(fd)
        self._read_only = read_only or self._root.pseudo
        self._cache = cache
        self._stateless = cache is not Cache.NEVER if stateless is None else stateless
        self._valid = LIFETIMES[cache]
        self.traits = Traits(
            read_only=self._read_only,
            writeback=not self._read_only and (cache is Cache.ALWAYS if writeback is None else writeback),
            shared=cache is not Cache.ALWAYS,
        )
        self._privileged = os.geteuid() == 0
        self._egid = os.getegid()
        self._umask = _umask()
        self._aside: frozenset[tuple[Key, bytes]] = frozenset()
        self._absent = Entry(0, Attr(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), self._valid)

    @staticmethod
    def _open_root(root: bytes) -> int:
        try:
            return os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        except PermissionError:
            return os.open(root, os.O_PATH | os.O_DIRECTORY)

    def leave_aside(self, paths: Iterable[Path]) -> None:
        """Never touch these directories of the host: mount points whose servers may be waiting for us.

        They are not shown, and EBUSY for what would change their names. They are known by name, and by their
        parents, which are looked at now.
        """
        known = set(self._aside)
        for path in paths:
            with contextlib.suppress(OSError):
                parent = path.parent.stat()
                known.add(((parent.st_dev, parent.st_ino), os.fsencode(path.name)))
        self._aside = frozenset(known)

    def _is_aside(self, directory: Inode, name: bytes) -> bool:
        return bool(self._aside) and (directory.key[:2], name) in self._aside

    def _check_place(self, directory: Inode, name: bytes) -> None:
        """EBUSY if the name cannot change."""
        if self._is_aside(directory, name):
            raise failure(errno.EBUSY)

    # Threads ----------------------------------------------------------------------------------

    async def _in_thread(self, fd: int, work: Callable[[int], T]) -> T:
        """`work` in a thread, on a duplicate of `fd`, which is closed there."""
        copy = self._opened(os.dup, fd)
        started = False

        def run() -> T:
            nonlocal started
            started = True
            try:
                return work(copy)
            finally:
                os.close(copy)

        try:
            return await trio.to_thread.run_sync(run)
        finally:
            if not started:
                os.close(copy)

    async def _warm(self, inode: Inode, name: bytes | None = None) -> None:
        """Have the host's caches filled with the way to `inode`, and `name` in it."""
        names = [] if name is None else [name]
        step = inode
        while step.fd < 0:
            if step.parent is None:
                raise failure(errno.ESTALE)
            names.append(step.name)
            step = step.parent

        def walk(fd: int) -> None:
            current = os.dup(fd)
            try:
                while names:
                    below = os.open(names.pop(), os.O_PATH | os.O_NOFOLLOW, dir_fd=current)
                    os.close(current)
                    current = below
                os.fstat(current)
            except OSError:
                pass  # the operation will meet it again
            finally:
                os.close(current)

        await self._in_thread(step.fd, walk)

    # Descriptors ------------------------------------------------------------------------------

    def _node(self, ino: int) -> Inode:
        inode = self._nodes.get(ino)
        if inode is None:
            raise failure(errno.ESTALE)
        return inode

    def _opened(self, opener: Callable[..., int], fd: int, *arguments: object) -> int:
        """`opener(fd, ...)`; should the process have no descriptor left, others of ours than `fd` are closed for it."""
        try:
            return opener(fd, *arguments)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._descriptors.shrink(fd):
                raise
            return opener(fd, *arguments)

    def _open_name(self, directory: int, name: bytes, how: How, wait: bool) -> int:
        if wait:
            return self._opened(self._open_waiting, directory, name, how)
        return self._opened(open_cached, directory, name, how)

    @staticmethod
    def _open_waiting(directory: int, name: bytes, how: How) -> int:
        return os.open(name, how.open_flags, dir_fd=directory)

    @staticmethod
    def _reopen(fd: int, flags: int) -> int:
        """A descriptor of another kind for what `fd` is, which must not be a symlink."""
        return os.open(proc_path(fd), flags & ~os.O_NOFOLLOW)

    def _open(self, inode: Inode, wait: bool) -> int:
        """A descriptor for `inode`, now held: for reading if it is a directory that we may read, else O_PATH.

        BlockingIOError without `wait` if the disk may have to be waited for; ESTALE if no name leads there.
        """
        chain = []
        step = inode
        while step.fd < 0:
            if step.parent is None:
                raise failure(errno.ESTALE)
            chain.append(step)
            step = step.parent
        while chain:
            self._open_step(chain.pop(), wait)
        return inode.fd

    def _open_step(self, inode: Inode, wait: bool) -> None:
        """Open `inode` by one of its names, the latest first, and forget those that lead elsewhere by now."""
        for parent, name in list(self._table.names(inode)):
            try:
                directory = parent.fd if parent.fd >= 0 else self._open(parent, wait)
                if inode.kind == stat.S_IFDIR:
                    fd, access = self._open_directory(directory, name, wait)
                else:
                    fd, access = self._open_name(directory, name, PATH, wait), 0
                if self._verified(inode, parent, fd):
                    self._descriptors.hold(inode, fd, access)
                    return
            except OSError as error:
                if error.errno not in _GONE:
                    raise
            self._table.unname(inode, parent, name)
        raise failure(errno.ESTALE)

    def _open_directory(self, directory: int, name: bytes, wait: bool) -> tuple[int, int]:
        try:
            return self._open_name(directory, name, DIRECTORY, wait), READ
        except PermissionError:
            return self._open_name(directory, name, PATH, wait), 0

    def _verified(self, inode: Inode, parent: Inode, fd: int) -> bool:
        """Whether `fd` is `inode`; if not, it is closed. On a filesystem of the host's kernel: EROFS."""
        try:
            found = os.fstat(fd)
            key = inode.key
            if found.st_ino != key[1] or found.st_dev != key[0] or found.st_mode & FORMAT != inode.kind:
                os.close(fd)
                return False
            if key[0] != parent.key[0]:
                self._check_crossing(inode, fd)
        except OSError:
            os.close(fd)
            raise
        return True

    def _check_crossing(self, inode: Inode, fd: int) -> None:
        """Numbers of devices are used again, so the root of a mount is looked at whenever it is opened."""
        if inode.kind == stat.S_IFDIR or inode.key[0] not in self._pseudo:
            self._examine(fd)
        inode.pseudo = self._pseudo[inode.key[0]]
        if inode.pseudo:
            raise failure(errno.EROFS)

    async def _reach(self, inode: Inode) -> int:
        """A descriptor for `inode`, valid until the next await or the next descriptor is held."""
        if inode.fd >= 0:
            inode.used = True
            return inode.fd
        if inode.pseudo:
            raise failure(errno.EROFS)
        try:
            return self._open(inode, False)
        except BlockingIOError:
            await self._warm(inode)
            return inode.fd if inode.fd >= 0 else self._open(inode, True)

    async def _reach_both(self, one: Inode, other: Inode) -> tuple[int, int]:
        """Descriptors for both, valid likewise."""
        with self._descriptors.keeping(one):
            await self._reach(one)
            fd = await self._reach(other)
        if one.fd < 0:
            raise failure(errno.ESTALE)  # forgotten while the other was waited for
        return one.fd, fd

    def _examine(self, fd: int) -> bool:
        """Get to know the device that `fd` is on; True if the host's kernel makes it up."""
        device = os.fstat(fd).st_dev
        if is_memory(fd):
            self._in_memory.add(device)
        elif is_read_by_asker(fd):
            self._warmth.setdefault(device, Warmth())
        pseudo = self._pseudo[device] = is_pseudo(fd)
        return pseudo

    def _writable(self) -> None:
        if self._read_only:
            raise failure(errno.EROFS)

    # The whole --------------------------------------------------------------------------------

    def forget(self, ino: int, count: int) -> None:
        inode = self._nodes.get(ino)
        if inode is None:
            return
        inode.lookups = lookups = max(0, inode.lookups - count)
        if not lookups and not inode.children and inode is not self._root:
            self._table.release(inode)

    def disconnect(self) -> None:
        self._descriptors.clear()
        self._table.clear()

    async def close(self) -> None:
        self.disconnect()
        await self._closer.drain()
        if self._root.fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._root.fd)
            self._root.fd = -1
