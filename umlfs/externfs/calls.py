"""How a plugin's methods are called: in the loop or in a thread, for a limited time, whatever they raise."""

from __future__ import annotations

import errno
import inspect
import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from enum import Enum, auto
from itertools import islice
from typing import Any, Final, TypeVar, cast

import trio

from umlfs.host.syscalls import failure

log = logging.getLogger(__name__)

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

THREADS: Final = 64
"""Calls of one tree that may block at once: one that hangs is to delay no other."""
TIME_LIMIT: Final = 30.0
"""Seconds until a call that has not come back is EIO."""


class _How(Enum):
    INSTANT = auto()
    ASYNC = auto()
    THREAD = auto()


_known: dict[Any, _How] = {}
"""How each function is called; there are as many as plugins have methods."""


def instant(function: F) -> F:
    """Mark an `async def` that never waits."""
    _known[function] = _How.INSTANT
    return function


def _how(function: Any) -> _How:
    plain = getattr(function, "__func__", function)
    found = _known.get(plain)
    if found is None:
        is_async = inspect.iscoroutinefunction(plain) or inspect.isasyncgenfunction(plain)
        found = _How.ASYNC if is_async else _How.THREAD
        if plain is not function:  # of a method; others may be made by the thousand
            _known[plain] = found
    return found


class Calls:
    """The calls of one tree."""

    def __init__(self, name: str, time_limit: float = TIME_LIMIT) -> None:
        """`name` is what the log calls the tree."""
        self.name = name
        self._time_limit = time_limit
        self._threads = trio.CapacityLimiter(THREADS)

    async def __call__(self, function: Callable[..., Any], *args: object) -> Any:
        """What `function` gives. OSError: its own, EIO for another exception, and ETIMEDOUT as EIO."""
        how = _how(function)
        try:
            if how is _How.INSTANT:
                return await function(*args)
            if how is _How.ASYNC:
                return await self._limited(lambda: function(*args))
            return await self._limited(lambda: self._in_thread(function, *args))
        except OSError:
            raise
        except Exception as error:
            raise self.fault(function, error) from error

    async def batch(self, items: Iterator[T] | AsyncIterator[T], count: int) -> list[T]:
        """The next `count` of `items`, fewer only at the end."""
        try:
            if hasattr(items, "__anext__"):
                return await self._limited(lambda: _some(cast(AsyncIterator[T], items), count))
            return cast("list[T]", await self._limited(lambda: self._in_thread(_list, items, count)))
        except OSError:
            raise
        except Exception as error:
            raise self.fault(items, error) from error

    async def _limited(self, work: Callable[[], Awaitable[T]]) -> T:
        with trio.move_on_after(self._time_limit):
            return await work()
        log.warning("%s: no answer within %g s", self.name, self._time_limit)
        raise failure(errno.EIO)

    async def _in_thread(self, function: Callable[..., Any], *args: object) -> Any:
        run = trio.to_thread.run_sync
        return await run(lambda: _shielded(function, *args), abandon_on_cancel=True, limiter=self._threads)

    def fault(self, what: object, error: Exception) -> OSError:
        """EIO for what no plugin should raise, and a line in the log."""
        where = getattr(what, "__qualname__", type(what).__name__)
        # The exception would keep its frames, and with them the guest's memory, for as long as the record is kept.
        log.error("%s: %s: %s: %s", self.name, where, type(error).__name__, str(error))
        log.debug("%s", where, exc_info=error)
        return failure(errno.EIO)


def _shielded(function: Callable[..., Any], *args: object) -> Any:
    try:
        return function(*args)
    except StopIteration as error:  # no future can carry it
        raise RuntimeError("StopIteration") from error


def _list(items: Iterator[T], count: int) -> list[T]:
    return list(islice(items, count))


async def _some(items: AsyncIterator[T], count: int) -> list[T]:
    found: list[T] = []
    async for item in items:
        found.append(item)
        if len(found) == count:
            break
    return found


def known_at_once(items: object) -> bool:
    """Whether `items` are all there, so that no thread is needed to get at them."""
    return isinstance(items, list | tuple)


def iterator(items: Iterable[T] | AsyncIterable[T]) -> Iterator[T] | AsyncIterator[T]:
    """An iterator over `items` of either kind."""
    return aiter(items) if isinstance(items, AsyncIterable) else iter(items)
