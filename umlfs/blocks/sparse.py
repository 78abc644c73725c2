"""Sparse files of the host: where their data is, how holes are made, how ranges are copied without losing them.

Everything here waits for the disk. Offsets and lengths are bytes.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from umlfs.buffers import part, total

KEEP_SIZE: Final = 1
PUNCH_HOLE: Final = 2
ZERO_RANGE: Final = 16
"""Modes of fallocate(2)."""

UNSUPPORTED: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV})
"""What fallocate answers where the filesystem, the file or the device has no such thing."""

NO_COPY: Final = frozenset(
    {errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY, errno.EINVAL, errno.EPERM, errno.ETXTBSY, errno.EISDIR}
)
"""What copy_file_range and FICLONERANGE answer where the kernel cannot copy or share between two files."""

COPY_STEP: Final = 128 * 1024
"""How much the kernel copies at a time. Far larger requests were measured to take three times as long (Linux 6.18,
ext4: it then allocates the page cache in large folios); smaller ones only cost calls."""

_FICLONERANGE: Final = 0x4020940D

CHUNK: Final = 1 << 20
"""How much is read and written at a time where it has to go through memory."""

TELL_STEP: Final = 16 << 20
"""How much is copied between two words of progress."""

IOV_MAX: Final = 1024
"""The most buffers that one preadv or pwritev takes (Linux)."""

_libc = ctypes.CDLL(None, use_errno=True)
_fallocate = _libc.fallocate
_fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
_sync_file_range = _libc.sync_file_range
_sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
_SYNC_FILE_RANGE_WRITE: Final = 2


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2). EOPNOTSUPP whatever the kernel calls it where `mode` cannot be had; else OSError as it comes."""
    while _fallocate(fd, mode, offset, length) != 0:
        number = ctypes.get_errno()
        if number == errno.EINTR:
            continue
        if number in UNSUPPORTED:
            number = errno.EOPNOTSUPP
        raise OSError(number, os.strerror(number))


def punch(fd: int, offset: int, length: int) -> None:
    """Give back the space of a range, which reads as zeroes from then on. The size stays. EOPNOTSUPP."""
    fallocate(fd, PUNCH_HOLE | KEEP_SIZE, offset, length)


def zero(fd: int, offset: int, length: int) -> None:
    """Make a range read as zeroes and keep its space. The size stays. EOPNOTSUPP."""
    fallocate(fd, ZERO_RANGE | KEEP_SIZE, offset, length)


def write_zeroes(fd: int, offset: int, length: int) -> None:
    """Write zeroes, which works everywhere (and makes a file longer that ends before)."""
    block = bytes(min(length, CHUNK))
    while length > 0:
        done = os.pwrite(fd, block[:length], offset)
        offset += done
        length -= done


def start_writing(fd: int, offset: int, length: int) -> None:
    """Let the kernel begin to write a range to the disk, so that an fsync to come has less left to do."""
    _sync_file_range(fd, offset, length, _SYNC_FILE_RANGE_WRITE)  # a hint: errors come with the fsync


def segments(fd: int, offset: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """Cut `[offset, end)` into (start, end, has data), in order; what lies past the end of the file has none.

    A filesystem without holes has data everywhere.
    """
    while offset < end:
        data = _seek(fd, offset, os.SEEK_DATA, end)
        if data > offset:
            yield offset, min(data, end), False
        if data >= end:
            return
        offset = min(_seek(fd, data, os.SEEK_HOLE, end), end)
        yield data, offset, True


def _seek(fd: int, offset: int, whence: int, end: int) -> int:
    """The next data or hole from `offset`, `end` if there is none."""
    try:
        return os.lseek(fd, offset, whence)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return end
        if error.errno == errno.EINVAL:
            return offset if whence == os.SEEK_DATA else end
        raise


def copy_data(
    source: int,
    target: int,
    offset: int,
    target_offset: int,
    length: int,
    copied: Callable[[int], None] | None = None,
) -> None:
    """Copy what has data in a range from one file to another, as `copy` does: holes, and what lies past the end of the
    source, stay as the target has them. `copied` hears every `TELL_STEP` how many bytes of the range are behind."""
    for start, end, has_data in segments(source, offset, offset + length):
        while has_data and start < end:
            size = end - start if copied is None else min(TELL_STEP, end - start)
            copy(source, target, start, start - offset + target_offset, size)
            start += size
            if copied is not None:
                copied(start - offset)


def copy(source: int, target: int, offset: int, target_offset: int, length: int) -> None:
    """Copy a range from one file to another, shared (reflink) or inside the kernel where it can.

    EIO if the source ends before the range does.
    """
    if length >= COPY_STEP and _clone(source, target, offset, target_offset, length):
        return
    while length > 0:
        try:
            done = os.copy_file_range(source, target, min(length, COPY_STEP), offset, target_offset)
        except OSError as error:
            if error.errno not in NO_COPY:
                raise
            return _copy_through_memory(source, target, offset, target_offset, length)
        if not done:
            raise OSError(errno.EIO, "the file ends before the range to copy")
        offset += done
        target_offset += done
        length -= done


def _clone(source: int, target: int, offset: int, target_offset: int, length: int) -> bool:
    """Let both files share a range on the disk, if the filesystem can and the range suits it."""
    try:
        fcntl.ioctl(target, _FICLONERANGE, struct.pack("=qQQQ", source, offset, length, target_offset))
    except OSError as error:
        if error.errno in NO_COPY:
            return False
        raise
    return True


def _copy_through_memory(source: int, target: int, offset: int, target_offset: int, length: int) -> None:
    while length > 0:
        block = os.pread(source, min(length, CHUNK), offset)
        if not block:
            raise OSError(errno.EIO, "the file ends before the range to copy")
        write_all(target, block, target_offset)
        offset += len(block)
        target_offset += len(block)
        length -= len(block)


def write_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`."""
    view = memoryview(data)
    while view:
        done = os.pwrite(fd, view, offset)
        view = view[done:]
        offset += done


def read_all(fd: int, length: int, offset: int) -> bytes:
    """The `length` bytes at `offset`, fewer only at the end of the file."""
    blocks = []
    while length > 0 and (block := os.pread(fd, length, offset)):
        blocks.append(block)
        offset += len(block)
        length -= len(block)
    return b"".join(blocks)


def read_into(fd: int, offset: int, buffers: Sequence[memoryview]) -> int:
    """Fill `buffers` in turn from `offset`; returns the bytes read, short only at the end of the file."""
    done, wanted = 0, total(buffers)
    while done < wanted:
        count = os.preadv(fd, part(buffers, done, wanted - done)[:IOV_MAX], offset + done)
        if not count:
            break
        done += count
    return done


def write_from(fd: int, offset: int, buffers: Sequence[memoryview]) -> None:
    """Write all of `buffers` in turn at `offset`."""
    done, wanted = os.pwritev(fd, buffers[:IOV_MAX], offset), total(buffers)
    while done < wanted:
        done += os.pwritev(fd, part(buffers, done, wanted - done)[:IOV_MAX], offset + done)


def write_some(fd: int, offset: int, buffers: Sequence[memoryview]) -> int:
    """Write all of `buffers` in turn at `offset`, or as much as there is room for; returns how many bytes that were.

    OSError if nothing could be written.
    """
    done, wanted = 0, total(buffers)
    try:
        while done < wanted:
            count = os.pwritev(fd, part(buffers, done, wanted - done)[:IOV_MAX], offset + done)
            if not count:
                break
            done += count
    except OSError:
        if not done:
            raise
    return done
