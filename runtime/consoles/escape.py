"""What a person types to leave a line that takes every other key."""

from __future__ import annotations

from typing import Final

from umlfs.errors import UsageError

_TILDE: Final = ord("~")
_DOT: Final = ord(".")
_ENDS: Final = b"\r\n"


def parse_key(text: str) -> int | None:
    """`^]`, `^A` or `none`: the control character that leaves. UsageError for what is none."""
    if text == "none":
        return None
    if len(text) == 2 and text[0] == "^" and "@" <= text[1].upper() <= "_":
        return ord(text[1].upper()) & 0x1F
    raise UsageError(f"--escape {text}: not a control character", "write it as ^] or ^A, or none")


class Escape:
    """Finds the end in what is typed: the key, or `~.` at the beginning of a line, where `~~` is a `~`."""

    def __init__(self, key: int | None) -> None:
        self._key = key
        self.hint = "" if key is None else f"Ctrl-{chr(key | 0x40)} or Enter ~. leaves"
        """A word for the person; nothing where every key is the guest's."""
        self._at_start = True
        self._tilde = False
        """A ~ was typed at the beginning of a line, and is held back until it is clear what it is."""

    def typed(self, data: bytes) -> tuple[bytes, bool]:
        """What of `data` is for the guest, and whether the person wants to leave after it."""
        if self._key is None:
            return data, False
        passed = bytearray()
        for key in data:
            if key == self._key or (self._tilde and key == _DOT):
                return bytes(passed), True
            if self._tilde:
                self._tilde = False
                passed += b"~" if key == _TILDE else bytes([_TILDE, key])
            elif self._at_start and key == _TILDE:
                self._tilde = True
            else:
                passed.append(key)
            self._at_start = key in _ENDS
        return bytes(passed), False
