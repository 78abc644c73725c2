"""Which commands need nothing but appliances that are kept already."""

from __future__ import annotations

from runtime.appliance.keeping import connect, socket_path
from runtime.inspect import location
from umlfs.errors import UmlError


def needs_only_kept(arguments: list[str]) -> bool:
    """Whether `uml ARGUMENTS`, one of the commands that look into sources, reads images, and only such that are kept.

    One that writes to an image, or looks into a machine, is none of them. Nor is one that a program reads through.
    """
    command, *words = arguments
    words = [word for word in words if not word.startswith("-")]
    if command == "cp" and words and location.is_remote(words[-1]):
        return False
    if command == "cp":
        words = words[:-1]
    found = [_is_kept(word) for word in words]
    return True in found and False not in found


def _is_kept(word: str) -> bool | None:
    """Whether the source in `word` is kept; None if it needs no appliance, or is no source."""
    try:
        place = location.parse(word)
    except UmlError:
        return None
    if place.machine:
        return False
    if socket_path(place.source) is None:
        return None
    connection = connect(place.source)
    if connection is None:
        return False
    connection.close()
    return True
