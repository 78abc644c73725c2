"""What a kernel started with `mconsole=notify:PATH` tells: boots, panics, hangs, and words from its guest."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import trio

from runtime.mconsole.datagrams import bound, receive
from runtime.mconsole.wire import Malformed, Notification, decode_notification

log = logging.getLogger(__name__)


class Notifications:
    """An async iterator without end over the notifications that arrive at a socket of `listening`.

    Whoever iterates must not dawdle: the kernel waits, and the guest with it, when ten of them are not taken.
    Cancelling loses nothing.
    """

    def __init__(self, receiver: socket.socket) -> None:
        self._receiver = receiver
        self.sender = os.getuid()
        """The user that the kernel runs as: nobody else is heard."""

    def __aiter__(self) -> Notifications:
        return self

    async def __anext__(self) -> Notification:
        while True:
            await trio.lowlevel.wait_readable(self._receiver)
            with contextlib.suppress(BlockingIOError):
                if (found := self._next()) is not None:
                    return found

    def _next(self) -> Notification | None:
        datagram = receive(self._receiver)
        if datagram.uid not in (self.sender, os.getuid()):
            log.info("a notification of user %s was dropped", datagram.uid)
            return None
        try:
            return decode_notification(datagram.data)
        except Malformed as error:
            log.info("dropped: %s", error)
            return None


@contextlib.contextmanager
def listening(path: Path) -> Iterator[Notifications]:
    """Make the socket for `mconsole=notify:PATH`; it must be there before the kernel starts.

    It lies in a directory of the caller's own. UmlError if it cannot be made.
    """
    with bound(path) as receiver:
        yield Notifications(receiver)
