"""`SRC` words to providers.

A source is a path (what it is gets detected) or says its kind: `hostfs:DIR`, `humfs:DIR`, `raw:FILE`,
`cow:FILE`, `nbd://host/name`. Two files joined by a comma are a COW file and its backing file, as on the
kernel's command line. Each kind is an entry point of the group `umlfs.sources` naming a `SourceKind`: those
that come with the project are registered like anyone's plugin.

A word is parsed once, where it comes in; all rooms behind that have the `Source`.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Final, cast

from umlfs.block import BlockDevice
from umlfs.errors import UmlError, UsageError, no_such
from umlfs.filesystem import Filesystem
from umlfs.sources.kind import BEHIND_SCHEME, OpenOptions, SourceKind
from umlfs.sources.plugins import entry_points, load

GROUP: Final = "umlfs.sources"
NOT_WRITABLE: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
"""What opening for writing may fail with where reading is possible."""

_URI: Final = re.compile(rf"([a-z+]+:{BEHIND_SCHEME})(?::(.*))?\Z", re.DOTALL)
"""A URI, in whose path a colon is written `%3A`, and the rest."""


@dataclass(frozen=True, slots=True)
class Source:
    """A source that was named, not yet opened."""

    scheme: str
    argument: str
    kind: SourceKind
    detected: bool = False
    """It was named by its path alone."""
    word: str = field(default="", compare=False)
    """As the person wrote it."""

    def __str__(self) -> str:
        """What is printed for it: the person's own word."""
        return self.word or self.full

    @property
    def full(self) -> str:
        """The word with its kind."""
        return f"{self.scheme}:{self.argument}"

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of this host that it names."""
        return tuple(self.kind.files(self.argument))

    def key(self) -> tuple[object, ...]:
        """Changes when the source is another one, or one of its files was changed. OSError if one is not there."""
        return (self.scheme, *(_file_key(path) for path in self.files)) if self.files else (self.scheme, self.argument)

    def absolute(self) -> Source:
        """The same, whatever the working directory will be."""
        argument = self.argument
        if self.files and all(map(os.path.lexists, self.files)):
            argument = self.kind.absolute(argument)
        return replace(self, argument=argument, word="" if argument != self.argument else self.word)

    async def open(self, options: OpenOptions | None = None) -> Filesystem | BlockDevice:
        """Open it. UmlError where it cannot be used, with the source's name."""
        wanted = replace(options or OpenOptions(), detected=self.detected)
        try:
            return await self.kind.open(self.argument, wanted)
        except OSError as error:
            raise Unopened(self, error, wanted) from error

    async def filesystem(self, options: OpenOptions | None = None) -> Filesystem:
        """Open it as a filesystem. UmlError; UsageError if it is a disk."""
        found = await self.open(options)
        if isinstance(found, Filesystem):
            return found
        await found.close()
        raise UsageError(f"{self} is not a filesystem", "'uml serve nbd', serve virtioblk and --ubd take disks")

    async def device(self, options: OpenOptions | None = None) -> BlockDevice:
        """Open it as a block device. UmlError; UsageError if it is a tree of files."""
        found = await self.open(options)
        if isinstance(found, BlockDevice):
            return found
        await found.close()
        raise UsageError(
            f"{self} is not a block device", "'uml serve virtiofs', uml mount and --mount take trees of files"
        )


class Unopened(UmlError):
    """A file of a source could not be opened: `error` says why."""

    def __init__(self, source: Source, error: OSError, options: OpenOptions) -> None:
        self.error = error
        why = os.strerror(error.errno) if error.errno else str(error)
        named = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
        what = f"{source}: {why}" if named in ("", *source.files) else f"{source}: {named}: {why}"
        if error.errno in NOT_WRITABLE and not options.read_only and all(map(_readable, source.files)):
            super().__init__(f"{source}: cannot be written: {why}", "open it read-only")
        else:
            super().__init__(what, "use a source that you may open")


def _readable(path: str) -> bool:
    return os.access(path, os.R_OK, effective_ids=True)


