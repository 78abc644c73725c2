"""The Filesystem contract: what every provider implements and every server consumes.

The contract speaks inodes, as FUSE's low-level interface does. A provider never knows who serves
it and a server never knows what it serves.

* An inode is a number; the root is `ROOT`. A number stays valid from the moment a `lookup` (or
  another operation that returns an `Entry`) hands it out until `forget` has returned every lookup.
* Names are `bytes`, one path component, without `/` and NUL. Servers check this; providers may rely on it.
* Errors are `OSError` with an errno. An operation that a provider does not have raises `ENOSYS`,
  and a consumer may then stop asking.
* Times are integers of nanoseconds since the epoch; sizes and offsets are bytes.
* Every operation is `async def`. One that cannot block does not checkpoint; one that may wait for a
  disk first tries without waiting, then goes to a thread. `forget` alone is synchronous: it has no answer.

The operations and their meaning follow the FUSE protocol, version 7.38 (Linux 6.1,
`include/uapi/linux/fuse.h`).
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

ROOT: Final = 1
"""The inode number of the root directory."""

FOREVER: Final = 1 << 62
"""A cache lifetime (ns) for answers that only the consumer itself can change."""

NO_HANDLE: Final = 0
"""The handle of a file or directory used without `open` or `opendir` having answered."""

NOW: Final = -(1 << 63)
"""In `SetAttr.atime_ns` and `mtime_ns`: the provider's present time."""

NAME_MAX: Final = 255

LOCK_END: Final = (1 << 63) - 1
"""The last byte that a lock can cover: one up to there covers whatever a file grows to."""

ACL_KILL_SGID: Final = 1 << 16
"""In the flags of `setxattr`, only with `Traits.posix_acl`: setting an access list drops the set-group-id bit."""


@dataclass(slots=True)
class Attr:
    """The attributes of an inode."""

    ino: int
    """What the guest sees as st_ino; need not be the inode number of the contract."""
    mode: int
    """File type and permission bits, as st_mode."""
    nlink: int
    uid: int
    gid: int
    rdev: int
    """Device number of a device node (as `os.makedev`), else 0."""
    size: int
    blocks: int
    """Allocated space in units of 512 bytes."""
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    blksize: int = 4096


@dataclass(slots=True)
class Entry:
    """A name resolved to an inode, and how long the consumer may believe it.

    With `ino` 0 the name does not exist, and the consumer may remember that for `entry_valid_ns`.
    """

    ino: int
    attr: Attr
    entry_valid_ns: int = 0
    """How long the name leads to this inode without asking again."""
    attr_valid_ns: int = 0
    """How long `attr` holds without asking again."""
    generation: int = 0
    """Tells apart two lives of one inode number."""


@dataclass(slots=True)
class SetAttr:
    """What `setattr` is to change; None leaves a field as it is."""

    mode: int | None = None
    """Permission bits (07777)."""
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    """Nanoseconds or `NOW`."""
    mtime_ns: int | None = None
    """Nanoseconds or `NOW`."""
    ctime_ns: int | None = None
    kill_set_id: bool = False
    """Drop set-id bits (and file capabilities), as a write by an unprivileged caller does."""


@dataclass(slots=True)
class Opened:
    """An open file or directory."""

    handle: int = NO_HANDLE
    keep_cache: bool = False
    """What the consumer has cached of the contents still holds."""
    direct: bool = False
    """The consumer must not cache the contents: every read and write comes here."""
    stream: bool = False
    """There is no position: no seeking, reads may be short (pipes, sockets)."""
    quiet_close: bool = False
    """Closing need not be told: no error is delayed, and no owner's locks end before the handle does."""
    cache_directory: bool = False
    """The consumer may cache this listing as long as the directory's mtime stays."""


class Lock(NamedTuple):
    """A lock of some bytes of a file."""

    kind: int
    """F_RDLCK, F_WRLCK or F_UNLCK, as the module `fcntl` has them."""
    start: int = 0
    end: int = LOCK_END
    """The last byte, included."""


