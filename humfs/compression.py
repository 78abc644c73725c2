"""Compressed streams: what they are compressed with shows, and they are read forward."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import shutil
import subprocess
import threading
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final, cast

from humfs.tarheader import DamagedError
from umlfs.errors import UmlError
from umlfs.host.programs import Program

_BUFFER: Final = 1 << 20
_MAGICS: Final = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x5d\0\0", "lzma"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x89LZO\0\r\n\x1a\n", "lzop"),
    (b"LZIP", "lzip"),
    (b"\x1f\x9d", "compress"),
)
LOOK: Final = 1 << 20
"""Bytes of a compressed stream in which its contents begin, whatever it is compressed with."""
MAGIC_MAX: Final = max(len(magic) for magic, _ in _MAGICS)
_PROGRAMS: Final = {
    # A window of 2 GiB, which `zstd --long` may have asked for.
    "zstd": ("zstd", "zstd", ["-dcq", "--long=31"]),
    "lz4": ("lz4", "lz4", ["-dcq"]),
    "lzop": ("lzop", "lzop", ["-dcq"]),
    "lzip": ("lzip", "lzip", ["-dcq"]),
    "compress": ("gzip", "gzip", ["-dcq"]),
}
"""By the name of the compression: the program that undoes it, its package, its options."""


def compression(head: bytes) -> str | None:
    """What a stream that begins with `head` is compressed with; None for none that is known."""
    return next((name for magic, name in _MAGICS if head.startswith(magic)), None)


def beginning(head: bytes, size: int) -> bytes:
    """Up to `size` bytes of what is compressed in a stream that begins with `head`; `head` itself if it is not
    compressed. Fewer, or none, if `head` is damaged or too short."""
    name = compression(head)
    with contextlib.suppress(OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, UmlError):
        if name is None:
            return head[:size]
        if name == "gzip":
            return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(head, size)
        if name == "bzip2":
            return bz2.BZ2Decompressor().decompress(head, size)
        if name in ("xz", "lzma"):
            return lzma.LZMADecompressor().decompress(head, size)
        program = _program(name)
        with Program(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            return process.communicate(head)[0][:size]
    return b""


class Forward:
    """A stream that is read forward: it knows where it is and skips forward by reading."""

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
    """The stream without the compression that its first bytes tell of. See `damage_explained`."""
    name = compression(stream.peek(MAGIC_MAX))
    source = cast(BinaryIO, stream)
    if name is None:
        yield stream
    elif name == "gzip":
        with gzip.GzipFile(fileobj=source) as unzipped:
            yield Forward(cast(BinaryIO, unzipped))
    elif name == "bzip2":
        with bz2.BZ2File(source) as unzipped2:
            yield Forward(cast(BinaryIO, unzipped2))
    elif name in ("xz", "lzma"):
        with lzma.LZMAFile(source) as unzipped3:
            yield Forward(cast(BinaryIO, unzipped3))
    else:
        with _by_program(source, name) as plain:
            yield Forward(plain)


@contextlib.contextmanager
def _by_program(stream: BinaryIO, name: str) -> Iterator[BinaryIO]:
    with Program(_program(name), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        pipe, plain = cast(BinaryIO, process.stdin), cast(BinaryIO, process.stdout)
        feeder = threading.Thread(target=_feed, args=(stream, pipe), daemon=True)
        feeder.start()
        ended = False
        try:
            yield plain
            ended = not plain.read(1)
        except BaseException:
            process.kill()
            raise
        finally:
            plain.close()
        feeder.join()
        if process.wait() and ended:
            raise EOFError(f"damaged {name} data")


def _program(name: str) -> list[str]:
    word, package, options = _PROGRAMS[name]
    program = shutil.which(word)
    if program is None:
        raise UmlError(f"it is compressed with {name}", f"install {word} with `apt install {package}`")
    return [program, *options]


def _feed(stream: BinaryIO, pipe: BinaryIO) -> None:
    with contextlib.suppress(BrokenPipeError), pipe:
        while data := stream.read(_BUFFER):
            pipe.write(data)


@contextlib.contextmanager
def damage_explained() -> Iterator[None]:
    """What a damaged stream raises becomes a DamagedError."""
    try:
        yield
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise DamagedError(f"no tar archive, or a damaged one: {error}", "see 'uml humfs import --help'") from error
