"""`log:FILE`: what the guest says is appended to a file."""

from __future__ import annotations

import logging
import os
from typing import Final

import trio

from runtime.consoles.channels.base import Tap, failed, show
from runtime.consoles.spec import ChannelSpec

logger: Final = logging.getLogger(__name__)


class Log:
    """A file that is only appended to, made for its owner alone. On a full disk what does not fit is lost."""

    def __init__(self, channel: ChannelSpec, tap: Tap) -> None:
        """UmlError if the file cannot be opened."""
        self.description = str(channel)
        self._tap = tap
        self._complained = False
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
        try:
            self._fd = os.open(channel.argument, flags, 0o600)
        except OSError as error:
            raise failed(f"{tap.end.line}={channel}", error, "name a file that you may write") from error

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    async def run(self) -> None:
        """Write what is said. The guest waits for a disk that is slower than it talks, but no task of ours does."""
        await show(self._tap, self._write, patient=True)

    async def _write(self, data: bytes) -> None:
        try:
            await trio.to_thread.run_sync(_write_all, self._fd, data)
        except OSError as error:
            if not self._complained:
                logger.warning("%s: %s has gaps: %s", self._tap.end.line, self.description, error.strerror)
            self._complained = True


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