@dataclass(slots=True)
class StatFs:
    """The state of a whole filesystem; block counts in units of `block_size` bytes."""

    block_size: int = 4096
    blocks: int = 0
    blocks_free: int = 0
    blocks_available: int = 0
    files: int = 0
    files_free: int = 0
    name_max: int = NAME_MAX


@dataclass(slots=True)
class Caller:
    """Who asks, in the consumer's numbers. Permissions are the consumer's to check (`access` apart);
    a provider needs the caller to own what it creates."""

    uid: int = 0
    gid: int = 0
    pid: int = 0


class Traits(NamedTuple):
    """What a filesystem lets its consumers do; fixed for its lifetime."""

    read_only: bool = False
    """Servers answer EROFS to every change, without asking the provider."""
    writeback: bool = False
    """Consumers may gather writes and keep mtime and size themselves until they flush."""
    shared: bool = False
    """Others may change the contents behind the consumer's back: it drops cached pages of a file
    whose mtime or size is found changed."""
    foreign: bool = False
    """Its owners and modes are another system's: whoever uses it from here may do everything in it."""
    untold_sizes: bool = False
    """A file that says it is empty may not be, as in /proc: whoever copies it reads to its end."""
    kills_set_id: bool = True
    """The provider drops set-id bits and capabilities itself on chown, truncate, and writes that say so."""
    locks: bool = False
    """Locks are shared with others: `getlk`, `setlk` and `flock` are there. Else the consumer keeps them itself."""
    direct_maps: bool = False
    """What is `Opened.direct` may be mapped shared, where the consumer's kernel can; it is cached for that long."""
    posix_acl: bool = False
    """`system.posix_acl_*` attributes are stored, and the consumer's kernel enforces them. The `mode` of what is
    created is then not masked: the provider applies `umask`, or the directory's default list in its place."""


class DirSink(Protocol):
    """Takes directory entries one by one."""

    def __call__(self, name: bytes, offset: int, ino: int, mode: int, entry: Entry | None) -> bool:
        """Take one entry; False means that there was no room and the entry was not taken.

        `offset` is where the next `readdir` goes on after this entry, `ino` the entry's st_ino, `mode`
        its file type (the S_IFMT bits). `entry` goes with `readdir(plus=True)`: a lookup is counted if
        and only if the entry was taken. It is None for `.` and `..` and where the name vanished meanwhile.
        """


class Invalidator(Protocol):
    """How a provider tells a consumer that something changed behind its back."""

    def entry(self, parent: int, name: bytes) -> None:
        """`name` in `parent` no longer leads where it did."""

    def inode(self, ino: int, offset: int = 0, length: int = 0) -> None:
        """Attributes of `ino`, and its contents from `offset` for `length` bytes (0: to the end), changed."""

    async def drop(self, ino: int) -> None:
        """On return the consumer uses nothing that it has cached of `ino` before. May wait for requests that are under
        way to be answered, and so must not be awaited by one that others wait for."""


class ChangeKind(enum.Enum):
    """What others did."""

    CREATED = "created"
    REMOVED = "removed"
    MOVED = "moved"
    MODIFIED = "modified"
    """The contents."""
    WRITTEN = "written"
    """Whoever modified it has closed it."""
    ATTRIBUTES = "attributes"


@dataclass(frozen=True, slots=True)
class Change:
    """Something that others did behind the consumer's back."""

    kind: ChangeKind
    parent: int
    """The directory; 0 for what was MOVED here from where the consumer has not looked."""
    name: bytes
    """Empty if it is about the directory itself."""
    mode: int = 0
    """File type, the S_IFMT bits; S_IFREG may stand for any that is no directory, unless it was CREATED."""
    rdev: int = 0
    new_parent: int = 0
    """Of what was MOVED; 0 for where the consumer has not looked."""
    new_name: bytes = b""


