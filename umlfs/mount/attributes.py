"""Attributes of the contract as pyfuse3's.

The contract has two numbers for an inode: the one it is asked for by, and the one that stat(2) shows. pyfuse3
carries both to libfuse but has one property that sets both. So the place of the second within its object is looked
for once; where it is not found, stat(2) shows the first.
"""

from __future__ import annotations

import ctypes
import struct
from typing import Final

import pyfuse3
from pyfuse3 import EntryAttributes

from umlfs.filesystem import Attr, Entry, StatFs

_NANOSECONDS: Final = 1e9
_MARK: Final = 0x5EED_1E55_CAB1_E5A7


def _find_shown() -> int | None:
    """Where in an EntryAttributes the number for stat(2) is, in bytes."""
    probe = EntryAttributes()
    probe.st_ino = _MARK
    content = ctypes.string_at(id(probe), EntryAttributes.__basicsize__)
    mark = struct.pack("=Q", _MARK)
    first = content.find(mark)
    second = content.find(mark, first + 1)
    # libfuse's struct fuse_entry_param begins with the inode number, and has the struct stat further on.
    if first < 0 or second < 0 or content.find(mark, second + 1) >= 0:
        return None
    return second


_SHOWN: Final = _find_shown()
NAMES_ALONE: Final = _SHOWN is not None
"""Whether a listing may have entries without attributes, other than `.` and `..`."""
_number_at = ctypes.c_uint64.from_address


def _filled(ino: int, attr: Attr) -> EntryAttributes:
    filled = EntryAttributes()
    filled.st_ino = ino
    if _SHOWN is not None:
        _number_at(id(filled) + _SHOWN).value = attr.ino
    filled.st_mode = attr.mode
    filled.st_nlink = attr.nlink
    filled.st_uid = attr.uid
    filled.st_gid = attr.gid
    filled.st_rdev = attr.rdev
    filled.st_size = attr.size
    filled.st_blocks = attr.blocks
    filled.st_blksize = attr.blksize
    filled.st_atime_ns = attr.atime_ns
    filled.st_mtime_ns = attr.mtime_ns
    filled.st_ctime_ns = attr.ctime_ns
    return filled


def from_entry(entry: Entry) -> EntryAttributes:
    """The answer for a name; an `ino` of 0 tells the kernel to remember that there is none."""
    filled = _filled(entry.ino, entry.attr)
    filled.generation = entry.generation
    filled.entry_timeout = entry.entry_valid_ns / _NANOSECONDS
    filled.attr_timeout = entry.attr_valid_ns / _NANOSECONDS
    return filled


def from_attr(ino: int, attr: Attr, valid_ns: int) -> EntryAttributes:
    """The answer for an inode, to be believed for `valid_ns`."""
    filled = _filled(ino, attr)
    filled.attr_timeout = valid_ns / _NANOSECONDS
    return filled


def of_dirent(shown: int, mode: int) -> EntryAttributes:
    """A directory entry with nothing but its number for stat(2) and its type; `.` or `..`, unless `NAMES_ALONE`."""
    filled = EntryAttributes()
    if _SHOWN is None:
        filled.st_ino = shown  # the kernel takes nothing else from `.` and `..`
    else:
        _number_at(id(filled) + _SHOWN).value = shown
    filled.st_mode = mode
    return filled


def from_statfs(state: StatFs) -> pyfuse3.StatvfsData:
    """The state of a whole filesystem."""
    filled = pyfuse3.StatvfsData()
    filled.f_bsize = filled.f_frsize = state.block_size
    filled.f_blocks = state.blocks
    filled.f_bfree = state.blocks_free
    filled.f_bavail = state.blocks_available
    filled.f_files = state.files
    filled.f_ffree = filled.f_favail = state.files_free
    filled.f_namemax = state.name_max
    return filled
