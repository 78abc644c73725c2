"""tar archives in: members with owners, devices, hard links, extended attributes and nanoseconds.

Read as a stream, so that a pipe will do, with memory for one member at a time. pax records are those of GNU tar, star
and libarchive: `SCHILY.xattr.NAME` (raw), `LIBARCHIVE.xattr.NAME` (base64), and times with fractions.
"""

from __future__ import annotations

import base64
import binascii
import bz2
import contextlib
import gzip
import io
import lzma
import os
import shutil
import stat
import subprocess
import tarfile
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO, Final, cast
from urllib.parse import unquote_to_bytes

import trio

from humfs.importer import Importer, Member, show, split
from humfs.tarheader import Header
from umlfs.errors import UmlError
from umlfs.host.programs import Program

_TYPES: Final = {
    tarfile.REGTYPE: stat.S_IFREG,
    tarfile.AREGTYPE: stat.S_IFREG,
    tarfile.CONTTYPE: stat.S_IFREG,
    tarfile.GNUTYPE_SPARSE: stat.S_IFREG,
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}
_RAW: Final = "SCHILY.xattr."
_BASE64: Final = "LIBARCHIVE.xattr."
_BUFFER: Final = 1 << 20
_PAUSE: Final = 200
"""After so many members other tasks get a turn."""


class DamagedError(UmlError):
    """No archive, or not all of one. Its text goes behind the archive's name."""


