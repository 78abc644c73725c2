"""Leases: what the consumer may keep for long, because it is told when it changes.

A directory in which names were looked up is watched, as long as the system lets us, and what is told of those names
is written down with the change time that went with it. When the host reports an event, the present state is
compared with what was told, and the consumer hears of it only if they differ: so its own changes, which are
answered with their outcome, make no noise. Contents are different: a writer sets the change time before it copies
the data, so every modification counts that is not a write of the consumer's own (see `wrote`).

inotify does not see stores through a mapping, writes through another hard link elsewhere, and what other machines do
to a network filesystem. So a lease ends after `LEASE_NS`; files with several links, and filesystems whose changes
come from elsewhere, get none.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from hostfs.inodes import Inode
from hostfs.kinds import ELSEWHERE, FINE_TIMES
from umlfs.filesystem import Attr, Entry, Invalidator
from umlfs.host.syscalls import filesystem_type
from umlfs.host.watch import DELETE_SELF, IGNORED, MODIFY, NAMES, OVERFLOW, UNMOUNT, Event, Watch

log = logging.getLogger(__name__)

LEASE_SECONDS: Final = 60
LEASE_NS: Final = LEASE_SECONDS * 1_000_000_000
NAMES_MAX: Final = 65536
"""Names of one directory that are written down; further ones get no lease."""

_RETRY_SECONDS: Final = 1.0
"""How soon after the limit was met another watch is tried for."""
_TICK_NS: Final = 20_000_000
"""Change times may be as coarse as the kernel's clock tick (10 ms at most): two changes within one look the same."""
_UNSURE: Final = -1
"""A change time that is never found again: any event counts."""

_FINE_KERNEL: Final = (6, 13)

Shape = tuple[int, int, int]
"""Mode, owner and group: what no write and no change within a directory changes."""

Belief = tuple[int, int | None, Shape]
"""What the consumer may still believe of a name: the inode number (0: there is none), the change time that went with
its attributes (None while it holds neither attributes nor contents), and their shape."""

_NONE: Final = (0, 0, 0)


def _kernel() -> tuple[int, ...]:
    return tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2] if part.isdecimal())


class Lease:
    """A watched directory."""

    __slots__ = ("beliefs", "inode", "own", "own_ctime", "used", "watch")

    def __init__(self, inode: Inode, watch: int) -> None:
        self.inode = inode
        self.watch = watch
        self.beliefs: dict[bytes, Belief] = {}
        """By name in the directory."""
        self.own_ctime: int | None = None
        """The change time of the directory itself that the consumer holds, if any."""
        self.used = 0.0
        """When (monotonic seconds) something was told last: all that was has run out `LEASE_SECONDS` later."""
        self.own: dict[bytes, int] = {}
        """Names that the consumer is writing to just now, and how many writes."""


