"""What long work is at, where it says so itself: on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


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
def activity(title: str) -> Iterator[Activity]:
    """Show what the block does on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield Activity(title, lambda line: None)
        return
    from rich.console import Console
    from rich.markup import escape

    from runtime.cli.failure import printable

    with Console(stderr=True).status(escape(printable(title))) as shown:
        yield Activity(title, lambda line: shown.update(escape(printable(line))))
