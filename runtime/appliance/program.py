"""The filer, compiled: once for each version of its source, and kept in the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from runtime.host.compiled import compiled

SOURCES: Final = [Path(__file__).with_name(name) for name in ("filer.c", "packer.c")]


def program() -> bytes:
    """The filer, an executable. UmlError if it cannot be compiled. Blocks, half a second the first time."""
    return compiled("filer", SOURCES, "the appliance's program")
