"""What of a disk is held where: each range, and the file of its chain (a COW file, a qcow2 and what it lies over)."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from runtime.host.needs import find_program
from runtime.images.formats import Format, Image, source
from umlfs.block import ExtentKind
from umlfs.blocks import sparse
from umlfs.blocks.raw import open_file
from umlfs.cow.file import peek_header
from umlfs.cow.info import present
from umlfs.errors import UmlError, UsageError
from umlfs.host.programs import run_program
from umlfs.sources import parse

_ITSELF: Final = "'uml cow map' without a picture lists what it holds itself"


@dataclass(frozen=True, slots=True)
class Layer:
    """A file of the chain."""

    path: str
    mtime: float | None
    """When it was changed last, in seconds since the epoch; None if that cannot be told."""


@dataclass(frozen=True, slots=True)
class Range:
    """A range of the disk, in bytes, that a file of the chain holds."""

    offset: int
    length: int
    kind: ExtentKind
    depth: int
    """The number of the file, from 0, the top."""


@dataclass(slots=True)
class Map:
    """A disk. What no range covers is nowhere, and reads as zeroes."""

    size: int
    layers: list[Layer] = field(default_factory=list)
    ranges: list[Range] = field(default_factory=list)
    """In order, none over another."""


def map_of(image: Image) -> Map:
    """The map of a raw image, one of qemu's, or a COW file, whoever has it in use. UsageError for what is no disk;
    UmlError, OSError."""
    if not image.format.is_disk or image.partition is not None or image.compression or image.volume:
        raise UsageError(f"{image.name}: only of a whole disk there is a map", "name the disk's file")
    if image.format is Format.COW:
        return _of_cow(str(image.path))
    return _of_qemu(image.path, image.format.qemu) if image.format.qemu else _of_raw(str(image.path))


def _layer(path: str) -> Layer:
    try:
        return Layer(path, os.stat(path).st_mtime)
    except OSError:
        return Layer(path, None)


def _of_raw(path: str) -> Map:
    file = open_file(path, read_only=True, lock=False)
    try:
        size = file.size()
        held = [(start, end) for start, end, has_data in sparse.segments(file.fileno(), 0, size) if has_data]
    finally:
        file.close()
    return Map(size, [_layer(path)], [Range(start, end - start, ExtentKind.DATA, 0) for start, end in held])


def _of_cow(path: str) -> Map:
    header = peek_header(path)
    assert header is not None
    found = Map(header.size, [_layer(path)])
    own = [Range(each.offset, each.length, each.kind, 0) for each in present(path)]
    below = _below(path, os.fsdecode(header.backing))
    found.layers += below.layers
    gaps = _gaps(own, header.size)
    found.ranges = sorted([*own, *_within(below.ranges, gaps)], key=lambda each: each.offset)
    return found


def _below(path: str, backing: str) -> Map:
    """The map of what a COW file lies over. UmlError where that cannot be looked at."""
    files = parse(backing).files if "://" in backing else [os.path.join(os.path.dirname(path), backing)]
    if not files:
        raise UmlError(f"{path}: lies over {backing}, of which there is no map", _ITSELF)
    try:
        return map_of(source(os.path.normpath(files[0])))
    except OSError as error:
        raise UmlError(f"{path}: lies over {backing}: {error.strerror}", _ITSELF) from None


def _gaps(ranges: list[Range], size: int) -> list[tuple[int, int]]:
    """Where there is none of `ranges`."""
    found, at = [], 0
    for each in [*ranges, Range(size, 0, ExtentKind.ZERO, 0)]:
        if at < each.offset:
            found.append((at, each.offset))
        at = each.offset + each.length
    return found


def _within(ranges: list[Range], gaps: list[tuple[int, int]]) -> list[Range]:
    """What of `ranges` lies in `gaps`, one file lower."""
    found: list[Range] = []
    i = j = 0
    while i < len(ranges) and j < len(gaps):
        each, (low, high) = ranges[i], gaps[j]
        end = each.offset + each.length
        start, stop = max(each.offset, low), min(end, high)
        if start < stop:
            found.append(Range(start, stop - start, each.kind, each.depth + 1))
        i += end <= high
        j += high <= end
    return found


def _of_qemu(path: Path, kind: str) -> Map:
    """As qemu-img has it, for the whole chain."""
    info = _qemu_img(path, "info", "-U", "--backing-chain", "-f", kind)
    chain = [_layer(str(each["filename"])) for each in info]
    extents = _qemu_img(path, "map", "-U", "-f", kind)
    ranges = [
        Range(
            each["start"],
            each["length"],
            ExtentKind.DATA if each["data"] and not each["zero"] else ExtentKind.ZERO,
            each["depth"],
        )
        for each in extents
        if each["data"] or (each.get("present", True) and each["depth"] < len(chain) - 1)
    ]
    return Map(int(info[0]["virtual-size"]), chain, ranges)


def _qemu_img(path: Path, *words: str) -> list[dict[str, Any]]:
    command = [find_program("qemu-img"), *words, "--output=json", os.path.abspath(path)]
    done = run_program(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split()).removeprefix("qemu-img: ")
        raise UmlError(f"{path}: qemu-img cannot map it: {said}", "see 'qemu-img check'")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found
