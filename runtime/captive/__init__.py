"""Captive guests: a machine inside a program, which has the program's own objects as its filesystems.

    from runtime.captive import captive

    async with captive(mounts={"/app": MyTree()}) as guest:
        print((await guest.run(["ls", "/app"])).stdout)

`runtime.captive.blocking` and `runtime.captive.aio` are the same for threads and for asyncio.
"""

from __future__ import annotations

from runtime.captive.accounts import Account
from runtime.captive.events import Event, EventKind
from runtime.captive.guest import Captive, captive
from runtime.captive.limits import Limits
from runtime.captive.mounts import Mount, Tree
from runtime.captive.process import Process

__all__ = ["Account", "Captive", "Event", "EventKind", "Limits", "Mount", "Process", "Tree", "captive"]
