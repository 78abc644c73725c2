"""When changes become durable: group commits, what fsync waits for, and the WAL's end.

The order of an fsync is: contents of the file, names in the host's directories, rows. One sync serves all who asked
before it began. Without one, rows are put on the disk every few seconds, and names and contents whenever the host
does that: after a power cut everything is compared, and what of these came too late is as if never done.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from typing import Final

import trio

from humfs.host import sync_directories
from humfs.volume import Volume

log = logging.getLogger(__name__)

COMMIT_SECONDS: Final = 5.0
"""The oldest that a change of rows gets before it is put on the disk without being asked, as on the host's ext4."""
JOURNAL_MAX: Final = 4 << 20
"""A journal of so many bytes is committed at once: it would have to be applied after a crash."""
LOG_MAX: Final = 64 << 20
"""A WAL of so many bytes is moved into the database; changes wait meanwhile."""


class Durability:
    """The syncing of one volume."""

    def __init__(self, volume: Volume, flush: Callable[[], None]) -> None:
        """`flush` writes what is only in memory to the store."""
        self._volume = volume
        self._store = volume.store
        self._flush = flush
        self._asked = 0
        self._served = 0
        self._turn = trio.Lock()
        self._unsynced: set[int] = set()
        self._timer: trio.CancelScope | None = None
        self._stopped = False
        self.gate: trio.Event | None = None
        """While the WAL is moved: changes wait for it."""
        self.failure: OSError | None = None
        """Something could not be made durable, or not even written: no more changes are taken."""

    def names_changed(self, directory: int) -> None:
        """Names in that directory were changed on the host."""
        self._unsynced.add(directory)
        self._volume.changed.add(directory)

    def changed(self) -> None:
        """Something changed: its rows will be on the disk after `COMMIT_SECONDS`."""
        if self._timer is None and not self._stopped:
            self._timer = trio.CancelScope()
            trio.lowlevel.spawn_system_task(self._wait_and_sync, self._timer)
        if self._store.journal_size > JOURNAL_MAX:
            self._flush()
            self._store.commit()

    async def _wait_and_sync(self, timer: trio.CancelScope) -> None:
        with timer:
            await trio.sleep(COMMIT_SECONDS)
            self._timer = None
            try:
                await self._save_rows()
                await self._shorten_log()
            except OSError as error:
                log.error("%s: cannot be written: %s", self._volume.root, error)

    async def _save_rows(self) -> None:
        """Have the rows on the disk. Names and contents take the host's own time: to force them, as `sync` does, would
        hold up whoever changes more of them."""
        async with self._turn:
            if self._stopped:
                return
            try:
                self._flush()
                self._store.commit()
                if self._store.unsynced:
                    self._store.unsynced = False
                    await trio.to_thread.run_sync(self._store.sync_log)
            except OSError as error:
                self._store.unsynced = True
                self.failure = self.failure or error
                raise

    async def sync(self) -> None:
        """Durable on return: all names and rows changed so far. ESHUTDOWN after `stop`."""
        self._asked += 1
        mine = self._asked
        async with self._turn:
            if self._stopped:
                raise OSError(errno.ESHUTDOWN, os.strerror(errno.ESHUTDOWN))
            if self._served >= mine:
                return
            serving = self._asked
            await self._sync()
            self._served = serving

    async def _sync(self) -> None:
        directories, self._unsynced = self._unsynced, set()
        try:
            self._flush()
            self._store.commit()
            if not (directories or self._store.unsynced):
                return
            fds = self._descriptors(directories)
            self._store.unsynced = False
            await trio.to_thread.run_sync(self._on_disk, fds)
        except OSError as error:
            self._unsynced |= directories
            self._store.unsynced = True
            self.failure = self.failure or error
            raise

    def _descriptors(self, directories: set[int]) -> list[int]:
        fds: list[int] = []
        for ino in directories:
            try:
                fds.append(os.dup(self._volume.host.directories.get(ino)))
            except OSError:
                continue  # removed since; what removed it is in another directory
            if len(fds) > 64:
                break  # enough to have the whole filesystem synced
        return fds

    def _on_disk(self, fds: list[int]) -> None:
        sync_directories(fds, self._volume.host.directories.root)
        self._store.sync_log()

    async def _shorten_log(self) -> None:
        async with self._turn:
            if self._stopped or self._store.log_size() < LOG_MAX:
                return
            self.gate = trio.Event()
            try:
                self._flush()
                self._store.commit()
                await trio.to_thread.run_sync(self._store.checkpoint)
            finally:
                self.gate.set()
                self.gate = None

    async def stop(self) -> None:
        """Begin nothing any more, and wait for what is under way: the store can be closed then."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        with trio.CancelScope(shield=True):
            async with self._turn:
                pass
