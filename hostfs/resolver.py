"""From inode numbers to verified descriptors.

Confinement. The only path ever opened is one component below a descriptor that was reached the same way, with
O_NOFOLLOW, from the root's; after each step device and inode number must be those the consumer was told of. A
path under `/proc/self/fd` is used only to get from a descriptor of ours to the same file.

Waiting. Everything here is synchronous and runs on the loop. A name that is not in the host's caches raises
BlockingIOError; the operation then has a thread look at it (`fill_caches`), and does the work on the loop afterwards.
Changes of names and attributes are made on the loop: they end in the host's page cache and journal, and a thread
costs ten times as much as most of them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from typing import Final, TypeVar

import trio

from hostfs.descriptors import READ, Descriptors, limits
from hostfs.devices import Devices
from hostfs.inodes import Inode, InodeTable
from umlfs.host import syscalls
from umlfs.host.closing import Closer
from umlfs.host.syscalls import How, failure, open_cached
from umlfs.lifetime import Tasks

T = TypeVar("T")

CACHED_SECONDS: Final = 30.0
"""How long a directory that was read, or changed by us, is taken to be in the host's caches."""

DIRECTORY: Final = How(os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK)
PATH: Final = How(os.O_PATH | os.O_NOFOLLOW)
FORMAT: Final = 0o170000
_GONE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)
"""Errors that tell of a name that leads nowhere, or not where it did."""


def proc_path(fd: int) -> str:
    """A path to just what `fd` is, for system calls that take no O_PATH descriptor."""
    return f"/proc/self/fd/{fd}"


def reopen(fd: int, flags: int) -> int:
    """A descriptor of another kind for what `fd` is, which must not be a symlink."""
    return os.open(proc_path(fd), flags & ~os.O_NOFOLLOW)


def _open_root(root: bytes) -> int:
    try:
        return os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:
        return os.open(root, os.O_PATH | os.O_DIRECTORY)


def _open_waiting(directory: int, name: bytes, how: How) -> int:
    return os.open(name, how.open_flags, dir_fd=directory)


