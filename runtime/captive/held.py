"""A guest that lives in a portal's thread, for those outside."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import ParamSpec, TypeVar

import trio

from runtime.captive.guest import Captive

P = ParamSpec("P")
T = TypeVar("T")


class Held:
    """The task that is within the guest's context, since a context must be left by the task that entered it."""

    def __init__(self, make: Callable[[], AbstractAsyncContextManager[Captive]]) -> None:
        self._make = make
        self._leave = trio.Event()
        self._left = trio.Event()
        self._failure: BaseException | None = None

    async def enter(self) -> Captive:
        """The guest, once it is up."""
        came, up = trio.Event(), list[Captive]()
        self._scope = trio.CancelScope()
        trio.lowlevel.spawn_system_task(self._hold, came, up)
        try:
            await came.wait()
        except trio.Cancelled:
            self._scope.cancel()
            with trio.CancelScope(shield=True):
                await self._left.wait()
            raise
        if up:
            return up[0]
        assert self._failure is not None
        raise self._failure

    async def _hold(self, came: trio.Event, up: list[Captive]) -> None:
        with self._scope:
            try:
                async with self._make() as guest:
                    up.append(guest)
                    came.set()
                    await self._leave.wait()
            except Exception as error:
                self._failure = error
        came.set()
        self._left.set()

    async def leave(self) -> None:
        """End the guest; what that raised."""
        self._leave.set()
        with trio.CancelScope(shield=True):
            await self._left.wait()
        if self._failure is not None:
            raise self._failure


def in_trio(function: Callable[P, T]) -> Callable[P, Awaitable[T]]:
    """`function`, which waits for nothing, as a portal calls it."""

    async def called(*args: P.args, **options: P.kwargs) -> T:
        return function(*args, **options)

    return called


async def following(items: AsyncIterator[T]) -> T | None:
    """The next of `items`; None after the last."""
    return await anext(items, None)
