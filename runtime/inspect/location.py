"""`SRC[:PARTITION][:PATH]`: a place inside a source, as a word."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from umlfs import sources
from umlfs.block import BlockDevice
from umlfs.errors import UmlError, UsageError
from umlfs.filesystem import Filesystem
from umlfs.sources import OpenOptions, Source, SourceKind

_PARTITION: Final = re.compile(r"([0-9]{1,3})(?::(.*))?\Z", re.DOTALL)


class _MachineKind(SourceKind):
    """A running machine of this user's, by its umid or a path in its directory. No scheme: only here it is known."""

    async def open(self, argument: str, options: OpenOptions) -> Filesystem | BlockDevice:
        raise UsageError(f"{argument}: a running machine", "'uml ls', cp, find, df and diff look into it")


MACHINE: Final = _MachineKind()


def machine_source(word: str) -> Source:
    """The machine that `word` names."""
    return Source("machine", word, MACHINE, word=word)


@dataclass(frozen=True, slots=True)
class Location:
    """A place inside a source."""

    source: Source
    partition: int | None = None
    path: str | None = None
    """As in the source, from its root; None if the word named none."""

    def __str__(self) -> str:
        partition = "" if self.partition is None else f":{self.partition}"
        return f"{self.source}{partition}" + ("" if self.path is None else f":{self.path}")

    @property
    def machine(self) -> bool:
        """The source is a running machine of this user's."""
        return self.source.kind is MACHINE

    @property
    def inside(self) -> bytes:
        """The path as bytes, the root if there is none."""
        return os.fsencode(self.path or "/")


def parse(word: str) -> Location:
    """What `word` names. What comes before a colon is the source if there is such a file or it says its kind; of
    several such colons the last counts. Where no such word is a source, a machine's umid is; the path of a machine's
    directory, or of a socket in it, is the machine. UsageError if there is no source in it."""
    for end in _machine_ends(word):
        return _location(machine_source(word[:end]), word[end + 1 :] if end < len(word) else None)
    try:
        return _location(*sources.split(word))
    except UsageError:
        first, colon, rest = word.partition(":")
        if not is_machine(first):
            raise
        return _location(machine_source(first), rest if colon else None)


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


def _machine_ends(word: str) -> Iterator[int]:
    """Where the path of a machine's directory, or of a socket in it, ends in `word`."""
    if "/" in word:
        for end in sources.ends(word):
            if os.path.lexists(word[:end]):
                if _is_machines_place(word[:end]):
                    yield end
                return


def _location(source: Source, rest: str | None) -> Location:
    if rest is None:
        return Location(source)
    numbered = _PARTITION.match(rest)
    if numbered is None:
        return Location(source, None, rest)
    return Location(source, int(numbered[1]), numbered[2])
