"""The FUSE protocol as bytes and structures. No sockets.

Defined in Linux `include/uapi/linux/fuse.h`, version 7.38 (Linux 6.1). All integers are in the byte order of
the machine, which for us is little-endian.
"""

from __future__ import annotations

import enum
import errno
import fcntl
import os
import stat
import struct
from typing import Final, NamedTuple

from umlfs.buffers import Buffers, take, total
from umlfs.filesystem import NAME_MAX, NOW, Attr, Entry, Lock, Opened, SetAttr, StatFs

MAJOR: Final = 7
MINOR: Final = 38
MINOR_MIN: Final = 31
"""Of Linux 5.4, the first with virtio-fs. All layouts here hold from there on."""

IN_HEADER: Final = struct.Struct("<IIQQIIIHH")
"""length, opcode, unique, node, uid, gid, pid, length of extensions (8 bytes each), padding."""
OUT_HEADER: Final = struct.Struct("<IiQ")
"""length, negative errno, unique."""


class Opcode(enum.IntEnum):
    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SYNCFS = 50


class Init(enum.IntFlag):
    """Flags of INIT; the kernel offers, the server takes."""

    ASYNC_READ = 1 << 0
    POSIX_LOCKS = 1 << 1
    ATOMIC_O_TRUNC = 1 << 3
    BIG_WRITES = 1 << 5
    DONT_MASK = 1 << 6
    AUTO_INVAL_DATA = 1 << 12
    FLOCK_LOCKS = 1 << 10
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    WRITEBACK_CACHE = 1 << 16
    PARALLEL_DIROPS = 1 << 18
    POSIX_ACL = 1 << 20
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    EXPLICIT_INVAL_DATA = 1 << 25
    HANDLE_KILLPRIV_V2 = 1 << 28
    SETXATTR_EXT = 1 << 29
    INIT_EXT = 1 << 30
    DIRECT_IO_ALLOW_MMAP = 1 << 36
    """From Linux 6.6 on."""


FORGET_IN: Final = struct.Struct("<Q")
FORGET_ONE: Final = struct.Struct("<QQ")
BATCH_FORGET_IN: Final = struct.Struct("<II")
GETATTR_IN: Final = struct.Struct("<IIQ")
SETATTR_IN: Final = struct.Struct("<IIQQQqqqIIIIIIII")
MKNOD_IN: Final = struct.Struct("<IIII")
MKDIR_IN: Final = struct.Struct("<II")
RENAME_IN: Final = struct.Struct("<Q")
RENAME2_IN: Final = struct.Struct("<QII")
LINK_IN: Final = struct.Struct("<Q")
OPEN_IN: Final = struct.Struct("<II")
CREATE_IN: Final = struct.Struct("<IIII")
READ_IN: Final = struct.Struct("<QQIIQII")
WRITE_IN: Final = struct.Struct("<QQIIQII")
RELEASE_IN: Final = struct.Struct("<QIIQ")
RELEASE_FLOCK_UNLOCK: Final = 1 << 1
"""In the third field of `RELEASE_IN`: the owner's flock ends."""
FLUSH_IN: Final = struct.Struct("<QIIQ")
FSYNC_IN: Final = struct.Struct("<QII")
SETXATTR_IN: Final = struct.Struct("<IIII")
SETXATTR_ACL_KILL_SGID: Final = 1
"""In the third field of `SETXATTR_IN`."""
SETXATTR_SHORT_IN: Final = struct.Struct("<II")
"""Of a kernel that does not know SETXATTR_EXT (before Linux 5.13)."""
GETXATTR_IN: Final = struct.Struct("<II")
ACCESS_IN: Final = struct.Struct("<II")
FALLOCATE_IN: Final = struct.Struct("<QQQII")
LSEEK_IN: Final = struct.Struct("<QQII")
COPY_FILE_RANGE_IN: Final = struct.Struct("<QQQQQQQ")
LOCK_IN: Final = struct.Struct("<QQQQIIII")
"""handle, owner, first and last byte, kind, pid, flags, padding."""
LOCK_FLOCK: Final = 1 << 0
"""In its flags: flock(2)'s, not POSIX."""
LOCK_OUT: Final = struct.Struct("<QQII")
INTERRUPT_IN: Final = struct.Struct("<Q")
INIT_IN: Final = struct.Struct("<IIII")
INIT_IN_FLAGS2: Final = struct.Struct("<I")
"""What follows, with INIT_EXT: the flags from 1 << 32 on."""

