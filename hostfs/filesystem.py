"""`HostFilesystem`: a directory of the host as a Filesystem."""

from __future__ import annotations

import os
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar

from hostfs.aside import SetAside
from hostfs.attributes import HOST_LABELS, Attributes
from hostfs.directories import Directories
from hostfs.entries import Entries
from hostfs.files import Files
from hostfs.handles import Handles
from hostfs.locks import Locks
from hostfs.names import Names
from hostfs.opening import Opener
from hostfs.ownership import Owners, Ownership
from hostfs.resolver import Resolver
from hostfs.settings import Cache, Settings
from umlfs.filesystem import (
    NO_HANDLE,
    ROOT,
    Attr,
    Caller,
    DirSink,
    Entry,
    Filesystem,
    Invalidator,
    Lock,
    Opened,
    SetAttr,
    StatFs,
    Traits,
)

T = TypeVar("T")
Answer = Coroutine[Any, Any, T]
Buffers = Sequence[memoryview]


class HostFilesystem(Filesystem):
    """A directory of the host, and everything below it, to the extent that this process may use it.

    Owners are the host's: run by root, what is created belongs to the caller; run by anyone else, it belongs to
    that user, and giving it to another raises EPERM. Permissions are the consumer's to check (`access` answers
    ENOSYS); what the host refuses besides comes as EACCES or EPERM.

    Others may change the directory at any time. An inode whose name leads elsewhere by then raises ESTALE, upon
    which a kernel looks the name up again.

    This class puts the parts together and passes each operation on to the one that does it.
    """

    def __init__(
        self,
        root: str | bytes | os.PathLike[str],
        *,
        read_only: bool = False,
        cache: Cache = Cache.AUTO,
        stateless: bool | None = None,
        writeback: bool | None = None,
        append: bool = False,
        owner: tuple[int, int] | None = None,
        snapshot: bool = False,
    ) -> None:
        """Export the directory `root`; a symlink there is followed, nowhere below.

        `stateless` (default: if `cache` is ALWAYS) answers ENOSYS to `open`, so that a consumer stops asking; then
        what it has open is lost once the host removes its name, unless the contents were used of late. `writeback`
        (default: if `cache` is ALWAYS) lets it gather writes; a Linux consumer that does so trusts its own idea of
        sizes and times, and never notices what others write to a file it knows. With `append` (for handles) what is
        written to a file that is opened goes to its end. What belongs to the user we run as is shown as `owner`'s, a
        uid and a gid. Of a `snapshot` directories are empty that we may not read. OSError if `root` is no directory or
        cannot be searched.
        """
        if stateless is None:
            stateless, opens_directories = cache is Cache.ALWAYS, cache is Cache.NEVER
        else:
            opens_directories = not stateless
        self.resolver = resolver = Resolver(root, stateless=stateless)
        read_only_root = read_only or resolver.root.pseudo
        self.settings = settings = Settings(
            cache=cache,
            read_only=read_only_root,
            stateless=stateless,
            opens_directories=opens_directories,
            snapshot=snapshot,
            locks=not stateless and cache is not Cache.ALWAYS,
            append=append,
        )
        self.traits = Traits(
            read_only=read_only_root,
            writeback=not read_only_root and (cache is Cache.ALWAYS if writeback is None else writeback),
            shared=cache is not Cache.ALWAYS,
            locks=settings.locks,
            direct_maps=cache is Cache.NEVER and not append,
        )
        self.handles = handles = Handles(resolver.descriptors, resolver.closer)
        self.locks = locks = Locks(settings, resolver.descriptors)
        self._aside = aside = SetAside()
        owners = Owners(owner)
        entries = Entries(resolver, settings.valid_ns, owners)
        ownership = Ownership(resolver)
        opener = Opener(resolver, quietly=read_only)
        self._names = Names(resolver, settings, entries, ownership, aside)
        self._attributes = Attributes(resolver, settings, entries, opener, handles, owners)
        self._files = Files(resolver, settings, entries, ownership, aside, opener, handles, locks)
        self.directories = Directories(resolver, settings, entries, aside)
        self._remark: str | None = None

    @property
    def made_up(self) -> bool:
        """The root lies on a filesystem such as proc, without storage behind it, and is shown empty."""
        return self.resolver.root.pseudo

    def show_access_lists(self) -> None:
        """Give out, and take, the lists by which the host judges access: for what copies and compares files."""
        self._attributes.kept_names = HOST_LABELS

    def leave_aside(self, paths: Iterable[Path]) -> None:
        """Never touch these directories of the host: mount points whose servers may be waiting for us.

        They are not shown, and EBUSY for what would change their names. They are known by name, and by their
        parents, which are looked at now.
        """
        self._aside.add(paths)

    # The consumer -----------------------------------------------------------------------------

    def running(self) -> AbstractAsyncContextManager[None]:
        return self.resolver.tasks.running()

    @property
    def failure(self) -> OSError | None:
        return self.resolver.tasks.failure

    def attach(self, invalidator: Invalidator) -> Filesystem:
        """With the cache AUTO: this filesystem, telling of what changes on the host.

        In each cache mode it is asked whenever something is opened, then: what is open stays, and who may not read a
        directory hears of it at once.
        """
        self.locks.drop_cached = invalidator.drop
        self.settings.stateless = False
        self.settings.opens_directories = True
        if self.settings.cache is not Cache.AUTO:
            return self
        try:
            from hostfs.coherence import Coherent  # no guest needs it

            return Coherent(self, self.resolver, self.directories, invalidator)
        except OSError as error:
            self._remark = (
                f"the host's changes are seen after a second, not at once: {error.strerror}"
                " (the limit is fs.inotify.max_user_instances)"
            )
            return self

    def remarks(self) -> list[str]:
        return [] if self._remark is None else [self._remark]

    def forget(self, ino: int, count: int) -> None:
        self.resolver.forget(ino, count)

    def disconnect(self) -> None:
        """Every lookup and every handle is given back; the numbers given so far are stale."""
        self.resolver.forget_all()
        self.directories.forget_all()
        self.handles.clear()
        self.locks.clear()
        self.locks.drop_cached = None

    async def close(self) -> None:
        self.disconnect()
        await self.resolver.close()

    # Names ------------------------------------------------------------------------------------

    def lookup(self, parent: int, name: bytes) -> Answer[Entry]:
        return self._names.lookup(parent, name)

    def mknod(self, parent: int, name: bytes, mode: int, rdev: int, umask: int, caller: Caller) -> Answer[Entry]:
        return self._names.mknod(parent, name, mode, rdev, umask, caller)

    def mkdir(self, parent: int, name: bytes, mode: int, umask: int, caller: Caller) -> Answer[Entry]:
        return self._names.mkdir(parent, name, mode, umask, caller)

    def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Answer[Entry]:
        return self._names.symlink(parent, name, target, caller)

    def readlink(self, ino: int) -> Answer[bytes]:
        return self._names.readlink(ino)

    def link(self, ino: int, new_parent: int, new_name: bytes) -> Answer[Entry]:
        return self._names.link(ino, new_parent, new_name)

    def unlink(self, parent: int, name: bytes) -> Answer[None]:
        return self._names.unlink(parent, name)

    def rmdir(self, parent: int, name: bytes) -> Answer[None]:
        return self._names.rmdir(parent, name)

    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> Answer[None]:
        return self._names.rename(parent, name, new_parent, new_name, flags)

    # Attributes -------------------------------------------------------------------------------

    def getattr(self, ino: int, handle: int = NO_HANDLE) -> Answer[tuple[Attr, int]]:
        return self._attributes.getattr(ino, handle)

    def setattr(
        self, ino: int, changes: SetAttr, handle: int = NO_HANDLE, caller: Caller | None = None
    ) -> Answer[tuple[Attr, int]]:
        return self._attributes.setattr(ino, changes, handle, caller)

    def statfs(self, ino: int = ROOT) -> Answer[StatFs]:
        return self._attributes.statfs(ino)

    def getxattr(self, ino: int, name: bytes) -> Answer[bytes]:
        return self._attributes.getxattr(ino, name)

    def setxattr(self, ino: int, name: bytes, value: bytes, flags: int = 0) -> Answer[None]:
        return self._attributes.setxattr(ino, name, value, flags)

    def listxattr(self, ino: int) -> Answer[list[bytes]]:
        return self._attributes.listxattr(ino)

    def removexattr(self, ino: int, name: bytes) -> Answer[None]:
        return self._attributes.removexattr(ino, name)

    # Files ------------------------------------------------------------------------------------

    def open(self, ino: int, flags: int) -> Answer[Opened]:
        return self._files.open(ino, flags)

    def create(
        self, parent: int, name: bytes, mode: int, flags: int, umask: int, caller: Caller
    ) -> Answer[tuple[Entry, Opened]]:
        return self._files.create(parent, name, mode, flags, umask, caller)

    def read_into(self, ino: int, handle: int, offset: int, buffers: Buffers) -> Answer[int]:
        return self._files.read_into(ino, handle, offset, buffers)

    def write_from(
        self, ino: int, handle: int, offset: int, buffers: Buffers, kill_set_id: bool = False
    ) -> Answer[int]:
        return self._files.write_from(ino, handle, offset, buffers, kill_set_id)

    def release(self, ino: int, handle: int) -> Answer[None]:
        return self._files.release(ino, handle)

    def fsync(self, ino: int, handle: int, data_only: bool = False) -> Answer[None]:
        return self._files.fsync(ino, handle, data_only)

    def fallocate(self, ino: int, handle: int, mode: int, offset: int, length: int) -> Answer[None]:
        return self._files.fallocate(ino, handle, mode, offset, length)

    def lseek(self, ino: int, handle: int, offset: int, whence: int) -> Answer[int]:
        return self._files.lseek(ino, handle, offset, whence)

    def copy_file_range(
        self, ino: int, handle: int, offset: int, out_ino: int, out_handle: int, out_offset: int, length: int
    ) -> Answer[int]:
        return self._files.copy_file_range(ino, handle, offset, out_ino, out_handle, out_offset, length)

    # Locks ------------------------------------------------------------------------------------

    def getlk(self, ino: int, handle: int, owner: int, lock: Lock) -> Answer[Lock | None]:
        return self._files.getlk(ino, handle, owner, lock)

    def setlk(self, ino: int, handle: int, owner: int, lock: Lock, wait: bool = False) -> Answer[None]:
        return self._files.setlk(ino, handle, owner, lock, wait)

    def flock(self, ino: int, handle: int, owner: int, kind: int, wait: bool = False) -> Answer[None]:
        return self._files.flock(ino, handle, owner, kind, wait)

    def unlock(self, ino: int, handle: int, owner: int, whole: bool = False) -> None:
        self._files.unlock(handle, owner, whole)

    # Directories ------------------------------------------------------------------------------

    def opendir(self, ino: int) -> Answer[Opened]:
        return self.directories.opendir(ino)

    def readdir(self, ino: int, handle: int, offset: int, add: DirSink, plus: bool = False) -> Answer[None]:
        return self.directories.readdir(ino, handle, offset, add, plus)

    def releasedir(self, ino: int, handle: int) -> Answer[None]:
        return self.directories.releasedir(ino, handle)

    def fsyncdir(self, ino: int, handle: int, data_only: bool = False) -> Answer[None]:
        return self.directories.fsyncdir(ino, handle, data_only)

    def syncfs(self) -> Answer[None]:
        return self._attributes.syncfs()
