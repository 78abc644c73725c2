"""Opening a COW file as a device, with its backing file found and checked."""

from __future__ import annotations

import os
import shlex
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

from umlfs.block import BlockDevice
from umlfs.blocks.foreign import format_of
from umlfs.blocks.raw import LockedFile, open_file, open_raw
from umlfs.cow.backing import absolute, choose, is_remote, look_at
from umlfs.cow.create import create, create_remote
from umlfs.cow.device import CowDevice
from umlfs.cow.file import identity, read_header, rename_backing, require_not_merging, require_whole
from umlfs.cow.header import Header
from umlfs.errors import UmlError
from umlfs.sources import OpenOptions, parse


async def open_cow(
    path: str,
    backing: str | None = None,
    *,
    read_only: bool = False,
    sync: bool = False,
    lock: bool = True,
    discard: bool = True,
) -> CowDevice:
    """Open the COW file at `path`; a missing one is made over `backing` first.

    `backing` is what the header names if None. Another one of the same size and mtime is one that moved: the header
    then names it from now on (and is converted, if it is not V3). Else what the header names is used, as the
    kernel does. It may be a source of another kind, such as `nbd://host/name`.

    `sync`: every write is durable when answered. `lock`: exclude other writers of the COW file, and any
    writer of the backing file. `discard`: give back to the host what is discarded. OSError (such as EROFS and
    EACCES: try `read_only`); UmlError for all that a COW file can have wrong.
    """
    if backing is not None and not read_only and _is_missing(path):
        with suppress(FileExistsError):  # somebody else made it meanwhile, and may have it in use
            await create_over(path, backing)
    async with AsyncExitStack() as opened:
        file = open_file(path, read_only=read_only, sync=sync, lock=lock)
        opened.callback(lambda: file.close())
        header = read_header(file.fileno(), path)
        _require_ready(file, path, header, read_only)
        if is_remote(os.fsdecode(header.backing)):
            below = await _open_remote(path, header)
        else:
            found, switch = choose(path, header, identity(file.fileno()), backing)
            below = open_raw(found.path, read_only=True, lock=lock)
            opened.push_async_callback(below.close)
            if switch and not read_only:
                named = replace(header.as_v3(), backing=absolute(found.path))
                file = rename_backing(file, path, header, named, lock=lock, sync=sync)
                header = named
        device = CowDevice(file, header, below, read_only=read_only, sync=sync, discard=discard, path=path)
        opened.pop_all()
        return device


def _is_missing(path: str) -> bool:
    return not os.path.lexists(path)


async def create_over(path: str, backing: str, *, force: bool = False) -> Header:
    """Make a COW file without changes over any disk: a raw image by its path, as the kernel does it; what only qemu or
    a server can read by its URI, which no kernel opens. As `umlfs.cow.create.create`."""
    word = _uri(backing)
    if not is_remote(word):
        return create(path, backing, force=force)
    device = await open_source(word)
    try:
        return create_remote(path, word, device.size, mtime=_mtime(word), force=force)
    finally:
        await device.close()


def _uri(backing: str) -> str:
    """The URI of an image that qemu reads; `backing` itself for all others. OSError, UmlError."""
    if is_remote(backing):
        return backing
    image_format = format_of(backing)
    return backing if image_format is None else f"{image_format}://{os.fsdecode(absolute(backing))}"


def _mtime(uri: str) -> int:
    """Whole seconds, of the file that a URI names; 0 where it names none."""
    files = parse(uri).files
    return look_at(files[0]).mtime if files else 0


def _require_ready(file: LockedFile, path: str, header: Header, read_only: bool) -> None:
    require_not_merging(path, header)
    require_whole(file.fileno(), header, path)
    if not header.covers_all and not read_only:
        raise UmlError(
            f"{path}: the bitmap of its old format ({header.name}) has no room for the last sectors",
            f"convert it: uml cow rebase {shlex.quote(path)} {shlex.quote(os.fsdecode(header.backing))}",
        )


async def _open_remote(path: str, header: Header) -> BlockDevice:
    source = os.fsdecode(header.backing)
    device = await open_source(source)
    try:
        mtime = _mtime(source)
    except BaseException:
        await device.close()
        raise
    if mtime != header.mtime:
        await device.close()
        raise UmlError(
            f"{path}: its backing image {source} has changed: its mtime is {mtime}, it was {header.mtime}",
            f"restore it, or discard the COW file and all changes in it (rm {shlex.quote(path)})",
        )
    if device.size != header.size:
        await device.close()
        raise UmlError(
            f"{path}: its backing device {source} has changed: its size is {device.size}, it was {header.size}",
            "restore it, or discard the COW file",
        )
    return device


async def open_source(text: str) -> BlockDevice:
    """Open a source that must be a block device, for reading. OSError, UmlError."""
    return await parse(text).device(OpenOptions(read_only=True))
