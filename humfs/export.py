"""A humfs as a tar archive: the inverse of the import.

Written as pax, so that nothing is lost that tar can hold: nanoseconds, extended attributes (as GNU tar's
`SCHILY.xattr`; names that are no text as libarchive's), names of any bytes, large numbers, holes (GNU sparse 1.0).
"""

from __future__ import annotations

import base64
import contextlib
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import quote_from_bytes

from humfs.inodes import Inode
from humfs.losses import Losses
from humfs.store import Row
from humfs.volume import Volume
from umlfs.filesystem import ROOT

_TYPES: Final = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}
SOCKETS: Final = "sockets, of which tar has none, are left out"
_BLOCK: Final = 512
_SPARSE_LEAST: Final = 64 * 1024
"""So much must be saved for a file to be written with its holes."""


def export_tree(root: Path, output: BinaryIO, losses: Losses) -> None:
    """Write the humfs at `root`, which nobody has open, to `output`; what tar cannot hold is added to `losses`.
    UmlError, OSError."""
    with contextlib.closing(Volume(root)) as volume:
        Exporter(volume, output, losses).run()


@dataclass
class Exporter:
    """Writes the tree of `volume` to `output`."""

    volume: Volume
    output: BinaryIO
    losses: Losses = field(default_factory=Losses)
    progress: Callable[[int], None] = lambda count: None
    _linked: dict[int, str] = field(default_factory=dict)
    _count: int = 0

    def run(self) -> int:
        """Write everything; returns the number of members."""
        with tarfile.open(
            fileobj=self.output, mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
        ) as archive:
            for inode, path in self._walk():
                self._member(archive, inode, path)
        return self._count

    def _walk(self) -> Iterator[tuple[Inode, bytes]]:
        """Every inode and path; what is in a directory follows it at once, as tar wants it for directories' times."""
        row = self.volume.store.get(ROOT)
        assert row is not None
        yield Inode(row, ROOT, b"."), b"."
        pending = [self._names(ROOT, b".")]
        while pending:
            for inode, path in pending[-1]:
                yield inode, path
                if inode.is_directory:
                    pending.append(self._names(inode.ino, path))
                    break
            else:
                pending.pop()

    def _names(self, ino: int, path: bytes) -> Iterator[tuple[Inode, bytes]]:
        """What is in a directory, in the order of names."""
        for name, *columns in self.volume.store.select(
            "SELECT d.name, i.ino, mode, uid, gid, rdev, nlink, size, blocks, atime_ns, mtime_ns, ctime_ns, "
            "xattrs, host_ino FROM dentry d JOIN inode i ON i.ino = d.ino WHERE d.parent = ? ORDER BY d.name",
            ino,
        ):
            yield Inode(Row._make(columns), ino, name), path + b"/" + name

    def _member(self, archive: tarfile.TarFile, inode: Inode, path: bytes) -> None:
        name = os.fsdecode(path)
        kind = _TYPES.get(stat.S_IFMT(inode.mode))
        if kind is None:
            self.losses.add(SOCKETS, path[1:].decode("utf-8", "backslashreplace"))
            return
        info = tarfile.TarInfo(name)
        info.type = kind
        info.mode = stat.S_IMODE(inode.mode)
        info.uid, info.gid = inode.uid, inode.gid
        info.pax_headers = dict(self._headers(inode))
        info.mtime = inode.mtime_ns // 10**9
        if inode.nlink > 1 and not inode.is_directory:
            first = self._linked.setdefault(inode.ino, name)
            if first != name:
                info.type, info.linkname = tarfile.LNKTYPE, first
                info.pax_headers = {}
        self._write(archive, inode, info)
        self._count += 1
        if not self._count % 200:
            self.progress(self._count)

    def _headers(self, inode: Inode) -> Iterator[tuple[str, str]]:
        if inode.mtime_ns % 10**9 or inode.mtime_ns < 0:
            yield "mtime", _seconds(inode.mtime_ns)
        for name, value in self.volume.store.xattrs(inode.ino) if inode.xattrs else ():
            try:
                text = name.decode("ascii")
            except UnicodeDecodeError:
                text = "="
            if "=" in text:
                yield f"LIBARCHIVE.xattr.{quote_from_bytes(name)}", base64.b64encode(value).decode("ascii")
            else:
                yield f"SCHILY.xattr.{text}", value.decode("utf-8", "surrogateescape")

    def _write(self, archive: tarfile.TarFile, inode: Inode, info: tarfile.TarInfo) -> None:
        if info.type == tarfile.SYMTYPE:
            info.linkname = os.fsdecode(os.readlink(inode.name, dir_fd=self.volume.host.place(inode)))
        elif info.type in (tarfile.CHRTYPE, tarfile.BLKTYPE):
            info.devmajor, info.devminor = os.major(inode.rdev), os.minor(inode.rdev)
        elif info.type == tarfile.REGTYPE:
            with open(os.dup(self.volume.host.file(inode)), "rb") as contents:
                self._contents(archive, info, contents)
            os.close(self.volume.host.release(inode))
            return
        archive.addfile(info)

    @staticmethod
    def _contents(archive: tarfile.TarFile, info: tarfile.TarInfo, contents: BinaryIO) -> None:
        found = os.fstat(contents.fileno())
        info.size = found.st_size
        contents.seek(0)
        if found.st_blocks * 512 + _SPARSE_LEAST > found.st_size:
            archive.addfile(info, contents)
            return
        pieces = list(_data(contents.fileno(), found.st_size))
        table = _map(pieces)
        info.pax_headers = {
            **info.pax_headers,
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": info.name,
            "GNU.sparse.realsize": str(found.st_size),
        }
        directory, _, base = info.name.rpartition("/")
        info.name = f"{directory}/GNUSparseFile.0/{base}"
        info.size = len(table) + sum(size for _, size in pieces)
        archive.addfile(info, _Pieces(table, contents, pieces))


class _Pieces:
    """The data of a sparse member, as a file to be read."""

    def __init__(self, table: bytes, contents: BinaryIO, pieces: list[tuple[int, int]]) -> None:
        self._parts = self._chunks(table, contents, pieces)
        self._ahead = b""

    @staticmethod
    def _chunks(table: bytes, contents: BinaryIO, pieces: list[tuple[int, int]]) -> Iterator[bytes]:
        yield table
        for offset, size in pieces:
            contents.seek(offset)
            while size and (data := contents.read(min(size, 1 << 20))):
                size -= len(data)
                yield data

    def read(self, size: int = 1 << 20, /) -> bytes:
        while len(self._ahead) < size and (part := next(self._parts, b"")):
            self._ahead += part
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        return data


def _data(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Offset and length of all that is not a hole."""
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            break
        at = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, at - start
    if at < size:
        yield size, 0


def _map(pieces: list[tuple[int, int]]) -> bytes:
    lines = [len(pieces), *(number for piece in pieces for number in piece)]
    text = b"".join(b"%d\n" % line for line in lines)
    return text + bytes(-len(text) % _BLOCK)


def _seconds(nanoseconds: int) -> str:
    sign = "-" if nanoseconds < 0 else ""
    whole, fraction = divmod(abs(nanoseconds), 10**9)
    return f"{sign}{whole}.{fraction:09d}"
