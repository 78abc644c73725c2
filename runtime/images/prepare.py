"""An image as it is to be read: what comes through a pipe, or is compressed, is put down first."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

import trio

from humfs.tarball import plain
from runtime.host.scratch import scratch_file
from runtime.images.formats import STANDARD, Format, Image, source
from runtime.images.sink import ImageReport, Tick, ticking
from runtime.images.streams import tar_stream
from umlfs.errors import UmlError
from umlfs.sources import OpenOptions, parse

_CHUNK: Final = 1 << 20
_BLOCK: Final = 64 << 10
_ZEROES: Final = bytes(_BLOCK)
_NAME: Final = "standard input"


@contextlib.asynccontextmanager
async def prepared(image: Image, near: Path, progress: Tick) -> AsyncIterator[Image]:
    """The image in a form that conversions read, for as long as the context lasts. `near` is a directory for what has
    to be put down. UmlError, UsageError."""
    async with contextlib.AsyncExitStack() as stack:
        if str(image.path) == STANDARD:
            image = await _from_standard_input(image, stack, near, ticking(progress))
        if image.reference:
            image = await _from_registry(image, stack)
        if image.volume:
            image = await _from_volume(image, stack, near, progress)
        if image.compression is not None:
            image = await _decompressed(image, stack, near, ticking(progress))
        if image.format is Format.ARCHIVE:
            image = await _as_tar(image, stack, near)
        yield image


async def _from_standard_input(image: Image, stack: contextlib.AsyncExitStack, near: Path, tick: Tick) -> Image:
    fd = stack.enter_context(scratch_file(near))
    await _in_thread(partial(_put_down, partial(os.read, 0), fd, tick))
    path = Path(f"/proc/self/fd/{fd}")
    if image.format is not Format.ARCHIVE:
        return replace(image, path=path, shown=_NAME)
    try:
        return replace(source(str(path)), shown=_NAME)
    except UmlError as error:
        raise type(error)(error.what.replace(str(path), _NAME), error.way_out) from None


async def _from_registry(image: Image, stack: contextlib.AsyncExitStack) -> Image:
    """The container image in the layout of those that were fetched."""
    from runtime.containers import kept, reference

    wanted = reference.parse(f"//{image.reference}")
    layout, name = await stack.enter_async_context(kept.fetched(wanted, layers=True))
    return replace(image, path=layout, tag=name)


async def _decompressed(image: Image, stack: contextlib.AsyncExitStack, near: Path, tick: Tick) -> Image:
    """The disk, its blocks of zeroes as holes."""
    fd = stack.enter_context(scratch_file(near))

    def work() -> None:
        try:
            with open(image.path, "rb") as stream, plain(stream) as contents:
                _put_down(contents.read, fd, tick)
        except UmlError as error:
            raise UmlError(f"{image.name}: {error.what}", "it is damaged, fetch it again") from None

    await _in_thread(work)
    return replace(image, path=Path(f"/proc/self/fd/{fd}"), compression=None, shown=image.name)


async def _from_volume(image: Image, stack: contextlib.AsyncExitStack, near: Path, tick: Tick) -> Image:
    """The volume's blocks, in a disk of their own."""
    fd = stack.enter_context(scratch_file(near))
    device = await parse(f"volume:{image.volume}").device(OpenOptions(read_only=True, snapshot=True))
    try:
        for start in range(0, device.size, _CHUNK):
            data = bytearray(min(_CHUNK, device.size - start))
            await device.read_into(start, [memoryview(data)])
            if data.strip(b"\0"):
                await trio.to_thread.run_sync(os.pwrite, fd, data, start)
            tick(start >> 20, "MiB")
        os.ftruncate(fd, device.size)
    except OSError as error:
        raise UmlError(f"{image.name}: {error.strerror}", None) from error
    finally:
        with trio.CancelScope(shield=True):
            await device.close()
    return replace(image, path=Path(f"/proc/self/fd/{fd}"), volume="", shown=image.name)


async def _as_tar(image: Image, stack: contextlib.AsyncExitStack, near: Path) -> Image:
    """The archive as one of tar."""
    fd = stack.enter_context(scratch_file(near))
    async with tar_stream(image, near, ImageReport()) as stream:
        await _in_thread(partial(_put_down, stream.read, fd, ticking(lambda count, unit: None)))
    return replace(image, path=Path(f"/proc/self/fd/{fd}"), format=Format.TAR, shown=image.name)


async def _in_thread(work: Callable[[], None]) -> None:
    await trio.to_thread.run_sync(work)


def _put_down(read: Callable[[int], bytes], fd: int, tick: Tick) -> None:
    """Write all there is to a new file."""
    size = 0
    with open(fd, "wb", closefd=False) as output:
        while data := read(_CHUNK):
            _write_sparsely(output, data)
            size += len(data)
            tick(size >> 20, "MiB")
    os.ftruncate(fd, size)


def _write_sparsely(output: BinaryIO, data: bytes) -> None:
    for start in range(0, len(data), _BLOCK):
        piece = data[start : start + _BLOCK]
        if piece == _ZEROES[: len(piece)]:
            output.seek(len(piece), os.SEEK_CUR)
        else:
            output.write(piece)
