"""Requests that pyfuse3 does not know, answered by tasks of their own beside its loop: see `umlfs.mount.libfuse`."""

from __future__ import annotations

import errno
import itertools
import logging
from collections.abc import Awaitable, Callable

import trio

from umlfs.fuse.locks import LockWaits
from umlfs.mount.adapter import Adapter, File, errno_of
from umlfs.mount.libfuse import Request

log = logging.getLogger(__name__)

Answer = Callable[[Request, File], Awaitable[None]]
"""Answers a request about an open file. An OSError is the answer, too."""


class Requests:
    """Those of one mount."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self._waits = LockWaits()
        self._numbers = itertools.count()
        self._ended = False
        self.nursery: trio.Nursery | None = None
        """Where they are answered."""

    def end(self) -> None:
        """Nobody is to wait any longer: ENOLCK, as when a server of NFS has gone."""
        self._ended = True
        self._waits.interrupt_all()

    def start(self, pointer: int, fh: int, answer: Answer) -> None:
        """Have the request at `pointer`, about the open file that the kernel knows as `fh`, answered."""
        request = Request(pointer)
        file = self._adapter.open_files.get(fh)
        if file is None or self.nursery is None:
            request.fail(errno.EBADF)
        elif self._ended:
            request.fail(errno.ENOLCK)
        else:
            self.nursery.start_soon(self._answer, request, file, answer)

    async def _answer(self, request: Request, file: File, answer: Answer) -> None:
        number = next(self._numbers)
        self._adapter.requests += 1
        self._adapter.under_way += 1
        try:
            if self._adapter.fs.failure is not None:
                raise OSError(errno.EIO, "the filesystem has failed")
            with self._waits.waiting(number, request.pid):
                request.on_interrupt(lambda: self._waits.interrupt(number))
                await answer(request, file)
        except OSError as error:
            request.fail(errno.ENOLCK if self._ended and error.errno == errno.EINTR else errno_of(error))
        except Exception:
            log.exception("a request failed")
            request.fail(errno.EIO)
        except BaseException:
            request.fail(errno.ENOLCK)
            raise
        finally:
            self._adapter.under_way -= 1
