"""A directory as a `Filesystem` by nothing but POSIX calls: what a mount shows to those who use it.

Pointed at a mount point, it takes the contract's checks through the kernel, its caches and the server behind it:

    python -m tests.contract.posix DIRECTORY owners=True devices=False

runs every check in a directory of its own below DIRECTORY and says which fail; the words are of `Features`.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import errno
import os
import resource
import shutil
import stat
import struct
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import trio

from tests.contract.filesystem import CHECKS, Features, name_of, run
from umlfs.filesystem import NOW, ROOT, Attr, Caller, DirSink, Entry, Filesystem, Opened, SetAttr, StatFs

_IOV_MAX: Final = 1024
_SYS_GETDENTS64: Final = 217
_DIRENT: Final = struct.Struct("=QqHB")
_libc: Final = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


class PosixFilesystem(Filesystem):
    """The tree below a directory. An inode is an O_PATH descriptor, a handle an open one."""

    def __init__(self, directory: Path) -> None:
        self._nodes = {ROOT: os.open(directory, os.O_PATH | os.O_DIRECTORY)}
        status = os.fstat(self._nodes[ROOT])
        self._known = {(status.st_dev, status.st_ino): ROOT}
        self._lookups = {ROOT: 1 << 62}
        self._last = ROOT
        self._handles: set[int] = set()
        os.umask(0)

    async def close(self) -> None:
        for fd in (*self._nodes.values(), *self._handles):
            os.close(fd)
        self._nodes.clear()
        self._handles.clear()

    def _opened(self, fd: int) -> Opened:
        self._handles.add(fd)
        return Opened(fd)

    def _close(self, handle: int) -> None:
        self._handles.remove(handle)
        os.close(handle)

    # Inodes -----------------------------------------------------------------------------------

    def _fd(self, ino: int) -> int:
        try:
            return self._nodes[ino]
        except KeyError:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE)) from None

    def _path(self, ino: int) -> str:
        return f"/proc/self/fd/{self._fd(ino)}"

    def _attr(self, ino: int) -> Attr:
        found = os.stat(self._fd(ino))
        return Attr(
            ino=found.st_ino,
            mode=found.st_mode,
            nlink=found.st_nlink,
            uid=found.st_uid,
            gid=found.st_gid,
            rdev=found.st_rdev,
            size=found.st_size,
            blocks=found.st_blocks,
            atime_ns=found.st_atime_ns,
            mtime_ns=found.st_mtime_ns,
            ctime_ns=found.st_ctime_ns,
            blksize=found.st_blksize,
        )

    def _entry(self, parent: int, name: bytes) -> Entry:
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=self._fd(parent))
        status = os.fstat(fd)
        key = status.st_dev, status.st_ino
        if key in self._known:
            os.close(fd)
        else:
            self._last += 1
            self._known[key] = self._last
            self._nodes[self._last] = fd
            self._lookups[self._last] = 0
        ino = self._known[key]
        self._lookups[ino] += 1
        return Entry(ino, self._attr(ino))

    async def lookup(self, parent: int, name: bytes) -> Entry:
        return self._entry(parent, name)

    def forget(self, ino: int, count: int) -> None:
        if ino not in self._nodes or ino == ROOT:
            return
        self._lookups[ino] -= count
        if self._lookups[ino] <= 0:
            os.close(self._nodes.pop(ino))
            self._known = {key: known for key, known in self._known.items() if known != ino}

    # Names ------------------------------------------------------------------------------------

    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int, umask: int, caller: Caller) -> Entry:
        os.mknod(name, mode, rdev, dir_fd=self._fd(parent))
        return self._entry(parent, name)

    async def mkdir(self, parent: int, name: bytes, mode: int, umask: int, caller: Caller) -> Entry:
        os.mkdir(name, mode, dir_fd=self._fd(parent))
        return self._entry(parent, name)

    async def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Entry:
        os.symlink(target, name, dir_fd=self._fd(parent))
        return self._entry(parent, name)

    async def readlink(self, ino: int) -> bytes:
        try:
            return os.readlink(b"", dir_fd=self._fd(ino))
        except FileNotFoundError:  # what an empty name gives where it is no link
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL)) from None

    async def link(self, ino: int, new_parent: int, new_name: bytes) -> Entry:
        os.link(self._path(ino), os.fsdecode(new_name), dst_dir_fd=self._fd(new_parent), follow_symlinks=True)
        return self._entry(new_parent, new_name)

    async def unlink(self, parent: int, name: bytes) -> None:
        os.unlink(name, dir_fd=self._fd(parent))

    async def rmdir(self, parent: int, name: bytes) -> None:
        os.rmdir(name, dir_fd=self._fd(parent))

    async def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> None:
        _checked(_libc.renameat2(self._fd(parent), name, self._fd(new_parent), new_name, flags))

    # Attributes -------------------------------------------------------------------------------

    async def getattr(self, ino: int, handle: int = 0) -> tuple[Attr, int]:
        return self._attr(ino), 0

    async def setattr(
        self, ino: int, changes: SetAttr, handle: int = 0, caller: Caller | None = None
    ) -> tuple[Attr, int]:
        path = self._path(ino)
        if changes.uid is not None or changes.gid is not None:
            uid, gid = (-1 if value is None else value for value in (changes.uid, changes.gid))
            os.chown(path, uid, gid)
        if changes.size is not None:
            os.truncate(handle or path, changes.size)
        if changes.mode is not None:
            os.chmod(path, changes.mode)
        if changes.kill_set_id:
            self._drop_set_id(ino)
        self._set_times(ino, changes.atime_ns, changes.mtime_ns)
        return self._attr(ino), 0

    def _set_times(self, ino: int, atime: int | None, mtime: int | None) -> None:
        if atime is None and mtime is None:
            return
        before = self._attr(ino)
        given = [before.atime_ns if atime is None else atime, before.mtime_ns if mtime is None else mtime]
        atime, mtime = (time.time_ns() if value == NOW else value for value in given)
        os.utime(self._path(ino), ns=(atime, mtime))

    def _drop_set_id(self, ino: int) -> None:
        """What the kernel does for the writes of those who are not root, as we may be."""
        mode = stat.S_IMODE(self._attr(ino).mode)
        kept = mode & ~stat.S_ISUID
        if mode & stat.S_IXGRP:
            kept &= ~stat.S_ISGID
        if kept != mode:
            os.chmod(self._path(ino), kept)

    async def statfs(self, ino: int = ROOT) -> StatFs:
        found = os.statvfs(self._path(ino))
        return StatFs(
            found.f_frsize,
            found.f_blocks,
            found.f_bfree,
            found.f_bavail,
            found.f_files,
            found.f_ffree,
            found.f_namemax,
        )

    async def getxattr(self, ino: int, name: bytes) -> bytes:
        return os.getxattr(self._path(ino), name)

    async def setxattr(self, ino: int, name: bytes, value: bytes, flags: int = 0) -> None:
        os.setxattr(self._path(ino), name, value, flags)

    async def listxattr(self, ino: int) -> list[bytes]:
        return [os.fsencode(name) for name in os.listxattr(self._path(ino))]

    async def removexattr(self, ino: int, name: bytes) -> None:
        os.removexattr(self._path(ino), name)

    # Files ------------------------------------------------------------------------------------

    async def open(self, ino: int, flags: int) -> Opened:
        mode = self._attr(ino).mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
            raise OSError(errno.EINVAL, "not a file")
        return self._opened(os.open(self._path(ino), flags & ~(os.O_APPEND | os.O_CREAT | os.O_EXCL)))

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, umask: int, caller: Caller
    ) -> tuple[Entry, Opened]:
        flags = flags & ~os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        fd = os.open(name, flags, mode, dir_fd=self._fd(parent))
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "not a file")
        return self._entry(parent, name), self._opened(fd)

    async def read_into(self, ino: int, handle: int, offset: int, buffers: Sequence[memoryview]) -> int:
        total = 0
        for part in _batches(buffers):
            count = os.preadv(handle, part, offset + total)
            total += count
            if count < sum(map(len, part)):
                break
        return total

    async def write_from(
        self, ino: int, handle: int, offset: int, buffers: Sequence[memoryview], kill_set_id: bool = False
    ) -> int:
        total = 0
        for part in _batches(buffers):
            total += os.pwritev(handle, part, offset + total)
        if kill_set_id:
            self._drop_set_id(ino)
        return total

    async def flush(self, ino: int, handle: int) -> None:
        os.close(os.dup(handle))

    async def release(self, ino: int, handle: int) -> None:
        self._close(handle)

    async def fsync(self, ino: int, handle: int, data_only: bool = False) -> None:
        (os.fdatasync if data_only else os.fsync)(handle)

    async def fallocate(self, ino: int, handle: int, mode: int, offset: int, length: int) -> None:
        _checked(_libc.fallocate(handle, mode, ctypes.c_long(offset), ctypes.c_long(length)))

    async def lseek(self, ino: int, handle: int, offset: int, whence: int) -> int:
        return os.lseek(handle, offset, whence)

    async def copy_file_range(
        self, ino: int, handle: int, offset: int, out_ino: int, out_handle: int, out_offset: int, length: int
    ) -> int:
        return os.copy_file_range(handle, out_handle, length, offset, out_offset)

    # Directories ------------------------------------------------------------------------------

    async def opendir(self, ino: int) -> Opened:
        return self._opened(os.open(self._path(ino), os.O_RDONLY | os.O_DIRECTORY))

    async def readdir(self, ino: int, handle: int, offset: int, add: DirSink, plus: bool = False) -> None:
        os.lseek(handle, offset, os.SEEK_SET)
        while data := _getdents(handle):
            for number, position, kind, name in _dirents(data):
                if ino == ROOT and name == b"..":  # what is above the directory is no part of it
                    number = self._attr(ROOT).ino
                entry = self._listed(ino, name) if plus else None
                if not add(name, position, number, kind << 12, entry):
                    if entry is not None:
                        self.forget(entry.ino, 1)
                    return

    def _listed(self, parent: int, name: bytes) -> Entry | None:
        return None if name in (b".", b"..") else self._entry(parent, name)

    async def releasedir(self, ino: int, handle: int) -> None:
        self._close(handle)

    async def fsyncdir(self, ino: int, handle: int, data_only: bool = False) -> None:
        os.fsync(handle)

    async def syncfs(self) -> None:
        fd = os.open(".", os.O_RDONLY, dir_fd=self._nodes[ROOT])
        try:
            _checked(_libc.syncfs(fd))
        finally:
            os.close(fd)


def _batches(buffers: Sequence[memoryview]) -> Iterator[Sequence[memoryview]]:
    for start in range(0, len(buffers), _IOV_MAX):
        yield buffers[start : start + _IOV_MAX]


def _getdents(fd: int) -> bytes:
    buffer = ctypes.create_string_buffer(32768)
    try:
        count = _checked(_libc.syscall(_SYS_GETDENTS64, fd, buffer, len(buffer)))
    except FileNotFoundError:  # the directory is removed
        return b""
    return buffer.raw[:count]


def _dirents(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Number, offset, type and name of each `struct linux_dirent64`."""
    start = 0
    while start < len(data):
        number, position, length, kind = _DIRENT.unpack_from(data, start)
        name = data[start + _DIRENT.size : start + length]
        yield number, position, kind, name[: name.index(0)]
        start += length


