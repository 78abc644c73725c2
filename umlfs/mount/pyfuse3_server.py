"""A mount served by pyfuse3's loop, and libfuse's."""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Callable

import pyfuse3
import trio

from umlfs.filesystem import Filesystem
from umlfs.fuse.announcer import Announcer
from umlfs.mount import libfuse, pyfuse3_internals
from umlfs.mount.adapter import Adapter
from umlfs.mount.locks import LockOperations
from umlfs.mount.requests import Requests
from umlfs.mount.space import SpaceOperations


class Pyfuse3Server:
    """A `Server`."""

    def __init__(self, filesystem: Filesystem, status: Callable[[int], bytes]) -> None:
        """`status` is what reading `STATUS` of the root gives, by the number of requests answered so far."""
        self._adapter = Adapter(filesystem, lambda adapter: status(adapter.requests))
        self._requests = Requests(self._adapter)
        logging.getLogger("pyfuse3").addFilter(pyfuse3_internals.is_news)
        pyfuse3_internals.check()

    @property
    def filesystem(self) -> Filesystem:
        return self._adapter.fs

    @property
    def requests(self) -> int:
        return self._adapter.requests

    @property
    def kernel(self) -> Pyfuse3Server:
        return self

    def init(self, path: str, options: set[str]) -> None:
        operations, wrappers = LockOperations(self._adapter, self._requests).for_libfuse()
        operations |= SpaceOperations(self._adapter, self._requests).for_libfuse()
        with libfuse.added(operations, wrappers):
            pyfuse3.init(self._adapter, path, options)

    def attach(self, filesystem: Filesystem) -> None:
        self._adapter.fs = filesystem

    def announced_by(self, pid: int) -> Announcer:
        changes = self._adapter.fs.changes
        assert changes is not None
        self._adapter.announcer = announcer = Announcer(self._adapter.fs, changes)
        self._adapter.announcer_pid = pid
        return announcer

    def announcer_ended(self) -> None:
        self._adapter.announcer_pid = 0

    async def serve(self) -> None:
        try:
            async with trio.open_nursery() as nursery:
                self._requests.nursery = nursery
                with pyfuse3_internals.reading_eagerly(lambda: self._adapter.under_way > 0):
                    await pyfuse3.main()
                nursery.cancel_scope.cancel()
        except* OSError as group:
            failures = group.split(_is_unmount)[1]
            if failures is not None:
                raise failures from None

    def end_locks(self) -> None:
        self._requests.end()

    def terminate(self) -> None:
        with contextlib.suppress(OSError):
            pyfuse3.terminate()

    def close(self) -> None:
        pyfuse3.close(unmount=False)

    # Telling the kernel -----------------------------------------------------------------------

    def name_changed(self, parent: int, name: bytes) -> None:
        pyfuse3.invalidate_entry(pyfuse3.InodeT(parent), pyfuse3.FileNameT(name))

    def attributes_changed(self, ino: int) -> None:
        pyfuse3.invalidate_inode(pyfuse3.InodeT(ino), attr_only=True)

    def contents_changed(self, ino: int) -> None:
        pyfuse3.invalidate_inode(pyfuse3.InodeT(ino))


def _is_unmount(error: BaseException) -> bool:
    """The kernel's other word for it, to who was reading a request when it came."""
    return isinstance(error, OSError) and error.errno == errno.ECONNABORTED