_ATTR: Final = "QQQqqqIIIIIIIIII"
ATTR_OUT: Final = struct.Struct("<QII" + _ATTR)
ENTRY_OUT: Final = struct.Struct("<QQQQII" + _ATTR)
OPEN_OUT: Final = struct.Struct("<QII")
DIRENT: Final = struct.Struct("<QQII")
DIRENTPLUS: Final = struct.Struct("<QQQQII" + _ATTR + "QQII")
STATFS_OUT: Final = struct.Struct("<QQQQQIIII24x")
INIT_OUT: Final = struct.Struct("<IIIIHHIIHHI28x")
_NO_ENTRY: Final = bytes(ENTRY_OUT.size)
_PADDING: Final = [bytes(-length % 8) for length in range(8)]
SIZE_OUT: Final = struct.Struct("<II")
LSEEK_OUT: Final = struct.Struct("<Q")
INODE_CHANGED_OUT: Final = struct.Struct("<Qqq")
NAME_CHANGED_OUT: Final = struct.Struct("<QII")
_NOTIFY_INODE: Final = 2
_NOTIFY_ENTRY: Final = 3
ENTRY_OUT_SIZE: Final = ENTRY_OUT.size
ATTR_OUT_SIZE: Final = ATTR_OUT.size
OPEN_OUT_SIZE: Final = OPEN_OUT.size
SIZE_OUT_SIZE: Final = SIZE_OUT.size
INIT_OUT_SIZE: Final = INIT_OUT.size

WRITE_KILL_SUIDGID: Final = 1 << 2
FSYNC_DATA_ONLY: Final = 1 << 0

FOPEN_DIRECT_IO: Final = 1 << 0
FOPEN_KEEP_CACHE: Final = 1 << 1
FOPEN_NONSEEKABLE: Final = 1 << 2
FOPEN_CACHE_DIR: Final = 1 << 3
FOPEN_STREAM: Final = 1 << 4
FOPEN_NOFLUSH: Final = 1 << 5

FATTR_MODE: Final = 1 << 0
FATTR_UID: Final = 1 << 1
FATTR_GID: Final = 1 << 2
FATTR_SIZE: Final = 1 << 3
FATTR_ATIME: Final = 1 << 4
FATTR_MTIME: Final = 1 << 5
FATTR_FH: Final = 1 << 6
FATTR_ATIME_NOW: Final = 1 << 7
FATTR_MTIME_NOW: Final = 1 << 8
FATTR_CTIME: Final = 1 << 10
FATTR_KILL_SUIDGID: Final = 1 << 11

BODY_MAX: Final = 80 * 1024
"""The largest body other than file contents: an extended attribute of 64 KiB and its name. It is copied, by as many
requests as may be under way at once."""
OFFSET_MAX: Final = (1 << 63) - 1

SECOND: Final = 1_000_000_000
_U32: Final = 0xFFFFFFFF
_U64: Final = 0xFFFFFFFFFFFFFFFF


class WireError(Exception):
    """A request that means nothing: cut short, a name that is none, a number out of range, no room for its answer."""


class Header(NamedTuple):
    """What every request begins with."""

    length: int
    opcode: int
    unique: int
    node: int
    uid: int
    gid: int
    pid: int
    extensions: int
    padding: int


