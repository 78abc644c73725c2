"""Directories: listing them, with attributes if asked.

Nothing is kept open for a listing: the host's position within the directory is the offset of the contract. What
was read from the host but not taken by the consumer is kept for a moment, for the call that goes on from there.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Final, NamedTuple

from hostfs.aside import SetAside
from hostfs.descriptors import READ
from hostfs.entries import Entries
from hostfs.inodes import Inode
from hostfs.page_cache import disk_reads
from hostfs.resolver import CACHED_SECONDS, DIRECTORY, Resolver, reopen
from hostfs.settings import Settings
from umlfs.filesystem import DirectoryOperations, DirSink, Opened
from umlfs.host.syscalls import Dirent, failure, getdents

LISTINGS_MAX: Final = 64
"""How many listings may be under way with entries kept for them."""


class Listed(NamedTuple):
    """What a thread has read of a directory."""

    entries: list[Dirent]
    found: dict[bytes, os.stat_result]
    """What the names are, if that was asked."""
    complete: bool
    """The directory ends with these entries."""
    from_disk: bool
    """Not all of it was in the host's caches."""


def _none_seen() -> int:
    return 0


class Directories(DirectoryOperations):
    """The operations on directories; see `Filesystem` for each."""

    def __init__(self, resolver: Resolver, settings: Settings, entries: Entries, aside: SetAside) -> None:
        self._resolver = resolver
        self._settings = settings
        self._entries = entries
        self._aside = aside
        self._devices = resolver.devices
        self._in_memory = resolver.devices.in_memory
        self._guesses = resolver.devices.guesses
        self.pending: OrderedDict[tuple[int, int], list[Dirent]] = OrderedDict()
        """Entries that were read but not taken, by inode number and the offset they follow; the last comes first."""
        self.changes_seen: Callable[[], int] = _none_seen
        """A number that grows when the host reports a change."""

    def forget_all(self) -> None:
        """No listing is under way any more."""
        self.pending.clear()

    async def opendir(self, ino: int) -> Opened:
        if not self._settings.opens_directories:
            raise failure(errno.ENOSYS)
        inode = self._resolver.node(ino)
        if not inode.pseudo:
            self._readable(inode, await self._resolver.reach(inode))
        return Opened()

    async def releasedir(self, ino: int, handle: int) -> None:
        pass

    def _readable(self, inode: Inode, fd: int) -> int:
        """A descriptor of a directory to read from, given the one it holds. EACCES if we may not."""
        if inode.kind != stat.S_IFDIR:
            raise failure(errno.ENOTDIR)
        if not inode.access & READ:  # as it was when it was opened; its mode may have changed since
            fd = self._resolver.descriptors.open_with(reopen, fd, DIRECTORY.open_flags)
            self._resolver.descriptors.hold(inode, fd, READ)
        return fd

    async def fsyncdir(self, ino: int, handle: int, data_only: bool = False) -> None:
        inode = self._resolver.node(ino)
        fd = self._readable(inode, await self._resolver.reach(inode))
        await self._resolver.in_thread(fd, os.fdatasync if data_only else os.fsync)

    async def readdir(self, ino: int, handle: int, offset: int, add: DirSink, plus: bool = False) -> None:
        inode = self._resolver.node(ino)
        if inode.pseudo:
            self._list_pseudo(inode, offset, add)
            return
        # Without attributes nothing but names is looked at.
        guess = self._guesses.get(inode.key[0]) if plus else None
        taken = False
        while True:
            found: dict[bytes, os.stat_result] = {}
            entries = self.pending.pop((ino, offset), None) if offset else None
            try:
                if entries is None:
                    if taken and not self._is_cached(inode):
                        return  # what was taken is told before anything is waited for: it may change meanwhile
                    entries, found = await self._read_entries(inode, offset, plus)
                if not entries:
                    return
                fd = await self._resolver.reach(inode)
            except OSError as error:
                if self._settings.snapshot and error.errno == errno.EACCES:
                    return self._list_pseudo(inode, offset, add)
                if taken:
                    return  # what was taken counts; the next call meets the error again
                raise
            start = offset
            reads = disk_reads() if guess is not None else 0
            offset = self._give(inode, fd, entries, offset, add, found if plus else None)
            if guess is not None and disk_reads() != reads:
                guess.saw(from_disk=True)
            taken = taken or offset != start
            if entries:
                self.keep((ino, offset), entries)
                return
            self.pending.pop((ino, offset), None)

    def keep(self, place: tuple[int, int], entries: list[Dirent]) -> None:
        """Entries that nobody took, the last one first: they follow `place`, an inode number and an offset."""
        self.pending[place] = entries
        self.pending.move_to_end(place)
        if len(self.pending) > LISTINGS_MAX:
            self.pending.popitem(last=False)

    # Reading ----------------------------------------------------------------------------------

    def _is_cached(self, inode: Inode) -> bool:
        return inode.cached_until > monotonic() or inode.key[0] in self._in_memory

    async def _read_entries(
        self, inode: Inode, offset: int, plus: bool
    ) -> tuple[list[Dirent], dict[bytes, os.stat_result]]:
        """The next entries from `offset`, the last one first, none at the end of the directory; and, as far as it is
        known by the way, what they are."""
        fd = self._readable(inode, await self._resolver.reach(inode))
        if self._is_cached(inode):
            return entries_from(fd, offset)[::-1], {}
        if (entries := self._entries_in_memory(inode, fd, offset)) is not None:
            return entries[::-1], {}
        changes = self.changes_seen()
        listed = await self._resolver.in_thread(fd, lambda copy: _read_ahead(copy, offset, plus))
        if listed is None:
            return entries_from(await self._resolver.reach(inode), offset)[::-1], {}
        if (guess := self._guesses.get(inode.key[0])) is not None:
            guess.saw(listed.from_disk)
        if listed.complete:
            inode.cached_until = monotonic() + CACHED_SECONDS
        # A change that was reported meanwhile will not be reported again after these are told.
        return listed.entries[::-1], listed.found if changes == self.changes_seen() else {}

    def _entries_in_memory(self, inode: Inode, fd: int, offset: int) -> list[Dirent] | None:
        """The next entries, read on the loop. None if that may wait for the disk, or turned out to."""
        guess = self._guesses.get(inode.key[0])
        if guess is None or not guess.trusted:
            return None
        reads = disk_reads()
        entries = entries_from(fd, offset)
        from_disk = disk_reads() != reads
        guess.saw(from_disk)
        if from_disk:
            return None
        if not entries:
            inode.cached_until = monotonic() + CACHED_SECONDS
        return entries

    # Giving -----------------------------------------------------------------------------------

    def _give(
        self,
        inode: Inode,
        fd: int,
        entries: list[Dirent],
        offset: int,
        add: DirSink,
        found: dict[bytes, os.stat_result] | None,
    ) -> int:
        """Give entries to `add`, from the end of `entries`, which keeps what is not taken. Returns the new offset.

        With `found` attributes go with them: these, or what a look tells."""
        while entries:
            name, following, number, kind = entries[-1]
            if name == b"." or name == b"..":
                number = self._dot(inode, name, number)
                taken = add(name, following, number, stat.S_IFDIR, None)
            elif self._aside.has(inode, name):
                taken = True
            elif found is not None:
                taken = self._give_plus(inode, fd, entries[-1], add, found.get(name))
            else:
                number = self._devices.shown_ino(inode.key[0], number)
                taken = add(name, following, number, kind << 12, None)
            if not taken:
                break
            del entries[-1]
            offset = following
        return offset

    def _dot(self, inode: Inode, name: bytes, number: int) -> int:
        """The inode number to show for `.` and `..`: nothing of what is above the root."""
        if inode is self._resolver.root and name == b"..":
            number = inode.key[1]
        return self._devices.shown_ino(inode.key[0], number)

    def _give_plus(self, inode: Inode, fd: int, entry_read: Dirent, add: DirSink, found: os.stat_result | None) -> bool:
        name, following, number, kind = entry_read
        if found is None:
            try:
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except OSError:
                return add(name, following, number, kind << 12, None)
        child = self._entries.found(inode, name, found)
        entry = self._entries.entry(child, found)
        if add(name, following, entry.attr.ino, entry.attr.mode & 0o170000, entry):
            return True
        self._resolver.forget(child.node, 1)
        return False

    def _list_pseudo(self, inode: Inode, offset: int, add: DirSink) -> None:
        """Nothing but itself and what is above it."""
        above = inode.parent or inode
        for position, name, shown in ((1, b".", inode), (2, b"..", above)):
            if position > offset:
                number = self._devices.shown_ino(shown.key[0], shown.key[1])
                if not add(name, position, number, stat.S_IFDIR, None):
                    return


