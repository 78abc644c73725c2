"""`ubd<unit><flags>=<file>[,<backing>[,<serial>]]`: the words of the kernel's ubd driver. No files are touched.

As `arch/um/drivers/ubd_kern.c` of Linux 6.1 parses them, in its own words where they are wrong.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from umlfs.errors import UsageError
from umlfs.sources.source import schemes

UNITS: Final = 16
FLAGS: Final = "rsdct"
FLAGS_MAX: Final = 6
DIGITS_MAX: Final = 20
"""More digits are out of range without a look."""

_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*")
_SOURCE: Final = re.compile(r"([a-z][a-z0-9+]*):(?!//)(.+)\Z", re.DOTALL)
_FIELD: Final = re.compile(r"[a-z][a-z0-9+]*://[^,]*|[^,:]*")
"""A file, or the URI of a disk that is none, in which a colon does not separate."""


@dataclass(frozen=True, slots=True)
class Spec:
    """One device. Paths are as given: relative ones to the working directory when it is opened."""

    unit: int
    """0 to 15: `ubda` to `ubdp` in the guest."""
    file: str
    backing: str | None = None
    """The backing file of a COW file."""
    serial: str | None = None
    read_only: bool = False
    """`r`"""
    sync: bool = False
    """`s`: every write is durable when the guest hears of it."""
    plain: bool = False
    """`d`: no COW file, whatever it looks like."""
    shared: bool = False
    """`c`: others write it at the same time, for cluster filesystems."""
    no_trim: bool = False
    """`t`: nothing is given back to the host."""

    @property
    def name(self) -> str:
        """What the guest calls it."""
        return f"ubd{chr(ord('a') + self.unit)}"

    def __str__(self) -> str:
        given = zip(FLAGS, (self.read_only, self.sync, self.plain, self.shared, self.no_trim), strict=True)
        flags = "".join(flag for flag, is_set in given if is_set)
        fields = [self.file, self.backing or "", self.serial or ""]
        while not fields[-1]:
            fields.pop()
        return f"ubd{self.unit}{flags}={','.join(fields)}"


def parse(text: str) -> Spec:
    """The device that `text` describes. UsageError, in the driver's words, for what it would refuse."""
    if text.startswith("udb"):
        raise UsageError(f"{text} is almost certainly a ubd -> udb TYPO", f"did you mean ubd{text[3:]}?")
    if not text.startswith("ubd"):
        raise _error(text, "does not begin with 'ubd'")
    if "\0" in text:
        raise _error(repr(text), "no path holds a NUL")
    unit, rest = _unit(text, text[3:])
    letters, equals, value = rest.partition("=")
    if not equals or set(letters) - set(FLAGS):
        raise _error(text, "Expected '=' or flag letter (r, s, c, t or d)")
    if len(letters) > FLAGS_MAX:
        raise _error(text, "Too many flags specified")
    letters, value = _of_source(text, letters, value)
    file, backing, serial = _fields(text, value)
    if backing and "d" in letters:
        raise _error(text, "Can't specify both 'd' and a cow file")
    return Spec(
        unit,
        file,
        backing,
        serial,
        read_only="r" in letters,
        sync="s" in letters,
        plain="d" in letters,
        shared="c" in letters,
        no_trim="t" in letters,
    )


def _of_source(text: str, letters: str, value: str) -> tuple[str, str]:
    """Flags and fields of a value that names a source of ours. `raw:FILE` is no COW file `raw` over FILE, as the driver
    would have it."""
    named = _SOURCE.match(value)
    if named is None or named[1] == "cow" or named[1] not in schemes():
        return letters, value
    if named[1] == "raw":
        return letters + "d", named[2]
    raise UsageError(f"{text}: '{named[1]}:' is no disk's", f"write ubd…={named[2]}: what a file is, is found out")


def _unit(text: str, rest: str) -> tuple[int, str]:
    """The unit that `rest` begins with, a number as in C or a letter, and what follows."""
    number = _NUMBER.match(rest)
    if number is not None:
        digits = number[0]
        base = 16 if digits[:2].lower() == "0x" else 8 if digits[0] == "0" else 10
        unit = int(digits, base) if len(digits) <= DIGITS_MAX else UNITS
        rest = rest[number.end() :]
    elif rest[:1].isascii() and rest[:1].islower():
        unit, rest = ord(rest[0]) - ord("a"), rest[1:]
    else:
        raise _error(text, "Couldn't parse device number")
    if unit >= UNITS:
        raise _error(text, "Device number out of range")
    return unit, rest


def _fields(text: str, value: str) -> tuple[str, str | None, str | None]:
    """File, backing file and serial number; an empty field is an absent one."""
    fields = _split(value)
    if len(fields) > 3:
        raise _error(text, "more than a file, a backing file and a serial number (paths hold no ',' and ':')")
    file, backing, serial = [*fields, "", ""][:3]
    if not file:
        raise _error(text, "no file named")
    return file, backing or None, serial or None


def _split(value: str) -> list[str]:
    """The fields between the separators `,` and `:`."""
    fields, position = [], 0
    while position <= len(value):
        found = _FIELD.match(value, position)
        assert found is not None  # an empty field matches too
        fields.append(found[0])
        position = found.end() + 1
    return fields


def _error(text: str, why: str) -> UsageError:
    return UsageError(f"{text}: {why}", "write ubd<0-15 or a-p>[r][s][d][c][t]=FILE[,BACKING[,SERIAL]]")
