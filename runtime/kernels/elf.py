"""Kernel modules without their debugging sections.

Two thirds of a module are for debuggers. The guest's kernel would copy them three times on the way to throwing
them away: some milliseconds of every boot. The format is that of ELF-64 relocatable files (System V ABI, chapter
4); what of it the kernel's loader wants is in its kernel/module/main.c.
"""

from __future__ import annotations

import struct
from typing import Final

_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_RELOCATABLE: Final = 1
_NULL, _NOBITS = 0, 8
_SIGNED: Final = b"~Module signature appended~\n"
"""The end of a signed module, whose signature covers every byte."""

ALIGNMENT_MAX: Final = 4096

_DEBUGGING: Final = (b".debug", b".rela.debug", b".comment\0")

_Section = tuple[int, ...]
"""name, type, flags, address, offset, size, link, info, alignment, entry size"""


def strip_debugging(module: bytes) -> bytes:
    """The module without its debugging sections, or as it is if it is signed or not as expected.

    Sections keep their numbers, which symbols and relocations go by: those dropped become empty.
    """
    if module.endswith(_SIGNED):
        return module
    try:
        return _rebuild(module)
    except (struct.error, IndexError, OverflowError, ValueError):
        return module


def _rebuild(module: bytes) -> bytes:
    header = list(_HEADER.unpack_from(module))
    if header[0][:6] != b"\x7fELF\x02\x01" or header[1] != _RELOCATABLE or header[11] != _SECTION.size:
        raise ValueError("no relocatable ELF-64 file")
    sections = [_SECTION.unpack_from(module, header[6] + index * _SECTION.size) for index in range(header[12])]
    names = sections[header[13]]
    content = bytearray(_HEADER.size)
    table = [_place(section, _name(module, names, section), module, content) for section in sections]
    content += bytes(-len(content) % 8)
    header[6] = len(content)
    content[: _HEADER.size] = _HEADER.pack(*header)
    return bytes(content) + b"".join(table)


def _name(module: bytes, names: _Section, section: _Section) -> bytes:
    start = names[4] + section[0]
    return module[start : module.index(b"\0", start) + 1]


def _place(section: _Section, name: bytes, module: bytes, content: bytearray) -> bytes:
    """Put the section's bytes at the end of `content`, unless they are dropped; its entry in the table."""
    if name.startswith(_DEBUGGING):
        return bytes(_SECTION.size)
    name_offset, kind, flags, address, offset, size, *rest = section
    if kind not in (_NULL, _NOBITS):
        alignment = max(rest[2], 1)
        if offset + size > len(module) or alignment > ALIGNMENT_MAX or len(content) > len(module):
            raise ValueError("sections that cannot be, or share their bytes")
        content += bytes(-len(content) % alignment)
        offset, start = len(content), offset
        content += module[start : start + size]
    return _SECTION.pack(name_offset, kind, flags, address, offset, size, *rest)
