"""Signals for threads of a guest that wait for a lock of the host.

The virtio-fs of Linux has no interrupts: a thread that waits for an answer takes no signal before it comes, SIGKILL
neither. So while somebody waits, the agent is asked who has a signal to take; that one's wait ends with EINTR, upon
which its kernel delivers the signal, and starts the wait again where it does so on any filesystem.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import trio

from runtime.guest import HERE, script
from runtime.machine.control import ControlFilesystem
from umlfs.fuse.locks import LockWaits

SECONDS: Final = 0.1
"""How often the agent is asked, as long as somebody waits."""
THREADS_MAX: Final = 100
"""How many it is asked for at a time."""
INTERRUPTED: Final = b"interrupted"
"""The file of the control filesystem where it answers."""

RunScript = Callable[[str], Awaitable[None]]


class LockSignals:
    """For one guest."""

    def __init__(self, control: ControlFilesystem, waits: Sequence[LockWaits], run_script: RunScript) -> None:
        """`run_script` is used where no command runs in the guest; only a guest that stays up needs it then."""
        self._control = control
        self._waits = waits
        self._run_script = run_script
        control.offer(INTERRUPTED, push=self._answered, end=lambda: None)

    async def run(self) -> None:
        """Ask for as long as the guest lives."""
        async with trio.open_nursery() as nursery:
            for waits in self._waits:
                nursery.start_soon(self._watch, waits)

    async def _watch(self, waits: LockWaits) -> None:
        while True:
            await waits.begun()
            await trio.sleep(SECONDS)
            if waits.pids:
                await self._ask(waits.pids)

    async def _ask(self, pids: Iterable[int]) -> None:
        threads = " ".join(map(str, sorted(pids)[:THREADS_MAX]))
        if not self._control.signal_one(f"LOCKS {threads}"):
            await self._run_script(f"control={HERE}/control\n{script('locks.sh')}\ninterrupted {threads}")

    async def _answered(self, buffers: Sequence[memoryview]) -> int:
        said = b"".join(buffers)
        for word in said.split():
            if word.isdigit():
                for waits in self._waits:
                    waits.interrupt_process(int(word))
        return len(said)