class Changes(Protocol):
    """What others do to the names of a filesystem in the directories that the consumer knows."""

    def listen(self, hear: Callable[[Change], None]) -> None:
        """`hear` is called with each change from now on, while the filesystem runs. It must return at once."""

    def path(self, ino: int) -> bytes | None:
        """The way from the root to the directory `ino`, by the names that the consumer was told last; None if there is
        none."""

    def known(self, parent: int, name: bytes) -> int:
        """The inode number that the consumer was told last of `name` in `parent`, though it may be there no more; 0 if
        it knows none."""

    def again(self, ino: int) -> Entry | None:
        """An entry for an inode that the consumer knows, of which only the kind counts; it counts one lookup. None if
        it has forgotten it."""

    def lost(self, parent: int, name: bytes) -> None:
        """The consumer has learnt that the name leads there no more."""


class Counters(Protocol):
    """What was moved so far."""

    read_bytes: int
    written_bytes: int


class Consumer(Protocol):
    """The session of one FUSE kernel, as far as quick answers go by it."""

    mounted: bool
    """It has said INIT, and may ask."""

    @property
    def statistics(self) -> Counters:
        """To be told of contents that were moved."""


QuickAnswer = Callable[[list[memoryview], list[memoryview]], int]
"""Answers a FUSE request at once, both as `FuseSession.handle` has them; returns how many bytes were written. -1 if it
is to go the ordinary way: nothing was changed then, and both lists are as they were."""


def _unsupported() -> OSError:
    return OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


class NameOperations:
    """The part of `Filesystem` that is about names."""

    async def lookup(self, parent: int, name: bytes) -> Entry:
        """Resolve `name` in directory `parent`, neither `.` nor `..`; a symlink is not followed. Counts one lookup.

        ENOENT, or an Entry with `ino` 0, which counts none and may be remembered for `entry_valid_ns`. ENAMETOOLONG.
        """
        raise _unsupported()

    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int, umask: int, caller: Caller) -> Entry:
        """Make a file of any type but directory and symlink, which belongs to `caller`. Counts one lookup.

        `mode` has the type and the permission bits, already masked with `umask`, unless `Traits.posix_acl` leaves that
        to the provider; so too in `mkdir` and `create`. In a directory with the set-group-id bit it gets the
        directory's group. `rdev` is as `os.makedev`'s, for device nodes. EEXIST; EPERM for a kind that cannot be made.
        """
        raise _unsupported()

    async def mkdir(self, parent: int, name: bytes, mode: int, umask: int, caller: Caller) -> Entry:
        """Make an empty directory, as `mknod` makes files. `mode` has permission bits. EEXIST."""
        raise _unsupported()

    async def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Entry:
        """Make a symlink to `target`, any bytes but NUL. Counts one lookup. EEXIST; ENAMETOOLONG for the target."""
        raise _unsupported()

    async def readlink(self, ino: int) -> bytes:
        """The target of a symlink. EINVAL if it is none."""
        raise _unsupported()

    async def link(self, ino: int, new_parent: int, new_name: bytes) -> Entry:
        """Give the file `ino` one more name; the answer is the same inode, and counts one lookup. EEXIST; EPERM for a
        directory; EMLINK; EXDEV."""
        raise _unsupported()

    async def unlink(self, parent: int, name: bytes) -> None:
        """Remove a name that is not a directory's. The inode lives on while open or not forgotten: its contents and
        attributes (`nlink` 0) are as before. ENOENT; EISDIR or EPERM for a directory."""
        raise _unsupported()

    async def rmdir(self, parent: int, name: bytes) -> None:
        """Remove an empty directory. ENOENT; ENOTDIR; ENOTEMPTY; EBUSY."""
        raise _unsupported()

    async def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> None:
        """Move a name, at once for whoever looks: what `new_name` was is replaced, and lives on as with `unlink`.

        `flags` are renameat2's: RENAME_NOREPLACE 1 (EEXIST if `new_name` is there), RENAME_EXCHANGE 2 (both change
        places; ENOENT if `new_name` is not there), RENAME_WHITEOUT 4; EINVAL for those that it cannot do. Two names of
        one file: nothing happens. ENOENT; ENOTEMPTY; EINVAL for a directory into itself; EXDEV.
        """
        raise _unsupported()


