"""Layers over images, as COW files and as qcow2: one made of the other."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Final

import trio

from runtime.host.needs import find_program
from runtime.host.scratch import scratch_directory
from runtime.images.blocks import place
from runtime.images.create import create
from runtime.images.formats import Format, Image
from runtime.images.output import require_free
from runtime.images.sink import Tick, no_tick
from umlfs.block import BlockDevice
from umlfs.blocks.raw import open_file, open_raw
from umlfs.cow.diff import Progress, differences
from umlfs.cow.open import create_over, open_cow
from umlfs.errors import UmlError, UsageError
from umlfs.host.newfile import sync_path
from umlfs.host.programs import run_program
from umlfs.sources import OpenOptions, parse

_STEP: Final = 1 << 20


async def rebase(top: str, base: Image, new: Image, *, force: bool = False, progress: Tick = no_tick) -> None:
    """Make `new`, a COW file or a qcow2, a layer over `base` with the contents of the disk `top`, whatever that lies
    over: it holds where the two differ. Durable, and there when it is complete. UsageError, UmlError; nothing is left
    then."""
    require_free(new, force)
    async with _opened(top) as wanted, _opened(_word(base)) as below:
        if wanted.size != below.size:
            raise UsageError(
                f"{base.name}: has {below.size} bytes, and {top} {wanted.size}: no layer changes the size",
                "name a base of the same size",
            )
        ranges = await differences(wanted, below, lambda done, size: progress(done >> 20, "MiB"))
        with scratch_directory(new.path.parent) as scratch:
            made = scratch / new.path.name
            async with _layer(replace(new, path=made), base) as layer:
                for offset, length in ranges:
                    await _copy(wanted, layer, offset, length)
                await layer.flush()
            await trio.to_thread.run_sync(sync_path, made)
            place(made, new.path, force=force)


def rebase_in_place(top: Image, base: Image) -> None:
    """Let a qcow2 lie over `base`; what the two differ in is put into it first. UsageError, UmlError, as of one in
    use."""
    if top.format is not Format.QCOW2 or top.partition is not None:
        raise UsageError(f"{top.name}: only a qcow2 is changed in place", "name the layer that is to be made, too")
    if not base.format.is_disk or base.format is Format.COW or base.partition is not None:
        raise UsageError(f"{base.name}: a qcow2 lies over a raw image or one of qemu's", "convert it first")
    words = ["rebase", "-f", "qcow2", "-b", os.path.abspath(base.path), "-F", base.format.qemu or "raw"]
    command = [find_program("qemu-img"), *words, os.path.abspath(top.path)]
    done = run_program(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split()).removeprefix("qemu-img: ")
        raise UmlError(f"{top.name}: qemu-img cannot rebase it: {said}", None)


def _word(base: Image) -> str:
    if not base.format.is_disk or base.partition is not None or base.format is Format.COW:
        raise UsageError(f"{base.name}: a layer lies over a raw image or one of qemu's", "convert it first")
    return f"{base.format.qemu or 'raw'}:{os.path.abspath(base.path)}"


@contextlib.asynccontextmanager
async def _opened(word: str) -> AsyncIterator[BlockDevice]:
    """A disk, for reading. Nobody writes it when it is opened; it is not locked then, for qemu, which may read it as
    part of a chain, takes our locks for those of a writer."""
    source = parse(word)
    if source.scheme in ("raw", "cow"):
        for path in source.files:
            open_file(path, read_only=True).close()
    device: BlockDevice
    if source.scheme == "raw":
        device = open_raw(source.argument, read_only=True, lock=False)
    elif source.scheme == "cow" and len(source.files) == 1:
        device = await open_cow(source.argument, read_only=True, lock=False)
    else:
        device = await source.device(OpenOptions(read_only=True))
    try:
        yield device
    finally:
        with trio.CancelScope(shield=True):
            await device.close()


async def different(a: str, b: str, progress: Progress | None = None) -> list[tuple[int, int]]:
    """The ranges, as (offset, length) in bytes, in which two disks differ. UmlError, UsageError."""
    async with _opened(a) as one, _opened(b) as other:
        return await differences(one, other, progress)


@contextlib.asynccontextmanager
async def _layer(new: Image, base: Image) -> AsyncIterator[BlockDevice]:
    """A new layer without changes, open to be written to."""
    device: BlockDevice
    if new.format is Format.COW:
        await create_over(str(new.path), str(base.path))
        device = await open_cow(str(new.path), lock=False)
    elif new.format is Format.QCOW2:
        await trio.to_thread.run_sync(lambda: create(new, None, backing=base))
        device = await parse(f"qcow2:{new.path}").device(OpenOptions())
    else:
        raise UsageError(f"{new.name}: a layer is a COW file or a qcow2", "call it NEW.cow or NEW.qcow2")
    try:
        yield device
    finally:
        with trio.CancelScope(shield=True):
            await device.close()


async def _copy(source: BlockDevice, target: BlockDevice, offset: int, length: int) -> None:
    end = offset + length
    while offset < end:
        data = bytearray(min(_STEP, end - offset))
        await source.read_into(offset, [memoryview(data)])
        if any(data):
            await target.write_from(offset, [memoryview(data)])
        else:
            await target.write_zeroes(offset, len(data))
        offset += len(data)
