"""The COW file on the disk: its header read and written, its bitmap loaded, an old version converted.

Everything here waits for the disk.
"""

from __future__ import annotations

import os
import shlex

from umlfs.blocks import sparse
from umlfs.blocks.raw import LockedFile, open_file
from umlfs.cow.bitmap import Bitmap
from umlfs.cow.header import READ_SIZE, BadHeader, Header, NotCow, marker, pack, pack_mtime, parse
from umlfs.errors import UmlError
from umlfs.host.newfile import new_file


def read_header(fd: int, path: str) -> Header:
    """The header of an open COW file. UmlError if there is none, or it cannot be used."""
    try:
        return parse(sparse.read_all(fd, READ_SIZE, 0))
    except NotCow as error:
        raise UmlError(f"{path}: not a COW file ({error})", "use it as it is: 'raw:FILE'") from error
    except BadHeader as error:
        raise UmlError(f"{path}: damaged COW header: {error}", "restore the COW file from a copy") from error


def header_at(path: str) -> Header:
    """The header of the COW file at `path`, without a lock. OSError; UmlError as `read_header`."""
    file = open_file(path, read_only=True, lock=False)
    try:
        return read_header(file.fileno(), path)
    finally:
        file.close()


def peek_header(path: str) -> Header | None:
    """The header of the file at `path`, None if it is not a COW file (or cannot be read)."""
    try:
        return header_at(path)
    except (OSError, UmlError):
        return None


def identity(fd: int) -> tuple[int, int]:
    """Device and inode number of an open file."""
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def write_header(fd: int, header: Header) -> None:
    """Write a V3 header in place, durable on return. Only as far as the path goes: that is mostly one sector,
    which a power cut leaves either old or new."""
    sparse.write_all(fd, pack(header), 0)
    os.fdatasync(fd)


def write_marker(fd: int, header: Header, inode: int | None) -> None:
    """Note in the header, durably, that a merge into the file of that inode number runs; None: that it is over."""
    sparse.write_all(fd, marker(inode), header.marker_offset)
    os.fdatasync(fd)


def write_mtime(fd: int, header: Header, mtime: int) -> None:
    """Change the mtime alone, in a header of any version; durable on return."""
    offset, content = pack_mtime(header, mtime)
    sparse.write_all(fd, content, offset)
    os.fdatasync(fd)


def load_bitmap(fd: int, header: Header, path: str) -> Bitmap:
    """The whole bitmap. UmlError if the file ends within it; one that is being merged may, having been emptied."""
    bitmap = Bitmap(header.sectors, header.bitmap_length)
    for chunk in bitmap.missing(0, header.bitmap_length * 8):
        offset, length = bitmap.chunk_range(chunk)
        content = sparse.read_all(fd, length, header.bitmap_offset + offset)
        if len(content) < length and header.merging is None:
            bitmap.close()
            raise UmlError(f"{path}: the COW file ends within its bitmap", "restore it from a copy")
        bitmap.load(chunk, content)
    return bitmap


def require_not_merging(path: str, header: Header) -> None:
    """UmlError if a merge in place was interrupted: the backing file holds a part of the changes."""
    if header.merging is not None:
        raise UmlError(
            f"{path}: a merge of it into its backing file was interrupted",
            f"finish that first: uml cow merge --in-place {shlex.quote(path)}",
        )


def require_whole(fd: int, header: Header, path: str) -> None:
    """UmlError if the file ends within its bitmap."""
    if os.fstat(fd).st_size < header.bitmap_offset + header.bitmap_length:
        raise UmlError(f"{path}: the COW file ends within its bitmap", "restore it from a copy")


def rename_backing(
    file: LockedFile, path: str, header: Header, named: Header, *, lock: bool = True, sync: bool = False
) -> LockedFile:
    """Put `named`, a V3 header that names another backing file, in the place of `header`, durably.

    Where that moves bitmap and data, the file is written anew and takes the place of the old one. Returns the
    file to go on with, open as `lock` and `sync` say.
    """
    if named.lies_like(header):
        write_header(file.fileno(), named)
        return file
    return _convert(file, path, header, named, lock, sync)


def _convert(file: LockedFile, path: str, old: Header, new: Header, lock: bool, sync: bool) -> LockedFile:
    """Write the file anew with another layout. The old one is closed when the new one is in its place, locked."""
    source = file.fileno()
    require_whole(source, old, path)
    with new_file(path, os.fstat(source).st_mode & 0o7777, replace=True) as target:
        fill(target, new)
        sparse.copy_data(source, target, old.bitmap_offset, new.bitmap_offset, old.bitmap_length)
        sparse.copy_data(source, target, old.data_offset, new.data_offset, old.size)
        locked = open_file(f"/proc/self/fd/{target}", sync=sync, lock=lock)
    file.close()
    return locked


def fill(fd: int, header: Header) -> None:
    """Make an empty file a COW file without changes."""
    sparse.write_all(fd, pack(header), 0)
    os.ftruncate(fd, header.file_size)
