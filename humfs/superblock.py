"""The superblock of a humfs directory: a text file, one `key value` on each line.

    version 2
    metadata sqlite
    used 24576
    total 536870912

`version` is 2 (1 is the layout of 2004, which only `humfsify -r` reads). `metadata` names the format that owners
and modes are kept in: `sqlite` or, the historical one and what is meant where the line is missing, `shadow_fs`.
`used` and `total` are bytes. The lines may come in any order; any other refuses the directory.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from umlfs.errors import UmlError, UsageError
from umlfs.host.newfile import sync_path
from umlfs.sizes import size_of

FILE: Final = "superblock"
SQLITE: Final = "sqlite"
SHADOW_FS: Final = "shadow_fs"
VERSION: Final = 2
LINE_MAX: Final = 63
"""What the historical driver took of a line, in bytes."""
FILE_MAX: Final = 4096
"""More than any superblock is long."""

SIZE_MAX: Final = 1 << 62
_KEYS: Final = ("version", "metadata", "used", "total")


@dataclass(slots=True)
class Superblock:
    """What the file says."""

    used: int
    """Bytes taken. Exact when the directory was closed in order."""
    total: int
    """Bytes that the guest may take."""
    metadata: str = SQLITE
    version: int = VERSION

    def format(self) -> str:
        """The text of the file."""
        return f"version {self.version}\nmetadata {self.metadata}\nused {self.used}\ntotal {self.total}\n"


def parse(text: str) -> Superblock:
    """What a superblock's text says. ValueError naming the line that is wrong, or the field that is missing."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key not in _KEYS or key in fields or not value or len(line) > LINE_MAX:
            raise ValueError(f"bogus line '{line[:LINE_MAX]}'")
        fields[key] = value.strip()
    missing = [key for key in ("version", "used", "total") if key not in fields]
    if missing:
        raise ValueError(f"no line '{missing[0]}'")
    numbers = {key: _number(key, fields[key]) for key in ("version", "used", "total")}
    if numbers["version"] not in (1, VERSION):
        raise ValueError(f"version {numbers['version']} is neither 1 nor {VERSION}")
    if not numbers["total"]:
        raise ValueError("total is 0")
    metadata = fields.get("metadata", SHADOW_FS)
    return Superblock(numbers["used"], numbers["total"], metadata, numbers["version"])


def _number(key: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) > SIZE_MAX:
        raise ValueError(f"{key} '{text}' is not a number of bytes")
    return int(text)


def read(root: Path) -> Superblock:
    """The superblock of the humfs directory `root`. UmlError if there is none or it is not one."""
    path = root / FILE
    try:
        with open(path, "rb") as file:
            text = file.read(FILE_MAX).decode("ascii", "replace")
    except FileNotFoundError:
        raise UmlError(f"{root}: no superblock, so no humfs directory", "make one with 'uml humfs create'") from None
    except NotADirectoryError:
        raise UmlError(
            f"{root}: not a directory, so no humfs directory", "name the one that 'uml humfs create' made"
        ) from None
    except OSError as error:
        raise UmlError(f"{path}: {error.strerror}") from None
    try:
        return parse(text)
    except ValueError as error:
        raise UmlError(
            f"{path}: {error}", "write 'version 2', 'metadata NAME', 'used BYTES' and 'total BYTES' into it"
        ) from None


def write(root: Path, superblock: Superblock, *, durable: bool = True) -> None:
    """Replace the superblock of `root`; whatever happens, the old or the new one is there. Durable on return, unless
    that is not asked for."""
    temporary = root / f".{FILE}.{os.getpid()}"
    try:
        with open(temporary, "w", encoding="ascii") as file:
            file.write(superblock.format())
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, root / FILE)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if durable:
        sync_path(root)


def parse_size(word: str) -> int:
    """Bytes from a number with K, M, G or T (of 1024) behind it or nothing. UsageError for anything else."""
    size = size_of(word)
    if size is None:
        raise UsageError(f"Bad filesystem size - '{word}'", "say bytes, or a number with K, M, G or T behind it")
    if not 0 < size <= SIZE_MAX:
        raise UsageError(f"Bad filesystem size - '{word}'", "say more than 0 and less than 4194304T")
    return size