class Forward:
    """A stream as tarfile wants it: it knows where it is and skips forward by reading."""

    def __init__(self, stream: BinaryIO) -> None:
        # One call that gathers what a slow pipe gives piece by piece would keep an interrupt waiting.
        self._read = getattr(stream, "read1", stream.read)
        self._ahead = b""
        self._position = 0

    def peek(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end."""
        while len(self._ahead) < size and (data := self._read(size - len(self._ahead))):
            self._ahead += data
        return self._ahead[:size]

    def read(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end."""
        if self._ahead:
            data, self._ahead = self._ahead[:size], self._ahead[size:]
        else:
            data = self._read(size)
        if data and len(data) < size:
            more = [data]
            left = size - len(data)
            while left and (data := self._read(left)):
                more.append(data)
                left -= len(data)
            data = b"".join(more)
        self._position += len(data)
        return data

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        if whence != os.SEEK_SET or position < self._position:
            raise OSError(29, os.strerror(29))
        while self._position < position and self.read(min(position - self._position, _BUFFER)):
            pass
        return self._position

    def seekable(self) -> bool:
        return False


@contextlib.contextmanager
def decompressed(stream: Forward) -> Iterator[Forward]:
    """The stream without the compression that its first bytes tell of."""
    magic = stream.peek(6)
    source = cast(BinaryIO, stream)
    if magic.startswith(b"\x1f\x8b"):
        with gzip.GzipFile(fileobj=source) as unzipped:
            yield Forward(cast(BinaryIO, unzipped))
    elif magic.startswith(b"BZh"):
        with bz2.BZ2File(source) as unzipped2:
            yield Forward(cast(BinaryIO, unzipped2))
    elif magic == b"\xfd7zXZ\0":
        with lzma.LZMAFile(source) as unzipped3:
            yield Forward(cast(BinaryIO, unzipped3))
    elif magic.startswith(b"\x28\xb5\x2f\xfd"):
        with _unzstd(source) as plain:
            yield Forward(plain)
    else:
        yield stream


@contextlib.contextmanager
def _unzstd(stream: BinaryIO) -> Iterator[BinaryIO]:
    program = shutil.which("zstd")
    if program is None:
        raise UmlError("the archive is compressed with zstd", "install the program zstd")
    with Program(
        [program, "-dcq"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        pipe, plain = cast(BinaryIO, process.stdin), cast(BinaryIO, process.stdout)
        feeder = threading.Thread(target=_feed, args=(stream, pipe), daemon=True)
        feeder.start()
        try:
            yield plain
        except BaseException:
            process.kill()
            raise
        finally:
            plain.close()
        feeder.join()
        if process.wait():
            raise EOFError("damaged zstd data")


def _feed(stream: BinaryIO, pipe: BinaryIO) -> None:
    with contextlib.suppress(BrokenPipeError), pipe:
        while data := stream.read(_BUFFER):
            pipe.write(data)


@contextlib.contextmanager
def plain(stream: BinaryIO) -> Iterator[BinaryIO]:
    """The stream without its compression, if it has any; an uncompressed file as it is. DamagedError."""
    if _is_plain_file(stream):
        yield stream
        return
    with _damage_explained(), decompressed(Forward(stream)) as source:
        yield cast(BinaryIO, source)
        while source.read(_BUFFER):  # to the checksum; and whoever writes to a pipe is not cut off
            pass


@contextlib.contextmanager
def opened(stream: BinaryIO) -> Iterator[tarfile.TarFile]:
    """The archive in a stream, compressed or not. DamagedError if it is none."""
    with _damage_explained(), plain(stream) as source:
        yield tarfile.TarFile(fileobj=source, errorlevel=2, tarinfo=Header)


@contextlib.contextmanager
def _damage_explained() -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise DamagedError(f"no tar archive, or a damaged one: {error}", "see 'uml humfs import --help'") from error


def _is_plain_file(stream: BinaryIO) -> bool:
    """An uncompressed archive in a regular file, of which contents can be copied by the kernel."""
    try:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            return False
    except (OSError, AttributeError):
        return False
    start = stream.tell()
    header = stream.read(262)
    stream.seek(start)
    return header[257:262] == b"ustar"


def members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members one by one, none of them kept."""
    while (info := archive.next()) is not None:
        yield info
        archive.members = []  # type: ignore[attr-defined]


def nanoseconds(text: str) -> int:
    """A pax time, seconds with any number of decimals, exactly."""
    whole, _, fraction = text.partition(".")
    sign = -1 if whole.startswith("-") else 1
    return int(whole or "0") * 10**9 + sign * int((fraction + "0" * 9)[:9])


def xattrs(headers: Mapping[str, str]) -> Iterator[tuple[bytes, bytes]]:
    """The extended attributes in pax records."""
    for key, value in headers.items():
        if key.startswith(_RAW):
            yield os.fsencode(key[len(_RAW) :]), value.encode("utf-8", "surrogateescape")
        elif key.startswith(_BASE64):
            name = unquote_to_bytes(key[len(_BASE64) :])
            with contextlib.suppress(binascii.Error):
                yield name, base64.b64decode(value + "=" * (-len(value) % 4))


def member(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Member | None:
    """What `info` says is to be made; None for a type that is none of a filesystem's."""
    kind = _TYPES.get(info.type)
    if kind is None:
        return None
    headers = info.pax_headers
    made = Member(
        split(os.fsencode(info.name)),
        kind | info.mode & 0o7777,
        info.uid,
        info.gid,
        mtime_ns=nanoseconds(headers["mtime"]) if "mtime" in headers else int(info.mtime) * 10**9,
    )
    if headers:
        if "atime" in headers:
            made.atime_ns = nanoseconds(headers["atime"])
        made.xattrs = list(xattrs(headers))
    if kind == stat.S_IFREG:
        made.size = info.size
        made.sparse = info.sparse is not None
        if not made.sparse and isinstance(archive.fileobj, io.BufferedReader):
            made.source = archive.fileobj.fileno(), info.offset_data
        else:
            made.contents = cast(BinaryIO, archive.extractfile(info))
    elif kind == stat.S_IFLNK:
        made.mode = kind | 0o777
        made.target = os.fsencode(info.linkname)
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        made.rdev = os.makedev(info.devmajor, info.devminor)
    return made


def _has_end(archive: tarfile.TarFile) -> bool:
    """Of an archive that was read to its end: whether that was marked by a block of zeroes."""
    stream = cast(BinaryIO, archive.fileobj)
    return stream.tell() > archive.offset


async def add_tar(importer: Importer, stream: BinaryIO, progress: Callable[[int], None] = lambda count: None) -> int:
    """Put everything in a tar archive (compressed or not) into the importer's filesystem; returns how much that was.

    `progress` is told the number of members so far. UmlError for what is no archive, or does not fit.
    """
    count = 0
    with opened(stream) as archive:
        for info in members(archive):
            await add_member(importer, archive, info)
            count += 1
            if not count % _PAUSE:
                progress(count)
                await trio.lowlevel.checkpoint()
        if not _has_end(archive):
            importer.warn("the archive has no end mark: it may have been cut off")
    return count


async def add_member(importer: Importer, archive: tarfile.TarFile, info: tarfile.TarInfo) -> int:
    """Put one member in; returns its inode number, 0 for one that was left out."""
    if info.islnk():
        await importer.link(split(os.fsencode(info.name)), split(os.fsencode(info.linkname)))
        return 0
    made = member(archive, info)
    if made is None:
        importer.warn(f"{show(split(os.fsencode(info.name)))}: left out, of unknown type {info.type!r}")
        return 0
    return await importer.add(made)
