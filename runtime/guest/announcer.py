"""The announcer, compiled: what tells the programs of a guest, or of a mount, what others have changed."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from runtime.host.compiled import compiled, install

_NAME: Final = "announcer"
_SOURCES: Final = [Path(__file__).with_name("announcer.c")]
_WHAT: Final = "what announces changes"


def program() -> bytes:
    """The announcer, an executable. UmlError if it cannot be compiled. Blocks, half a second the first time."""
    return compiled(_NAME, _SOURCES, _WHAT)


def install_program() -> None:
    """Compile it for all users of this installation. UmlError, OSError."""
    install(_NAME, _SOURCES, _WHAT)
