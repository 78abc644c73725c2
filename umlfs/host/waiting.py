"""Noticing when a coroutine waits, so that one that never does costs no task of its own."""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


@types.coroutine
def noticing_waits(work: Coroutine[Any, Any, T], on_wait: Callable[[], None]) -> Generator[Any, Any, T]:
    """`await work`, calling `on_wait` when it waits for the first time."""
    try:
        trap = work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    on_wait()
    while True:
        step: Callable[[Any], Any] = work.send
        try:
            value = yield trap
        except BaseException as error:
            step, value = work.throw, error
        try:
            trap = step(value)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