class AttributeOperations:
    """The part of `Filesystem` that is about what inodes have beside contents, and about the whole."""

    async def getattr(self, ino: int, handle: int = NO_HANDLE) -> tuple[Attr, int]:
        """The attributes as of now, and how long (ns) they may be believed. Works for what has no name any more."""
        raise _unsupported()

    async def setattr(
        self, ino: int, changes: SetAttr, handle: int = NO_HANDLE, caller: Caller | None = None
    ) -> tuple[Attr, int]:
        """Apply all of `changes`, in the order size, owner, mode, times; the answer is as `getattr`'s. ctime becomes
        now unless it is given. If one fails, those before it may have happened.

        A larger `size` (bytes) adds zeroes, a smaller one cuts off. EFBIG; EPERM for an owner that cannot be given.
        """
        raise _unsupported()

    async def access(self, ino: int, mask: int, caller: Caller) -> None:
        """EACCES unless `caller` may do what `mask` (R_OK 4, W_OK 2, X_OK 1) says. ENOSYS: all may, as far as the
        provider is concerned, and the consumer goes by modes and owners."""
        raise _unsupported()

    async def statfs(self, ino: int = ROOT) -> StatFs:
        """Sizes and free space of the filesystem that `ino` is on."""
        raise _unsupported()

    async def getxattr(self, ino: int, name: bytes) -> bytes:
        """The value, at most 64 KiB. `name` has its namespace, as in `user.x`. ENODATA if there is none of that name;
        EOPNOTSUPP for a namespace that there is not."""
        raise _unsupported()

    async def setxattr(self, ino: int, name: bytes, value: bytes, flags: int = 0) -> None:
        """Set it. `flags`: XATTR_CREATE 1 (EEXIST if there), XATTR_REPLACE 2 (ENODATA if not); `ACL_KILL_SGID`.
        EOPNOTSUPP; E2BIG or ENOSPC for a value that is too large."""
        raise _unsupported()

    async def listxattr(self, ino: int) -> list[bytes]:
        """The names of all, in any order."""
        raise _unsupported()

    async def removexattr(self, ino: int, name: bytes) -> None:
        """Remove one. ENODATA; EOPNOTSUPP."""
        raise _unsupported()