class Leases:
    """The leases of one filesystem. `run` must be running."""

    def __init__(self, nodes: Mapping[int, Inode], invalidator: Invalidator) -> None:
        """OSError: EMFILE if the user has too many inotify instances."""
        self._nodes = nodes
        self._invalidator = invalidator
        self._watch = Watch()
        self._by_inode: OrderedDict[Inode, Lease] = OrderedDict()
        """The one used longest ago comes first."""
        self._by_watch: dict[int, Lease] = {}
        self._devices: dict[int, tuple[bool, bool]] = {}
        """Which devices get leases at all, and which have fine change times."""
        self._closed = False
        self._retry_at = 0.0
        self.refused = 0
        """How many times a directory got no lease because of the system's limit."""
        self.changes_seen = 0
        """How many events the host has reported."""

    def __len__(self) -> int:
        return len(self._by_inode)

    # Giving -----------------------------------------------------------------------------------

    def of(self, directory: Inode) -> Lease | None:
        """The lease of a directory that has one, now used."""
        lease = self._by_inode.get(directory)
        if lease is not None:
            lease.used = time.monotonic()
            self._by_inode.move_to_end(directory)
        return lease

    def give(self, directory: Inode) -> Lease | None:
        """Watch a directory that holds a descriptor, before anything in it is looked at; None if that cannot be."""
        known = self.of(directory)
        if known is not None or self._closed or directory.fd < 0 or not self._leasable(directory.key[0], directory.fd):
            return known
        watch = self._add(directory.fd)
        if watch is None or watch in self._by_watch:
            return None  # a directory mounted below itself has one lease, at the place where it was met first
        lease = Lease(directory, watch)
        lease.used = time.monotonic()
        self._by_inode[directory] = self._by_watch[watch] = lease
        return lease

    def _leasable(self, device: int, fd: int) -> bool:
        known = self._devices.get(device)
        if known is None:
            magic = filesystem_type(fd)
            known = self._devices[device] = magic not in ELSEWHERE, magic in FINE_TIMES and _kernel() >= _FINE_KERNEL
        return known[0]

    def _add(self, fd: int) -> int | None:
        if self._retry_at > time.monotonic():
            self.refused += 1
            return None
        try:
            return self._watch.add(fd)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                return None
        if self._give_up_idle():
            return self._add(fd)
        self.refused += 1
        self._retry_at = time.monotonic() + _RETRY_SECONDS
        return None

    def _give_up_idle(self) -> bool:
        """End the lease used longest ago, if all that was told under it has run out."""
        for lease in self._by_inode.values():
            if lease.used + LEASE_SECONDS < time.monotonic():
                self._end(lease)
                return True
            break
        return False

    def _end(self, lease: Lease) -> None:
        del self._by_inode[lease.inode]
        del self._by_watch[lease.watch]
        try:
            self._watch.remove(lease.watch)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise

    # Telling ----------------------------------------------------------------------------------

    def _stamp(self, device: int, ctime_ns: int) -> int:
        fine = self._devices.get(device, (False, False))[1]
        if fine or time.time_ns() - ctime_ns > _TICK_NS:
            return ctime_ns
        return _UNSURE

    def _belief(self, inode: Inode, attr: Attr) -> Belief:
        return inode.node, self._stamp(inode.key[0], attr.ctime_ns), (attr.mode, attr.uid, attr.gid)

    def grant_entry(self, inode: Inode, entry: Entry) -> None:
        """`entry`, just looked up by the present name of `inode`, is about to be told: set its lifetimes."""
        parent = inode.parent
        lease = None if parent is None else self._by_inode.get(parent)
        if lease is None or (len(lease.beliefs) >= NAMES_MAX and inode.name not in lease.beliefs):
            return
        lease.beliefs[inode.name] = self._belief(inode, entry.attr)
        entry.entry_valid_ns = LEASE_NS
        if self._holds(inode, entry.attr, lease):
            entry.attr_valid_ns = LEASE_NS

    def grant_attr(self, inode: Inode, attr: Attr, valid_ns: int) -> int:
        """Attributes are about to be told; returns for how long (ns), which is `valid_ns` without a lease."""
        parent = inode.parent
        lease = None if parent is None else self._by_inode.get(parent)
        if lease is not None:
            belief = lease.beliefs.get(inode.name)
            if belief is None or belief[0] != inode.node:
                lease = None
            else:
                lease.beliefs[inode.name] = self._belief(inode, attr)
        return LEASE_NS if self._holds(inode, attr, lease) else valid_ns

    def _holds(self, inode: Inode, attr: Attr, lease: Lease | None) -> bool:
        """Whether the attributes come under a lease: a directory's under its own, a file's under that of its only
        name."""
        if inode.kind == stat.S_IFDIR:
            own = self._by_inode.get(inode)
            if own is not None:
                own.own_ctime = self._stamp(inode.key[0], attr.ctime_ns)
                own.used = time.monotonic()
            return own is not None
        return lease is not None and attr.nlink == 1 and inode.key[0] == lease.inode.key[0]

    def grant_absent(self, lease: Lease, name: bytes) -> bool:
        """That there is no `name` is about to be told; whether under a lease."""
        if len(lease.beliefs) >= NAMES_MAX and name not in lease.beliefs:
            return False
        lease.beliefs[name] = (0, None, _NONE)
        return True

    def covers(self, inode: Inode) -> bool:
        """Whether the consumer hears of it when the contents change."""
        lease = None if inode.parent is None else self._by_inode.get(inode.parent)
        belief = None if lease is None else lease.beliefs.get(inode.name)
        return belief is not None and belief[0] == inode.node

    def reading(self, inode: Inode) -> None:
        """Contents are about to be told."""
        lease = None if inode.parent is None else self._by_inode.get(inode.parent)
        if lease is not None:
            belief = lease.beliefs.get(inode.name)
            if belief is not None and belief[1] is None:
                lease.beliefs[inode.name] = (belief[0], _UNSURE, belief[2])

    # The consumer's own changes ---------------------------------------------------------------

    def changed(self, directory: Inode, *names: bytes) -> None:
        """The consumer has removed or moved these names itself, and knows that the directory has changed."""
        lease = self._by_inode.get(directory)
        if lease is not None:
            lease.own_ctime = None
            for name in names:
                lease.beliefs.pop(name, None)

    def moved(self, directory: Inode, name: bytes, inode: Inode, found: os.stat_result) -> None:
        """The consumer has moved `inode` there; it goes on believing so for as long as it would the former name."""
        lease = self._by_inode.get(directory)
        if lease is not None:
            stamp = self._stamp(directory.key[0], found.st_ctime_ns)
            lease.beliefs[name] = (inode.node, stamp, (found.st_mode, found.st_uid, found.st_gid))

    def doubt(self, directory: Inode, name: bytes) -> None:
        """What the consumer believes of this name cannot be known."""
        self._invalidator.entry(directory.node, name)

    def writing(self, inode: Inode) -> tuple[Lease, bytes] | None:
        """The consumer begins to write; what is returned goes to `wrote`."""
        lease = None if inode.parent is None else self._by_inode.get(inode.parent)
        if lease is None or inode.name not in lease.beliefs:
            return None
        lease.own[inode.name] = lease.own.get(inode.name, 0) + 1
        return lease, inode.name

    def wrote(self, place: tuple[Lease, bytes]) -> None:
        """The consumer's write is done: modifications reported up to now mean nothing to it.

        They were its own, or complete before its own was; and after a write of its own it asks for the attributes,
        finds another modification time, and drops the contents before it reads any again.
        """
        if self._closed:
            return
        self._handle(self._watch.read())
        lease, name = place
        left = lease.own[name] - 1
        if left:
            lease.own[name] = left
        else:
            del lease.own[name]

    # What happens on the host -----------------------------------------------------------------

    async def run(self) -> None:
        """Pass on what happens, until `close`."""
        while not self._closed:
            if not await self._watch.wait(LEASE_SECONDS):
                self._sweep()
            self._handle(self._watch.read())

    def close(self) -> None:
        """End all leases; nothing more is passed on, and no lease is given. It may be called again."""
        self._closed = True
        self._watch.close()
        self._by_inode.clear()
        self._by_watch.clear()
        self.refused = 0

    def _sweep(self) -> None:
        """Let go of directories that the consumer has forgotten, and of what has run out."""
        for lease in list(self._by_inode.values()):
            if self._nodes.get(lease.inode.node) is not lease.inode:
                self._end(lease)
            elif lease.used + LEASE_SECONDS < time.monotonic() and not lease.own:
                lease.beliefs.clear()
                lease.own_ctime = None

    def _handle(self, events: list[Event]) -> None:
        self.changes_seen += len(events)
        for event in events:
            try:
                self._happened(event)
            except Exception:
                log.exception("an event was not understood; nothing that was told holds any more")
                self._drop_all()

    def _happened(self, event: Event) -> None:
        mask = event.mask
        if mask & OVERFLOW:
            self._drop_all()
            return
        lease = self._by_watch.get(event.watch)
        if lease is None:
            return
        if mask & (IGNORED | UNMOUNT | DELETE_SELF):
            self._drop(lease)
            if mask & IGNORED:
                self._end(lease)
            return
        if mask & NAMES or not event.name:
            self._compare_self(lease)
        belief = lease.beliefs.get(event.name)
        if belief is None:
            return
        if not mask & MODIFY:
            self._compare(lease, event.name, belief)
        elif belief[1] is not None and event.name not in lease.own:
            self._invalidate(lease, event.name, belief)

    def _compare_self(self, lease: Lease) -> None:
        if lease.own_ctime is None:
            return
        fd = lease.inode.fd
        if fd < 0 or os.fstat(fd).st_ctime_ns != lease.own_ctime:
            lease.own_ctime = None
            self._invalidator.inode(lease.inode.node)

    def _compare(self, lease: Lease, name: bytes, belief: Belief) -> None:
        """Pass on what is not as the consumer believes it to be."""
        node, stamp, shape = belief
        found = self._found(lease, name)
        if not node:
            if found is not None:
                self._forget(lease, name, node)
            return
        inode = self._nodes.get(node)
        if found is None or inode is None or (found.st_dev, found.st_ino) != inode.key[:2]:
            self._forget(lease, name, node)
        elif stamp is None or found.st_ctime_ns == stamp:
            return
        elif inode.kind == stat.S_IFDIR or name in lease.own:
            # Its change time changes for reasons that are told elsewhere, or are the consumer's own.
            if (found.st_mode, found.st_uid, found.st_gid) != shape:
                self._invalidate(lease, name, belief)
        else:
            self._invalidate(lease, name, belief)

    @staticmethod
    def _found(lease: Lease, name: bytes) -> os.stat_result | None:
        if lease.inode.fd < 0:
            return None
        try:
            return os.stat(name, dir_fd=lease.inode.fd, follow_symlinks=False)
        except OSError:
            return None

    def _invalidate(self, lease: Lease, name: bytes, belief: Belief) -> None:
        lease.beliefs[name] = (belief[0], None, belief[2])
        self._invalidator.inode(belief[0])

    def _forget(self, lease: Lease, name: bytes, node: int) -> None:
        del lease.beliefs[name]
        self._invalidator.entry(lease.inode.node, name)
        if node:
            self._invalidator.inode(node)

    def _drop(self, lease: Lease) -> None:
        """Nothing that was told of this directory holds any more."""
        for name, (node, _, _) in list(lease.beliefs.items()):
            self._forget(lease, name, node)
        lease.own_ctime = None
        self._invalidator.inode(lease.inode.node)

    def _drop_all(self) -> None:
        for lease in self._by_inode.values():
            self._drop(lease)
