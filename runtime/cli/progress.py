"""What long work is at: a line or a bar on a terminal, lines or JSON where asked for, nothing on a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from time import monotonic as now
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID
    from rich.status import Status

Command = TypeVar("Command", bound=Callable[..., Any])

MODES: Final = ("auto", "plain", "json", "none")
KEY: Final = "runtime.cli.progress"
INTERVAL: Final = 1.0
"""Seconds between two lines at least. The last state is told in any case."""


@dataclass(frozen=True, slots=True)
class State:
    """How far work is."""

    title: str
    text: str | None = None
    """What is being done."""
    done: int | None = None
    total: int | None = None
    """How much is to be done, where that is known."""
    unit: str | None = None
    """Of `done` and `total`: bytes, or what is counted."""

    def __str__(self) -> str:
        said = self.title if self.text is None else f"{self.title}: {self.text}"
        if self.done is None:
            return said
        if not self.total:
            return f"{said}: {self._amount(self.done)}"
        done = self._amount(self.done) if self.unit == "bytes" else self.done
        return f"{said}: {done} of {self._amount(self.total)}, {100 * self.done // self.total} %"

    def _amount(self, count: int) -> str:
        return f"{count / (1 << 20):.1f} MiB" if self.unit == "bytes" else f"{count} {self.unit}"


@dataclass(frozen=True, slots=True)
class Activity:
    """What the work itself tells."""

    title: str
    show: Callable[[State], None]

    def text(self, line: str) -> None:
        """Tell what is being done."""
        self.show(State(self.title, line))

    def count(self, count: int, unit: str) -> None:
        """Tell how much is done."""
        self.show(State(self.title, done=count, unit=unit))


def progress_option(command: Command) -> Command:
    """Give a command the option --progress, which says how `activity` and the others here show what it is at."""
    return click.option(
        "--progress",
        type=click.Choice(MODES),
        envvar="UML_PROGRESS",
        expose_value=False,
        callback=_choose,
        help="Show how far it is: as lines, as JSON, not at all.  [on a terminal; env: UML_PROGRESS]",
    )(command)


def _choose(ctx: click.Context, param: click.Parameter, mode: str | None) -> None:
    ctx.meta[KEY] = mode or "auto"


def _mode() -> str:
    """How to show it. `auto` becomes `terminal` or `none`."""
    ctx = click.get_current_context(silent=True)
    mode = "auto" if ctx is None else str(ctx.meta.get(KEY, "auto"))
    if mode == "auto":
        return "terminal" if sys.stderr.isatty() else "none"
    return mode


@contextmanager
def activity(title: str, after: float = 0.0) -> Iterator[Activity]:
    """Show what the block does. With `after`, a terminal shows nothing for so many seconds, and then when there is
    something to tell."""
    mode = _mode()
    with ExitStack() as stack:
        if mode == "terminal":
            line = _Line(stack, now() + after)
            if not after:
                line(State(title))
            yield Activity(title, line)
        else:
            yield Activity(title, stack.enter_context(_written(mode)))


@contextmanager
def counter(title: str, unit: str = "files") -> Iterator[Callable[[int], None]]:
    """Show a running count while the block runs, which is given what to tell it."""
    with activity(title) as doing:
        yield lambda count: doing.count(count, unit)


@contextmanager
def progress_bar(title: str, unit: str = "bytes") -> Iterator[Callable[[int, int], None]]:
    """Show how much is done, and of how much, while the block runs, which is given what to tell both."""
    mode = _mode()
    with ExitStack() as stack:
        show = _Bar(stack) if mode == "terminal" else stack.enter_context(_written(mode))
        yield lambda done, size: show(State(title, done=done, total=size, unit=unit))


@contextmanager
def _written(mode: str) -> Iterator[Callable[[State], None]]:
    """Write a line for each state, but not more of them than somebody reads."""
    waiting: State | None = None
    before = now()

    def show(state: State) -> None:
        nonlocal waiting, before
        waiting = state
        if now() - before >= INTERVAL:
            flush()

    def flush() -> None:
        nonlocal waiting, before
        if waiting is not None and mode != "none":
            print(_line(waiting, mode), file=sys.stderr, flush=True)
        waiting, before = None, now()

    try:
        yield show
    finally:
        flush()


def _line(state: State, mode: str) -> str:
    from runtime.cli.printing import printable

    if mode == "plain":
        return printable(str(state))
    known = {name: value for name, value in asdict(state).items() if value is not None}
    return json.dumps({"event": "progress", **known})


class _Line:
    """A line on the terminal that is written anew. It comes when there is something to show, and goes with `stack`."""

    def __init__(self, stack: ExitStack, begin: float) -> None:
        self._stack = stack
        self._begin = begin
        self._status: Status | None = None

    def __call__(self, state: State) -> None:
        if now() < self._begin:
            return
        from rich.console import Console
        from rich.markup import escape

        from runtime.cli.printing import printable

        text = escape(printable(str(state)))
        if self._status is None:
            self._status = self._stack.enter_context(Console(stderr=True).status(text))
        else:
            self._status.update(text)


class _Bar:
    """A bar on the terminal, with rate and remaining time."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._shown: tuple[Progress, TaskID] | None = None

    def __call__(self, state: State) -> None:
        shown, task = self._shown = self._shown or self._open(state)
        shown.update(task, completed=state.done, total=state.total)

    def _open(self, state: State) -> tuple[Progress, TaskID]:
        from rich import progress
        from rich.console import Console

        in_bytes = (progress.DownloadColumn(), progress.TransferSpeedColumn())
        amount = in_bytes if state.unit == "bytes" else (progress.MofNCompleteColumn(),)
        columns = (progress.TextColumn("{task.description}"), progress.BarColumn(), *amount)
        bar = progress.Progress(*columns, progress.TimeRemainingColumn(), console=Console(stderr=True), transient=True)
        shown = self._stack.enter_context(bar)
        return shown, shown.add_task(state.title, total=state.total)