class FileOperations:
    """The part of `Filesystem` that is about contents of files, and their locks."""

    async def open(self, ino: int, flags: int) -> Opened:
        """Open for reading or writing (`flags` as open(2)'s: the access mode, O_TRUNC, O_APPEND). Whether the caller
        may was checked. ENOSYS: no handle is needed, ever; then O_TRUNC comes as a `setattr` of the size."""
        raise _unsupported()

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, umask: int, caller: Caller
    ) -> tuple[Entry, Opened]:
        """Make a regular file and open it, as `mknod` and `open`. Without O_EXCL an existing file is opened instead
        (and with O_TRUNC made empty); with it, EEXIST. Counts one lookup, unless it fails. The handle may be
        `NO_HANDLE` if `open` answers ENOSYS."""
        raise _unsupported()

    async def read_into(self, ino: int, handle: int, offset: int, buffers: Sequence[memoryview]) -> int:
        """Fill `buffers` in turn with the bytes from `offset`; returns how many were read, short only at the end of the
        file (0 from there on), or of a stream (`Opened.stream`). What `buffers` hold beyond that is undefined."""
        raise _unsupported()

    async def write_from(
        self, ino: int, handle: int, offset: int, buffers: Sequence[memoryview], kill_set_id: bool = False
    ) -> int:
        """Write `buffers` at `offset` (with O_APPEND, which the consumer has seen to, that is the end); returns the
        bytes written, less than all only if something ran out. A gap before `offset` reads as zeroes. Not durable
        before `fsync`. With `kill_set_id` the set-id bits and file capabilities are dropped. EFBIG."""
        raise _unsupported()

    async def flush(self, ino: int, handle: int) -> None:
        """A descriptor was closed (there may be others of the same handle); the last chance to report a delayed error.
        ENOSYS: there is never any, and the consumer stops asking. Not durable."""
        raise _unsupported()

    async def release(self, ino: int, handle: int) -> None:
        """The handle is used no more. Errors are seen by nobody."""
        raise _unsupported()

    async def fsync(self, ino: int, handle: int, data_only: bool = False) -> None:
        """Durable on return: the contents and (unless `data_only`) all metadata of the file. Waits for the disk. A
        failed one must not be followed by a success for what was lost."""
        raise _unsupported()

    async def fallocate(self, ino: int, handle: int, mode: int, offset: int, length: int) -> None:
        """As fallocate(2), in bytes: 0 reserves space and makes the file that large, KEEP_SIZE 1, PUNCH_HOLE 2 (with
        KEEP_SIZE), ZERO_RANGE 16. EOPNOTSUPP for what cannot be done; the consumer then writes zeroes, or gives up."""
        raise _unsupported()

    async def lseek(self, ino: int, handle: int, offset: int, whence: int) -> int:
        """The offset of the next data (SEEK_DATA 3) or hole (SEEK_HOLE 4) at or after `offset`; the end of the file
        is a hole. ENXIO from the end on, and for SEEK_DATA where no data follows. ENOSYS: all is taken for data."""
        raise _unsupported()

    async def copy_file_range(
        self, ino: int, handle: int, offset: int, out_ino: int, out_handle: int, out_offset: int, length: int
    ) -> int:
        """Copy `length` bytes between two files of this filesystem, without the consumer seeing them; returns how many
        were copied, which may be fewer, 0 at the end of the source.

        Both inodes are this filesystem's: a consumer never asks across two. Where they lie on two of what stores
        them (two disks below one directory of the host), EXDEV or EOPNOTSUPP, upon which it reads and writes. Within
        one file the ranges must not overlap: EINVAL. All else is as with `write_from`.
        """
        raise _unsupported()

    # Locks ------------------------------------------------------------------------------------

    async def getlk(self, ino: int, handle: int, owner: int, lock: Lock) -> Lock | None:
        """A lock that keeps `owner` from having `lock`, or None. An owner is any number: whoever has locks of a file,
        which do not keep each other out."""
        raise _unsupported()

    async def setlk(self, ino: int, handle: int, owner: int, lock: Lock, wait: bool = False) -> None:
        """Take a POSIX lock, or with F_UNLCK give it back, in part too. EAGAIN if another owner, here or elsewhere, has
        it, unless it is to be waited for: such a wait can be cancelled. ENOLCK if there are too many."""
        raise _unsupported()

    async def flock(self, ino: int, handle: int, owner: int, kind: int, wait: bool = False) -> None:
        """The same for a lock of the whole file, as flock(2) has them. They and POSIX locks do not know each other."""
        raise _unsupported()

    def unlock(self, ino: int, handle: int, owner: int, whole: bool = False) -> None:
        """`owner` gives back all its POSIX locks of a file, or with `whole` its flock. Immediate; never fails. Those
        that were taken by a handle are given back with it at the latest."""


class DirectoryOperations:
    """The part of `Filesystem` that is about listings."""

    async def opendir(self, ino: int) -> Opened:
        """Open a directory for listing. ENOSYS: no handle is needed, ever."""
        raise _unsupported()

    async def readdir(self, ino: int, handle: int, offset: int, add: DirSink, plus: bool = False) -> None:
        """Give entries from `offset` (0: the start) to `add` until it takes no more or the directory ends.

        `offset` is 0 or what `add` was given, by an earlier call on the same directory and handle. Includes `.` and
        `..`. A name that is there throughout comes exactly once, whatever happens to others. Without an entry taken,
        the directory is at its end. With `plus` attributes go along, and lookups are counted, see `DirSink`. An error
        after entries were taken is for the next call.
        """
        raise _unsupported()

    async def releasedir(self, ino: int, handle: int) -> None:
        """The handle is used no more."""
        raise _unsupported()

    async def fsyncdir(self, ino: int, handle: int, data_only: bool = False) -> None:
        """Durable on return: the names in the directory. Waits for the disk."""
        raise _unsupported()


