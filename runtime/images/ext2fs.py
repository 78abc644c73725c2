"""libext2fs, the library of e2fsprogs: as much of it as it takes to fill a filesystem that mkfs made.

The prototypes and the beginning of `struct struct_ext2_filsys` are those of <ext2fs/ext2fs.h>; both have been the same
since e2fsprogs 1.43, under one soname.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from ctypes import POINTER, byref, c_char_p, c_int, c_long, c_size_t, c_uint, c_uint16, c_uint32, c_uint64, c_void_p
from functools import cache
from typing import Any, Final

from umlfs.errors import UmlError

LIBRARY: Final = "libext2fs.so.2"
INSTALL: Final = "install it with `apt install e2fsprogs`"
ROOT: Final = 2
LOST_AND_FOUND: Final = 11
FIRST: Final = 12
"""The first inode that is free after mkfs."""
INODE_SIZE: Final = 256
EXTENTS: Final = 0x80000

_OPEN_WRITABLE: Final = 0x01
_OPEN_64BITS: Final = 0x20000
_NO_SYNC: Final = 1
_FILE_WRITE: Final = 1
_BMAP_ALLOC: Final = 1
_FORCE_INITIALISED: Final = 2
_EXTENT: Final = struct.Struct("<IHHI")
_EXTENT_MAGIC: Final = 0xF30A
_TABLE: Final = 2133571328
_NO_ROOM: Final = frozenset({_TABLE + 72, _TABLE + 73})
"""No free block, no free inode."""
_BAD_ATTRIBUTE: Final = range(_TABLE + 158, _TABLE + 172)
"""What an extended attribute may be refused for."""


class _Filesystem(ctypes.Structure):
    """The beginning of `struct struct_ext2_filsys`."""

    _fields_ = (
        ("magic", c_long),
        ("io", c_void_p),
        ("flags", c_int),
        ("device_name", c_char_p),
        ("super", POINTER(c_uint32)),
        ("blocksize", c_uint),
        ("fragsize", c_int),
        ("group_desc_count", c_uint32),
        ("desc_blocks", ctypes.c_ulong),
        ("group_desc", c_void_p),
        ("inode_blocks_per_group", c_uint),
        ("inode_map", c_void_p),
        ("block_map", c_void_p),
        ("callbacks", c_void_p * 5),
        ("badblocks", c_void_p),
        ("dblist", c_void_p),
        ("stride", c_uint32),
        ("orig_super", c_void_p),
        ("image_header", c_void_p),
        ("umask", c_uint32),
        ("now", c_long),
    )


class Inode(ctypes.LittleEndianStructure):
    """`struct ext2_inode_large`, and room for attributes behind it."""

    _fields_ = (
        ("mode", c_uint16),
        ("uid", c_uint16),
        ("size", c_uint32),
        ("atime", c_uint32),
        ("ctime", c_uint32),
        ("mtime", c_uint32),
        ("dtime", c_uint32),
        ("gid", c_uint16),
        ("links", c_uint16),
        ("blocks", c_uint32),
        ("flags", c_uint32),
        ("version", c_uint32),
        ("block", c_uint32 * 15),
        ("generation", c_uint32),
        ("file_acl", c_uint32),
        ("size_high", c_uint32),
        ("faddr", c_uint32),
        ("blocks_high", c_uint16),
        ("file_acl_high", c_uint16),
        ("uid_high", c_uint16),
        ("gid_high", c_uint16),
        ("checksum_low", c_uint16),
        ("reserved", c_uint16),
        ("extra_size", c_uint16),
        ("checksum_high", c_uint16),
        ("ctime_extra", c_uint32),
        ("mtime_extra", c_uint32),
        ("atime_extra", c_uint32),
        ("crtime", c_uint32),
        ("crtime_extra", c_uint32),
        ("version_high", c_uint32),
        ("project", c_uint32),
        ("attributes", ctypes.c_ubyte * (INODE_SIZE - 160)),
    )


_P: Final = c_void_p
_ATTRIBUTE: Final = ctypes.CFUNCTYPE(c_int, c_char_p, c_void_p, c_size_t, c_void_p)
_PROTOTYPES: Final = {
    "ext2fs_open2": (c_char_p, c_char_p, c_int, c_int, c_uint, _P, POINTER(_P)),
    "ext2fs_close2": (_P, c_int),
    "ext2fs_free": (_P,),
    "ext2fs_read_bitmaps": (_P,),
    "ext2fs_read_inode_full": (_P, c_uint32, POINTER(Inode), c_int),
    "ext2fs_write_inode_full": (_P, c_uint32, POINTER(Inode), c_int),
    "ext2fs_inode_alloc_stats2": (_P, c_uint32, c_int, c_int),
    "ext2fs_file_open2": (_P, c_uint32, _P, c_int, POINTER(_P)),
    "ext2fs_file_read": (_P, c_char_p, c_uint, POINTER(c_uint)),
    "ext2fs_file_write": (_P, c_char_p, c_uint, POINTER(c_uint)),
    "ext2fs_file_llseek": (_P, c_uint64, c_int, POINTER(c_uint64)),
    "ext2fs_file_set_size2": (_P, c_uint64),
    "ext2fs_file_close": (_P,),
    "ext2fs_bmap2": (_P, c_uint32, _P, _P, c_int, c_uint64, POINTER(c_int), POINTER(c_uint64)),
    "ext2fs_write_dir_block4": (_P, c_uint64, c_char_p, c_int, c_uint32),
    "ext2fs_fallocate": (_P, c_int, c_uint32, _P, c_uint64, c_uint64, c_uint64),
    "ext2fs_punch": (_P, c_uint32, _P, _P, c_uint64, c_uint64),
    "ext2fs_free_ext_attr": (_P, c_uint32, _P),
    "ext2fs_xattrs_open": (_P, c_uint32, POINTER(_P)),
    "ext2fs_xattrs_read": (_P,),
    "ext2fs_xattrs_iterate": (_P, _ATTRIBUTE, _P),
    "ext2fs_xattr_set": (_P, c_char_p, c_char_p, c_size_t),
    "ext2fs_xattrs_close": (POINTER(_P),),
}
_NOTHING: Final = frozenset({"ext2fs_free", "ext2fs_inode_alloc_stats2"})


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise UmlError(f"{LIBRARY} is not there, which writes ext4", INSTALL) from error
    for name, arguments in _PROTOTYPES.items():
        function = getattr(library, name)
        function.argtypes = arguments
        function.restype = None if name in _NOTHING else c_long
    return library


class AttributeRefused(Exception):
    """ext4 cannot hold an extended attribute: too long, too many, or of an unknown kind."""


class NoRoom(OSError):
    """Blocks or inodes of the filesystem are used up: ENOSPC, but not of the disk of this host that the image is on."""

    def __init__(self) -> None:
        super().__init__(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _check(code: int) -> None:
    """OSError for what a function of the library returned, unless that is 0."""
    if code == 0:
        return
    if code in _NO_ROOM:
        raise NoRoom
    if code in _BAD_ATTRIBUTE:
        raise AttributeRefused
    if code < _TABLE:
        raise OSError(code, os.strerror(code))
    raise OSError(errno.EIO, f"libext2fs failed with error {code}")


class Ext2Filesystem:
    """A filesystem open for writing, with nothing in it but what mkfs put there. All calls wait for the disk.

    Errors are OSError; `NoRoom` when blocks or inodes are used up.
    """

    def __init__(self, path: str, now: int) -> None:
        """`now` is the time, in seconds, that is noted as that of the last write."""
        self._lib = _library()
        self._fs = c_void_p()
        manager = c_void_p.in_dll(self._lib, "unix_io_manager")
        flags = _OPEN_WRITABLE | _OPEN_64BITS
        _check(self._lib.ext2fs_open2(os.fsencode(path), None, flags, 0, 0, manager, byref(self._fs)))
        fields = ctypes.cast(self._fs, POINTER(_Filesystem)).contents
        fields.now = now
        self.block_size = int(fields.blocksize)
        self._goal = 0
        """The block after the last that `allocate` found: the next file goes there."""
        self.inodes = int(fields.super[0])
        """How many there are, used or not."""
        try:
            _check(self._lib.ext2fs_read_bitmaps(self._fs))
        except BaseException:
            self.abandon()
            raise

    def close(self) -> None:
        """Write everything out; it is not durable by that."""
        fs, self._fs = self._fs, c_void_p()
        _check(self._lib.ext2fs_close2(fs, _NO_SYNC))

    def abandon(self) -> None:
        """Let go of it without writing what is not written yet. Nothing after `close`."""
        if self._fs:
            self._lib.ext2fs_free(self._fs)
            self._fs = c_void_p()

    # Inodes -----------------------------------------------------------------------------------

    def claim(self, ino: int, is_directory: bool) -> None:
        """Note an inode as used."""
        if ino > self.inodes:
            raise NoRoom
        self._lib.ext2fs_inode_alloc_stats2(self._fs, ino, 1, is_directory)

    def release(self, ino: int, is_directory: bool) -> None:
        """Give back an inode and its blocks."""
        inode = self.read(ino)
        if stat.S_IFMT(inode.mode) in (stat.S_IFREG, stat.S_IFDIR) or inode.flags & EXTENTS:
            _check(self._lib.ext2fs_punch(self._fs, ino, None, None, 0, 2**64 - 1))
        inode = self.read(ino)
        _check(self._lib.ext2fs_free_ext_attr(self._fs, ino, byref(inode)))
        self.write(ino, Inode())
        self._lib.ext2fs_inode_alloc_stats2(self._fs, ino, -1, is_directory)

    def read(self, ino: int) -> Inode:
        inode = Inode()
        _check(self._lib.ext2fs_read_inode_full(self._fs, ino, byref(inode), INODE_SIZE))
        return inode

    def write(self, ino: int, inode: Inode) -> None:
        _check(self._lib.ext2fs_write_inode_full(self._fs, ino, byref(inode), INODE_SIZE))

    # Contents ---------------------------------------------------------------------------------

    def open(self, ino: int) -> Contents:
        """The contents of a file, to be written from the beginning."""
        handle = c_void_p()
        _check(self._lib.ext2fs_file_open2(self._fs, ino, None, _FILE_WRITE, byref(handle)))
        return Contents(self._lib, handle)

    def allocate(self, ino: int, count: int) -> list[tuple[int, int]] | None:
        """Give an empty file its first `count` blocks: where they are in the image, as (offset, length) in bytes.

        None if they lie so scattered that the inode does not say it all; the file has them even then.
        """
        _check(self._lib.ext2fs_fallocate(self._fs, _FORCE_INITIALISED, ino, None, self._goal, 0, count))
        data = bytes(self.read(ino).block)
        magic, entries, _, depth = struct.unpack_from("<HHHH", data)
        if magic != _EXTENT_MAGIC or depth:
            return None
        found = [_EXTENT.unpack_from(data, 12 * number) for number in range(1, entries + 1)]
        places = [((high << 32 | low) * self.block_size, length * self.block_size) for _, length, high, low in found]
        if sum(length for _, length in places) != count * self.block_size:
            return None
        self._goal = sum(places[-1]) // self.block_size
        return places

    def write_directory_block(self, ino: int, number: int, data: bytes) -> None:
        """Write block `number` of a directory; its checksum is filled in."""
        flags, block = c_int(), c_uint64()
        _check(self._lib.ext2fs_bmap2(self._fs, ino, None, None, _BMAP_ALLOC, number, byref(flags), byref(block)))
        _check(self._lib.ext2fs_write_dir_block4(self._fs, block, data, 0, ino))

    def attributes(self, ino: int) -> list[tuple[bytes, bytes]]:
        """A file's extended attributes."""
        found: list[tuple[bytes, bytes]] = []

        def take(name: bytes, value: int, size: int, _: int) -> int:
            found.append((name, ctypes.string_at(value, size) if size else b""))
            return 0

        handle = c_void_p()
        _check(self._lib.ext2fs_xattrs_open(self._fs, ino, byref(handle)))
        try:
            _check(self._lib.ext2fs_xattrs_read(handle))
            _check(self._lib.ext2fs_xattrs_iterate(handle, _ATTRIBUTE(take), None))
        finally:
            self._lib.ext2fs_xattrs_close(byref(handle))
        return found

    def set_attributes(self, ino: int, attributes: list[tuple[bytes, bytes]]) -> list[bytes]:
        """Give a file extended attributes, by their full names; returns the names of those that it cannot have."""
        handle = c_void_p()
        _check(self._lib.ext2fs_xattrs_open(self._fs, ino, byref(handle)))
        refused = []
        try:
            for name, value in attributes:
                try:
                    _check(self._lib.ext2fs_xattr_set(handle, name, value, len(value)))
                except AttributeRefused:
                    refused.append(name)
        finally:
            self._lib.ext2fs_xattrs_close(byref(handle))
        return refused


class Contents:
    """An open file of such a filesystem."""

    def __init__(self, library: Any, handle: c_void_p) -> None:
        self._lib = library
        self._handle = handle
        self._written = c_uint()
        self._position = c_uint64()

    def read(self, size: int) -> bytes:
        """The next bytes, at most `size`; none at the end."""
        buffer = ctypes.create_string_buffer(size)
        _check(self._lib.ext2fs_file_read(self._handle, buffer, size, byref(self._written)))
        return buffer.raw[: self._written.value]

    def write(self, data: bytes) -> None:
        """Write all of `data`."""
        _check(self._lib.ext2fs_file_write(self._handle, data, len(data), byref(self._written)))
        if self._written.value != len(data):
            raise OSError(errno.EIO, "libext2fs wrote less than it was told to")

    def seek(self, offset: int) -> None:
        _check(self._lib.ext2fs_file_llseek(self._handle, offset, os.SEEK_SET, byref(self._position)))

    def set_size(self, size: int) -> None:
        _check(self._lib.ext2fs_file_set_size2(self._handle, size))

    def close(self) -> None:
        """Write what is still in memory."""
        _check(self._lib.ext2fs_file_close(self._handle))
