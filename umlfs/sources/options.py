"""Options behind a source, each after a colon: `SRC:ro:cache=never:hide=*.o`. Which there are, the kinds say."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from umlfs.sources.kind import SourceKind
from umlfs.sources.plugins import entry_points
from umlfs.sources.source import GROUP, kind_at

_OPTION: Final = re.compile(r"(.+):([a-z_]+)(?:=([^:]*(?::\d+)*))?\Z", re.DOTALL)
ACCESS: Final = ("ro", "rw")
"""Options of every kind."""

Options = dict[str, str]
"""Values by their names, the first given first; one that was given more than once has its values in lines."""


def split_options(word: str) -> tuple[str, bool, Options]:
    """The word of the source itself, whether it is to be read-only, and its kind's own options.

    A path that is there is one to its end, whatever it looks like, and the tag of a container image is none of them
    (`docker://NAME:ro`). What no kind knows as an option is the path's.
    """
    read_only: bool | None = None
    writable = False
    found: list[tuple[str, str]] = []
    while (match := _OPTION.match(word)) and not _is_whole(word):
        name, value = match[2], match[3]
        if name in ACCESS and value is None:
            if name == "rw" and read_only is None:
                writable = True
            read_only = name == "ro" if read_only is None else read_only  # the last one counts
        elif name in _known():
            found.append((name, value or ""))
        else:
            break
        word = match[1]
    options: Options = {}
    for name, value in found:
        options[name] = f"{value}\n{options[name]}" if name in options else value
    if writable and "rw" in _options_of(word):
        options["rw"] = ""
    return word, bool(read_only), options


def _is_whole(word: str) -> bool:
    """Nothing at its end is an option: it is a path that is there, or its kind says so."""
    kind = _kind_of(word)
    return os.path.lexists(word) or (kind is not None and kind.is_whole(word.partition(":")[2]))


def _options_of(word: str) -> Iterable[str]:
    """Those of the kind that a source says it is. Some only write if they are told to."""
    kind = _kind_of(word)
    return kind.options if kind is not None else ()


def _kind_of(word: str) -> SourceKind | None:
    """The kind that a source says it is, if it does."""
    scheme, colon, _ = word.partition(":")
    target = entry_points(GROUP).get(scheme) if colon else None
    return kind_at(target) if target is not None else None


@lru_cache
def _known() -> frozenset[str]:
    return frozenset(name for target in entry_points(GROUP).values() for name in kind_at(target).options)
