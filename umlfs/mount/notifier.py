"""Telling the host's kernel what changed behind its back.

A notification may wait within the kernel for requests that we have yet to answer: a name for the lock of its
directory, contents for the lock of a page that is being read. So none is ever sent from the loop, and contents,
which may wait for a slow disk, do not hold up names and attributes: each has a thread of its own.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Protocol

import trio

log = logging.getLogger(__name__)

Job = tuple[int, bytes | None]
"""An inode, or a directory and a name in it."""


class Kernel(Protocol):
    """The way to the kernel that has mounted it. Each call blocks for as long as the kernel likes. OSError."""

    def name_changed(self, parent: int, name: bytes) -> None:
        """A name is to be looked up anew."""

    def attributes_changed(self, ino: int) -> None:
        """The attributes of an inode are to be asked for anew."""

    def contents_changed(self, ino: int) -> None:
        """So are all of its contents."""


@contextlib.contextmanager
def _telling() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # ENOENT: the kernel does not know it (any more). The others but ENOTDIR: the mount has not begun, or ended.
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.EBADF, errno.ENOTCONN, errno.EPERM):
            log.warning("the kernel was not told of a change: %s", error)


class _Sender:
    """A thread that sends jobs in turn. A job that is still waiting is not queued twice."""

    def __init__(self, name: str, send: Callable[[Job], None]) -> None:
        self._send = send
        self._waiting: dict[Job, None] = {}
        self._changed = threading.Condition()
        self._ended = False
        # A daemon, because the kernel may keep it for as long as a request is not answered.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, job: Job) -> None:
        with self._changed:
            self._waiting[job] = None
            self._changed.notify()

    def end(self) -> None:
        """Send nothing more. Does not wait."""
        with self._changed:
            self._ended = True
            self._waiting.clear()
            self._changed.notify()

    def join(self, timeout: float) -> bool:
        """Wait until the last notification is through; False if it was not in `timeout` seconds."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._ended:
                    self._changed.wait()
                if self._ended:
                    return
                job = next(iter(self._waiting))
                del self._waiting[job]
            with _telling():
                self._send(job)


class Notifier:
    """An `Invalidator` for the mount of this process."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._quick = _Sender("umlfs-notify", self._send_quick)
        self._contents = _Sender("umlfs-notify-contents", self._send_contents)
        self._ended = False

    def _send_quick(self, job: Job) -> None:
        ino, name = job
        if name is None:
            self._kernel.attributes_changed(ino)
        else:
            self._kernel.name_changed(ino, name)

    def _send_contents(self, job: Job) -> None:
        self._kernel.contents_changed(job[0])

    def _drop(self, ino: int) -> None:
        with _telling():
            self._kernel.contents_changed(ino)

    def entry(self, parent: int, name: bytes) -> None:
        """See `Invalidator.entry`."""
        self._quick.put((parent, name))

    def inode(self, ino: int, offset: int = 0, length: int = 0) -> None:
        """See `Invalidator.inode`. All of the contents are dropped, whatever the range."""
        self._quick.put((ino, None))
        self._contents.put((ino, None))

    async def drop(self, ino: int) -> None:
        """See `Invalidator.drop`."""
        if not self._ended:
            await trio.to_thread.run_sync(self._drop, ino)

    def end(self) -> None:
        """Send nothing more. Does not wait."""
        self._ended = True
        self._quick.end()
        self._contents.end()

    def join(self, timeout: float) -> bool:
        """After `end`, wait for the threads, at most `timeout` seconds each; whether both have ended.

        While one has not, the session must not be destroyed: it is being used.
        """
        return all([self._quick.join(timeout), self._contents.join(timeout)])
