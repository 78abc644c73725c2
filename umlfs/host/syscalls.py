"""System calls that Python's `os` does not have, prepared once so that a call costs about two microseconds.

All raise `OSError` with the errno, as `os` does. File names are `bytes`, times nanoseconds.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from typing import Final

RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
RESOLVE_CACHED: Final = 0x20

_SYS_OPENAT2: Final = 437  # the same number on every architecture that Linux 5.6 or later numbers
_AT_EMPTY_PATH: Final = 0x1000
UNCHANGED: Final = 0xFFFF_FFFF
"""The uid or gid that leaves an owner or group as it is."""

UTIME_NOW: Final = (1 << 30) - 1
UTIME_OMIT: Final = (1 << 30) - 2

_libc = ctypes.CDLL(None, use_errno=True)
_get_errno = ctypes.get_errno


def failure(code: int) -> OSError:
    """The OSError (of the subclass that belongs to `code`) for an errno."""
    return OSError(code, os.strerror(code))


def _last_failure() -> OSError:
    return failure(_get_errno())


class How(ctypes.Structure):
    """struct open_how of openat2(2), for an open that never waits and never leaves the directory."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )

    def __init__(self, flags: int) -> None:
        resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_CACHED
        super().__init__(flags | os.O_CLOEXEC, 0, resolve)
        self.open_flags = flags
        self.address = ctypes.addressof(self)


_openat2 = _libc.syscall
_openat2.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)
_openat2.restype = ctypes.c_long
_HOW_SIZE: Final = ctypes.sizeof(How)


def open_cached(directory: int, name: bytes, how: How) -> int:
    """Open `name` in `directory` if that takes no waiting for a disk or a server.

    BlockingIOError (EAGAIN) if it might: the name is not in the kernel's caches. ELOOP for a symlink unless
    `how` opens the link itself. Where the kernel cannot tell (before Linux 5.12), it may wait.
    """
    fd = _openat2(_SYS_OPENAT2, directory, name, how.address, _HOW_SIZE)
    if fd < 0:
        raise _last_failure()
    return int(fd)


def _open_plain(directory: int, name: bytes, how: How) -> int:
    return os.open(name, how.open_flags | os.O_NOFOLLOW, dir_fd=directory)


def _knows_cached_open() -> bool:
    directory = os.open("/", os.O_PATH)
    try:
        os.close(open_cached(directory, b".", How(os.O_PATH)))
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(directory)
    return True


_getdents64 = _libc.getdents64
_getdents64.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
_getdents64.restype = ctypes.c_ssize_t
_DIRENT: Final = struct.Struct("=QqHB")
_BATCH: Final = 16 * 1024
"""Room for one call of getdents64: some 500 names of usual length."""

Dirent = tuple[bytes, int, int, int]
"""Name, offset of what follows it, inode number, type (DT_*)."""


def getdents(fd: int) -> list[Dirent]:
    """The next entries of the open directory `fd`; none at its end. The kernel may wait for the disk."""
    room = ctypes.create_string_buffer(_BATCH)
    length = _getdents64(fd, ctypes.addressof(room), _BATCH)
    if length < 0:
        raise _last_failure()
    data = ctypes.string_at(room, length)
    entries: list[Dirent] = []
    position = 0
    unpack, size = _DIRENT.unpack_from, _DIRENT.size
    while position < length:
        ino, offset, record, kind = unpack(data, position)
        start = position + size
        entries.append((data[start : data.index(0, start)], offset, ino, kind))
        position += record
    return entries


_renameat2 = _libc.renameat2
_renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)


def rename(directory: int, name: bytes, new_directory: int, new_name: bytes, flags: int) -> None:
    """renameat2(2)."""
    if _renameat2(directory, name, new_directory, new_name, flags):
        raise _last_failure()


