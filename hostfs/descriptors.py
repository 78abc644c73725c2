"""The descriptors that inodes hold: a bounded number of them, however large the tree.

An inode's descriptor is O_PATH, or open for what its `access` says. There are three kinds:

* *open*: the consumer has the file open. It is closed with the last of its handles and never before, so whatever
  becomes of the name on the host, the consumer keeps what it opened.
* *held*: it serves as long as it is there. When too many are held, the one not used for longest is closed, and opened
  again through the inode's name (or a file handle of the host's kernel) when needed.
* *pinned*: the consumer has removed the last name of the inode, so nothing else leads there. They have a bound of
  their own.

The process may run out of descriptors. What is held gives way then, of every filesystem in it, before an open is
refused.

Whoever uses a descriptor in a thread duplicates it first: the number may be closed and used again meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple
from weakref import WeakSet

from hostfs.inodes import Inode
from umlfs.host.syscalls import failure

READ: Final = 1
WRITE: Final = 2

HELD_MAX: Final = 4096
HELD_LONG_MAX: Final = 32768
"""Without handles: what was read of late stays, whatever the host does to its name."""
PINNED_MAX: Final = 1024
_RESERVE: Final = 64
"""Descriptors left to the rest of the process, and a sixteenth of all."""
_LEAST: Final = 16


class Limits(NamedTuple):
    """How many descriptors to have of each kind. Those that are open may take the room of those that are held."""

    held: int
    pinned: int
    open: int


def limits(stateless: bool = False) -> Limits:
    """The limits for the whole process, by its RLIMIT_NOFILE. A `stateless` consumer does not say what it has open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = (1 << 20 if soft == resource.RLIM_INFINITY else soft) - _RESERVE
    return Limits(
        held=max(_LEAST, min(HELD_LONG_MAX, room // 2) if stateless else min(HELD_MAX, room // 4)),
        pinned=max(_LEAST, min(PINNED_MAX, room // 8)),
        open=max(_LEAST, room - room // 16),
    )


_all: WeakSet[Descriptors] = WeakSet()
"""Those of every filesystem in this process."""


class Descriptors:
    """Those of one filesystem. A descriptor goes into an inode's `fd` with `hold` or `open`."""

    def __init__(
        self, limits: tuple[int, int, int], close_slowly: Callable[[int], None], evicted: Callable[[Inode], None]
    ) -> None:
        """`close_slowly` closes a descriptor whose file may be freed with it, which takes long for a large one.
        `evicted` is told of an inode that is about to lose the descriptor it held."""
        self._limits = Limits(*limits)
        self._close_slowly = close_slowly
        self._evicted = evicted
        self._held: OrderedDict[Inode, None] = OrderedDict()
        self._pinned: OrderedDict[Inode, None] = OrderedDict()
        self._open: dict[Inode, None] = {}
        self._kept: list[Inode] = []
        self.extra = 0
        """How many more are in use for as long as the consumer says: handles with descriptors of their own, locks."""
        _all.add(self)

    def __len__(self) -> int:
        return len(self._held) + len(self._pinned) + self.lasting

    @property
    def lasting(self) -> int:
        """How many the consumer alone can give back."""
        return len(self._open) + self.extra

    def hold(self, inode: Inode, fd: int, access: int) -> None:
        """Keep `fd` for `inode`, in place of the one it had."""
        former = inode.fd
        inode.fd = fd
        inode.access = access
        inode.used = True
        if former >= 0:
            os.close(former)
        elif inode.pinned:
            self._pinned[inode] = None
            self._evict_pinned()
        else:
            if len(self._held) >= self._limits.held:
                self._evict()
            self._held[inode] = None

    def pin(self, inode: Inode) -> None:
        """The last name of `inode` is gone: keep what it holds (if anything) while others go."""
        inode.pinned = True
        if inode in self._held:
            del self._held[inode]
            self._pinned[inode] = None
            self._evict_pinned()

    # Open files -------------------------------------------------------------------------------

    def open(self, inode: Inode) -> None:
        """The consumer has opened `inode`, which holds a descriptor: it stays until `close` was called as often."""
        if not inode.opens:
            self._held.pop(inode, None)
            self._pinned.pop(inode, None)
            self._open[inode] = None
        inode.opens += 1

    def close(self, inode: Inode) -> None:
        """The consumer has closed `inode` once."""
        inode.opens -= 1
        if inode.opens or inode.fd < 0:
            return
        del self._open[inode]
        if inode.pinned:
            self._pinned[inode] = None
            self._evict_pinned()
            return
        fd, inode.fd, inode.access = inode.fd, -1, 0
        if os.fstat(fd).st_nlink:
            os.close(fd)
        else:
            self._close_slowly(fd)

    def make_room(self) -> None:
        """Before one more is open: ENFILE if there are as many as this process may have."""
        if sum(each.lasting for each in _all) >= self._limits.open:
            raise failure(errno.ENFILE)

    # Giving up --------------------------------------------------------------------------------

    def drop(self, inode: Inode) -> None:
        """Close what `inode` holds."""
        fd, inode.fd, inode.access = inode.fd, -1, 0
        if fd < 0:
            return
        if inode in self._held:
            del self._held[inode]
            os.close(fd)
        else:
            self._pinned.pop(inode, None)
            self._open.pop(inode, None)
            self._close_slowly(fd)

    def open_with(self, opener: Callable[..., int], fd: int, *arguments: object) -> int:
        """`opener(fd, ...)`; should the process have no descriptor left, others that are held than `fd` are closed for
        it. ENFILE if there are none: whoever asks has not reached a limit of its own."""
        try:
            return opener(fd, *arguments)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            if not self.shrink(fd) and not any(each.shrink(-1) for each in list(_all) if each is not self):
                raise failure(errno.ENFILE) from None
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
                self._evicted(inode)
                self.drop(inode)
        return len(self._held) < before

    def _evict(self) -> None:
        """Close the one used longest ago, about: one used since it came (or was last spared) is spared once."""
        for _ in range(2 * len(self._held)):
            inode, _ = self._held.popitem(last=False)
            if not inode.used and inode not in self._kept:
                self._evicted(inode)
                fd, inode.fd, inode.access = inode.fd, -1, 0
                os.close(fd)
                break
            inode.used = False
            self._held[inode] = None

    def _evict_pinned(self) -> None:
        if len(self._pinned) > self._limits.pinned:
            inode, _ = self._pinned.popitem(last=False)
            fd, inode.fd, inode.access = inode.fd, -1, 0
            self._close_slowly(fd)

    def clear(self) -> None:
        """Close all."""
        for inode in (*self._held, *self._pinned, *self._open):
            fd, inode.fd, inode.access = inode.fd, -1, 0
            inode.opens = 0
            with contextlib.suppress(OSError):
                os.close(fd)
        self._held.clear()
        self._pinned.clear()
        self._open.clear()