def header(request: Buffers) -> Header:
    """Remove the first 40 bytes from `request` and read them. WireError if there are fewer."""
    if request and len(request[0]) == IN_HEADER.size:
        return Header._make(IN_HEADER.unpack(request.pop(0)))
    data = take(request, IN_HEADER.size)
    if len(data) < IN_HEADER.size:
        raise WireError(f"a request of {len(data)} bytes")
    return Header._make(IN_HEADER.unpack(data))


def body(request: Buffers) -> bytes:
    """A copy of what follows the header. WireError if it is longer than `BODY_MAX`."""
    if total(request) > BODY_MAX:
        raise WireError(f"{total(request)} bytes of arguments")
    return b"".join(request)


def fields(layout: struct.Struct, body: bytes) -> tuple[int, ...]:
    """The fixed part of a request's body. WireError if it is cut short."""
    if len(body) < layout.size:
        raise WireError(f"{len(body)} bytes of arguments instead of {layout.size}")
    return layout.unpack_from(body)


def check_offsets(*values: int) -> None:
    """WireError unless all can be positions in a file."""
    if max(values) > OFFSET_MAX:
        raise WireError(f"the offset {max(values)}")


def name(body: bytes, start: int = 0) -> bytes:
    """The name that ends with a NUL, from `start`; WireError unless it can name a directory entry.

    ENAMETOOLONG if it is longer than 255 bytes.
    """
    text = string(body, start)
    if not text or b"/" in text or text == b"." or text == b"..":
        raise WireError(f"the name {text[:NAME_MAX]!r}")
    if len(text) > NAME_MAX:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    return text


def string(body: bytes, start: int = 0) -> bytes:
    """The bytes up to the NUL, from `start`. WireError if there is none."""
    end = body.find(b"\0", start)
    if end < 0:
        raise WireError("a string without an end")
    return body[start:end]


def names(body: bytes, start: int) -> tuple[bytes, bytes]:
    """Two names in a row (RENAME)."""
    first = name(body, start)
    return first, name(body, start + len(first) + 1)


def setattr_in(body: bytes) -> tuple[SetAttr, int | None]:
    """SETATTR: the changes, and the handle if one was given."""
    (valid, _, handle, size, _, atime, mtime, ctime, atime_ns, mtime_ns, ctime_ns, mode, _, uid, gid, _) = fields(
        SETATTR_IN, body
    )
    if max(atime_ns, mtime_ns, ctime_ns) >= SECOND:
        raise WireError("a time of more than a second of nanoseconds")
    check_offsets(size)
    changes = SetAttr(
        mode=stat.S_IMODE(mode) if valid & FATTR_MODE else None,
        uid=uid if valid & FATTR_UID else None,
        gid=gid if valid & FATTR_GID else None,
        size=size if valid & FATTR_SIZE else None,
        ctime_ns=ctime * SECOND + ctime_ns if valid & FATTR_CTIME else None,
        kill_set_id=bool(valid & FATTR_KILL_SUIDGID),
    )
    if valid & FATTR_ATIME:
        changes.atime_ns = NOW if valid & FATTR_ATIME_NOW else atime * SECOND + atime_ns
    if valid & FATTR_MTIME:
        changes.mtime_ns = NOW if valid & FATTR_MTIME_NOW else mtime * SECOND + mtime_ns
    return changes, handle if valid & FATTR_FH else None


def forgets(body: bytes) -> list[tuple[int, int]]:
    """BATCH_FORGET: pairs of node and count. WireError if the count lies."""
    (count, _) = fields(BATCH_FORGET_IN, body)
    rows = body[BATCH_FORGET_IN.size :]
    if count * FORGET_ONE.size > len(rows):
        raise WireError(f"{count} forgets in {len(rows)} bytes")
    return list(FORGET_ONE.iter_unpack(rows[: count * FORGET_ONE.size]))