def entries_from(fd: int, offset: int) -> list[Dirent]:
    """The next entries of the directory that is open as `fd`, from `offset`; none at its end. OSError."""
    try:
        os.lseek(fd, offset, os.SEEK_SET)
        entries = getdents(fd)
        if not entries and not offset:
            # ext4 finds nothing at the start if the first that it was asked for was the end; then it knows better.
            os.lseek(fd, 0, os.SEEK_SET)
            entries = getdents(fd)
    except FileNotFoundError:
        return []  # the directory itself is removed
    return entries


def _read_ahead(fd: int, offset: int, plus: bool) -> Listed | None:
    """What is listed from `offset`, with attributes if asked; the host's caches know it then. None if that fails.

    On a description of its own: the position of the one that the inode holds is not this thread's to change.
    """
    own = -1
    found = {}
    reads = disk_reads()
    try:
        own = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
        os.lseek(own, offset, os.SEEK_SET)
        entries = getdents(own)
        for name, _, _, _ in entries if plus else ():
            try:
                found[name] = os.stat(name, dir_fd=own, follow_symlinks=False)
            except OSError:
                continue
        complete = not entries or not getdents(own)
        return Listed(entries, found, complete, disk_reads() != reads)
    except OSError:
        return None  # the listing will meet it again
    finally:
        if own >= 0:
            os.close(own)
