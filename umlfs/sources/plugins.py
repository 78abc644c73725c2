"""Entry points of what is installed: how plugins make themselves known.

Defined in the Entry points specification of the Python Packaging User Guide. Read here, for `importlib.metadata`
takes longer to import than a whole command takes to start; what it adds (zip files, eggs) is not read.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

FILE = "entry_points.txt"


def entry_points(group: str) -> Mapping[str, str]:
    """The entry points of `group`: `module:attribute` by name. Of two of one name the first on the path counts."""
    return _found(group, tuple(sys.path))


@lru_cache
def _found(group: str, directories: tuple[str, ...]) -> Mapping[str, str]:
    """Those below `directories`, looked for once in a process: a word may need them again and again."""
    found: dict[str, str] = {}
    for text in _texts(directories):
        if f"[{group}]" in text:
            for name, target in _members(text, group):
                found.setdefault(name, target)
    return MappingProxyType(found)


def load(target: str) -> object:
    """What `module:attribute` names. ImportError, AttributeError."""
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)


def _texts(directories: tuple[str, ...]) -> Iterator[str]:
    for place in dict.fromkeys(directories):
        try:
            names = sorted(os.listdir(place or "."))
        except OSError:
            continue
        for name in names:
            if name.endswith((".dist-info", ".egg-info")):
                try:
                    yield Path(place, name, FILE).read_text("utf-8")
                except OSError:  # most have none
                    continue


def _members(text: str, group: str) -> Iterator[tuple[str, str]]:
    """The lines `name = module:attribute [extras]` of one section."""
    inside = False
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            inside = line == f"[{group}]"
        elif inside and "=" in line and not line.startswith(("#", ";")):
            name, _, target = line.partition("=")
            yield name.strip(), target.partition("[")[0].strip()
