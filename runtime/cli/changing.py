"""What the commands that change a source share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from runtime.cli.trees import run

if TYPE_CHECKING:
    from runtime.inspect.changing import WritableTree
    from runtime.inspect.location import Location


def change(places: Sequence[Location], work: Callable[[WritableTree], Awaitable[None]]) -> None:
    """Do `work` in the tree of the places, which are all in one source."""
    from runtime.inspect.changing import writable

    async def within() -> None:
        async with writable(places[0]) as tree:
            await work(tree)

    run(within)
