"""Paths in words that stand in a file: they are from the place of that file, whoever reads it from where."""

from __future__ import annotations

import os
from collections.abc import Callable

from umlfs.sources.plugins import entry_points
from umlfs.sources.source import GROUP, kind_at

Place = Callable[[str], str]
"""Makes a path of a path."""


def from_directory(directory: str) -> Place:
    """What makes a relative path one from `directory`, and has `~` and `~USER` stand for homes."""

    def place(path: str) -> str:
        return os.path.normpath(os.path.join(os.path.abspath(directory), os.path.expanduser(path)))

    return place


def for_directory(directory: str) -> Place:
    """What makes a path, relative to the working directory, one for a file in `directory`: relative if it leads below
    that, so that both can be moved together."""
    top = os.path.abspath(directory)

    def place(path: str) -> str:
        if os.path.isabs(path):
            return path
        whole = os.path.abspath(path)
        inside = os.path.relpath(whole, top)
        if inside.split(os.sep)[0] == os.pardir:
            return whole
        return f"./{inside}" if inside.startswith("~") else inside

    return place


def placed(word: str, place: Place) -> str:
    """The source that `word` names, and what follows it, with `place` done to its paths. What has none stays."""
    scheme, colon, rest = word.partition(":")
    points = entry_points(GROUP)
    if not word or rest.startswith("//"):
        return word
    if not colon or scheme not in points:
        return _placed(word, place)
    return f"{scheme}:{_placed(rest, place)}" if kind_at(points[scheme]).files(rest) else word


def _placed(text: str, place: Place) -> str:
    """Of the paths, which commas may separate, each; what follows a colon is none."""
    paths, colon, more = text.partition(":")
    if os.path.lexists(place(paths)):
        return place(paths) + colon + more
    return ",".join(place(path) if path else "" for path in paths.split(",")) + colon + more