class Resolver:
    """Finds the descriptor of an inode: the one it holds, or a new one by way of its names.

    It owns the inode table, the descriptors, and what is known of devices.
    """

    def __init__(self, root: str | bytes | os.PathLike[str], *, stateless: bool = False) -> None:
        """Begin at the directory `root`; a symlink there is followed. A `stateless` consumer does not say what it has
        open. OSError if `root` is no directory, or may not be searched."""
        fd = _open_root(os.fsencode(root))
        found = os.fstat(fd)
        self.devices = Devices(found.st_dev)
        self.tasks = Tasks("hostfs")
        self.closer = Closer(self.tasks)
        self.descriptors = Descriptors(limits(stateless), self.closer.close, self._remember)
        self._host_handles: bool | None = None if os.geteuid() == 0 else False
        """Whether file handles of the host's kernel can be used; None until it was tried."""
        self.table = InodeTable((found.st_dev, found.st_ino), self.descriptors.drop)
        self.root = self.table.root
        self.root.fd = fd
        self.root.access = READ
        self.root.pseudo = self.devices.examine(fd)
        self._nodes = self.table.nodes

    def node(self, ino: int) -> Inode:
        """The inode of that number. ESTALE if there is none."""
        inode = self._nodes.get(ino)
        if inode is None:
            raise failure(errno.ESTALE)
        return inode

    # Threads ----------------------------------------------------------------------------------

    async def in_thread(self, fd: int, work: Callable[[int], T]) -> T:
        """`work` in a thread, on a duplicate of `fd`, which is closed there."""
        copy = self.descriptors.open_with(os.dup, fd)
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

    async def fill_caches(self, inode: Inode, name: bytes | None = None) -> None:
        """Have the host's caches filled with the way to `inode`, and `name` in it."""
        names = [] if name is None else [name]
        step = inode
        while step.fd < 0:
            if step.parent is None:
                return  # what leads there without a name waits where it is opened
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

        await self.in_thread(step.fd, walk)

    # Opening ----------------------------------------------------------------------------------

    def open_name(self, directory: int, name: bytes, how: How, wait: bool) -> int:
        """Open `name` in `directory`. BlockingIOError without `wait` if the disk may have to be waited for."""
        return self.descriptors.open_with(_open_waiting if wait else open_cached, directory, name, how)

    def open_directory(self, directory: int, name: bytes, wait: bool) -> tuple[int, int]:
        """Open the directory `name` for reading, or O_PATH if we may not; the descriptor and what it is good for."""
        try:
            return self.open_name(directory, name, DIRECTORY, wait), READ
        except PermissionError:
            return self.open_name(directory, name, PATH, wait), 0

    def open(self, inode: Inode, wait: bool) -> int:
        """A descriptor for `inode`, now held: for reading if it is a directory that we may read, else O_PATH.

        BlockingIOError without `wait` if the disk may have to be waited for; ESTALE if no name leads there.
        """
        chain = []
        step = inode
        while step.fd < 0:
            chain.append(step)
            if step.parent is None:
                break
            step = step.parent
        while chain:
            self._open_step(chain.pop(), wait)
        return inode.fd

    def _open_step(self, inode: Inode, wait: bool) -> None:
        """Open `inode` by one of its names, the latest first, and forget those that lead elsewhere by now."""
        for parent, name in list(self.table.names(inode)):
            try:
                directory = parent.fd if parent.fd >= 0 else self.open(parent, wait)
                if inode.kind == stat.S_IFDIR:
                    fd, access = self.open_directory(directory, name, wait)
                else:
                    fd, access = self.open_name(directory, name, PATH, wait), 0
                if self.verified(inode, parent, fd):
                    self.descriptors.hold(inode, fd, access)
                    return
            except OSError as error:
                if error.errno not in _GONE:
                    raise
            self.table.unname(inode, parent, name)
        self._open_host_handle(inode)

    # Without a name ---------------------------------------------------------------------------

    def _remember(self, inode: Inode) -> None:
        """`inode` loses its descriptor: have another way back, should the host rename it."""
        if self._host_handles is False or inode.host_handle is not None or inode.key[0] != self.root.key[0]:
            return
        try:
            handle = syscalls.name_to_handle(inode.fd)
            if self._host_handles is None:
                os.close(syscalls.open_by_handle(self.root.fd, handle, os.O_PATH))
        except OSError:
            self._host_handles = False
        else:
            self._host_handles = True
            inode.host_handle = handle

    def _open_host_handle(self, inode: Inode) -> None:
        """Open `inode`, to which no name is known to lead. ESTALE if it is gone, or the host does not let us."""
        if inode.host_handle is None:
            raise failure(errno.ESTALE)
        directory = inode.kind == stat.S_IFDIR
        flags = DIRECTORY.open_flags if directory else os.O_PATH
        try:
            fd = self.descriptors.open_with(syscalls.open_by_handle, self.root.fd, inode.host_handle, flags)
        except OSError:
            raise failure(errno.ESTALE) from None
        if not self.verified(inode, self.root, fd):
            raise failure(errno.ESTALE)
        self.descriptors.hold(inode, fd, READ if directory else 0)

    def verified(self, inode: Inode, parent: Inode, fd: int) -> bool:
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
        if inode.kind == stat.S_IFDIR or inode.key[0] not in self.devices.pseudo:
            self.devices.examine(fd)
        inode.pseudo = self.devices.pseudo[inode.key[0]]
        if inode.pseudo:
            raise failure(errno.EROFS)

    # Reaching ---------------------------------------------------------------------------------

    async def reach(self, inode: Inode) -> int:
        """A descriptor for `inode`, valid until the next await or the next descriptor is held."""
        if inode.fd >= 0:
            inode.used = True
            return inode.fd
        if inode.pseudo:
            raise failure(errno.EROFS)
        try:
            return self.open(inode, False)
        except BlockingIOError:
            await self.fill_caches(inode)
            return inode.fd if inode.fd >= 0 else self.open(inode, True)

    async def reach_both(self, one: Inode, other: Inode) -> tuple[int, int]:
        """Descriptors for both, valid likewise."""
        with self.descriptors.keeping(one):
            await self.reach(one)
            fd = await self.reach(other)
        if one.fd < 0:
            raise failure(errno.ESTALE)  # forgotten while the other was waited for
        return one.fd, fd

    # The end ----------------------------------------------------------------------------------

    def forget(self, ino: int, count: int) -> None:
        """Give back `count` lookups of `ino`; unknown numbers are ignored."""
        inode = self._nodes.get(ino)
        if inode is None:
            return
        inode.lookups = lookups = max(0, inode.lookups - count)
        if not lookups and not inode.children and inode is not self.root:
            self.table.release(inode)

    def forget_all(self) -> None:
        """Give back every lookup: only the root is known."""
        self.descriptors.clear()
        self.table.clear()

    async def close(self) -> None:
        """Close every descriptor."""
        self.forget_all()
        await self.closer.drain()
        if self.root.fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self.root.fd)
            self.root.fd = -1
