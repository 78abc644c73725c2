"""A tar archive passed on as it is, looked through on the way: what is passed on is whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Final, cast

from humfs import tarpax
from humfs.acl import ACCESS, DEFAULT
from humfs.losses import Losses
from humfs.tarheader import BLOCK, DamagedError, parse, rounded, with_mode, with_size
from humfs.tarpax import Records
from humfs.tarreader import BESIDES, EXTENDED, Reader

_CHUNK: Final = 1 << 20
_ACLS: Final = (b"SCHILY.acl.access", b"SCHILY.acl.default")


class _Tee:
    """A stream that keeps what was read from it until that is taken."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._kept: list[bytes] = []
        self._position = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._position += len(data)
        self._kept.append(data)
        return data

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        """Skip forward, over what fills up a block."""
        self.read(position - self._position)
        return self._position

    def take(self) -> bytes:
        data = b"".join(self._kept)
        self._kept.clear()
        return data

    def skip(self, size: int) -> Iterator[bytes]:
        """Pass on the next bytes. DamagedError if they are not all there."""
        while size:
            data = self._stream.read(min(size, _CHUNK))
            if not data:
                raise DamagedError("the archive ends within a file", "it was cut short, make it again")
            size -= len(data)
            self._position += len(data)
            yield data


def pieces(stream: BinaryIO, losses: Losses, *, plain_lists: bool = False) -> Iterator[bytes]:
    """All of an uncompressed archive. With `plain_lists` access lists, which star and libarchive write as text, become
    extended attributes like others. DamagedError for what is no archive, or not all of one."""
    tee = _Tee(stream)
    reader = Reader(cast(BinaryIO, tee), losses)
    for _ in reader.steps():
        headers = tee.take()
        if plain_lists and b" SCHILY.acl." in headers:
            try:
                headers = _with_plain_lists(headers)
            except ValueError as error:
                raise DamagedError(f"a damaged archive: {error}", "make it again") from None
        yield headers
        yield from tee.skip(reader.next - tee.tell())
    yield tee.take()
    if not reader.is_complete:
        raise DamagedError("the archive has no end", "it was cut short, make it again")
    while data := stream.read(_CHUNK):
        yield data


def _with_plain_lists(headers: bytes) -> bytes:
    """The headers of a member with access lists as attributes."""
    made: list[bytes] = []
    found: list[tuple[bytes, bytes]] = []
    at = 0
    while at < len(headers):
        block = headers[at : at + BLOCK]
        header = parse(block)
        if header.kind in EXTENDED:
            records = _as_attributes(tarpax.parse(headers[at + BLOCK : at + BLOCK + header.size]))
            found = tarpax.xattrs(records, [])
            data = b"".join(tarpax.record(key, value) for key, value in records.items())
            made += [with_size(block, len(data)), data.ljust(rounded(len(data)), b"\0")]
            at += BLOCK + rounded(header.size)
        elif header.kind in BESIDES:
            end = at + BLOCK + rounded(header.size)
            made.append(headers[at:end])
            at = end
        else:
            made += [with_mode(block, tarpax.mode_with_list(header.mode, found)), headers[at + BLOCK :]]
            break
    return b"".join(made)


def _as_attributes(records: Records) -> Records:
    found = dict(tarpax.xattrs(records, []))
    others = {key: value for key, value in records.items() if key not in _ACLS}
    return others | {b"SCHILY.xattr." + name: value for name, value in found.items() if name in (ACCESS, DEFAULT)}
