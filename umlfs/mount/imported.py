"""Functions that a shared object of this process imports, and others in their place.

A shared object calls what it imports through a table of addresses, which its ELF file describes. Linux on x86-64 and
arm64 alone. Nothing here waits.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

_IDENT: Final = b"\x7fELF\x02\x01"
"""Of 64 bits, little-endian."""
_HEADER: Final = struct.Struct("<16xHHIQQQIHHH")
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")
_DYNAMIC: Final = struct.Struct("<qQ")
_RELOCATION: Final = struct.Struct("<QQq")
_SYMBOL: Final = struct.Struct("<IBBHQQ")

_PT_LOAD: Final = 1
_PT_DYNAMIC: Final = 2
_DT_PLTRELSZ: Final = 2
_DT_STRTAB: Final = 5
_DT_SYMTAB: Final = 6
_DT_RELA: Final = 7
_DT_RELASZ: Final = 8
_DT_JMPREL: Final = 23
_SLOTS: Final = {(62, 6), (62, 7), (183, 1025), (183, 1026)}
"""Machines, and their kinds of relocation that put a function's address somewhere: GLOB_DAT and JUMP_SLOT."""

_mprotect = ctypes.CDLL(None, use_errno=True).mprotect
_mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class _Segment(NamedTuple):
    kind: int
    offset: int
    address: int
    length: int


class _Elf:
    """What is in the file of a shared object, by the addresses for which it is made. ValueError if it is none."""

    def __init__(self, content: bytes) -> None:
        if not content.startswith(_IDENT):
            raise ValueError("no ELF file of 64 bits")
        self._content = content
        _, self.machine, _, _, place, _, _, _, size, count = _HEADER.unpack_from(content)
        self._segments = []
        for number in range(count):
            kind, _, offset, address, _, length, _, _ = _SEGMENT.unpack_from(content, place + number * size)
            self._segments.append(_Segment(kind, offset, address, length))

    def _offset(self, address: int) -> int:
        """Where in the file what is at `address` is."""
        for segment in self._segments:
            if segment.kind == _PT_LOAD and 0 <= address - segment.address < segment.length:
                return segment.offset + address - segment.address
        raise ValueError(f"nothing is at {address:#x}")

    def _dynamic(self) -> dict[int, int]:
        for segment in self._segments:
            if segment.kind == _PT_DYNAMIC:
                table = self._content[segment.offset : segment.offset + segment.length]
                return dict(_DYNAMIC.iter_unpack(table[: len(table) // _DYNAMIC.size * _DYNAMIC.size]))
        raise ValueError("it is not linked dynamically")

    def slots(self) -> Iterator[tuple[bytes, int]]:
        """The functions that it imports, and where it has their addresses."""
        dynamic = self._dynamic()
        symbols, strings = self._offset(dynamic[_DT_SYMTAB]), self._offset(dynamic[_DT_STRTAB])
        for table, size in ((_DT_JMPREL, _DT_PLTRELSZ), (_DT_RELA, _DT_RELASZ)):
            if table not in dynamic:
                continue
            start = self._offset(dynamic[table])
            for place in range(start, start + dynamic[size], _RELOCATION.size):
                slot, info, _ = _RELOCATION.unpack_from(self._content, place)
                if (self.machine, info & 0xFFFFFFFF) in _SLOTS:
                    name = strings + _SYMBOL.unpack_from(self._content, symbols + (info >> 32) * _SYMBOL.size)[0]
                    yield self._content[name : self._content.index(b"\0", name)], slot


class _Mapping(NamedTuple):
    start: int
    end: int
    protection: int


def _mappings(path: str) -> list[_Mapping]:
    """Where this process has that file in its memory."""
    found = []
    for line in Path("/proc/self/maps").read_text(errors="surrogateescape").splitlines():
        range_, flags, _, _, _, *name = line.split(maxsplit=5)
        if name == [path]:
            start, end = (int(word, 16) for word in range_.split("-"))
            protection = sum(bit for flag, bit in zip("rwx", (1, 2, 4), strict=True) if flag in flags)
            found.append(_Mapping(start, end, protection))
    return found


class Import:
    """A function that a shared object imports."""

    def __init__(self, slot: int, protection: int) -> None:
        self._slot = slot
        self._protection = protection

    @property
    def address(self) -> int:
        """Where the function is."""
        return ctypes.c_uint64.from_address(self._slot).value

    def _put(self, address: int) -> None:
        page = self._slot & -mmap.PAGESIZE
        for protection in (mmap.PROT_READ | mmap.PROT_WRITE, self._protection):
            if _mprotect(page, mmap.PAGESIZE, protection):
                raise OSError(ctypes.get_errno(), "mprotect")
            if protection & mmap.PROT_WRITE:
                ctypes.c_uint64.from_address(self._slot).value = address

    @contextlib.contextmanager
    def replaced(self, address: int) -> Iterator[None]:
        """Within, the shared object calls what is at `address` in the place of the function."""
        former = self.address
        self._put(address)
        try:
            yield
        finally:
            self._put(former)


def find_import(library: str | os.PathLike[str], names: Sequence[bytes]) -> Import | None:
    """The first of the functions called `names` that `library`, which is loaded, imports. None if it imports none of
    them, or is not as we know shared objects."""
    path = os.path.realpath(library)
    mappings = _mappings(path)
    try:
        slots = dict(_Elf(Path(path).read_bytes()).slots())
    except (OSError, ValueError, KeyError, struct.error):
        return None
    for name in names:
        if mappings and name in slots:
            slot = mappings[0].start + slots[name]
            for mapping in mappings:
                if mapping.start <= slot < mapping.end:
                    return Import(slot, mapping.protection)
    return None
