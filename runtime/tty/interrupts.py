"""Work that an interrupt ends in good order.

Python would raise KeyboardInterrupt in whatever task happens to run, such as one that serves a guest's disk: the guest
would wait for an answer for ever, and so would whoever wants to leave it cleanly.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

T = TypeVar("T")


async def until_interrupted(work: Callable[[], Awaitable[T]]) -> T:
    """What `work` returns or raises. SIGINT and SIGTERM cancel it; then KeyboardInterrupt is raised for the one, and
    SystemExit with status 128 + 15 for the other."""
    heard: list[int] = []
    raised: Exception | None = None
    result: list[T] = []
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                async for number in signals:
                    heard.append(number)
                    nursery.cancel_scope.cancel()

            nursery.start_soon(listen)
            try:
                result.append(await work())
            except Exception as error:  # raised below, out of the nursery's group
                raised = error
            nursery.cancel_scope.cancel()
    if heard:
        raise KeyboardInterrupt if heard[0] == signal.SIGINT else SystemExit(128 + heard[0])
    if raised is not None:
        raise raised
    return result[0]