def _remove(place: Path) -> None:
    """Checks leave directories that their owner may not read: root of the host could, an ordinary user cannot."""
    for _, names, _, fd in os.fwalk(place):
        for name in names:
            with contextlib.suppress(FileNotFoundError, PermissionError):  # a link that leads nowhere, or elsewhere
                os.chmod(name, 0o700, dir_fd=fd)
    shutil.rmtree(place)


def check_all(directory: Path, features: Features) -> list[str]:
    """Run every check below `directory`; the names of those that failed, their tracebacks on standard error."""
    failed = []
    for check in CHECKS:
        place = directory / name_of(check)
        place.mkdir()

        async def make(place: Path = place) -> Filesystem:
            return PosixFilesystem(place)

        try:
            trio.run(run, check, make, features)
        except BaseException:
            traceback.print_exc()
            failed.append(name_of(check))
        _remove(place)
    return failed


def main(arguments: Sequence[str]) -> int:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a descriptor for each inode that is known
    options: dict[str, Any] = {}
    for word in arguments[1:]:
        name, _, value = word.partition("=")
        options[name] = ast.literal_eval(value)
    caller = Caller(options.pop("uid", os.geteuid()), options.pop("gid", os.getegid()), 1)
    failed = check_all(Path(arguments[0]), Features(caller=caller, **options))
    print(f"{len(CHECKS) - len(failed)} of {len(CHECKS)} hold{': not ' + ', '.join(failed) if failed else ''}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
