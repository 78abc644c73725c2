"""A Filesystem seen through another: the base of what shows one otherwise than it is."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from umlfs.composed import Composed
from umlfs.filesystem import Changes, Filesystem, Invalidator


class View(Composed):
    """All of `inner` as it is; subclasses override what they show otherwise. Closing it closes `inner`."""

    def __init__(self, inner: Filesystem) -> None:
        self._show(inner)
        self.traits = inner.traits

    def _show(self, inner: Filesystem) -> None:
        self.inner = inner
        self._compose(inner, inner, inner, inner)

    def running(self) -> AbstractAsyncContextManager[None]:
        return self.inner.running()

    @property
    def failure(self) -> OSError | None:
        return self.inner.failure

    @property
    def changes(self) -> Changes | None:
        return self.inner.changes

    def attach(self, invalidator: Invalidator) -> Filesystem:
        self._show(self.inner.attach(invalidator))
        return self

    def disconnect(self) -> None:
        self.inner.disconnect()

    async def close(self) -> None:
        await self.inner.close()

    def remarks(self) -> list[str]:
        return self.inner.remarks()

    def forget(self, ino: int, count: int) -> None:
        self.inner.forget(ino, count)

    async def syncfs(self) -> None:
        await self.inner.syncfs()
