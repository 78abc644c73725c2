"""Any image into one of any other format.

Disks become disks block by block. Everything else goes as a stream of a tar archive, which keeps owners, modes,
devices, hard links, holes, extended attributes (access lists and capabilities among them) and the nanoseconds of
modification times.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

import trio

from runtime.appliance.kinds import KINDS
from runtime.images import blocks, ext4, parts, writers
from runtime.images.formats import Format, Image
from runtime.images.output import output_directory, output_file, require_free, scratch_directory, scratch_file
from runtime.images.sink import Tick, Warn, no_tick, no_warning, ticking
from runtime.images.size import Needs, needs
from runtime.images.streams import convert_with_qemu, flatten, tar_stream
from umlfs.blocks.raw import open_file
from umlfs.errors import UmlError, UsageError, sole

_HUMFS_SPARE: Final = 1 << 30
"""What a humfs may grow by when nobody says otherwise: it takes nothing."""


@dataclass(frozen=True, slots=True)
class Writing:
    """How an image is to be written."""

    force: bool = False
    """Replace what is there."""
    size: int | None = None
    """Of the filesystem, in bytes; by default as large as the files need and a fifth more, or as the source."""
    epoch: int | None = None
    """For reproducible images: see `runtime.images.ext4.Settings`."""
    warn: Warn = field(default=no_warning)
    progress: Tick = field(default=no_tick)


async def convert(source: Image, target: Image, writing: Writing | None = None) -> None:
    """Make `target` an image with the contents of `source`, which stays as it is.

    It appears when it is complete, and is durable then unless it is a directory. UsageError for a target that is
    there; UmlError for whatever goes wrong, with nothing left.
    """
    writing = writing or Writing()
    require_free(target, writing.force)
    _require_apart(source.path, target.path)
    if source.format.by_qemu:
        blocks.require_whole(source)
    try:
        if source.partition is not None:
            await _convert_partition(source, target, writing)
        elif await _is_blockwise(source, target):
            _require_no_size(writing)
            await blocks.convert_blocks(source, target, force=writing.force, progress=writing.progress)
        else:
            await _convert_files(source, target, writing)
    except BaseExceptionGroup as group:
        raise sole(group) from None


async def _convert_partition(source: Image, target: Image, writing: Writing) -> None:
    """By way of a file with what is on it, which is the result where that is to be a disk."""
    with scratch_directory(target.path.parent) as scratch:
        whole = source.path
        if source.format is not Format.RAW:
            whole = scratch / f"{source.path.name}.whole"
            await blocks.convert_blocks(replace(source, partition=None), Image(whole, Format.RAW), force=False)
        part = Image(scratch / source.path.name, Format.RAW)
        assert source.partition is not None
        await parts.extract(whole, source.path, source.partition, part.path, writing.progress)
        kind = await blocks.holds(part)
        if target.format is Format.RAW or (target.format is Format.EXT4 and kind == "ext4"):
            _require_no_size(writing)
            blocks.place(part.path, target.path, force=writing.force)
            return
        if kind not in KINDS and not target.format.by_qemu:
            raise UmlError(f"{source.path}:{source.partition}: no filesystem to take files from ({kind or 'unknown'})")
        await convert(part, target, writing)


def _require_apart(source: Path, target: Path) -> None:
    one, other = Path(os.path.realpath(source)), Path(os.path.realpath(target))
    if one == other or one in other.parents or other in one.parents:
        raise UsageError(f"{target}: source and destination lie in each other", "name another destination")


def _require_no_size(writing: Writing) -> None:
    if writing.size is not None:
        raise UsageError("a disk that becomes a disk keeps its size", "leave --size out, and see 'uml image resize'")


async def _is_blockwise(source: Image, target: Image) -> bool:
    if not (source.format.is_disk and target.format.is_disk):
        return False
    return target.format is not Format.EXT4 or await blocks.holds(source) == "ext4"


async def _convert_files(source: Image, target: Image, writing: Writing) -> None:
    near = target.path.parent
    if source.format is Format.OCI:
        with scratch_directory(near) as scratch:
            await flatten(source.path, scratch / "flat", writing.warn)
            await _convert_files(Image(scratch / "flat", Format.HUMFS), target, writing)
        return
    settings = await _settings(source, target, writing)

    async def fill(write: Callable[[BinaryIO], None]) -> None:
        async with tar_stream(source, near, writing.warn) as stream:
            await in_thread(partial(write, stream))

    await write_image(target, settings, writing, fill)


async def _settings(source: Image, target: Image, writing: Writing) -> ext4.Settings:
    """What the filesystem is to be like; of what has none nothing is counted."""
    if not (target.format.is_disk or target.format is Format.HUMFS) or writing.size is not None:
        return ext4.Settings(writing.size or 0, epoch=writing.epoch)
    if source.format.is_disk:
        found = await trio.to_thread.run_sync(_disk_size, source)
        return ext4.Settings(found, epoch=writing.epoch)
    counted: Needs = await trio.to_thread.run_sync(needs, source)
    size = counted.size + (_HUMFS_SPARE if target.format is Format.HUMFS else 0)
    return ext4.Settings(size, counted.inodes, epoch=writing.epoch)


def _disk_size(image: Image) -> int:
    if image.format.by_qemu:
        return blocks.qemu_size(image)
    if image.format is Format.COW:
        from umlfs.cow.file import header_at

        return header_at(str(image.path)).size
    file = open_file(image.path, read_only=True)
    try:
        return file.size()
    finally:
        file.close()


Write = Callable[[BinaryIO], None]


async def write_image(
    target: Image, settings: ext4.Settings, writing: Writing, fill: Callable[[Write], Awaitable[None]]
) -> None:
    """Make `target`: `fill` is called with what takes an archive in a thread. UmlError, with nothing left."""
    report = writers.Report(writing.warn, ticking(writing.progress))
    path, force = target.path, writing.force
    if target.format in (Format.RAW, Format.EXT4):
        with output_file(path, force=force) as fd:
            await fill(partial(writers.to_ext4, fd=fd, settings=settings, report=report))
            await trio.lowlevel.checkpoint_if_cancelled()
    elif target.format.by_qemu:
        with output_file(path, force=force) as fd, scratch_file(path.parent) as raw:
            await fill(partial(writers.to_ext4, fd=raw, settings=settings, report=report))
            await convert_with_qemu(Path(f"/proc/self/fd/{raw}"), "raw", fd, target.format.value, inherited=[raw])
    elif target.format is Format.TAR:
        with output_file(path, force=force) as fd:
            await fill(partial(writers.to_tar, fd=fd, compressor=target.compressor, report=report))
            await trio.lowlevel.checkpoint_if_cancelled()
    else:
        with output_directory(path, force=force) as made:
            await fill(_into_directory(target.format, made, settings, report))
            await trio.lowlevel.checkpoint_if_cancelled()


def _into_directory(format_: Format, made: Path, settings: ext4.Settings, report: writers.Report) -> Write:
    if format_ is Format.HUMFS:
        return partial(writers.to_humfs, root=made, size=settings.size or _HUMFS_SPARE, report=report)
    return partial(writers.to_oci if format_ is Format.OCI else writers.to_directory, root=made, report=report)


async def in_thread(work: Callable[[], None]) -> None:
    """Do what waits in a thread. An interrupt reaches the caller's task meanwhile, and by its tick the thread too."""
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, work)
    except BaseExceptionGroup as group:
        raise sole(group) from None
