"""What long work is at, where it says so itself: on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from time import monotonic as now
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.status import Status


@dataclass(frozen=True, slots=True)
class Activity:
    """A line on standard error that is written anew as the work goes on."""

    title: str
    show: Callable[[str], None]

    def text(self, line: str) -> None:
        """Show what is being done."""
        self.show(f"{self.title}: {line}")

    def count(self, count: int, unit: str) -> None:
        """Show how much is done."""
        self.show(f"{self.title}: {count} {unit}")


@contextmanager
def activity(title: str, after: float = 0.0) -> Iterator[Activity]:
    """Show what the block does on standard error, if that is a terminal; nothing within the first `after` seconds, and
    then when there is something to tell."""
    if not sys.stderr.isatty():
        yield Activity(title, lambda line: None)
        return
    with ExitStack() as stack:
        line = _Line(stack, now() + after)
        if not after:
            line.show(title)
        yield Activity(title, line.show)


@contextmanager
def counter(title: str, unit: str = "files") -> Iterator[Callable[[int], None]]:
    """Show a running count while the block runs, which is given what to tell it."""
    with activity(title) as doing:
        yield lambda count: doing.count(count, unit)


class _Line:
    """Comes up when it is first shown, and goes with `stack`."""

    def __init__(self, stack: ExitStack, begin: float) -> None:
        self._stack = stack
        self._begin = begin
        self._status: Status | None = None

    def show(self, text: str) -> None:
        if now() < self._begin:
            return
        from rich.console import Console
        from rich.markup import escape

        from runtime.cli.printing import printable

        text = escape(printable(text))
        if self._status is None:
            self._status = self._stack.enter_context(Console(stderr=True).status(text))
        else:
            self._status.update(text)
