"""The descriptors that inodes hold for now: a bounded number of them, however large the tree.

An inode's descriptor is O_PATH, or open for what its `access` says. It serves as long as it is there; when too
many are held, the one not used for longest is closed, and opened again through the inode's name when needed.
An inode without a name left (unlinked while in use) cannot be opened again: its descriptor is *pinned*, in a
bound of its own.

Whoever uses a descriptor in a thread duplicates it first: the number may be closed and used again meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final

from hostfs.inodes import Inode

READ: Final = 1
WRITE: Final = 2

HELD_MAX: Final = 1024
PINNED_MAX: Final = 1024
HANDLES_MAX: Final = 16 * 1024
_RESERVE: Final = 64
"""Descriptors left to the rest of the process."""
_LEAST: Final = 16


def limits() -> tuple[int, int, int]:
    """How many descriptors to hold, to pin, and to give out as handles, within half of RLIMIT_NOFILE.

    Half, because there may be other filesystems and devices in the process.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = (1 << 20 if soft == resource.RLIM_INFINITY else soft) - _RESERVE
    return (
        max(_LEAST, min(HELD_MAX, room // 4)),
        max(_LEAST, min(PINNED_MAX, room // 8)),
        max(_LEAST, min(HANDLES_MAX, room // 8)),
    )


class Descriptors:
    """The cache. A descriptor goes into an inode's `fd` with `hold` and leaves it with `drop` or by eviction."""

    def __init__(self, held_max: int, pinned_max: int, close_slowly: Callable[[int], None]) -> None:
        """`close_slowly` closes a descriptor whose file may be freed with it, which takes long for a large one."""
        self._held_max = held_max
        self._pinned_max = pinned_max
        self._close_slowly = close_slowly
        self._held: OrderedDict[Inode, None] = OrderedDict()
        self._pinned: OrderedDict[Inode, None] = OrderedDict()
        self._kept: list[Inode] = []

    def __len__(self) -> int:
        return len(self._held) + len(self._pinned)

    def hold(self, inode: Inode, fd: int, access: int) -> None:
        """Keep `fd` for `inode`, in place of the one it had."""
        former = inode.fd
        inode.fd = fd
        inode.access = access
        inode.used = True
        if former >= 0:
            os.close(former)
            return
        if inode.pinned:
            self._pinned[inode] = None
            self._evict_pinned()
            return
        if len(self._held) >= self._held_max:
            self._evict()
        self._held[inode] = None

    def pin(self, inode: Inode) -> None:
        """The last name of `inode` is gone: keep what it holds (if anything) while others go."""
        inode.pinned = True
        if inode in self._held:
            del self._held[inode]
            self._pinned[inode] = None
            self._evict_pinned()

    def drop(self, inode: Inode) -> None:
        """Close what `inode` holds."""
        fd, inode.fd, inode.access = inode.fd, -1, 0
        if fd < 0:
            return
        if inode in self._held:
            del self._held[inode]
            os.close(fd)
        else:
            del self._pinned[inode]
            self._close_slowly(fd)

    def open_with(self, opener: Callable[..., int], fd: int, *arguments: object) -> int:
        """`opener(fd, ...)`; should the process have no descriptor left, others of ours than `fd` are closed for it."""
        try:
            return opener(fd, *arguments)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self.shrink(fd):
                raise
            return opener(fd, *arguments)

    @contextlib.contextmanager
    def keeping(self, inode: Inode) -> Iterator[None]:
        """What `inode` holds, or comes to hold, is not closed for the sake of others."""
        self._kept.append(inode)
        try:
            yield
        finally:
            self._kept.remove(inode)

    def shrink(self, keep: int) -> bool:
        """The process has run out of descriptors: close half of those held, but not `keep`. False if none was."""
        before = len(self._held)
        for inode in list(self._held)[: (before + 1) // 2]:
            if inode.fd != keep and inode not in self._kept:
                self.drop(inode)
        return len(self._held) < before

    def _evict(self) -> None:
        """Close the one used longest ago, about: one used since it came (or was last spared) is spared once."""
        for _ in range(2 * len(self._held)):
            inode, _ = self._held.popitem(last=False)
            if not inode.used and inode not in self._kept:
                fd, inode.fd, inode.access = inode.fd, -1, 0
                os.close(fd)
                break
            inode.used = False
            self._held[inode] = None

    def _evict_pinned(self) -> None:
        if len(self._pinned) > self._pinned_max:
            inode, _ = self._pinned.popitem(last=False)
            fd, inode.fd, inode.access = inode.fd, -1, 0
            self._close_slowly(fd)

    def clear(self) -> None:
        """Close all."""
        for inode in (*self._held, *self._pinned):
            fd, inode.fd, inode.access = inode.fd, -1, 0
            with contextlib.suppress(OSError):
                os.close(fd)
        self._held.clear()
        self._pinned.clear()
