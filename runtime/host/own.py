"""Command lines of our own programs, for processes of their own. What lies in the current directory, or is installed by
others under the name of one of our packages, is never run instead."""

from __future__ import annotations

import sys
from typing import Final

_UML: Final = "from umlfs.entry import uml; uml()"


def module(name: str, *arguments: str) -> list[str]:
    """Of the module `name`, run as a program."""
    return [sys.executable, "-P", "-m", "umlfs.entry", name, *arguments]


def uml(*arguments: str) -> list[str]:
    """Of `uml`."""
    return [sys.executable, "-P", "-c", _UML, *arguments]
