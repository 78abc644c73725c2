"""Standard output whose errors say that they are its own."""

from __future__ import annotations

import io
import os
from typing import Any, Final, TextIO

NAME: Final = "standard output"


class _NamedFile(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = NAME
            raise


def named(like: TextIO | None) -> TextIO:
    """A stream to descriptor 1 as `like`, which the interpreter made for it, or as it would; an OSError of it has the
    name `NAME`."""
    raw = _NamedFile(1, "wb", closefd=False)
    through = bool(getattr(like, "write_through", False))
    # Without a buffer between, write_through means what it says.
    binary: Any = raw if through else io.BufferedWriter(raw)
    encoding, errors = (like.encoding, like.errors) if like else (None, None)
    return io.TextIOWrapper(binary, encoding, errors, "\n", os.isatty(1), through)