def device_in(number: int) -> int:
    """A device number as the kernel sends it (new_encode_dev) to one as `os.makedev` makes it."""
    return os.makedev((number & 0xFFF00) >> 8, (number & 0xFF) | ((number >> 12) & 0xFFF00))


def device_out(number: int) -> int:
    """The reverse of `device_in`."""
    major, minor = os.major(number), os.minor(number)
    return ((minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)) & _U32


def _attr_fields(attr: Attr) -> tuple[int, ...]:
    atime, atime_ns = divmod(attr.atime_ns, SECOND)
    mtime, mtime_ns = divmod(attr.mtime_ns, SECOND)
    ctime, ctime_ns = divmod(attr.ctime_ns, SECOND)
    return (
        attr.ino & _U64,
        attr.size,
        attr.blocks,
        atime,
        mtime,
        ctime,
        atime_ns,
        mtime_ns,
        ctime_ns,
        attr.mode,
        attr.nlink & _U32,
        attr.uid & _U32,
        attr.gid & _U32,
        device_out(attr.rdev) if attr.rdev else 0,
        attr.blksize,
        0,
    )


def attr_out(attr: Attr, valid_ns: int) -> bytes:
    """The answer to GETATTR and SETATTR."""
    seconds, nanoseconds = divmod(valid_ns, SECOND)
    return ATTR_OUT.pack(seconds, nanoseconds, 0, *_attr_fields(attr))


def _entry_fields(entry: Entry) -> tuple[int, ...]:
    entry_s, entry_ns = divmod(entry.entry_valid_ns, SECOND)
    attr_s, attr_ns = divmod(entry.attr_valid_ns, SECOND)
    return (entry.ino, entry.generation, entry_s, attr_s, entry_ns, attr_ns, *_attr_fields(entry.attr))


def entry_out(entry: Entry) -> bytes:
    """The answer to LOOKUP and to what makes a name."""
    return ENTRY_OUT.pack(*_entry_fields(entry))


def open_out(opened: Opened) -> bytes:
    """The answer to OPEN and OPENDIR; it follows the entry in the answer to CREATE."""
    flags = 0
    if opened.direct:
        flags |= FOPEN_DIRECT_IO
    if opened.keep_cache:
        flags |= FOPEN_KEEP_CACHE
    if opened.stream:
        flags |= FOPEN_NONSEEKABLE | FOPEN_STREAM
    if opened.cache_directory:
        flags |= FOPEN_CACHE_DIR
    if opened.quiet_close:
        flags |= FOPEN_NOFLUSH
    return OPEN_OUT.pack(opened.handle, flags, 0)


def attributes_changed_out(ino: int) -> bytes:
    """FUSE_NOTIFY_INVAL_INODE: the attributes of an inode are to be asked for anew."""
    return _notification(_NOTIFY_INODE, INODE_CHANGED_OUT.pack(ino, -1, 0))


def contents_changed_out(ino: int) -> bytes:
    """FUSE_NOTIFY_INVAL_INODE: so are all its contents."""
    return _notification(_NOTIFY_INODE, INODE_CHANGED_OUT.pack(ino, 0, 0))


def name_changed_out(parent: int, name: bytes) -> bytes:
    """FUSE_NOTIFY_INVAL_ENTRY: a name is to be looked up anew."""
    return _notification(_NOTIFY_ENTRY, NAME_CHANGED_OUT.pack(parent, len(name), 0) + name + b"\0")


def _notification(code: int, payload: bytes) -> bytes:
    """What answers no request: `code` stands in the place of the error."""
    return OUT_HEADER.pack(OUT_HEADER.size + len(payload), code, 0) + payload


def dirent_size(name_length: int, plus: bool) -> int:
    """How many bytes an entry of READDIR or READDIRPLUS takes."""
    return (DIRENT.size + name_length + 7 & ~7) + (ENTRY_OUT.size if plus else 0)


