"""Operations of libfuse that pyfuse3 does not have, added to the table that it gives libfuse.

pyfuse3 fills a table of functions, `struct fuse_lowlevel_ops`, and calls `fuse_session_new` with it; libfuse copies the
table. Within `added` that call comes to us, and the table goes on with more in it. Layouts and functions are those of
libfuse's stable interface (/usr/include/fuse3/fuse_lowlevel.h), of machines of 64 bits.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
from collections.abc import Callable, Iterator, Mapping
from ctypes import c_int, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any, Final

import pyfuse3

from umlfs.mount.imported import find_import

log = logging.getLogger(__name__)

_TABLE: Final = (
    *("init", "destroy", "lookup", "forget", "getattr", "setattr", "readlink", "mknod", "mkdir", "unlink", "rmdir"),
    *("symlink", "rename", "link", "open", "read", "write", "flush", "release", "fsync", "opendir", "readdir"),
    *("releasedir", "fsyncdir", "statfs", "setxattr", "getxattr", "listxattr", "removexattr", "access", "create"),
    *("getlk", "setlk", "bmap", "ioctl", "poll", "write_buf", "retrieve_reply", "forget_multi", "flock", "fallocate"),
    *("readdirplus", "copy_file_range", "lseek"),
)
"""The functions of the table, in its order."""
_POINTER: Final = ctypes.sizeof(c_void_p)
NOFLUSH: Final = 1 << 7
"""In `FileInfo.bits`, set upon open: closing need not be told."""


class FileInfo(ctypes.Structure):
    """struct fuse_file_info."""

    _fields_ = (
        ("flags", c_int),
        ("bits", c_uint32),
        ("padding", c_uint32),
        ("fh", c_uint64),
        ("lock_owner", c_uint64),
    )


class Flock(ctypes.Structure):
    """struct flock."""

    _fields_ = (
        ("kind", ctypes.c_short),
        ("whence", ctypes.c_short),
        ("start", c_int64),
        ("length", c_int64),
        ("pid", c_int),
    )


class Context(ctypes.Structure):
    """struct fuse_ctx."""

    _fields_ = (("uid", c_uint32), ("gid", c_uint32), ("pid", c_int), ("umask", c_uint32))


_REQUEST: Final = c_void_p
_INODE: Final = c_uint64
_INFO: Final = ctypes.POINTER(FileInfo)
_FLOCK: Final = ctypes.POINTER(Flock)

# The functions of the table are called, and call, with Python's lock held: pyfuse3 does not let go of it.
_TYPES: Final = {
    "open": ctypes.PYFUNCTYPE(None, _REQUEST, _INODE, _INFO),
    "create": ctypes.PYFUNCTYPE(None, _REQUEST, _INODE, c_void_p, c_uint32, _INFO),
    "flush": ctypes.PYFUNCTYPE(None, _REQUEST, _INODE, _INFO),
    "getlk": ctypes.PYFUNCTYPE(None, _REQUEST, _INODE, _INFO, _FLOCK),
    "setlk": ctypes.PYFUNCTYPE(None, _REQUEST, _INODE, _INFO, _FLOCK, c_int),
    "flock": ctypes.PYFUNCTYPE(None, _REQUEST, _INODE, _INFO, c_int),
    "fallocate": ctypes.PYFUNCTYPE(None, _REQUEST, _INODE, c_int, c_int64, c_int64, _INFO),
    "lseek": ctypes.PYFUNCTYPE(None, _REQUEST, _INODE, c_int64, c_int, _INFO),
    "copy_file_range": ctypes.PYFUNCTYPE(
        None, _REQUEST, _INODE, c_int64, _INFO, _INODE, c_int64, _INFO, c_size_t, c_int
    ),
}
_SESSION_NEW: Final = ctypes.PYFUNCTYPE(c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, c_void_p)
_NAMES: Final = (b"fuse_session_new", b"fuse_session_new_versioned", b"_fuse_session_new_317", b"_fuse_session_new")
"""What the function is called, in versions from 3.17 on too. The last argument is not there in all of them."""

Function = Any
"""A C function."""

_import = find_import(pyfuse3.__file__, _NAMES)


def _functions() -> ctypes.PyDLL | None:
    """libfuse as pyfuse3 has it, if it has all that is needed here."""
    library = ctypes.PyDLL(pyfuse3.__file__)
    try:
        library.fuse_reply_err.argtypes = (_REQUEST, c_int)
        library.fuse_reply_lock.argtypes = (_REQUEST, _FLOCK)
        library.fuse_reply_lseek.argtypes = (_REQUEST, c_int64)
        library.fuse_reply_write.argtypes = (_REQUEST, c_size_t)
        library.fuse_req_ctx.argtypes = (_REQUEST,)
        library.fuse_req_ctx.restype = ctypes.POINTER(Context)
        library.fuse_req_interrupted.argtypes = (_REQUEST,)
        library.fuse_req_interrupt_func.argtypes = (_REQUEST, c_void_p, c_void_p)
    except AttributeError:
        return None
    return library


_library = None if _import is None else _functions()
CAN_ADD: Final = _library is not None and _POINTER == 8
"""Whether `added` does anything."""

Operation = Callable[..., None]
"""What is done upon a request. The first argument is the request, others are those of C. It must not raise."""
Wrapper = Callable[[Operation], Operation]
"""Makes an operation of the one that pyfuse3 has."""

_kept: list[object] = []
"""What C functions point to: for as long as the process lives, since a session may."""


@contextlib.contextmanager
def added(operations: Mapping[str, Operation], wrappers: Mapping[str, Wrapper]) -> Iterator[None]:
    """Within, `pyfuse3.init` makes a session that has these operations too, by their names in the table; `wrappers` are
    put around those that are there."""
    if not CAN_ADD or not operations:
        yield
        return
    assert _import is not None
    session_new = _SESSION_NEW(_import.address)

    def with_more(arguments: int, table: int, size: int, *rest: int) -> Any:
        pointers = _copied(table, size)
        for name, operation in operations.items():
            _put(pointers, name, operation)
        for name, wrapper in wrappers.items():
            _put(pointers, name, wrapper(_TYPES[name](pointers[_TABLE.index(name)] or 0)))
        return session_new(arguments, ctypes.addressof(pointers), ctypes.sizeof(pointers), *rest)

    replacement = _SESSION_NEW(with_more)
    with _import.replaced(_address(replacement)):
        yield


def _copied(table: int, size: int) -> ctypes.Array[c_void_p]:
    pointers = (c_void_p * max(len(_TABLE), size // _POINTER))()
    ctypes.memmove(pointers, table, size)
    return pointers


def _put(pointers: ctypes.Array[c_void_p], name: str, operation: Operation) -> None:
    function = _TYPES[name](operation)
    _kept.append(function)
    pointers[_TABLE.index(name)] = _address(function)


def _address(function: Function) -> int:
    return ctypes.cast(function, c_void_p).value or 0


# Requests ---------------------------------------------------------------------------------------


class Request:
    """A request that awaits its answer: exactly one."""

    def __init__(self, pointer: int) -> None:
        assert _library is not None
        self._library: Any = _library
        self._pointer = pointer
        self.pid: int = self._library.fuse_req_ctx(pointer).contents.pid

    def fail(self, number: int) -> None:
        """Answer with an errno; 0 is success."""
        self._library.fuse_reply_err(self._pointer, number)

    def answer_lock(self, lock: Flock) -> None:
        self._library.fuse_reply_lock(self._pointer, ctypes.byref(lock))

    def answer_place(self, offset: int) -> None:
        self._library.fuse_reply_lseek(self._pointer, offset)

    def answer_count(self, count: int) -> None:
        self._library.fuse_reply_write(self._pointer, count)

    def on_interrupt(self, function: Callable[[], None]) -> None:
        """Call `function` once whoever asked is to wait no longer; at once, if that is so already."""
        callback = _INTERRUPT(lambda _request, _data: function())
        self._callback = callback  # for as long as the request lives
        self._library.fuse_req_interrupt_func(self._pointer, callback, None)


_INTERRUPT: Final = ctypes.PYFUNCTYPE(None, _REQUEST, c_void_p)
