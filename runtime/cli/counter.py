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
