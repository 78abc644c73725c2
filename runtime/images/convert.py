"""Any image into one of any other format.

Disks become disks block by block. Everything else goes as a stream of a tar archive, which keeps owners, modes,
devices, hard links, holes, extended attributes (access lists and capabilities among them) and the nanoseconds of
modification times. What is converted is whole, or what the target cannot carry is said, one line for each kind.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

import trio

from humfs.image import Description
from humfs.losses import Losses
from runtime.appliance.kinds import KINDS
from runtime.host.scratch import scratch_directory, scratch_file
from runtime.images import blocks, ext4, filesystems, oci, parts, writers
from runtime.images.formats import STANDARD, Format, Image
from runtime.images.output import output_directory, output_file, require_free
from runtime.images.prepare import prepared
from runtime.images.programs import require_programs
from runtime.images.sink import ImageReport, Tick, Warn, no_tick, no_warning, ticking
from runtime.images.size import Needs, needs
from runtime.images.streams import convert_with_qemu, flatten, tar_stream
from umlfs.blocks.raw import open_file
from umlfs.errors import UmlError, UsageError, sole


@dataclass(frozen=True, slots=True)
class Writing:
    """How an image is to be written."""

    force: bool = False
    """Replace what is there."""
    size: int | None = None
    """Of the filesystem, in bytes; by default as large as the files need and a fifth more, or as the source."""
    epoch: int | None = None
    """For reproducible images: see `runtime.images.ext4.Settings`."""
    strict: bool = False
    """What the target cannot carry is an error."""
    warn: Warn = field(default=no_warning)
    progress: Tick = field(default=no_tick)


async def convert(source: Image, target: Image, writing: Writing | None = None) -> None:
    """Make `target` an image with the contents of `source`, which stays as it is.

    It appears when it is complete, and is durable then unless it is a directory. UsageError for a target that is
    there; UmlError for whatever goes wrong, with nothing left.
    """
    writing = writing or Writing()
    if str(target.path) != STANDARD:
        require_free(target, writing.force)
        _require_apart(source.path, target.path)
    near = target.path.parent
    try:
        async with prepared(source, near, writing.progress) as image:
            await _convert(image, target, writing)
    except BaseExceptionGroup as group:
        raise sole(group) from None


async def _convert(source: Image, target: Image, writing: Writing) -> None:
    if source.format.qemu is not None:
        blocks.require_whole(source)
    if source.partition is not None:
        await _convert_partition(source, target, writing)
    elif await _is_blockwise(source, target):
        _require_no_size(writing)
        await blocks.convert_blocks(source, target, force=writing.force, progress=writing.progress)
    else:
        await _convert_files(source, target, writing)


async def _convert_partition(source: Image, target: Image, writing: Writing) -> None:
    """By way of a file with what is on it, which is the result where that is to be a disk."""
    with scratch_directory(target.path.parent) as scratch:
        whole = source.path
        if source.format is not Format.RAW:
            whole = scratch / f"{source.path.name}.whole"
            disk = replace(source, partition=None)
            await blocks.convert_blocks(disk, Image(whole, Format.RAW), force=False)
        shown = f"{source.name}:{source.partition}"
        part = Image(scratch / source.path.name, Format.RAW, inside=source.inside, shown=shown)
        assert source.partition is not None
        await parts.extract(whole, source.name, source.partition, part.path, writing.progress)
        kind = await blocks.holds(part)
        if source.inside == "/" and (target.format is Format.RAW or kind == target.format.value):
            _require_no_size(writing)
            blocks.place(part.path, target.path, force=writing.force)
            return
        if kind not in KINDS and target.format.qemu is None:
            raise UmlError(f"{shown}: no filesystem to take files from ({kind or 'unknown'})")
        await _convert(part, target, writing)


def _require_apart(source: Path, target: Path) -> None:
    one, other = Path(os.path.realpath(source)), Path(os.path.realpath(target))
    if one == other or one in other.parents or other in one.parents:
        raise UsageError(f"{target}: source and destination lie in each other", "name another destination")


def _require_no_size(writing: Writing) -> None:
    if writing.size is not None:
        raise UsageError("a disk that becomes a disk keeps its size", "leave --size out, and see 'uml image resize'")


async def _is_blockwise(source: Image, target: Image) -> bool:
    if not (source.format.is_disk and target.format.is_disk) or source.inside != "/":
        return False
    return not target.format.is_filesystem or await blocks.holds(source) == target.format.value


async def _convert_files(source: Image, target: Image, writing: Writing) -> None:
    near = target.path.parent
    report = ImageReport(writing.warn, ticking(writing.progress), Losses())
    if source.format is Format.OCI:
        about = await trio.to_thread.run_sync(_described, source)
        with scratch_directory(near) as scratch:
            await flatten(source, scratch / "flat", report)
            flat = Image(scratch / "flat", Format.HUMFS, shown=source.name)
            await _convert_tree(flat, target, writing, report, about)
        return
    await _convert_tree(source, target, writing, report)


def _described(image: Image) -> Description:
    from humfs.archive import describe_image

    about = describe_image(image.path, image.tag)
    return replace(about, name=image.reference) if image.reference else about


async def _convert_tree(
    source: Image, target: Image, writing: Writing, report: ImageReport, about: Description | None = None
) -> None:
    near = target.path.parent
    settings = await _settings(source, target, writing)

    async def fill(write: Callable[[BinaryIO], None]) -> None:
        async with tar_stream(source, near, report) as stream:
            await in_thread(partial(write, stream))

    await write_image(target, settings, writing, fill, report, about)


async def _settings(source: Image, target: Image, writing: Writing) -> ext4.Settings:
    """What the filesystem is to be like; of what has none nothing is counted."""
    if not target.format.is_disk or writing.size is not None:
        return ext4.Settings(writing.size or 0, epoch=writing.epoch)
    if source.format.is_disk:
        found = await trio.to_thread.run_sync(_disk_size, source)
        return ext4.Settings(found, epoch=writing.epoch)
    if source.format is Format.ARCHIVE:
        raise AssertionError("made a tar archive when it was prepared")
    counted: Needs = await trio.to_thread.run_sync(needs, source)
    return ext4.Settings(counted.size, counted.inodes, epoch=writing.epoch)


def _disk_size(image: Image) -> int:
    if image.format.qemu is not None:
        return blocks.virtual_size(image)
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
    target: Image,
    settings: ext4.Settings,
    writing: Writing,
    fill: Callable[[Write], Awaitable[None]],
    report: ImageReport | None = None,
    about: Description | None = None,
) -> None:
    """Make `target`: `fill` is called with what takes an archive in a thread. `about` is what a container image says of
    itself. UmlError, with nothing left."""
    require_programs(target)
    report = report or ImageReport(writing.warn, ticking(writing.progress), Losses())
    path, force = target.path, writing.force

    async def filled(write: Write) -> None:
        await fill(write)
        await trio.lowlevel.checkpoint_if_cancelled()
        _tell(report.losses, target, writing)

    if str(path) == STANDARD:
        await filled(partial(writers.to_tar, fd=1, compressor=None, report=report))
    elif target.format in (Format.RAW, Format.EXT4):
        with output_file(path, force=force) as fd:
            await filled(partial(writers.to_ext4, fd=fd, settings=settings, report=report))
    elif target.format.qemu is not None:
        with output_file(path, force=force) as fd, scratch_file(path.parent) as raw:
            await filled(partial(writers.to_ext4, fd=raw, settings=settings, report=report))
            await convert_with_qemu(Image(Path(f"/proc/self/fd/{raw}"), Format.RAW), fd, target.format.qemu)
    elif target.format.is_filesystem:
        with scratch_directory(path.parent) as scratch:
            await filesystems.make(target.format, scratch / path.name, settings, filled, report)
            blocks.place(scratch / path.name, path, force=force)
    elif target.format is Format.TAR:
        with output_file(path, force=force) as fd:
            await filled(partial(writers.to_tar, fd=fd, compressor=target.compressor, report=report))
    else:
        with output_directory(path, force=force) as made:
            await filled(_into_directory(target, made, settings, report, about))


def _tell(losses: Losses, target: Image, writing: Writing) -> None:
    """Say what is lost, or refuse to lose it."""
    lines = losses.lines()
    if lines and writing.strict:
        raise UmlError(f"{target.name}: not all can be carried: {'; '.join(lines)}", "leave --strict out to do without")
    for line in lines:
        writing.warn(line)


def _into_directory(
    target: Image, made: Path, settings: ext4.Settings, report: ImageReport, about: Description | None
) -> Write:
    if target.format is Format.HUMFS:
        return partial(writers.to_humfs, root=made, size=settings.size or None, report=report)
    if target.format is Format.OCI:
        return partial(oci.to_oci, root=made, about=about, name=target.tag, report=report)
    return partial(writers.to_directory, root=made, report=report)


async def in_thread(work: Callable[[], None]) -> None:
    """Do what waits in a thread. An interrupt reaches the caller's task meanwhile, and by its tick the thread too."""
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, work)
    except BaseExceptionGroup as group:
        raise sole(group) from None
