"""The libraries of an executable: what a jail must show besides the program itself.

Only the tables of the file are read (System V ABI, chapter 5); nothing of it is run.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from umlfs.errors import UmlError

DIRECTORIES: Final = tuple(
    map(Path, ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"))
)
"""Where a dynamic linker looks without a cache."""
LIBRARIES_MAX: Final = 64
LIBC: Final = "libc.so.6"
UNWINDER: Final = "libgcc_s.so.1"
_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM: Final = struct.Struct("<IIQQQQQQ")
_DYNAMIC: Final = struct.Struct("<qQ")
_LOAD, _DYN, _INTERPRETER = 1, 2, 3
_NEEDED, _STRTAB, _RPATH, _RUNPATH = 1, 5, 15, 29


class _Tables(NamedTuple):
    """What a file says of others."""

    interpreter: str
    needed: list[str]
    paths: list[str]
    """Where they are to be looked for first (DT_RPATH, DT_RUNPATH)."""


def libraries(program: Path) -> list[Path]:
    """The dynamic linker and all libraries that `program` needs; none of a static one. UmlError for one that is not
    found, or a file that is no ELF-64 file: so nothing else can be had by naming it as a library."""
    found: dict[str, Path] = {}
    waiting = [program]
    interpreters: list[Path] = []
    while waiting and len(found) < LIBRARIES_MAX:
        path = waiting.pop()
        tables = _read(path)
        if tables.interpreter and not interpreters:
            interpreters.append(Path(tables.interpreter))
            waiting.append(interpreters[0])
        places = [_place(each, path) for text in tables.paths for each in text.split(":") if each]
        for name in tables.needed:
            if name not in found:
                found[name] = _find(name, places, path)
                waiting.append(found[name])
    return list(dict.fromkeys([*interpreters, *found.values(), *_loaded_by(found)]))


def _loaded_by(found: Mapping[str, Path]) -> list[Path]:
    """The library that a C library loads by itself, to cancel a thread, and without which it aborts: from Linux 7 on
    kernels do that at their end."""
    if LIBC not in found:
        return []
    places = (directory / UNWINDER for directory in (found[LIBC].parent, *DIRECTORIES))
    return [path for path in places if path.is_file()][:1]


def _place(text: str, path: Path) -> Path:
    return Path(text.replace("${ORIGIN}", "$ORIGIN").replace("$ORIGIN", str(path.parent)))


def _find(name: str, places: Sequence[Path], path: Path) -> Path:
    for directory in (*places, *DIRECTORIES):
        if (directory / os.path.basename(name)).is_file():
            return directory / os.path.basename(name)
    raise UmlError(f"{path}: its library {name} is not in {DIRECTORIES[0]} or {DIRECTORIES[2]}", "link it statically")


def _read(path: Path) -> _Tables:
    """The interpreter, and the names of the libraries needed directly."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content:
            return _parse(content)
    except (OSError, ValueError, OverflowError, struct.error) as error:
        raise UmlError(f"{path}: cannot be run: {error}", "name an executable for this machine") from None


def _parse(content: mmap.mmap) -> _Tables:
    header = _HEADER.unpack_from(content)
    if header[0][:6] != b"\x7fELF\x02\x01":
        raise ValueError("no ELF-64 file")
    segments = [_PROGRAM.unpack_from(content, header[5] + number * header[9]) for number in range(header[10])]
    interpreter = next((_text(content, each[2]) for each in segments if each[0] == _INTERPRETER), "")
    dynamic = next((each for each in segments if each[0] == _DYN), None)
    if dynamic is None:
        return _Tables(interpreter, [], [])
    entries = list(_entries(content, dynamic[2], dynamic[5]))
    strings = next((value for tag, value in entries if tag == _STRTAB), 0)
    offset = next((strings - each[3] + each[2] for each in segments if each[0] == _LOAD and _holds(each, strings)), 0)

    def texts(*tags: int) -> list[str]:
        return [_text(content, offset + value) for tag, value in entries if tag in tags]

    return _Tables(interpreter, texts(_NEEDED), texts(_RPATH, _RUNPATH))


def _holds(segment: tuple[int, ...], address: int) -> bool:
    return segment[3] <= address < segment[3] + segment[5]


def _entries(content: mmap.mmap, start: int, size: int) -> Iterator[tuple[int, int]]:
    for place in range(start, start + size, _DYNAMIC.size):
        tag, value = _DYNAMIC.unpack_from(content, place)
        if tag == 0:
            return
        yield tag, value


def _text(content: mmap.mmap, start: int) -> str:
    return content[start : content.find(b"\0", start)].decode("ascii")
