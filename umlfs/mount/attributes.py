"""Attributes of the contract as pyfuse3's."""

from __future__ import annotations

from typing import Final

import pyfuse3
from pyfuse3 import EntryAttributes

from umlfs.filesystem import Attr, Entry, StatFs
from umlfs.mount.pyfuse3_internals import HAS_SHOWN_NUMBER, set_shown_number

_NANOSECONDS: Final = 1e9
NAMES_ALONE: Final = HAS_SHOWN_NUMBER
"""Whether a listing may have entries without attributes, other than `.` and `..`."""


def _filled(ino: int, attr: Attr) -> EntryAttributes:
    filled = EntryAttributes()
    filled.st_ino = ino
    set_shown_number(filled, attr.ino)
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
    if HAS_SHOWN_NUMBER:
        set_shown_number(filled, shown)
    else:
        filled.st_ino = shown  # the kernel takes nothing else from `.` and `..`
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