def _file_key(path: str) -> tuple[object, ...]:
    status = os.stat(path)
    return os.path.realpath(path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def schemes() -> list[str]:
    """The names of all kinds installed."""
    return sorted(entry_points(GROUP))


@lru_cache
def kind_at(target: str) -> SourceKind:
    """The kind that an entry point names. ImportError, AttributeError."""
    return cast(SourceKind, load(target))


def as_source(source: Source | str) -> Source:
    """`source`, parsed if it is a word still. UsageError."""
    return parse(source) if isinstance(source, str) else source


def parse(text: str) -> Source:
    """What the word `text` names. UsageError for an unknown scheme, a missing path, or a path of no kind."""
    scheme, colon, argument = text.partition(":")
    points = entry_points(GROUP)
    if colon and scheme in points:
        return Source(scheme, argument, kind_at(points[scheme]), word=text)
    if colon and scheme.isalnum() and not os.path.lexists(text):
        raise UsageError(f"{text}: unknown kind of source '{scheme}'", f"known are {', '.join(schemes())}")
    if "," in text and not os.path.lexists(text) and "cow" in points:
        return Source("cow", text, kind_at(points["cow"]), word=text)
    return detect(text)


def detect(text: str) -> Source:
    """The source at the path `text`, whatever colons it has. UsageError for a missing path, or one of no kind."""
    path = Path(text)
    if not os.path.lexists(path):
        inside = _within(text)
        if inside is not None and inside[1] is None:
            return inside[0]
        raise no_such(path, "name an existing one as the source")
    best: tuple[int, str, SourceKind] | None = None
    for scheme, target in entry_points(GROUP).items():
        kind = kind_at(target)
        score = _claim(kind, path)
        if score and (best is None or score > best[0]):
            best = (score, scheme, kind)
    if best is None:
        raise UsageError(
            f"{path}: not a directory or a file that umlfs can use", f"say its kind: {', '.join(schemes())}"
        )
    return Source(best[1], text, best[2], detected=True, word=text)


def _within(word: str) -> tuple[Source, str | None] | None:
    """What a word names that lies inside of a file, which ends at the last colon where there is one; and what follows
    it. Nothing if no kind knows it."""
    for end in ends(word):
        if end < len(word) and os.path.isfile(word[:end]):
            for scheme, target in entry_points(GROUP).items():
                found = kind_at(target).within(word[:end], word[end + 1 :])
                if found is not None:
                    argument, rest = found
                    own = word if rest is None else word[: -len(rest) - 1]
                    return Source(scheme, argument, kind_at(target), detected=True, word=own), rest
            return None
    return None


def _claim(kind: SourceKind, path: Path) -> int:
    """Its claim; none of a path that it may not look at, which who opens it is told."""
    try:
        return kind.claims(path)
    except OSError:
        return 0


# A source, and what follows it ----------------------------------------------------------------


def split(word: str) -> tuple[Source, str | None]:
    """The source that `word` begins with, and what follows it after a colon; None if nothing does.

    A source ends where there is such a file, of several such ends at the last; one whose argument is no path at the
    first colon behind its scheme, or behind a URI. UsageError if there is none.
    """
    uri = _URI.match(word)
    points = entry_points(GROUP)
    scheme, colon, argument = word.partition(":")
    if colon and scheme in points and not kind_at(points[scheme]).files(argument):
        name, rest = kind_at(points[scheme]).divided(argument)
        return parse(f"{scheme}:{name}"), rest
    if uri is not None and scheme in points:
        return parse(uri[1]), uri[2]
    for end in ends(word):
        if _names_files(word[:end]):
            inside = _within(word) if end < len(word) and ":" not in word[:end] else None
            if inside is not None:
                return inside
            return parse(word[:end]), word[end + 1 :] if end < len(word) else None
    said = scheme in points and bool(colon)
    name = ":".join(word.split(":")[: 1 + said]) or word
    raise no_such(name.partition(":")[2] if said else name, "name a source that is there", shown=name)


def ends(word: str) -> Iterator[int]:
    """Where a source may end in `word`: at its end, and at each colon from the last to the first."""
    yield len(word)
    for position in range(len(word) - 1, 0, -1):
        if word[position] == ":":
            yield position


def _names_files(text: str) -> bool:
    """Whether all files are there that `text` names as a source."""
    if os.path.lexists(text):
        return True
    scheme, colon, argument = text.partition(":")
    points = entry_points(GROUP)
    if colon and scheme in points:
        return all(map(os.path.lexists, kind_at(points[scheme]).files(argument)))
    return "," in text and all(map(os.path.lexists, text.split(",")))
