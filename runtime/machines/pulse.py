"""Whether a machine's kernel still does anything: it is asked for its version every now and then."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import trio

from runtime.mconsole.wire import NoticeKind, Reply
from umlfs.errors import UmlError

PAUSE_SECONDS: Final = 10.0
"""Between an answer and the next question. A question takes the kernel 0.04 ms."""

Ask = Callable[[str, float], Awaitable[Reply]]
"""As `Client.request`."""


class Pulse:
    """Asks one kernel. There is never more than one question waiting for its answer, however long that takes."""

    def __init__(
        self, ask: Ask, *, seconds: float, asleep: Callable[[], bool], tell: Callable[[NoticeKind, str], None]
    ) -> None:
        """After `seconds` without an answer `tell` hears of a HANG, and of RECOVERED if one comes yet. Nothing is asked
        while the kernel is `asleep`, nor with `seconds` 0."""
        self.hung = False
        """The kernel owes an answer for so long."""
        self._ask = ask
        self._seconds = seconds
        self._asleep = asleep
        self._tell = tell

    @contextlib.asynccontextmanager
    async def felt(self) -> AsyncIterator[None]:
        """Ask for as long as the context lasts."""
        async with trio.open_nursery() as nursery:
            if self._seconds:
                nursery.start_soon(self._ask_again_and_again)
            yield
            nursery.cancel_scope.cancel()
        self.hung = False

    async def _ask_again_and_again(self) -> None:
        while True:
            await trio.sleep(min(PAUSE_SECONDS, self._seconds))
            if not self._asleep():
                await self._ask_once()

    async def _ask_once(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._lose_patience)
            with contextlib.suppress(UmlError):  # it is just ending
                await self._ask("version", math.inf)
            nursery.cancel_scope.cancel()
        if self.hung:
            self.hung = False
            self._tell(NoticeKind.RECOVERED, "the kernel answers again")

    async def _lose_patience(self) -> None:
        await trio.sleep(self._seconds)
        self.hung = True
        self._tell(NoticeKind.HANG, f"the kernel does not answer for {self._seconds:g} s")