_fallocate = _libc.fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2) with all its modes."""
    if _fallocate(fd, mode, offset, length):
        raise _last_failure()


_syncfs = _libc.syncfs
_syncfs.argtypes = (ctypes.c_int,)


def syncfs(fd: int) -> None:
    """syncfs(2): the whole filesystem that `fd` is on is durable on return."""
    if _syncfs(fd):
        raise _last_failure()


_fchownat = _libc.fchownat
_fchownat.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_int)


def chown(fd: int, uid: int, gid: int) -> None:
    """Change the owner of what `fd` is, O_PATH or not, symlink or not; `UNCHANGED` leaves one as it is."""
    if _fchownat(fd, b"", uid, gid, _AT_EMPTY_PATH):
        raise _last_failure()


_utimensat = _libc.utimensat
_utimensat.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int)
_TIMES: Final = struct.Struct("@4q")
_SECOND: Final = 1_000_000_000


def utime(fd: int, atime: tuple[int, int], mtime: tuple[int, int]) -> None:
    """Set the times (as `timespec` gives them) of what `fd` is, O_PATH or not, symlink or not. EINVAL past 64 bits."""
    try:
        times = _TIMES.pack(*atime, *mtime)
    except struct.error:
        raise failure(errno.EINVAL) from None
    if _utimensat(fd, b"", times, _AT_EMPTY_PATH):
        raise _last_failure()


def timespec(nanoseconds: int) -> tuple[int, int]:
    """Seconds and nanoseconds within them, of a time that may lie before 1970."""
    return divmod(nanoseconds, _SECOND)


_name_to_handle_at = _libc.name_to_handle_at
_name_to_handle_at.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
_open_by_handle_at = _libc.open_by_handle_at
_open_by_handle_at.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
_HANDLE_MAX: Final = 128
_HANDLE: Final = struct.Struct("=Ii")
"""Of a struct file_handle: how many bytes follow, and their type."""


def name_to_handle(fd: int) -> bytes:
    """A struct file_handle for what `fd` is, O_PATH or not. EOPNOTSUPP where the filesystem has none."""
    room = ctypes.create_string_buffer(_HANDLE.size + _HANDLE_MAX)
    _HANDLE.pack_into(room, 0, _HANDLE_MAX, 0)
    mount = ctypes.c_int()
    if _name_to_handle_at(fd, b"", ctypes.addressof(room), ctypes.addressof(mount), _AT_EMPTY_PATH):
        raise _last_failure()
    return room.raw[: _HANDLE.size + _HANDLE.unpack_from(room)[0]]


def open_by_handle(mount: int, handle: bytes, flags: int) -> int:
    """Open what `name_to_handle` made `handle` of; `mount` is anything that is open (not O_PATH) on its filesystem.
    ESTALE once it was freed; EPERM without CAP_DAC_READ_SEARCH."""
    room = ctypes.create_string_buffer(handle, len(handle))
    fd = _open_by_handle_at(mount, ctypes.addressof(room), flags | os.O_CLOEXEC)
    if fd < 0:
        raise _last_failure()
    return int(fd)


_fstatfs = _libc.fstatfs
_fstatfs.argtypes = (ctypes.c_int, ctypes.c_void_p)
_STATFS_ROOM: Final = 256
_FSWORD_MASK: Final = 0xFFFF_FFFF


def filesystem_type(fd: int) -> int:
    """The magic number (statfs f_type) of the filesystem that `fd` is on."""
    room = ctypes.create_string_buffer(_STATFS_ROOM)
    if _fstatfs(fd, ctypes.addressof(room)):
        raise _last_failure()
    return ctypes.c_long.from_buffer(room).value & _FSWORD_MASK


if not _knows_cached_open():
    open_cached = _open_plain


_madvise = _libc.madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_madvise.restype = ctypes.c_int
_MADV_REMOVE: Final = 9


def remove_pages(view: memoryview) -> int:
    """Give back the memory of the whole pages in `view`, a writable piece of a shared mapping, and of the file behind
    it: they then read as zeroes. Returns their bytes. OSError."""
    page = mmap.PAGESIZE
    address = ctypes.addressof(ctypes.c_char.from_buffer(view))
    start, end = -(-address // page) * page, (address + len(view)) // page * page
    if end <= start:
        return 0
    if _madvise(start, end - start, _MADV_REMOVE):
        raise _last_failure()
    return end - start
