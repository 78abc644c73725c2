"""What is written to a machine's log, as it is written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO, Final

import trio

SECONDS: Final = 0.2
"""Between looks, as tail(1) does where it is not told."""
REMEMBERED: Final = 4096
"""Bytes by which the place is found again in a log whose older half went."""


async def followed(log: Path, runs: Callable[[], bool]) -> AsyncIterator[bytes]:
    """The log from its beginning, then what is added to it until the machine ends. OSError."""
    with log.open("rb") as file:
        tail = b""
        while True:
            last = not runs()
            for piece in _new(file, tail):
                tail = (tail + piece)[-REMEMBERED:]
                yield piece
            if last:
                return
            await trio.sleep(SECONDS)


def _new(file: BinaryIO, tail: bytes) -> list[bytes]:
    """What was added since the last look."""
    position = file.tell()
    if file.seek(0, 2) >= position:
        file.seek(position)
        added = file.read()
    else:
        file.seek(0)
        content = file.read()
        found = content.rfind(tail)
        added = content[found + len(tail) :] if found >= 0 else content
    return [added] if added else []
