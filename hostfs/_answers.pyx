# cython: language_level=3, boundscheck=False, wraparound=False
"""The answers that are asked for most, in C: LOOKUP, GETATTR, SETATTR, READ, WRITE, RELEASE, READDIRPLUS, and attributes
that are absent.

`Answers.answer` does what the operations of `hostfs` do, as long as nothing is out of the ordinary: it answers at once, or
says that it cannot, having changed nothing, and the request goes the ordinary way. So all errors but the commonest (a name
that is not there), all waiting, other devices, hard links and pseudo filesystems are the reference's.

The request lies in memory of a guest that may change it at any time: it is copied (`take_in`), and only the copy is read.
"""

import logging

from cpython.dict cimport PyDict_GetItemWithError
from libc.errno cimport ENODATA, ENOENT, EIO, errno
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset, memchr, strlen

from hostfs.directories import entries_from

VERSION = 2
"""The version of what `hostfs.filesystem` asks of this module."""

log = logging.getLogger("hostfs.filesystem")

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <fcntl.h>
    #include <stdint.h>
    #include <stdio.h>
    #include <string.h>
    #include <sys/resource.h>
    #include <sys/stat.h>
    #include <sys/syscall.h>
    #include <sys/sysmacros.h>
    #include <sys/uio.h>
    #include <sys/xattr.h>
    #include <time.h>
    #include <unistd.h>

    struct in_header { uint32_t length, opcode; uint64_t unique, node; uint32_t uid, gid, pid; uint16_t extensions, pad; };
    struct out_header { uint32_t length; int32_t error; uint64_t unique; };
    struct fuse_attr {
        uint64_t ino, size, blocks, atime, mtime, ctime;
        uint32_t atime_ns, mtime_ns, ctime_ns, mode, nlink, uid, gid, rdev, blksize, flags;
    };
    struct attr_out { uint64_t valid; uint32_t valid_ns, dummy; struct fuse_attr attr; };
    struct entry_out {
        uint64_t node, generation, entry_valid, attr_valid;
        uint32_t entry_valid_ns, attr_valid_ns;
        struct fuse_attr attr;
    };
    struct dirent_out { uint64_t ino, offset; uint32_t length, kind; };
    struct getattr_in { uint32_t flags, dummy; uint64_t handle; };
    struct move_in { uint64_t handle, offset; uint32_t size, flags; uint64_t owner; uint32_t file_flags, pad; };
    struct getxattr_in { uint32_t size, pad; };
    struct release_in { uint64_t handle; uint32_t file_flags, flags; uint64_t owner; };
    struct setattr_in {
        uint32_t valid, pad;
        uint64_t handle, size, owner;
        int64_t atime, mtime, ctime;
        uint32_t atime_ns, mtime_ns, ctime_ns, mode, unused, uid, gid, unused2;
    };
    _Static_assert(sizeof(struct setattr_in) == 88 && sizeof(struct release_in) == 24, "changes");
    _Static_assert(sizeof(struct in_header) == 40 && sizeof(struct out_header) == 16, "headers");
    _Static_assert(sizeof(struct entry_out) == 128 && sizeof(struct attr_out) == 104, "entries");
    _Static_assert(sizeof(struct dirent_out) == 24 && sizeof(struct move_in) == 40, "the others");
    #if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    #error "requests are little-endian, and so is every processor that UML runs on"
    #endif

    /* Another may write to `from` at any time: nothing that is read of the copy may be read again from there. */
    static inline void take_in(void *to, const void *from, size_t size) {
        memcpy(to, from, size);
        __asm__ volatile("" ::: "memory");
    }

    static inline double now(void) {
        struct timespec time;
        clock_gettime(CLOCK_MONOTONIC, &time);
        return (double)time.tv_sec + time.tv_nsec * 1e-9;
    }

    static inline long disk_reads(void) {
        struct rusage usage;
        return getrusage(RUSAGE_THREAD, &usage) ? 0 : usage.ru_inblock;
    }

    static void put_attr(struct fuse_attr *to, const struct stat *from) {
        unsigned int minor_ = minor(from->st_rdev);
        to->ino = from->st_ino; to->size = from->st_size; to->blocks = from->st_blocks;
        to->atime = from->st_atim.tv_sec; to->atime_ns = from->st_atim.tv_nsec;
        to->mtime = from->st_mtim.tv_sec; to->mtime_ns = from->st_mtim.tv_nsec;
        to->ctime = from->st_ctim.tv_sec; to->ctime_ns = from->st_ctim.tv_nsec;
        to->mode = from->st_mode; to->nlink = from->st_nlink; to->uid = from->st_uid; to->gid = from->st_gid;
        to->rdev = (minor_ & 0xff) | (major(from->st_rdev) << 8) | ((minor_ & ~0xffu) << 12);
        to->blksize = from->st_blksize; to->flags = 0;
    }

    #ifndef SYS_openat2
    #define SYS_openat2 437
    #endif
    /* What `name` is, if that takes no waiting for a disk; else -1 with some errno, EAGAIN among them. */
    static int stat_cached(int directory, const char *name, struct stat *found) {
        struct { uint64_t flags, mode, resolve; } how = {O_PATH | O_NOFOLLOW | O_CLOEXEC, 0, 0x08 | 0x04 | 0x02 | 0x20};
        int below = syscall(SYS_openat2, directory, name, &how, sizeof how), result;
        if (below < 0)
            return -1;
        result = fstat(below, found);
        close(below);
        return result;
    }

    #ifndef AT_EMPTY_PATH
    #define AT_EMPTY_PATH 0x1000
    #endif
    static int own(int fd, uint32_t uid, uint32_t gid) { return fchownat(fd, "", uid, gid, AT_EMPTY_PATH); }

    static struct timespec at(int set, int present, int64_t seconds, uint32_t nanoseconds) {
        struct timespec time = {seconds, nanoseconds};
        if (!set || present)
            time = (struct timespec){0, set ? UTIME_NOW : UTIME_OMIT};
        return time;
    }
    static int set_times(int fd, const struct setattr_in *in) {
        struct timespec times[2] = {at(in->valid & 16, in->valid & 128, in->atime, in->atime_ns),
                                    at(in->valid & 32, in->valid & 256, in->mtime, in->mtime_ns)};
        return utimensat(fd, "", times, AT_EMPTY_PATH);
    }

    static ssize_t xattr_of(int fd, const char *name) {
        char path[40], value[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        return getxattr(path, name, value, sizeof value);
    }
    """
    struct stat_t "stat":
        uint64_t st_dev
        uint64_t st_ino
        uint32_t st_mode
        uint32_t st_uid
        uint32_t st_gid
        int64_t st_size
    struct iovec:
        void *iov_base
        size_t iov_len
    struct in_header:
        uint32_t length, opcode, uid, gid
        uint64_t unique, node
    struct out_header:
        uint32_t length
        int error
        uint64_t unique
    struct fuse_attr:
        uint32_t uid, gid, blksize
        uint64_t ino
    struct attr_out:
        uint64_t valid
        uint32_t valid_ns
        fuse_attr attr
    struct entry_out:
        uint64_t node, generation, entry_valid, attr_valid
        uint32_t entry_valid_ns, attr_valid_ns
        fuse_attr attr
    struct dirent_out:
        uint64_t ino, offset
        uint32_t length, kind
    struct getattr_in:
        uint32_t flags
        uint64_t handle
    struct move_in:
        uint64_t handle, offset
        uint32_t size, flags
    struct getxattr_in:
        uint32_t size
    struct release_in:
        uint64_t handle
        uint32_t flags
    struct setattr_in:
        uint32_t valid, atime_ns, mtime_ns, ctime_ns, mode, uid, gid
        uint64_t handle
    int own(int, uint32_t, uint32_t) nogil
    int fchmod(int, uint32_t) nogil
    int set_times(int, const setattr_in *) nogil
    void take_in(void *, const void *, size_t) nogil
    double now() nogil
    long disk_reads() nogil
    void put_attr(fuse_attr *, const stat_t *) nogil
    int stat_cached(int, const char *, stat_t *) nogil
    ssize_t xattr_of(int, const char *) nogil
    int fstat(int, stat_t *) nogil
    int fstatat(int, const char *, stat_t *, int) nogil
    ssize_t preadv2(int, const iovec *, int, int64_t, int) nogil
    ssize_t pwritev(int, const iovec *, int, int64_t) nogil

cdef extern from "Python.h":
    bint PyMemoryView_Check(object)
    Py_buffer *PyMemoryView_GET_BUFFER(object)

cdef enum:
    AT_SYMLINK_NOFOLLOW = 0x100
    RWF_NOWAIT = 8
    FORMAT = 0o170000
    REGULAR = 0o100000
    DIRECTORY = 0o040000
    SYMLINK = 0o120000
    FLOCK_UNLOCK = 2
    READ_ACCESS = 1
    WRITE_ACCESS = 2

    LOOKUP = 1
    GETATTR = 3
    SETATTR = 4
    READ = 15
    WRITE = 16
    RELEASE = 18
    GETXATTR = 22
    READDIRPLUS = 44

    NAME_MAX = 255
    BODY_MAX = 512
    # Of what is answered here: a name, and what goes before it.
    VECTORS_MAX = 64
    # Buffers of contents; more are the reference's.
    CONTENTS_MAX = 1 << 20
    INLINE_WRITE = 64 << 10
    LISTING_MAX = 64 << 10
    ENTRY = 128
    DIRENT = 24

    SET_MODE = 1
    SET_UID = 2
    SET_GID = 4
    SET_ATIME = 16
    SET_MTIME = 32
    BY_HANDLE = 64
    KILL_SET_ID = 2048
    # And the present time for either.
    SETTABLE = 1 | 2 | 4 | 16 | 32 | 64 | 128 | 256 | 2048

    NOT_NOW = -1

cdef uint64_t OFFSET_MAX = (<uint64_t>1 << 63) - 1
cdef uint32_t UNCHANGED = 0xFFFFFFFF
cdef double CACHED_SECONDS = 30.0
cdef bytes OVERLAY = b"trusted.overlay."
cdef bytes CAPABILITY = b"security.capability"


cdef class Answers:
    """Those for one session of one `HostFilesystem`."""

    cdef dict _nodes, _keys, _handles, _uids, _gids, _guesses
    cdef set _in_memory
    cdef object _table, _settings, _aside, _tasks, _directories, _root, _pending, _session, _statistics, _all_handles, _locks
    cdef uint64_t _device
    cdef uint64_t _valid
    cdef uint32_t _valid_ns
    cdef bint _lower_layer, _read_only
    cdef int64_t _others
    cdef char *_listing

    def __init__(self, filesystem, session, *, bint lower_layer, bint read_only, int64_t others):
        """`session` says whether it is mounted, and counts bytes; with `lower_layer` marks of overlays are absent, with
        `read_only` nothing is written; requests of the group `others` are not answered here (-1: there is none)."""
        resolver = filesystem.resolver
        self._nodes, self._keys, self._table = resolver.table.nodes, resolver.table.keys, resolver.table
        self._handles, self._all_handles, self._locks = filesystem.handles.numbers, filesystem.handles, filesystem.locks
        entries = filesystem.entries
        self._uids, self._gids = entries.owners.uids, entries.owners.gids
        self._guesses, self._in_memory = resolver.devices.guesses, resolver.devices.in_memory
        self._settings, self._aside, self._tasks = filesystem.settings, filesystem.aside, resolver.tasks
        self._directories, self._pending = filesystem.directories, filesystem.directories.pending
        self._root = resolver.root
        self._session, self._statistics = session, session.statistics
        self._device = resolver.devices.root
        self._valid, self._valid_ns = divmod(entries.valid_ns, 1_000_000_000)
        self._lower_layer, self._read_only, self._others = lower_layer, read_only, others

    def answer(self, list request, list answer):
        """Answer a request, and return how many bytes of `answer` were written. -1, with nothing changed and both lists
        as they were, if it must go the ordinary way."""
        try:
            return self._answer(request, answer)
        except Exception:
            log.exception("a quick answer failed")
            return NOT_NOW

    cdef Py_ssize_t _answer(self, list request, list answer) except -2:
        cdef in_header header
        cdef char body[BODY_MAX + 1]
        cdef Py_ssize_t length
        cdef Py_buffer *first
        if not request or not answer or not PyMemoryView_Check(request[0]):
            return NOT_NOW
        first = PyMemoryView_GET_BUFFER(request[0])
        if first.len < <Py_ssize_t>sizeof(in_header):
            return NOT_NOW
        take_in(&header, first.buf, sizeof(in_header))
        if header.opcode not in (LOOKUP, GETATTR, SETATTR, READ, WRITE, RELEASE, GETXATTR, READDIRPLUS):
            return NOT_NOW
        if <int64_t>header.gid == self._others or not self._session.mounted or self._tasks.failure is not None:
            return NOT_NOW
        if header.opcode == WRITE:
            return NOT_NOW if self._read_only else self._write(&header, request, answer)
        length = self._body(request, body)
        if length < 0:
            return NOT_NOW
        if header.opcode == LOOKUP:
            return self._lookup(&header, body, length, answer)
        if header.opcode == GETATTR:
            return self._getattr(&header, body, length, answer)
        if header.opcode == SETATTR:
            return NOT_NOW if self._read_only else self._setattr(&header, body, length, answer)
        if header.opcode == RELEASE:
            return self._release(&header, body, length, answer)
        if header.opcode == READ:
            return self._read(&header, body, length, answer)
        if header.opcode == GETXATTR:
            return self._getxattr(&header, body, length, answer)
        return self._readdirplus(&header, body, length, answer)

    # Buffers ----------------------------------------------------------------------------------

    cdef Py_ssize_t _body(self, list request, char *body) except -2:
        """A copy of what follows the header, and a NUL after it; its length. -1 if it is too long for one of these."""
        cdef Py_ssize_t done = 0, skip = sizeof(in_header), length
        cdef Py_buffer *buffer
        for view in request:
            if not PyMemoryView_Check(view):
                return NOT_NOW
            buffer = PyMemoryView_GET_BUFFER(view)
            length = buffer.len - skip
            if done + length > BODY_MAX:
                return NOT_NOW
            take_in(body + done, <char *>buffer.buf + skip, length)
            done += length
            skip = 0
        body[done] = 0
        return done

    cdef Py_ssize_t _room(self, list answer) except -2:
        """The bytes that an answer may have; -1 if it lies in something else than memory."""
        cdef Py_ssize_t room = 0
        for view in answer:
            if not PyMemoryView_Check(view):
                return NOT_NOW
            room += PyMemoryView_GET_BUFFER(view).len
        return room

    cdef Py_ssize_t _give(self, in_header *header, int error, const void *payload, Py_ssize_t size, list answer) except -2:
        """Write an answer for which there is room."""
        cdef out_header out
        cdef Py_ssize_t total = sizeof(out_header) + size, done = 0, piece, place
        cdef Py_buffer *buffer
        cdef const char *source
        out.length, out.error, out.unique = <uint32_t>total, -error, header.unique
        for view in answer:
            buffer = PyMemoryView_GET_BUFFER(view)
            place = 0
            while place < buffer.len and done < total:
                if done < <Py_ssize_t>sizeof(out_header):
                    source = <const char *>&out + done
                    piece = sizeof(out_header) - done
                else:
                    source = <const char *>payload + done - sizeof(out_header)
                    piece = total - done
                piece = min(piece, buffer.len - place)
                memcpy(<char *>buffer.buf + place, source, piece)
                place += piece
                done += piece
            if done == total:
                break
        return total

    cdef int _vectors(self, list views, Py_ssize_t skip, Py_ssize_t size, iovec *vectors) except -2:
        """The `size` bytes after the first `skip` of `views`; how many pieces that are, -1 for too many."""
        cdef int count = 0
        cdef Py_ssize_t length
        cdef Py_buffer *buffer
        for view in views:
            if not size:
                break
            buffer = PyMemoryView_GET_BUFFER(view)
            length = buffer.len - skip
            if length <= 0:
                skip -= buffer.len
                continue
            if count == VECTORS_MAX:
                return NOT_NOW
            length = min(length, size)
            vectors[count].iov_base = <char *>buffer.buf + skip
            vectors[count].iov_len = length
            count += 1
            size -= length
            skip = 0
        return count

    # Inodes -----------------------------------------------------------------------------------

    cdef object _node(self, uint64_t number):
        """The inode of that number; None if it is none of ours, or a made up one."""
        cdef object found = self._nodes.get(number)
        return None if found is None or found.pseudo else found

    cdef object _found(self, object directory, bytes name, stat_t *found):
        """The inode that `name` was just seen to be; None if that takes a closer look."""
        if found.st_dev != self._device:
            return None
        key = (found.st_dev, found.st_ino)
        inode = self._keys.get(key)
        kind = found.st_mode & FORMAT
        if inode is None:
            return self._table.add(key, kind, directory, name)
        if inode.parent is not directory or inode.kind != kind or inode.name != name or inode.pseudo or inode.locked:
            return None
        return inode

    cdef void _attr(self, fuse_attr *attr, stat_t *found):
        put_attr(attr, found)
        if self._uids:
            attr.uid = self._uids.get(found.st_uid, found.st_uid)
        if self._gids:
            attr.gid = self._gids.get(found.st_gid, found.st_gid)

    cdef void _entry(self, entry_out *entry, object inode, stat_t *found):
        """The answer for `inode`; counts one lookup."""
        inode.lookups += 1
        inode.answered_at = now()
        entry.node, entry.generation = inode.node, 0
        entry.entry_valid = entry.attr_valid = self._valid
        entry.entry_valid_ns = entry.attr_valid_ns = self._valid_ns
        self._attr(&entry.attr, found)

    cdef bint _is_cached(self, object directory):
        return directory.cached_until > now() or self._device in self._in_memory

    cdef bint _aside_none(self):
        return not self._aside.names

    # Requests ---------------------------------------------------------------------------------

    cdef Py_ssize_t _lookup(self, in_header *header, char *body, Py_ssize_t length, list answer) except -2:
        cdef entry_out entry
        cdef stat_t found
        cdef int fd, failed
        cdef Py_ssize_t size = length - 1
        if self._room(answer) < <Py_ssize_t>(sizeof(out_header) + sizeof(entry_out)):
            return NOT_NOW
        # One NUL, at the end.
        if not 0 < size <= NAME_MAX or <Py_ssize_t>strlen(body) != size or memchr(body, c'/', size) != NULL:
            return NOT_NOW
        if body[0] == c'.' and (size == 1 or (size == 2 and body[1] == c'.')):
            return NOT_NOW
        directory = self._node(header.node)
        if directory is None or directory.kind != DIRECTORY or directory.key[0] != self._device:
            return NOT_NOW
        if not self._aside_none():
            return NOT_NOW
        fd = directory.fd
        if fd < 0:
            return NOT_NOW
        directory.used = True
        if self._is_cached(directory):
            failed = fstatat(fd, body, &found, AT_SYMLINK_NOFOLLOW)
        else:
            failed = stat_cached(fd, body, &found)
        memset(&entry, 0, sizeof(entry))
        if failed:
            if errno != ENOENT:
                return NOT_NOW
            entry.entry_valid, entry.entry_valid_ns = self._valid, self._valid_ns
            entry.attr.blksize = 4096
            return self._give(header, 0, &entry, sizeof(entry), answer)
        name = body[:size]
        if found.st_mode & FORMAT == DIRECTORY and not self._settings.stateless:
            known = self._keys.get((found.st_dev, found.st_ino))
            if known is None or known.fd < 0:
                return NOT_NOW  # it comes to be held
        inode = self._found(directory, name, &found)
        if inode is None:
            return NOT_NOW
        self._entry(&entry, inode, &found)
        return self._give(header, 0, &entry, sizeof(entry), answer)

    cdef Py_ssize_t _getattr(self, in_header *header, char *body, Py_ssize_t length, list answer) except -2:
        cdef getattr_in wanted
        cdef attr_out out
        cdef stat_t found
        cdef int fd
        if length < <Py_ssize_t>sizeof(wanted) or self._room(answer) < <Py_ssize_t>(sizeof(out_header) + sizeof(out)):
            return NOT_NOW
        memcpy(&wanted, body, sizeof(wanted))
        if wanted.flags & 1:
            handle = self._handles.get(wanted.handle)
            if handle is None or handle.own >= 0:
                return NOT_NOW
            inode = handle.inode
            if inode.pseudo:
                return NOT_NOW
        else:
            inode = self._node(header.node)
        if inode is None or inode.locked:
            return NOT_NOW
        fd = inode.fd
        if fd >= 0:
            inode.used = True
            if fstat(fd, &found):
                return NOT_NOW
        else:
            parent = inode.parent
            if wanted.flags & 1 or parent is None or parent.fd < 0:
                return NOT_NOW
            name = inode.name
            parent.used = True
            if self._is_cached(parent):
                if fstatat(parent.fd, name, &found, AT_SYMLINK_NOFOLLOW):
                    return NOT_NOW
            elif stat_cached(parent.fd, name, &found):
                return NOT_NOW
            if inode.key != (found.st_dev, found.st_ino) or inode.kind != found.st_mode & FORMAT:
                return NOT_NOW
        if found.st_dev != self._device:
            return NOT_NOW
        inode.answered_at = now()
        memset(&out, 0, sizeof(out))
        out.valid, out.valid_ns = self._valid, self._valid_ns
        self._attr(&out.attr, &found)
        return self._give(header, 0, &out, sizeof(out), answer)

    cdef Py_ssize_t _setattr(self, in_header *header, char *body, Py_ssize_t length, list answer) except -2:
        """Owner, mode and times of what is open or held. Should one fail, the reference does all of it again."""
        cdef setattr_in wanted
        cdef attr_out out
        cdef stat_t found
        cdef int fd
        if length < <Py_ssize_t>sizeof(wanted) or self._room(answer) < <Py_ssize_t>(sizeof(out_header) + sizeof(out)):
            return NOT_NOW
        memcpy(&wanted, body, sizeof(wanted))
        if wanted.valid & ~<uint32_t>SETTABLE or max(wanted.atime_ns, wanted.mtime_ns, wanted.ctime_ns) >= 1_000_000_000:
            return NOT_NOW
        inode = self._node(header.node)
        if inode is None or inode.locked or inode.key[0] != self._device or self._settings.read_only:
            return NOT_NOW
        if wanted.valid & BY_HANDLE:
            handle = self._handles.get(wanted.handle)
            if handle is None or handle.own >= 0 or handle.inode is not inode:
                return NOT_NOW
        fd = inode.fd
        if fd < 0 or not inode.access or inode.kind == SYMLINK:
            return NOT_NOW
        inode.used = True
        if wanted.valid & KILL_SET_ID:
            if fstat(fd, &found) or found.st_mode & 0o4000 or found.st_mode & 0o2010 == 0o2010:
                return NOT_NOW
        if wanted.valid & (SET_UID | SET_GID):
            if self._uids or self._gids:
                return NOT_NOW
            if own(
                fd,
                wanted.uid if wanted.valid & SET_UID else UNCHANGED,
                wanted.gid if wanted.valid & SET_GID else UNCHANGED,
            ):
                return NOT_NOW
        if wanted.valid & SET_MODE and fchmod(fd, wanted.mode & 0o7777):
            return NOT_NOW
        if wanted.valid & (SET_ATIME | SET_MTIME) and set_times(fd, &wanted):
            return NOT_NOW
        if fstat(fd, &found):
            return NOT_NOW
        inode.answered_at = now()
        memset(&out, 0, sizeof(out))
        out.valid, out.valid_ns = self._valid, self._valid_ns
        self._attr(&out.attr, &found)
        return self._give(header, 0, &out, sizeof(out), answer)

    cdef Py_ssize_t _release(self, in_header *header, char *body, Py_ssize_t length, list answer) except -2:
        """Of a handle by which no locks were taken."""
        cdef release_in wanted
        if length < <Py_ssize_t>sizeof(wanted) or self._room(answer) < <Py_ssize_t>sizeof(out_header):
            return NOT_NOW
        memcpy(&wanted, body, sizeof(wanted))
        if wanted.flags & FLOCK_UNLOCK:
            return NOT_NOW
        handle = self._handles.get(wanted.handle)
        if handle is None or handle.own >= 0 or handle.owners:
            return NOT_NOW
        self._all_handles.release(wanted.handle)
        if not handle.inode.opens:
            self._locks.unguard(handle.inode)
        return self._give(header, 0, NULL, 0, answer)

    cdef int _descriptor(self, uint64_t number, uint64_t node, int access) except -2:
        """The descriptor to read or write by; -1 if it must be looked for."""
        if number:
            handle = self._handles.get(number)
            if handle is None or handle.own >= 0:
                return NOT_NOW
            inode = handle.inode
        else:
            inode = self._node(node)
            if inode is None or inode.kind != REGULAR:
                return NOT_NOW
        if not inode.access & access or inode.key[0] != self._device:
            return NOT_NOW
        inode.used = True
        return inode.fd

    cdef Py_ssize_t _read(self, in_header *header, char *body, Py_ssize_t length, list answer) except -2:
        cdef move_in wanted
        cdef iovec vectors[VECTORS_MAX]
        cdef stat_t found
        cdef int fd, count, flags
        cdef Py_ssize_t size, done
        if length < <Py_ssize_t>sizeof(wanted):
            return NOT_NOW
        memcpy(&wanted, body, sizeof(wanted))
        size = self._room(answer) - <Py_ssize_t>sizeof(out_header)
        if size < 0 or wanted.offset > OFFSET_MAX or wanted.size > CONTENTS_MAX:
            return NOT_NOW
        size = min(size, <Py_ssize_t>wanted.size)
        fd = self._descriptor(wanted.handle, header.node, READ_ACCESS)
        if fd < 0:
            return NOT_NOW
        count = self._vectors(answer, sizeof(out_header), size, vectors)
        if count <= 0:
            return NOT_NOW
        flags = 0 if self._device in self._in_memory else RWF_NOWAIT
        with nogil:
            done = preadv2(fd, vectors, count, wanted.offset, flags)
        if done < 0:
            return NOT_NOW
        if done and done < size and (fstat(fd, &found) or <int64_t>wanted.offset + done < found.st_size):
            return NOT_NOW
        self._statistics.read_bytes += done
        return self._give_header(header, done, answer)

    cdef Py_ssize_t _give_header(self, in_header *header, Py_ssize_t size, list answer) except -2:
        """Write the header of an answer whose `size` bytes are where they belong."""
        cdef out_header out
        cdef Py_ssize_t done = 0, piece
        cdef Py_buffer *buffer
        out.length, out.error, out.unique = <uint32_t>(sizeof(out_header) + size), 0, header.unique
        for view in answer:
            buffer = PyMemoryView_GET_BUFFER(view)
            piece = min(<Py_ssize_t>sizeof(out_header) - done, buffer.len)
            memcpy(buffer.buf, <char *>&out + done, piece)
            done += piece
            if done == sizeof(out_header):
                break
        return sizeof(out_header) + size

    cdef Py_ssize_t _write(self, in_header *header, list request, list answer) except -2:
        cdef move_in wanted
        cdef iovec vectors[VECTORS_MAX]
        cdef uint32_t out[2]
        cdef int fd, count
        cdef Py_ssize_t total, done = 0, skip = sizeof(in_header) + sizeof(move_in)
        total = self._room(request) - skip
        if total <= 0 or total > INLINE_WRITE or self._room(answer) < <Py_ssize_t>(sizeof(out_header) + sizeof(out)):
            return NOT_NOW
        count = self._vectors(request, sizeof(in_header), sizeof(move_in), vectors)
        while count > 0 and done < <Py_ssize_t>sizeof(move_in):
            take_in(<char *>&wanted + done, vectors[0].iov_base, vectors[0].iov_len)
            done += vectors[0].iov_len
            if done < <Py_ssize_t>sizeof(move_in):
                count = self._vectors(
                    request, sizeof(in_header) + done, <Py_ssize_t>sizeof(move_in) - done, vectors
                )
        if wanted.offset > OFFSET_MAX or <Py_ssize_t>wanted.size != total or wanted.flags & 4:
            return NOT_NOW
        fd = self._descriptor(wanted.handle, header.node, WRITE_ACCESS)
        if fd < 0:
            return NOT_NOW
        count = self._vectors(request, skip, total, vectors)
        if count <= 0:
            return NOT_NOW
        with nogil:
            done = pwritev(fd, vectors, count, wanted.offset)
        if done != total:
            return NOT_NOW  # it is written again, and the error told
        self._statistics.written_bytes += done
        out[0], out[1] = <uint32_t>done, 0
        return self._give(header, 0, out, sizeof(out), answer)

    cdef Py_ssize_t _getxattr(self, in_header *header, char *body, Py_ssize_t length, list answer) except -2:
        """Those that are absent; what there is the reference tells."""
        cdef getxattr_in wanted
        cdef int fd
        if length <= <Py_ssize_t>sizeof(wanted) or self._room(answer) < <Py_ssize_t>sizeof(out_header):
            return NOT_NOW
        body += sizeof(wanted)
        if <Py_ssize_t>strlen(body) >= length - <Py_ssize_t>sizeof(wanted):
            return NOT_NOW  # without an end
        name = <bytes>body
        if self._lower_layer and len(name) <= NAME_MAX and name.startswith(OVERLAY):
            return self._give(header, ENODATA, NULL, 0, answer)
        if name != CAPABILITY:
            return NOT_NOW
        inode = self._node(header.node)
        if inode is None:
            return NOT_NOW
        fd = inode.fd
        if fd < 0 or xattr_of(fd, CAPABILITY) >= 0 or errno != ENODATA:
            return NOT_NOW
        return self._give(header, ENODATA, NULL, 0, answer)

    # Listings ---------------------------------------------------------------------------------

    cdef Py_ssize_t _readdirplus(self, in_header *header, char *body, Py_ssize_t length, list answer) except -2:
        cdef move_in wanted
        cdef Py_ssize_t room, done
        cdef bytearray space
        if length < <Py_ssize_t>sizeof(wanted):
            return NOT_NOW
        memcpy(&wanted, body, sizeof(wanted))
        room = min(<Py_ssize_t>wanted.size, self._room(answer) - <Py_ssize_t>sizeof(out_header), <Py_ssize_t>LISTING_MAX)
        if room <= 0 or wanted.offset > OFFSET_MAX:
            return NOT_NOW
        inode = self._node(header.node)
        if inode is None or inode.fd < 0 or inode.kind != DIRECTORY or not inode.access & READ_ACCESS:
            return NOT_NOW
        if inode.key[0] != self._device or not self._aside_none():
            return NOT_NOW
        inode.used = True
        space = bytearray(room)
        done = self._list(inode, header.node, wanted.offset, space, room)
        if done < 0:
            return NOT_NOW
        return self._give(header, 0, <char *>space, done, answer)

    cdef Py_ssize_t _list(self, object inode, uint64_t node, uint64_t offset, char *space, Py_ssize_t room) except -2:
        """Entries from `offset`, as many as there is room for; the bytes that they take. -1 if none of them is for us."""
        cdef Py_ssize_t done = 0, length = 0
        cdef long reads
        cdef bint cached = self._is_cached(inode)
        cdef list entries
        guess = self._guesses.get(self._device)
        while True:
            place = (node, offset)
            entries = self._pending.pop(place, None) if offset else None
            if entries is None:
                if not cached and (guess is None or not guess.trusted):
                    return done if done else NOT_NOW
                reads = disk_reads()
                try:
                    entries = entries_from(inode.fd, offset)
                except OSError:
                    return done if done else NOT_NOW
                entries.reverse()
                if not cached:
                    from_disk = disk_reads() != reads
                    guess.saw(from_disk)
                    if from_disk:
                        if entries:
                            self._directories.keep(place, entries)
                        return done if done else NOT_NOW
                    if not entries:
                        inode.cached_until = now() + CACHED_SECONDS
            if not entries:
                return done
            reads = disk_reads()
            while entries:
                length = self._list_one(inode, entries[len(entries) - 1], space + done, room - done)
                if length <= 0:
                    break
                done += length
                offset = entries.pop()[1]
            if guess is not None and disk_reads() != reads:
                guess.saw(True)
            if entries:
                self._directories.keep((node, offset), entries)
                return NOT_NOW if not done and length < 0 else done

    cdef Py_ssize_t _list_one(self, object directory, tuple read, char *space, Py_ssize_t room) except -2:
        """Put one entry; the bytes that it takes, 0 if there is no room, -1 if it takes a closer look."""
        cdef bytes name = read[0]
        cdef Py_ssize_t length = len(name), size = ENTRY + ((DIRENT + length + 7) & ~7)
        cdef stat_t found
        cdef dirent_out dirent
        cdef entry_out entry
        if size > room:
            return 0
        memset(&entry, 0, sizeof(entry))
        dirent.ino, dirent.offset, dirent.length, dirent.kind = read[2], <uint64_t><int64_t>read[1], <uint32_t>length, read[3]
        if name == b"." or name == b"..":
            dirent.kind = 4
            if directory is self._root and length == 2:
                dirent.ino = directory.key[1]
        elif not fstatat(directory.fd, name, &found, AT_SYMLINK_NOFOLLOW):
            inode = self._found(directory, name, &found)
            if inode is None:
                return NOT_NOW
            self._entry(&entry, inode, &found)
            dirent.ino, dirent.kind = found.st_ino, (found.st_mode & FORMAT) >> 12
        memset(space + size - 8, 0, 8)
        memcpy(space, &entry, ENTRY)
        memcpy(space + ENTRY, &dirent, DIRENT)
        memcpy(space + ENTRY + DIRENT, <char *>name, length)
        return size
