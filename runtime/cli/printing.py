"""Text of others, made fit for a terminal: names come from guests and images."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` in one line, with every character that could drive a terminal escaped. Bytes that are no text are shown as
    such."""
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def printable_lines(text: str) -> str:
    """`text` likewise, in as many lines as it has."""
    return "\n".join(map(printable, text.split("\n")))


def _escaped(character: str) -> str:
    try:
        byte = character.encode("ascii", "surrogateescape")
    except UnicodeEncodeError:
        return character.encode("unicode_escape").decode()
    return f"\\x{byte[0]:02x}" if byte[0] > 127 else character.encode("unicode_escape").decode()
