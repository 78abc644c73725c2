"""Where a copy comes from and goes to: words of a command line to places in trees."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from runtime.inspect import location
from runtime.inspect.location import Location
from runtime.inspect.paths import Node, failure, resolve
from umlfs import sources
from umlfs.errors import UsageError, no_such
from umlfs.filesystem import Filesystem
from umlfs.sources import Source


def place_of(word: str, *, follow: bool = True, there: bool = False) -> Location:
    """The place that a word names: inside a source, or a path of this host, whose directory is the source then.

    `follow` if a symlink that the path is stands for what it leads to; `there` if it must exist. UsageError.
    """
    if location.is_remote(word):
        return location.parse(word)
    if there and not os.path.lexists(word):
        raise no_such(word, "name a file, or a source that is there")
    if os.path.isdir(word) and (follow or not os.path.islink(word)):
        return Location(_directory(os.path.realpath(word)), None, "/")
    whole = os.path.realpath(word) if follow else word
    directory = os.path.realpath(os.path.dirname(whole.rstrip("/")) or ".")
    if not os.path.isdir(directory):
        raise no_such(directory, "make it first", what="no such directory", shown=word)
    return Location(_directory(directory), None, os.path.basename(whole.rstrip("/")))


def _directory(path: str) -> Source:
    return sources.parse(f"hostfs:{path}")


def own_name(word: str) -> bytes:
    """The name that what `word` names has, for a copy into a directory; empty for the root of a source."""
    if location.is_remote(word):
        path = location.parse(word).path or "/"
        return os.fsencode(os.path.basename(os.path.normpath(path)))
    return os.fsencode(os.path.basename(os.path.abspath(word)))


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a copy is to be made."""

    parent: Node
    name: bytes


async def destination(filesystem: Filesystem, path: bytes, name: bytes, word: str) -> Destination:
    """Where a copy of something called `name` to `path` goes: into the directory that is there, else under that name.

    UsageError if there is no name for it; OSError if there is no such directory.
    """
    try:
        found = await resolve(filesystem, path)
    except FileNotFoundError:
        found = None
    if found is not None and found.is_directory:
        if not name:
            raise UsageError(f"{word}: the copy of a root needs a name", f"write {word.rstrip('/')}/NAME")
        return Destination(found, name)
    above, _, last = path.rstrip(b"/").rpartition(b"/")
    parent = await resolve(filesystem, above or b"/")
    if not parent.is_directory:
        raise failure(errno.ENOTDIR, above)
    if last in (b"", b".", b".."):
        raise UsageError(f"{word}: no name for the copy", "name a file")
    return Destination(parent, last)
