"""The images that the page offers: those in one directory, by their paths from there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runtime.inspect.info import layers_of
from runtime.inspect.location import Location
from umlfs import sources
from umlfs.cow.file import peek_header
from umlfs.cow.info import info, present
from umlfs.errors import UmlError, UsageError
from umlfs.sources import Source

DEPTH_MAX: Final = 3
"""How deep below the directory images are looked for."""
IMAGES_MAX: Final = 1000
SUFFIXES: Final = frozenset({".img", ".raw", ".ext4", ".iso", ".squashfs", ".erofs", ".btrfs", ".xfs"})
"""A raw file looks like any other: it counts as an image if its name ends so."""
CELLS: Final = 512
"""Cells of a map."""


@dataclass(frozen=True, slots=True)
class Listed:
    """An image."""

    name: str
    kind: str
    size: int
    allocated: int


@dataclass(frozen=True, slots=True)
class Layer:
    """A COW file of a stack, from the top."""

    name: str
    changed: int
    """Sectors of 512 bytes that it holds."""
    cells: list[int]
    """How much of each cell of the disk it holds, from 0 to 255."""


class Images:
    """The images in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()

    def listing(self) -> tuple[list[Listed], bool]:
        """Those that there are, and whether there are more than `IMAGES_MAX`. Blocks."""
        found: list[Listed] = []
        for folder, below, files in os.walk(self.directory):
            depth = len(Path(folder).relative_to(self.directory).parts)
            for name in sorted([*below, *files]):
                listed = None if name.startswith(".") else self._listed(Path(folder, name))
                if listed is not None:
                    found.append(listed)
                    if name in below:
                        below.remove(name)
                if len(found) >= IMAGES_MAX:
                    return found, True
            below[:] = [name for name in sorted(below) if not name.startswith(".") and depth + 1 < DEPTH_MAX]
        return sorted(found, key=lambda each: each.name), False

    def _listed(self, path: Path) -> Listed | None:
        try:
            status = path.stat()
            kind = sources.detect(str(path)).scheme
        except (OSError, UmlError):
            return None
        if kind == "hostfs" or (kind == "raw" and path.suffix not in SUFFIXES):
            return None
        return Listed(str(path.relative_to(self.directory)), kind, status.st_size, status.st_blocks * 512)

    def path(self, name: str) -> Path:
        """The image called `name`. UsageError if there is none, or it lies elsewhere."""
        path = Path() if "\0" in name else Path(os.path.realpath(self.directory / name))
        if not path.is_relative_to(self.directory) or not path.exists():
            raise UsageError(f"{name}: no such image", f"those in {self.directory} can be had")
        return path

    def source(self, name: str) -> Source:
        """The same as a source. UsageError."""
        found = sources.detect(str(self.path(name)))
        if found.scheme == "hostfs":
            raise UsageError(f"{name}: a directory, and no image", "name an image")
        return found

    def location(self, name: str, partition: int | None, path: str) -> Location:
        """A place in the image. UsageError."""
        return Location(self.source(name), partition, path)

    def layers(self, name: str) -> tuple[int, list[Layer], str]:
        """The size of a COW file's disk in bytes, its layers, and what is below them. Blocks. UsageError for what is no
        COW file."""
        source = self.source(name)
        if source.scheme != "cow":
            raise UsageError(f"{name}: not a COW file", "only those have layers")
        files = layers_of(source)
        size = info(files[0]).size
        tops = [path for path in files if _is_cow(path)]
        return size, [_layer(path, size) for path in tops], next((p for p in files if p not in tops), "")


def _is_cow(path: str) -> bool:
    try:
        return peek_header(path) is not None
    except (OSError, UmlError):
        return False


def _layer(path: str, size: int) -> Layer:
    held, total = [0] * CELLS, 0
    width = max(1, -(-size // CELLS))
    for part in present(path):
        total += part.length
        at, end = part.offset, part.offset + part.length
        while at < end:
            cell = at // width
            until = min(end, (cell + 1) * width)
            held[min(cell, CELLS - 1)] += until - at
            at = until
    return Layer(os.path.basename(path), total // 512, [min(255, -(-each * 255 // width)) for each in held])
