"""A thread in which trio runs, and calls into it from other threads."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self, TypeVar

import trio

from umlfs.errors import UmlError

T = TypeVar("T")


class Portal:
    """A context manager: at the exit what still runs in there is cancelled, and the thread ends."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="captive guests", daemon=True)
        self._token: trio.lowlevel.TrioToken
        self._nursery: trio.Nursery

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what there is, and wait for its end."""
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._cancel)
        self._thread.join()

    def _cancel(self) -> None:
        self._nursery.cancel_scope.cancel()

    def _run(self) -> None:
        trio.run(self._main)

    async def _main(self) -> None:
        async with trio.open_nursery() as self._nursery:
            self._token = trio.lowlevel.current_trio_token()
            self._ready.set()
            await trio.sleep_forever()

    def submit(self, function: Callable[..., Awaitable[T]], *args: Any) -> concurrent.futures.Future[T]:
        """Call `function` in there; the future is its result. Cancelling the future cancels the call. UmlError once the
        portal is closed."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        scope = trio.CancelScope()

        def cancelled(_: object) -> None:
            if future.cancelled():
                self._soon(scope.cancel)

        def begin() -> None:
            if not self._nursery.cancel_scope.cancel_called:
                self._nursery.start_soon(_settle, future, scope, function, args)
            elif future.set_running_or_notify_cancel():
                future.set_exception(_closed())

        future.add_done_callback(cancelled)
        if not self._soon(begin):
            raise _closed()
        return future

    def _soon(self, function: Callable[[], object]) -> bool:
        try:
            self._token.run_sync_soon(function)
        except trio.RunFinishedError:
            return False
        return True

    def call(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """As `submit`, and wait. An interrupt (Ctrl-C) cancels the call."""
        if threading.current_thread() is self._thread:
            raise UmlError("a tree's async method called its own guest and waited", "make it a plain method")
        future = self.submit(function, *args)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


def _closed() -> UmlError:
    return UmlError("the guest is gone", "its context has ended")


async def _settle(
    future: concurrent.futures.Future[T],
    scope: trio.CancelScope,
    function: Callable[..., Awaitable[T]],
    args: tuple[Any, ...],
) -> None:
    """Do the call, and tell. A future stays pending meanwhile, so that it can be cancelled at any time."""
    result: T
    failure: BaseException | None = None
    with scope:
        try:
            result = await function(*args)
        except trio.Cancelled:
            if not future.cancelled():
                _tell(future, lambda: future.set_exception(_closed()))
            raise
        except BaseException as error:
            failure = error
        if failure is None:
            _tell(future, lambda: future.set_result(result))
        else:
            _tell(future, lambda: future.set_exception(failure))


def _tell(future: concurrent.futures.Future[T], settle: Callable[[], None]) -> None:
    with contextlib.suppress(concurrent.futures.InvalidStateError):  # it was cancelled just now
        settle()
