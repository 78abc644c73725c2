"""Modes as chmod(1) takes them: octal, or `u+rwX,go-w`."""

from __future__ import annotations

import re
from typing import Final

from umlfs.errors import UsageError

_CLAUSE: Final = re.compile(r"([ugoa]*)((?:[-+=][rwxXst]*)+)\Z")
_ACTION: Final = re.compile(r"([-+=])([rwxXst]*)")
_SHIFTS: Final = {"u": 6, "g": 3, "o": 0}
_BITS: Final = {"r": 4, "w": 2, "x": 1}
_SET_ID: Final = {"u": 0o4000, "g": 0o2000}
STICKY: Final = 0o1000
OCTAL_MAX: Final = 0o7777


def check(text: str) -> str:
    """`text`. UsageError if it is no mode."""
    if not (_octal(text) is not None or all(_CLAUSE.match(clause) for clause in text.split(","))):
        raise UsageError(f"{text}: not a mode", "write 644, 0755, u+x or go-rwx")
    return text


def applied(text: str, mode: int, *, directory: bool) -> int:
    """The permission bits that `text` makes of `mode`."""
    octal = _octal(text)
    if octal is not None:
        return octal
    for clause in text.split(","):
        match = _CLAUSE.match(clause)
        assert match is not None, "it was checked"
        who = match[1].replace("a", "ugo") or "ugo"
        for sign, letters in _ACTION.findall(match[2]):
            mode = _act(mode, who, sign, letters, directory)
    return mode


def _octal(text: str) -> int | None:
    if re.fullmatch("[0-7]{1,5}", text) and int(text, 8) <= OCTAL_MAX:
        return int(text, 8)
    return None


def _act(mode: int, who: str, sign: str, letters: str, directory: bool) -> int:
    bits = 0
    everything = 0
    runs = directory or bool(mode & 0o111)
    for each in who:
        bits |= sum(_BITS[letter] for letter in set(letters) & set(_BITS)) << _SHIFTS[each]
        bits |= 1 << _SHIFTS[each] if "X" in letters and runs else 0
        bits |= _SET_ID.get(each, 0) if "s" in letters else 0
        everything |= 0o7 << _SHIFTS[each] | (0 if directory else _SET_ID.get(each, 0))
    bits |= STICKY if "t" in letters else 0
    if sign == "+":
        return mode | bits
    return mode & ~bits if sign == "-" else mode & ~everything | bits
