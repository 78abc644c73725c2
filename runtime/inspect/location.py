"""`SRC[:PARTITION][:PATH]`: a place inside a source, as a word."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from umlfs import sources
from umlfs.errors import UmlError, UsageError

_URI: Final = re.compile(r"([a-z+]+://[^/]*(?:/[^:]*)?)(?::(.*))?\Z", re.DOTALL)
"""A URI, in whose path a colon is written `%3A`, and the rest."""
_PARTITION: Final = re.compile(r"([0-9]{1,3})(?::(.*))?\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Location:
    """A place inside a source."""

    source: str
    """A `SRC` word, or the umid of a machine."""
    partition: int | None = None
    path: str | None = None
    """As in the source, from its root; None if the word named none."""
    machine: bool = False
    """The source is a running machine of this user's."""

    def __str__(self) -> str:
        partition = "" if self.partition is None else f":{self.partition}"
        return f"{self.source}{partition}" + ("" if self.path is None else f":{self.path}")

    @property
    def inside(self) -> bytes:
        """The path as bytes, the root if there is none."""
        return os.fsencode(self.path or "/")


def parse(word: str) -> Location:
    """What `word` names. What comes before a colon is the source if there is such a file or it says its kind; of
    several such colons the last counts. Where no such word is a source, a machine's umid is; the path of a machine's
    directory, or of a socket in it, is the machine. UsageError if there is no source in it."""
    uri = _URI.match(word)
    if uri is not None and word.partition(":")[0] in sources.schemes():
        return _location(uri[1], uri[2])
    for end in _ends(word):
        if _is_source(word[:end]):
            found = _location(word[:end], word[end + 1 :] if end < len(word) else None)
            return replace(found, machine=_is_machines_place(found.source))
    first, colon, rest = word.partition(":")
    if is_machine(first):
        return replace(_location(first, rest if colon else None), machine=True)
    raise UsageError(
        f"{first or word}: no such file or directory", "name a source, such as IMAGE, IMAGE:PARTITION:/PATH or DIR"
    )


def is_remote(word: str) -> bool:
    """Whether the word is a place inside a source, as scp tells: there is a colon, and a source before it. A file of
    this host that has one in its name is written with `./`."""
    if word.startswith(("/", "./", "../")) and os.path.lexists(word):
        return False
    try:
        found = parse(word)
    except UsageError:
        return False
    return found.path is not None or found.partition is not None


def is_machine(word: str) -> bool:
    """Whether a machine of this user's has that umid, and runs."""
    from runtime.machines import directory

    try:
        path = directory.machines_directory() / directory.check_umid(word)
    except UmlError:
        return False
    return directory.runs(path)


def _is_machines_place(source: str) -> bool:
    """Whether it is the path of the directory of a machine, wherever that is, or of a socket in it."""
    if "/" not in source or os.path.isfile(source):
        return False
    from runtime.machines.directory import machine_at

    return machine_at(source) is not None


def _ends(word: str) -> Iterator[int]:
    yield len(word)
    for position in range(len(word) - 1, 0, -1):
        if word[position] == ":":
            yield position


def _is_source(text: str) -> bool:
    if os.path.lexists(text):
        return True
    scheme, colon, argument = text.partition(":")
    if colon and scheme in sources.schemes():
        return all(map(os.path.lexists, argument.split(",")))
    return "," in text and all(map(os.path.lexists, text.split(",")))


def _location(source: str, rest: str | None) -> Location:
    if rest is None:
        return Location(source)
    numbered = _PARTITION.match(rest)
    if numbered is None:
        return Location(source, None, rest)
    return Location(source, int(numbered[1]), numbered[2])
