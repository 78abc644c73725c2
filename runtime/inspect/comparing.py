"""`uml diff`: two places compared."""

from __future__ import annotations

from collections.abc import Callable

from runtime.inspect.diff import Comparison, Difference
from runtime.inspect.location import Location
from runtime.inspect.paths import resolve
from runtime.inspect.tree import open_tree


async def compare(one: Location, other: Location, each: Callable[[Difference], None], *, times: bool = False) -> None:
    """Tell `each` of all that differs from the one to the other, in the order of paths. OSError, UmlError.

    The two are read by an appliance each: their filesystems may be copies of each other, which no kernel likes to
    have mounted at once.
    """
    async with open_tree(one) as old, open_tree(other) as new:
        before = await resolve(old.filesystem, one.inside)
        after = await resolve(new.filesystem, other.inside)
        comparison = Comparison(old.filesystem, new.filesystem, times=times)
        async for change in comparison.changes(before, after):
            each(change)
