"""When changes become durable: group commits, what fsync waits for, and the WAL's end.

The order of an fsync is: contents of the file, names in the host's directories, rows. One sync serves all who asked
before it began. Without one, rows are put on the disk every few seconds, and names and contents whenever the host
does that: after a power cut everything is compared, and what of these came too late is as if never done.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import AsyncIterator, Callable
from typing import Final

import trio

from humfs.host import sync_directories
from humfs.volume import Volume
from umlfs.lifetime import Tasks

log = logging.getLogger(__name__)

COMMIT_SECONDS: Final = 5.0
"""The oldest that a change of rows gets before it is put on the disk without being asked, as on the host's ext4."""
JOURNAL_MAX: Final = 4 << 20
"""A journal of so many bytes is committed at once: it would have to be applied after a crash."""
LOG_MAX: Final = 64 << 20
"""A WAL of so many bytes is moved into the database; changes wait meanwhile."""
LOCK_SECONDS: Final = 5.0
"""How long a change waits for another program that has the database locked, before it is EBUSY."""
_LOCK_PAUSE: Final = 0.02


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
        self.tasks = Tasks(f"{volume.root}")
        self._timer: trio.CancelScope | None = None
        self._overdue = False
        """Something changed while nothing ran: nobody has written it down yet."""
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
            self._start_timer()
        if self._store.journal_size > JOURNAL_MAX:
            self._flush()
            self._store.commit()

    def _start_timer(self) -> None:
        if not self.tasks.alive:
            self._overdue = True
            return
        self._timer = trio.CancelScope()
        self.tasks.start(self._wait_and_save, self._timer)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Rows are put on the disk by themselves. At the end they are once more, unless it was stopped."""
        async with self.tasks.running():
            if self._overdue and not self._stopped:
                self._overdue = False
                self._start_timer()
            try:
                yield
            finally:
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
                    with trio.CancelScope(shield=True):
                        await self._save()

    async def _wait_and_save(self, timer: trio.CancelScope) -> None:
        with timer:
            await trio.sleep(COMMIT_SECONDS)
            self._timer = None
            await self._save()

    async def _save(self) -> None:
        """What fails is told to whoever changes or syncs something next."""
        try:
            await self._save_rows()
            await self._shorten_log()
        except OSError as error:
            log.error("%s: cannot be written: %s", self._volume.root, error)
            if error.errno == errno.EBUSY and not self._stopped:
                self.changed()  # another program has the database: try again

    def failed(self, error: OSError) -> None:
        """Rows could not be written. No more changes are taken, unless it is another program's lock."""
        if error.errno != errno.EBUSY:
            self.lost(error)

    def lost(self, error: OSError) -> None:
        """Rows of what the host has done already could not be written: no more changes are taken."""
        # Not the error itself: its traceback would keep all that was under way, guests' memory too.
        self.failure = self.failure or OSError(error.errno or errno.EIO, error.strerror, error.filename)

    def check(self) -> None:
        """Raise what went wrong, if anything did."""
        if self.failure is not None:
            raise OSError(self.failure.errno or errno.EIO, f"cannot be written: {self.failure.strerror}")

    async def begin(self) -> None:
        """Have a transaction open, before anything is changed on the host. EBUSY if another program has the database
        locked for `LOCK_SECONDS`."""
        if self._store.in_transaction or self._store.try_begin():
            return
        deadline = trio.current_time() + LOCK_SECONDS
        while not self._store.try_begin():
            if trio.current_time() >= deadline:
                raise OSError(errno.EBUSY, "another program has the database locked", os.fspath(self._store.path))
            await trio.sleep(_LOCK_PAUSE)

    async def _save_rows(self) -> None:
        """Have the rows on the disk. Names and contents take the host's own time: to force them, as `sync` does, would
        hold up whoever changes more of them."""
        async with self._turn:
            if self._stopped:
                return
            self.check()
            try:
                await self.begin()
                self._flush()
                self._store.commit()
                if self._store.unsynced:
                    self._store.unsynced = False
                    await trio.to_thread.run_sync(self._store.sync_log)
            except BaseException as error:
                self._store.unsynced = True
                if isinstance(error, OSError):
                    self.failed(error)
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
        self.check()
        directories, self._unsynced = self._unsynced, set()
        try:
            await self.begin()
            self._flush()
            self._store.commit()
            if not (directories or self._store.unsynced):
                return
            fds = self._descriptors(directories)
            self._store.unsynced = False
            await trio.to_thread.run_sync(self._on_disk, fds)
        except BaseException as error:
            # Whoever asked may have been cancelled: nothing counts as synced.
            self._unsynced |= directories
            self._store.unsynced = True
            if isinstance(error, OSError):
                self.failed(error)
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
                await self.begin()
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