class Listing:
    """The answer to READDIR or READDIRPLUS, written entry by entry into `space`, each padded to 8 bytes."""

    def __init__(self, space: memoryview, plus: bool) -> None:
        self._space = space
        self._plus = plus
        self.size = 0
        """Bytes written."""

    def add(self, name: bytes, offset: int, ino: int, mode: int, entry: Entry | None) -> bool:
        """Take one entry, as a `DirSink`."""
        start = self.size
        length = len(name)
        name_start = start + (DIRENTPLUS.size if self._plus else DIRENT.size)
        end = name_start + (length + 7 & ~7)
        space = self._space
        if end > len(space):
            return False
        if not self._plus:
            DIRENT.pack_into(space, start, ino & _U64, offset & _U64, length, mode >> 12 & 0xF)
        elif entry is None:
            space[start : start + ENTRY_OUT.size] = _NO_ENTRY
            DIRENT.pack_into(space, start + ENTRY_OUT.size, ino & _U64, offset & _U64, length, mode >> 12 & 0xF)
        else:
            DIRENTPLUS.pack_into(
                space, start, *_entry_fields(entry), ino & _U64, offset & _U64, length, mode >> 12 & 0xF
            )
        space[name_start:end] = name + _PADDING[length & 7]
        self.size = end
        return True


def statfs_out(state: StatFs) -> bytes:
    """The answer to STATFS."""
    return STATFS_OUT.pack(
        state.blocks,
        state.blocks_free,
        state.blocks_available,
        state.files,
        state.files_free,
        state.block_size,
        state.name_max,
        state.block_size,
        0,
    )


def init_again_out() -> bytes:
    """The answer to INIT of a later major version: our own, upon which the kernel asks again in that."""
    return INIT_OUT.pack(MAJOR, MINOR, *bytes(9))


def init_in(body: bytes) -> tuple[int, int, int, int]:
    """INIT: major and minor version, the readahead, and the flags that are offered."""
    major, minor, readahead, offered = fields(INIT_IN, body)
    if offered & Init.INIT_EXT and len(body) >= INIT_IN.size + INIT_IN_FLAGS2.size:
        offered |= INIT_IN_FLAGS2.unpack_from(body, INIT_IN.size)[0] << 32
    return major, minor, readahead, offered


def init_out(flags: int, max_readahead: int, max_write: int, max_pages: int, max_background: int) -> bytes:
    """The answer to INIT. Times have a granularity of one nanosecond."""
    threshold = max_background * 3 // 4
    low, high = flags & _U32, flags >> 32
    return INIT_OUT.pack(MAJOR, MINOR, max_readahead, low, max_background, threshold, max_write, 1, max_pages, 0, high)


def size_out(size: int) -> bytes:
    """The answer to WRITE, COPY_FILE_RANGE, and to GETXATTR and LISTXATTR that asked for the size."""
    return SIZE_OUT.pack(size, 0)


def lock_in(body: bytes) -> tuple[int, int, Lock, bool]:
    """GETLK, SETLK and SETLKW: handle, owner, the lock, and whether it is flock's. WireError if it means nothing."""
    handle, owner, start, end, kind, _, flags, _ = fields(LOCK_IN, body)
    if kind not in (fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK) or start > end:
        raise WireError(f"a lock of kind {kind} from {start} to {end}")
    check_offsets(end)
    return handle, owner, Lock(kind, start, end), bool(flags & LOCK_FLOCK)


def lock_out(lock: Lock | None) -> bytes:
    """The answer to GETLK. Who holds it is nobody that the kernel knows."""
    if lock is None:
        return LOCK_OUT.pack(0, 0, fcntl.F_UNLCK, 0)
    return LOCK_OUT.pack(lock.start, lock.end, lock.kind, 0)


def lseek_out(offset: int) -> bytes:
    """The answer to LSEEK."""
    return LSEEK_OUT.pack(offset)
