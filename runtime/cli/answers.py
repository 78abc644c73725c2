"""What a machine answers, on standard output."""

from __future__ import annotations

import sys

from runtime.cli.printing import printable_lines


def write(text: str) -> None:
    """Write what came from a guest: byte by byte, but on a terminal only what does not drive it."""
    if sys.stdout.isatty():
        text = "\t".join(printable_lines(part) for part in text.split("\t"))
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode(errors="surrogateescape"))
    sys.stdout.buffer.flush()


def take_any_bytes() -> None:
    """Let what is typed or piped in be no UTF-8: a path need not be."""
    for stream in (sys.stdin, sys.stdout):
        stream.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
