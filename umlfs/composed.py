"""A Filesystem that is put together: each operation is passed on to the part that does it."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from umlfs.filesystem import (
    NO_HANDLE,
    ROOT,
    Attr,
    AttributeOperations,
    Caller,
    DirectoryOperations,
    DirSink,
    Entry,
    FileOperations,
    Filesystem,
    Lock,
    NameOperations,
    Opened,
    SetAttr,
    StatFs,
)

T = TypeVar("T")
Answer = Coroutine[Any, Any, T]
Buffers = Sequence[memoryview]


class Composed(Filesystem):
    """The base of what has its operations in parts; it adds how it is served, and what is asked of the whole."""

    def _compose(
        self,
        names: NameOperations,
        attributes: AttributeOperations,
        files: FileOperations,
        directories: DirectoryOperations,
    ) -> None:
        """Have these do the operations from now on."""
        self.__names = names
        self.__attributes = attributes
        self.__files = files
        self.__directories = directories

    # Names ------------------------------------------------------------------------------------

    def lookup(self, parent: int, name: bytes) -> Answer[Entry]:
        return self.__names.lookup(parent, name)

    def mknod(self, parent: int, name: bytes, mode: int, rdev: int, umask: int, caller: Caller) -> Answer[Entry]:
        return self.__names.mknod(parent, name, mode, rdev, umask, caller)

    def mkdir(self, parent: int, name: bytes, mode: int, umask: int, caller: Caller) -> Answer[Entry]:
        return self.__names.mkdir(parent, name, mode, umask, caller)

    def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Answer[Entry]:
        return self.__names.symlink(parent, name, target, caller)

    def readlink(self, ino: int) -> Answer[bytes]:
        return self.__names.readlink(ino)

    def link(self, ino: int, new_parent: int, new_name: bytes) -> Answer[Entry]:
        return self.__names.link(ino, new_parent, new_name)

    def unlink(self, parent: int, name: bytes) -> Answer[None]:
        return self.__names.unlink(parent, name)

    def rmdir(self, parent: int, name: bytes) -> Answer[None]:
        return self.__names.rmdir(parent, name)

    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> Answer[None]:
        return self.__names.rename(parent, name, new_parent, new_name, flags)

    # Attributes -------------------------------------------------------------------------------

    def getattr(self, ino: int, handle: int = NO_HANDLE) -> Answer[tuple[Attr, int]]:
        return self.__attributes.getattr(ino, handle)

    def setattr(
        self, ino: int, changes: SetAttr, handle: int = NO_HANDLE, caller: Caller | None = None
    ) -> Answer[tuple[Attr, int]]:
        return self.__attributes.setattr(ino, changes, handle, caller)

    def access(self, ino: int, mask: int, caller: Caller) -> Answer[None]:
        return self.__attributes.access(ino, mask, caller)

    def statfs(self, ino: int = ROOT) -> Answer[StatFs]:
        return self.__attributes.statfs(ino)

    def getxattr(self, ino: int, name: bytes) -> Answer[bytes]:
        return self.__attributes.getxattr(ino, name)

    def setxattr(self, ino: int, name: bytes, value: bytes, flags: int = 0) -> Answer[None]:
        return self.__attributes.setxattr(ino, name, value, flags)

    def listxattr(self, ino: int) -> Answer[list[bytes]]:
        return self.__attributes.listxattr(ino)

    def removexattr(self, ino: int, name: bytes) -> Answer[None]:
        return self.__attributes.removexattr(ino, name)

    # Files ------------------------------------------------------------------------------------

    def open(self, ino: int, flags: int) -> Answer[Opened]:
        return self.__files.open(ino, flags)

    def create(
        self, parent: int, name: bytes, mode: int, flags: int, umask: int, caller: Caller
    ) -> Answer[tuple[Entry, Opened]]:
        return self.__files.create(parent, name, mode, flags, umask, caller)

    def read_into(self, ino: int, handle: int, offset: int, buffers: Buffers) -> Answer[int]:
        return self.__files.read_into(ino, handle, offset, buffers)

    def write_from(
        self, ino: int, handle: int, offset: int, buffers: Buffers, kill_set_id: bool = False
    ) -> Answer[int]:
        return self.__files.write_from(ino, handle, offset, buffers, kill_set_id)

    def flush(self, ino: int, handle: int) -> Answer[None]:
        return self.__files.flush(ino, handle)

    def release(self, ino: int, handle: int) -> Answer[None]:
        return self.__files.release(ino, handle)

    def fsync(self, ino: int, handle: int, data_only: bool = False) -> Answer[None]:
        return self.__files.fsync(ino, handle, data_only)

    def fallocate(self, ino: int, handle: int, mode: int, offset: int, length: int) -> Answer[None]:
        return self.__files.fallocate(ino, handle, mode, offset, length)

    def lseek(self, ino: int, handle: int, offset: int, whence: int) -> Answer[int]:
        return self.__files.lseek(ino, handle, offset, whence)

    def copy_file_range(
        self, ino: int, handle: int, offset: int, out_ino: int, out_handle: int, out_offset: int, length: int
    ) -> Answer[int]:
        return self.__files.copy_file_range(ino, handle, offset, out_ino, out_handle, out_offset, length)

    # Locks ------------------------------------------------------------------------------------

    def getlk(self, ino: int, handle: int, owner: int, lock: Lock) -> Answer[Lock | None]:
        return self.__files.getlk(ino, handle, owner, lock)

    def setlk(self, ino: int, handle: int, owner: int, lock: Lock, wait: bool = False) -> Answer[None]:
        return self.__files.setlk(ino, handle, owner, lock, wait)

    def flock(self, ino: int, handle: int, owner: int, kind: int, wait: bool = False) -> Answer[None]:
        return self.__files.flock(ino, handle, owner, kind, wait)

    def unlock(self, ino: int, handle: int, owner: int, whole: bool = False) -> None:
        self.__files.unlock(ino, handle, owner, whole)

    # Directories ------------------------------------------------------------------------------

    def opendir(self, ino: int) -> Answer[Opened]:
        return self.__directories.opendir(ino)

    def readdir(self, ino: int, handle: int, offset: int, add: DirSink, plus: bool = False) -> Answer[None]:
        return self.__directories.readdir(ino, handle, offset, add, plus)

    def releasedir(self, ino: int, handle: int) -> Answer[None]:
        return self.__directories.releasedir(ino, handle)

    def fsyncdir(self, ino: int, handle: int, data_only: bool = False) -> Answer[None]:
        return self.__directories.fsyncdir(ino, handle, data_only)
