"""`SRC` words to providers.

A source is a path (what it is gets detected) or says its kind: `hostfs:DIR`, `humfs:DIR`, `raw:FILE`,
`cow:FILE`, `nbd://host/name`. Two files joined by a comma are a COW file and its backing file, as on the
kernel's command line. Each kind is an entry point of the group `umlfs.sources` naming a `SourceKind`: those
that come with the project are registered like anyone's plugin.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol, cast

from umlfs.block import BlockDevice
from umlfs.errors import UsageError
from umlfs.filesystem import Filesystem
from umlfs.sources.plugins import entry_points, load

GROUP: Final = "umlfs.sources"


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """How a source is to be opened."""

    read_only: bool = False
    snapshot: bool = False
    """The consumer need not see what others change while it lives, and may cache for as long."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """Options of the kind itself, such as `cache=always`; a kind refuses those that it does not know. One that was
    given more than once has its values on lines of their own."""
    detected: bool = False
    """Nobody said what kind of source it is: a consumer must not make it look like another one for the next time."""
    aside: Sequence[Path] = ()
    """Mount points of this host, without symlinks in them, whose servers may be waiting for what this source
    answers. A kind that shows the host's own directories must not walk into them."""


class SourceKind(Protocol):
    """One kind of source; the entry point's name is its scheme."""

    def claims(self, path: Path) -> int:
        """How sure this kind is that `path` is one of its own, from 0 (is not) to 100."""

    async def open(self, argument: str, options: OpenOptions) -> Filesystem | BlockDevice:
        """Open what stands behind the scheme. UmlError where it cannot be used."""


@dataclass(frozen=True, slots=True)
class Source:
    """A source that was named, not yet opened."""

    scheme: str
    argument: str
    kind: SourceKind
    detected: bool = False
    """It was named by its path alone."""

    def __str__(self) -> str:
        return f"{self.scheme}:{self.argument}"

    async def open(self, options: OpenOptions | None = None) -> Filesystem | BlockDevice:
        """Open it. UmlError where it cannot be used."""
        return await self.kind.open(self.argument, replace(options or OpenOptions(), detected=self.detected))


def schemes() -> list[str]:
    """The names of all kinds installed."""
    return sorted(entry_points(GROUP))


def _kind(target: str) -> SourceKind:
    return cast(SourceKind, load(target))


def parse(text: str) -> Source:
    """What the word `text` names. UsageError for an unknown scheme, a missing path, or a path of no kind."""
    scheme, colon, argument = text.partition(":")
    points = entry_points(GROUP)
    if colon and scheme in points:
        return Source(scheme, argument, _kind(points[scheme]))
    if colon and scheme.isalnum() and not os.path.lexists(text):
        raise UsageError(f"{text}: unknown kind of source '{scheme}'", f"known are {', '.join(schemes())}")
    if "," in text and not os.path.lexists(text) and "cow" in points:
        return Source("cow", text, _kind(points["cow"]))
    return _detect(text)


def _detect(text: str) -> Source:
    path = Path(text)
    if not os.path.lexists(path):
        raise UsageError(f"{path}: no such file or directory", "name an existing one as the source")
    best: tuple[int, str, SourceKind] | None = None
    for scheme, target in entry_points(GROUP).items():
        kind = _kind(target)
        score = kind.claims(path)
        if score and (best is None or score > best[0]):
            best = (score, scheme, kind)
    if best is None:
        raise UsageError(
            f"{path}: not a directory or a file that umlfs can use", f"say its kind: {', '.join(schemes())}"
        )
    return Source(best[1], text, best[2], detected=True)