class Filesystem(NameOperations, AttributeOperations, FileOperations, DirectoryOperations):
    """A filesystem. Subclasses override what they have; the rest answers ENOSYS.

    Operations raise `OSError` with an errno and nothing else. Besides those named with each, any may raise:

    * ESTALE: the inode number means nothing (any more); a kernel then looks the name up again.
    * EBADF: the handle means nothing.
    * EROFS: a change, where there are none (`Traits.read_only`).
    * ENOTDIR, EISDIR, ELOOP, EINVAL: the inode is of another kind than the operation is for.
    * ENOSPC, EDQUOT, EIO: what stores it is full, or fails.
    * EACCES, EPERM: the process that serves it may not do that. (What the *caller* may do is not looked at.)

    Concurrency: all operations run in one thread, and any number may be under way at once, on one inode too. A
    consumer orders what must not overtake each other, as a kernel does with its locks of directories and files: two
    changes of names in one directory, or of sizes, do not come at once; reads and writes may. An operation that does
    not wait for anything is not interrupted by others.

    Cancellation: an operation that is cancelled may have happened, but is not half done, and nothing of it goes on.
    Buffers of the caller are not touched any more once it has ended.

    Handles: where an operation takes `ino` and `handle`, the handle is the one that `open` or `create` gave, or
    `NO_HANDLE` if `open` answered ENOSYS: then the inode itself is used. Directories likewise, with `opendir`.

    Waiting: an operation waits for a disk or a network in a thread or a socket, never on the loop. "Immediate" below
    means that a provider should not have to wait at all.
    """

    traits: Traits = Traits()

    # Being served -----------------------------------------------------------------------------

    def running(self) -> contextlib.AbstractAsyncContextManager[None]:
        """What whoever serves it is within for as long as it does: `async with filesystem.running(): …`.

        Whatever the filesystem does beside answering (writing back, watching, closing) it does in there, and at the
        end all of that has ended. Nothing of it runs outside: the operations work, but what would happen by itself
        does not. One server at a time; after the end another may follow. A task that fails does not end the server:
        it becomes `failure`."""
        return contextlib.nullcontext()

    @property
    def failure(self) -> OSError | None:
        """Why the filesystem can be relied on no more: something that it does beside answering failed. It is logged
        by then. Servers answer EIO to every request. Not to be raised itself: each time it would hold on to more."""
        return None

    @property
    def changes(self) -> Changes | None:
        """What others do to it, where that was asked for when it was opened."""
        return None

    def quick_answers(
        self, session: Consumer, *, lower_layer: bool, read_only: bool, others: int
    ) -> QuickAnswer | None:
        """What answers the commonest FUSE requests of `session` without the operations, with the same effect; None if
        nothing does. `lower_layer` and `read_only` as for `FuseSession`; requests of the group `others` (-1: none) are
        not for it."""
        return None

    def attach(self, invalidator: Invalidator) -> Filesystem:
        """The filesystem to serve to a consumer that `invalidator` tells of what changes behind its back: this one
        (which may be one that never changes so, or cannot tell), or one around it. To be called before `running`,
        which is then the answer's, and so is all else but `close`."""
        return self

    def disconnect(self) -> None:
        """The consumer is gone without a word (unmounted, or its guest died): every lookup and handle it had is
        given back. Immediate; no operation is under way. A new consumer may follow. A Filesystem serves one consumer
        at a time."""

    async def close(self) -> None:
        """Give up every resource. Open handles end; everything that was answered stays, and is written down (durably,
        where the provider can see to that). After `running`, if it was. May be called twice. UmlError or OSError if
        something could not be written: all is given up nevertheless."""

    def forget(self, ino: int, count: int) -> None:
        """Give back `count` lookups of `ino`. Immediate; never fails. Unknown numbers are ignored."""

    def remarks(self) -> list[str]:
        """What a person should know of its present state, a line each: such as a limit that it has met. Immediate."""
        return []

    async def syncfs(self) -> None:
        """Durable on return: everything that was answered before this call. Waits for the disk."""
        raise _unsupported()
