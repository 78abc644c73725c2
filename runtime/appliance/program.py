"""The filer, compiled: once for each version of its source, and kept in the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from runtime.host.compiled import compiled, install

SOURCES: Final = [Path(__file__).with_name(name) for name in ("filer.c", "packer.c")]

NAME: Final = "filer"
WHAT: Final = "the appliance's program"


def program() -> bytes:
    """The filer, an executable. UmlError if it cannot be compiled. Blocks, half a second the first time."""
    return compiled(NAME, SOURCES, WHAT)


def install_program() -> None:
    """Compile it for all users of this installation. UmlError, OSError."""
    install(NAME, SOURCES, WHAT)
