"""A running count for long work whose end is not known: on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def _silent(count: int) -> None:
    pass


@contextmanager
def counter(title: str, unit: str = "files") -> Iterator[Callable[[int], None]]:
    """Show a count on standard error while the block runs, if that is a terminal. The block gets what to tell it."""
    if not sys.stderr.isatty():
        yield _silent
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description} {task.completed} " + unit), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(title, total=None)
        yield lambda count: shown.update(task, completed=count)


@contextmanager
def activity(title: str) -> Iterator[Callable[[int, str], None]]:
    """As `counter`, for work that says itself what it counts."""
    if not sys.stderr.isatty():
        yield lambda count, unit: None
        return
    from rich.console import Console

    with Console(stderr=True).status(title) as shown:
        yield lambda count, unit: shown.update(f"{title} {count} {unit}")
