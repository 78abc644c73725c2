"""The members of a tar archive, one by one, from a stream that is read forward only.

Every format of today is read, see `humfs.tarheader`, `humfs.tarpax` and `humfs.tarsparse`. What is damaged or out of
range ends the reading as a DamagedError; what cannot be kept is added to the losses.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator, Mapping
from typing import BinaryIO, Final, cast

from humfs import tarpax, tarsparse
from humfs.importer import Member, split
from humfs.losses import Losses
from humfs.tarheader import BLOCK, DamagedError, Header, parse, rounded
from humfs.tarpax import Records

_KINDS: Final = {
    b"0": stat.S_IFREG,
    b"\0": stat.S_IFREG,
    b"7": stat.S_IFREG,
    b"S": stat.S_IFREG,
    b"5": stat.S_IFDIR,
    b"D": stat.S_IFDIR,
    b"2": stat.S_IFLNK,
    b"3": stat.S_IFCHR,
    b"4": stat.S_IFBLK,
    b"6": stat.S_IFIFO,
}
_LINK: Final = b"1"
_WITHOUT_DATA: Final = frozenset({b"1", b"2", b"3", b"4", b"5", b"6"})
"""Types that nothing follows, whatever their size is."""
EXTENDED: Final = frozenset({b"x", b"X"})
_GLOBAL: Final = b"g"
_LONG_NAME: Final = b"L"
_LONG_LINK: Final = b"K"
_LABEL: Final = b"V"
_CONTINUED: Final = b"M"
BESIDES: Final = frozenset({b"x", b"X", b"g", b"L", b"K"})
"""Types that say something about the next member."""
RECORDS_MAX: Final = 16 << 20
"""Bytes of an extended header: attributes may take 64 KiB each."""
NAME_MAX: Final = 1 << 20
SIZE_MAX: Final = (1 << 63) - 1
ID_MAX: Final = (1 << 32) - 2
"""The largest owner; the next one means none."""
_MAJOR_MAX: Final = (1 << 12) - 1
_MINOR_MAX: Final = (1 << 20) - 1
_EMPTY: Final[Mapping[bytes, bytes]] = {}


class Reader:
    """Iterates over the members of an archive in `stream`, which has no compression. Contents are to be read before the
    next member is asked for. DamagedError."""

    def __init__(self, stream: BinaryIO, losses: Losses | None = None) -> None:
        self._stream = stream
        self.losses = losses if losses is not None else Losses()
        self._start = stream.tell()
        self.next = self._start
        """Where the next header is."""
        self._everywhere: Records = {}
        """The records of global headers."""
        self.is_complete = False
        """The mark at the archive's end was read."""
        self._fd = _descriptor(stream)
        self.name = b""
        """The name of the member, as the archive has it."""

    def __iter__(self) -> Iterator[Member]:
        return filter(None, self.steps())

    def steps(self) -> Iterator[Member | None]:
        """Each member, and None for what is no file, or is left out."""
        try:
            while (found := self._header()) is not None:
                yield self._made(*found)
        except ValueError as error:
            where = f"{_shown(self.name)}: " if self.name else ""
            raise DamagedError(f"{where}a damaged archive: {error}", "make it again") from None

    # What is read -----------------------------------------------------------------------------

    def _header(self) -> tuple[Header, Mapping[bytes, bytes]] | None:
        """The next member's, with all that other headers say of it; None at the end."""
        records: Records | None = None
        name = link = None
        self.name = b""
        while True:
            if self.next != self._stream.tell():
                self._stream.seek(self.next)
            block = self._stream.read(BLOCK)
            if not block and self.next == self._start:
                raise DamagedError("no tar archive: it is empty", "see 'uml humfs import --help'")
            if not block.strip(b"\0"):
                self.is_complete = len(block) == BLOCK
                if len(block) % BLOCK or records is not None or name is not None:
                    raise ValueError("it ends within a header")
                return None
            if len(block) < BLOCK:
                raise ValueError("it ends within a header")
            self._block = block
            try:
                header = parse(block)
            except ValueError as error:
                raise self._no_header(error) from None
            data = self.next + BLOCK
            if header.kind not in BESIDES:
                break
            if not 0 <= header.size <= RECORDS_MAX:
                raise ValueError("an extended header is too long")
            self.next = data + rounded(header.size)
            contents = self._exactly(header.size)
            if header.kind in EXTENDED:
                records = {**(records or {}), **tarpax.parse(contents)}
            elif header.kind == _GLOBAL:
                self._everywhere |= tarpax.parse(contents)
            elif header.kind == _LONG_NAME:
                name = contents.partition(b"\0")[0]
            else:
                link = contents.partition(b"\0")[0]
        self._data = data
        if name is not None or link is not None:
            header = header._replace(name=name or header.name, link=link or header.link)
        if self._everywhere:
            records = {**self._everywhere, **(records or {})}
        self.name = header.name
        if records:
            header = self._overridden(header, records)
        stored = 0 if header.kind in _WITHOUT_DATA else header.size
        if not 0 <= stored <= SIZE_MAX:
            raise ValueError("its size is none")
        self.next = data + rounded(stored)
        return header, records or _EMPTY

    def _no_header(self, error: ValueError) -> Exception:
        if self.next == self._start:
            return DamagedError("no tar archive, or a damaged one", "see 'uml humfs import --help'")
        return ValueError(f"{error}, at byte {self.next - self._start}")

    def _overridden(self, header: Header, records: Records) -> Header:
        """With what records say instead of fields; an empty value says nothing."""
        for key in [key for key, value in records.items() if not value and not key.startswith(b"SCHILY.xattr.")]:
            del records[key]
        name = records.get(b"GNU.sparse.name") or records.get(b"path") or header.name
        self.name = name
        return header._replace(
            name=name,
            link=records.get(b"linkpath", header.link),
            size=tarpax.number(records, b"size") if b"size" in records else header.size,
            uid=tarpax.number(records, b"uid") if b"uid" in records else header.uid,
            gid=tarpax.number(records, b"gid") if b"gid" in records else header.gid,
        )

    def _exactly(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) < size:
            raise ValueError("it ends within a header")
        return data

    # What is made of it -----------------------------------------------------------------------

    def _made(self, header: Header, records: Mapping[bytes, bytes]) -> Member | None:
        """None for what is no file, or is left out."""
        if header.kind == _LABEL:
            return None
        if header.kind == _CONTINUED:
            raise ValueError("it continues another volume, which comes first")
        if b"\0" in header.name or b"\0" in header.link:
            raise ValueError("a name has a NUL byte in it")
        path = split(header.name)
        if not path and not _is_root(header.name):
            self.losses.add("names that lead out of the archive's tree are left out", _shown(header.name))
            return None
        if header.kind == _LINK:
            return Member(path, 0, link=split(header.link))
        kind = _KINDS.get(header.kind)
        if kind is None:
            self.losses.add(f"members of the unknown type {header.kind!r} are left out", _shown(header.name))
            return None
        made = Member(
            path,
            kind | header.mode & 0o7777,
            self._id(header.uid, "owner"),
            self._id(header.gid, "group"),
            mtime_ns=header.mtime * 10**9,
        )
        if records:
            self._add_records(made, records)
        made.mtime_ns = self._time(made.mtime_ns)
        if kind == stat.S_IFREG:
            self._add_contents(made, header, records)
        elif kind == stat.S_IFLNK:
            made.mode = kind | 0o777
            made.target = header.link
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            if not (0 <= header.major <= _MAJOR_MAX and 0 <= header.minor <= _MINOR_MAX):
                raise ValueError(f"the device {header.major}:{header.minor} is none that Linux can have")
            made.rdev = os.makedev(header.major, header.minor)
        return made

    @staticmethod
    def _id(value: int, what: str) -> int:
        if not 0 <= value <= ID_MAX:
            raise ValueError(f"its {what} {value} is beyond {ID_MAX}")
        return value

    def _time(self, value: int) -> int:
        if -tarpax.TIME_MAX <= value <= tarpax.TIME_MAX:
            return value
        self.losses.add("times that no filesystem has are set to the nearest one", _shown(self.name))
        return tarpax.TIME_MAX if value > 0 else -tarpax.TIME_MAX

    def _add_records(self, made: Member, records: Mapping[bytes, bytes]) -> None:
        if b"mtime" in records:
            made.mtime_ns = tarpax.nanoseconds(records[b"mtime"])
        if b"atime" in records:
            made.atime_ns = self._time(tarpax.nanoseconds(records[b"atime"]))
        lost: list[str] = []
        made.xattrs = tarpax.xattrs(records, lost)
        made.mode = tarpax.mode_with_list(made.mode, made.xattrs)
        for kind in lost:
            self.losses.add(kind, _shown(self.name))

    def _add_contents(self, made: Member, header: Header, records: Mapping[bytes, bytes]) -> None:
        start, stored = self._data, header.size
        made.size = stored
        if header.kind == b"S":
            made.ranges, made.size = tarsparse.old(self._block, self._more)
            start = self._stream.tell()
            self.next = start + rounded(stored)
        elif b"GNU.sparse.major" in records:
            if (records[b"GNU.sparse.major"], records.get(b"GNU.sparse.minor")) != (b"1", b"0"):
                raise ValueError("its sparse map is of a version that is not known")
            made.ranges = tarsparse.before_data(self._map_block)
            made.size = tarpax.number(records, b"GNU.sparse.realsize") if b"GNU.sparse.realsize" in records else 0
            stored -= self._stream.tell() - start
            start = self._stream.tell()
        elif (found := tarsparse.in_records(records)) is not None:
            made.ranges, made.size = found
        if made.ranges is not None:
            tarsparse.check(made.ranges, made.size, stored)
        if made.size > SIZE_MAX:
            raise ValueError("its size is none")
        if self._fd is not None:
            made.source = self._fd, start
        else:
            made.contents = cast(BinaryIO, _Contents(self._stream, stored))
        made.stored = stored

    def _more(self) -> bytes:
        return self._exactly(BLOCK)

    def _map_block(self) -> bytes:
        if self._stream.tell() >= self.next:
            raise ValueError("its sparse map is damaged")
        return self._exactly(BLOCK)


class _Contents:
    """What is in the archive of one member, as a file to be read."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._left = size

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data


def _descriptor(stream: BinaryIO) -> int | None:
    """That of a regular file, of which contents are copied by the kernel."""
    return stream.fileno() if isinstance(stream, (io.BufferedReader, io.BufferedRandom)) and stream.seekable() else None


def _is_root(name: bytes) -> bool:
    return b".." not in name.split(b"/")


def _shown(name: bytes) -> str:
    return "/" + name.decode("utf-8", "backslashreplace").removeprefix("./").lstrip("/")
