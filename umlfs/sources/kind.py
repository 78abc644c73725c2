"""What a kind of source is: the contract of a plugin of the group `umlfs.sources`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from umlfs.block import BlockDevice
from umlfs.errors import UsageError
from umlfs.filesystem import Filesystem

BEHIND_SCHEME: Final = r"//[^/]*(?:/[^:]*)?"
"""A URI without its scheme; a colon in its path is written `%3A`."""
_URI: Final = re.compile(rf"({BEHIND_SCHEME})(?::(.*))?\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """How a source is to be opened."""

    read_only: bool = False
    snapshot: bool = False
    """The consumer need not see what others change while it lives, and may cache for as long."""
    owner: tuple[int, int] | None = None
    """The uid and gid of the consumer to whom what belongs to the user who opens it shall seem to belong, and the other
    way round; unless options say otherwise."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """Options of the kind itself, such as `cache=always`; a kind refuses those that it does not know. One that was
    given more than once has its values on lines of their own."""
    detected: bool = False
    """Nobody said what kind of source it is: a consumer must not make it look like another one for the next time."""
    aside: Sequence[Path] = ()
    """Mount points of this host, without symlinks in them, whose servers may be waiting for what this source
    answers. A kind that shows the host's own directories must not walk into them."""
    sync: bool = False
    """Every write is durable when it is answered. A kind that cannot refuses."""
    shared: bool = False
    """Others write it at the same time, who open it likewise; nobody else may. A kind that cannot refuses."""
    discard: bool = True
    """Give back to the host what is discarded."""
    announces: bool = False
    """The consumer can tell its programs what others change (`Filesystem.changes`)."""


class SourceKind:
    """One kind of source; the entry point's name is its scheme. A plugin derives from this and has `open` at least."""

    options: Iterable[str] = ()
    """The names of its own options (`OpenOptions.extra`), for the words of a command line."""

    def claims(self, path: Path) -> int:
        """How sure this kind is that `path` is one of its own, from 0 (is not) to 100."""
        return 0

    def files(self, argument: str) -> Sequence[str]:
        """The paths of this host that `argument` names; none for a kind whose argument is no path. Paths that are
        there decide where an argument with colons in it ends."""
        return ()

    def is_whole(self, argument: str) -> bool:
        """Whether all of `argument` names something, and nothing at its end is an option. Of paths those that are
        there are whole."""
        files = self.files(argument)
        return ",".join(files) == argument and all(map(os.path.lexists, filter(None, files)))

    def divided(self, argument: str) -> tuple[str, str | None]:
        """An argument that names no files, and what follows it after a colon; None if nothing does. A URI has colons
        of its own in the name of its host."""
        uri = _URI.match(argument)
        if uri is not None:
            return uri[1], uri[2]
        name, more, rest = argument.partition(":")
        return name, rest if more else None

    def within(self, path: str, rest: str) -> tuple[str, str | None] | None:
        """Of a word `path:rest` whose `path` is there: the argument that names what `rest` begins with, and what
        follows it after a colon, if this kind finds something inside of the file that is called so. May wait."""
        return None

    def absolute(self, argument: str) -> str:
        """`argument` with the paths of its files absolute."""
        return ",".join(map(os.path.abspath, self.files(argument)))

    async def open(self, argument: str, options: OpenOptions) -> Filesystem | BlockDevice:
        """Open what stands behind the scheme. UmlError where it cannot be used; OSError of the file itself."""
        raise NotImplementedError


def refuse_options(source: str, options: OpenOptions, known: Iterable[str] = ()) -> None:
    """UsageError if `options` has one that `source` does not know."""
    unknown = sorted(set(options.extra) - set(known))
    if unknown:
        there = ", ".join(sorted(known))
        raise UsageError(f"{source}: unknown option '{unknown[0]}'", f"it has {there}" if there else "it has none")
