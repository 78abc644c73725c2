"""The kind of source `all:NAME=SRC,NAME=SRC…`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Final

from umlfs import sources
from umlfs.errors import UsageError
from umlfs.externfs.arguments import PluginArguments, split
from umlfs.externfs.calls import TIME_LIMIT
from umlfs.externfs.filesystem import NodeFilesystem
from umlfs.externfs.kind import TreeKind
from umlfs.filesystem import Filesystem
from umlfs.sources import OpenOptions

_PART: Final = re.compile(r"(?:^|,)([A-Za-z0-9_-]+)=")
_RESERVED: Final = ("every", "outcome")


class AllFilesystem(NodeFilesystem):
    """The tree; while it is served, so are the sources in it."""

    inners: Sequence[Filesystem] = ()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            for inner in self.inners:
                await stack.enter_async_context(inner.running())
            await stack.enter_async_context(super().running())
            yield


class AllKind(TreeKind):
    """Several sources."""

    scheme = "all"
    summary = "several sources side by side, and in every/ the same done to all"
    example = "uml mount all:old=backup.img,new=./project ~/both"

    def divided(self, argument: str) -> tuple[str, str | None]:
        """The path inside begins with a slash: sources have colons themselves."""
        found = re.search(r":(/(?!/)[^:]*)\Z", argument)
        return (argument, None) if found is None else (argument[: found.start()], found[1])

    async def open(self, argument: str, options: OpenOptions) -> Filesystem:
        """UsageError for a word that names no sources."""
        from umlfs.externfs.all.inner import root_of
        from umlfs.externfs.all.nodes import Root

        given = split(self.scheme, argument, options.extra, self.own_options)
        read_only = options.read_only or not given.writable
        async with contextlib.AsyncExitStack() as stack:
            roots, inners = {}, []
            for label, word in parts(given).items():
                source = sources.parse(word)
                extra = {"rw": ""} if not read_only and "rw" in source.kind.options else {}
                inner = await source.filesystem(replace(options, read_only=read_only, extra=extra))
                stack.push_async_callback(inner.close)
                inners.append(inner)
                roots[label] = await root_of(inner, label)
            close = stack.pop_all().aclose
        found = AllFilesystem(
            Root(roots, not read_only),
            name=f"all:{given.argument}",
            read_only=read_only,
            time_limit=given.number(self.scheme, "timeout", TIME_LIMIT),
            on_close=close,
        )
        found.inners = inners
        return found


def parts(given: PluginArguments) -> dict[str, str]:
    """The sources by their names: each begins with `NAME=`, at the start or behind a comma. UsageError."""
    found = list(_PART.finditer(given.argument))
    ends = [one.start() for one in found[1:]] + [len(given.argument)]
    named = {one[1]: given.argument[one.end() : end] for one, end in zip(found, ends, strict=False)}
    if (
        not found
        or found[0].start()
        or len(named) != len(found)
        or not all(named.values())
        or set(named) & set(_RESERVED)
    ):
        raise UsageError(
            f"all:{given.argument}: not of the form NAME=SRC,NAME=SRC",
            "give each source a name of its own, for example all:one=./a,two=./b",
        )
    return named


kind: Final = AllKind()
