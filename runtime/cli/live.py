"""A table that is looked at again and again."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable

import trio
from rich.console import Console
from rich.live import Live
from rich.table import Table

from runtime.cli.printing import print_once
from runtime.tty.interrupts import until_interrupted

Look = Callable[[], Awaitable[Table]]


def show(look: Look, delay: float | None) -> None:
    """Show what `look` gives, anew each `delay` seconds until interrupted; once without a terminal or a delay."""
    if delay is None or not sys.stdout.isatty():
        trio.run(_once, look)
    else:
        trio.run(_follow, look, delay)


async def _once(look: Look) -> None:
    print_once(await look())


async def _follow(look: Look, delay: float) -> None:
    async def work() -> None:
        with Live(await look(), console=Console(), auto_refresh=False, screen=True) as live:
            while True:
                await trio.sleep(delay)
                live.update(await look(), refresh=True)

    try:
        await until_interrupted(work)
    except KeyboardInterrupt:
        return
