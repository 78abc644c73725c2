"""The files of a container image: unpacked in a directory, or packed in a tar file."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol, cast

from humfs.tarreader import Reader
from umlfs.errors import UmlError

_CHUNK: Final = 1 << 20
_ALIASES_MAX: Final = 40


class Files(Protocol):
    """The files of an image, by their names within it."""

    def has(self, name: str) -> bool: ...

    def open(self, name: str) -> contextlib.AbstractContextManager[BinaryIO]: ...


class Directory:
    """An image unpacked in a directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def has(self, name: str) -> bool:
        return self._place(name).is_file()

    def open(self, name: str) -> contextlib.AbstractContextManager[BinaryIO]:
        place = self._place(name)
        if not place.is_file():
            raise _missing(name)
        return open(place, "rb")

    def _place(self, name: str) -> Path:
        """Where the file is. UmlError for a name that leads out of the image."""
        place = (self._root / name).resolve()
        if not place.is_relative_to(self._root.resolve()):
            raise UmlError(f"{name}: not in the image", "it names files of this machine, do not trust it")
        return place


class Packed:
    """An image in an uncompressed tar file, whose members may be in any order. DamagedError."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._places: dict[str, tuple[int, int]] = {}
        self._aliases: dict[str, str] = {}
        for member in Reader(file):
            name = os.fsdecode(b"/".join(member.path))
            if member.link is not None:
                self._aliases[name] = os.fsdecode(b"/".join(member.link))
            elif member.target:  # a layer that two images share
                target = os.path.join(os.path.dirname(name), os.fsdecode(member.target))
                self._aliases[name] = os.path.normpath(target)
            elif member.source is not None and member.ranges is None:
                self._places[name] = (member.source[1], member.size)

    def has(self, name: str) -> bool:
        return self._place(name) is not None

    def _place(self, name: str) -> tuple[int, int] | None:
        name = os.path.normpath(name)
        for _ in range(_ALIASES_MAX):
            if name not in self._aliases:
                break
            name = self._aliases[name]
        return self._places.get(name)

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        place = self._place(name)
        if place is None:
            raise _missing(name)
        yield cast(BinaryIO, io.BufferedReader(_Part(self._file.fileno(), *place), _CHUNK))


def _missing(name: str) -> UmlError:
    return UmlError(f"the image has no file {name}", "save it again, it is not whole")


class _Part(io.RawIOBase):
    """Part of a file."""

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._fd = fd
        self._offset = offset
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: self._left]
        count = os.preadv(self._fd, [view], self._offset) if view else 0
        self._offset += count
        self._left -= count
        return count
