"""Following all machines of a user, also those that come later."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

import trio

from runtime.mconsole.events import Event, follow

SOCKET: Final = "events"
"""The name of the socket in a machine's directory."""

LOOK_SECONDS: Final = 0.5
"""How long a new machine may go unnoticed. What it told meanwhile is kept for us."""


async def watch(
    directory: Path,
    names: Collection[str],
    show: Callable[[Event], object],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Call `show` with all that happens from its start on to the machines in `directory`, until cancelled.

    `names` are the umids of those that count; empty means all. The directory need not exist yet.
    """
    start = time.time()
    task_status.started()
    followed: set[str] = set()
    seen: dict[str, float] = {}

    async def follow_one(name: str) -> None:
        known = seen.get(name, start)

        def show_new(event: Event) -> None:
            if event.time > known:
                seen[name] = event.time
                show(event)

        try:
            with contextlib.suppress(OSError, trio.BrokenResourceError):
                await follow(directory / name / SOCKET, show_new)
        finally:
            followed.discard(name)

    async with trio.open_nursery() as nursery:
        while True:
            for name in _machines(directory):
                if name not in followed and (not names or name in names):
                    followed.add(name)
                    nursery.start_soon(follow_one, name)
            await trio.sleep(LOOK_SECONDS)


def _machines(directory: Path) -> list[str]:
    """Those that have a socket to follow."""
    return [path.parent.name for path in directory.glob(f"*/{SOCKET}")]
