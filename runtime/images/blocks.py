"""Disks into disks, block by block: what they hold is not looked at."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import trio

from runtime.images.formats import Format, Image
from runtime.images.output import output_file, scratch_directory
from runtime.images.programs import find_program
from runtime.images.sink import Tick, no_tick, ticking
from runtime.images.streams import convert_with_qemu
from umlfs.blocks import probe, sparse
from umlfs.blocks.raw import open_file, open_raw
from umlfs.cow.merge import merge
from umlfs.cow.open import open_cow
from umlfs.errors import UmlError
from umlfs.host.programs import run_program


async def holds(image: Image) -> str | None:
    """What is on a disk, as `umlfs.blocks.probe` calls it; None if it is not known, or qemu has to read the disk."""
    if image.format.by_qemu:
        return None
    path = str(image.path)
    device = await open_cow(path, read_only=True) if image.format is Format.COW else open_raw(path, read_only=True)
    try:
        return await probe.probe(device)
    finally:
        await device.close()


async def convert_blocks(source: Image, target: Image, *, force: bool, progress: Tick = no_tick) -> None:
    """Make `target` a disk with the same contents as `source`, with its holes. UmlError."""
    if source.format is Format.COW:
        with scratch_directory(target.path.parent) as scratch:
            flat = Image(scratch / "flat", Format.RAW)
            await trio.to_thread.run_sync(_merge, source.path, flat.path, ticking(progress))
            if target.format.by_qemu:
                await convert_blocks(flat, target, force=force, progress=progress)
            else:
                place(flat.path, target.path, force=force)
        return
    with output_file(target.path, force=force) as fd:
        if source.format.by_qemu or target.format.by_qemu:
            await convert_with_qemu(source.path, _qemu_name(source), fd, _qemu_name(target))
        else:
            await trio.to_thread.run_sync(_copy, source.path, fd, ticking(progress))
        await trio.lowlevel.checkpoint_if_cancelled()


def _qemu_name(image: Image) -> str:
    return image.format.value if image.format.by_qemu else "raw"


def _merge(cow: Path, flat: Path, tick: Tick) -> None:
    merge(str(cow), str(flat), progress=lambda done, size: tick(done >> 20, "MiB"))


def place(made: Path, path: Path, *, force: bool) -> None:
    """Give a complete file its name. UmlError if there is something there meanwhile, and not to be replaced."""
    try:
        if force:
            os.rename(made, path)
        else:
            os.link(made, path)
    except OSError as error:
        raise UmlError(f"{path}: {error.strerror}", None) from error


def _copy(path: Path, target: int, tick: Tick) -> None:
    file = open_file(path, read_only=True)
    try:
        size = file.size()
        os.ftruncate(target, size)
        sparse.copy_data(file.fileno(), target, 0, 0, size, lambda count: tick(count >> 20, "MiB"))
    finally:
        file.close()


def require_whole(image: Image) -> None:
    """Refuse an image that has part of its contents in other files: whoever made it may name any of this host's.

    UmlError.
    """
    path, facts = image.path, _facts(image)
    details = (facts.get("format-specific") or {}).get("data") or {}
    extents = [each.get("filename") for each in details.get("extents") or []]
    elsewhere = [name for name in extents if name and not (path.exists() and _is_same(name, path))]
    other = facts.get("backing-filename") or details.get("data-file") or next(iter(elsewhere), None)
    if other:
        raise UmlError(
            f"{path}: part of it is in another file, {other}", "if you trust it: 'qemu-img convert' it first"
        )


def _is_same(name: str, path: Path) -> bool:
    return os.path.exists(name) and os.path.samefile(name, path)


def qemu_size(image: Image) -> int:
    """The bytes of the disk in an image that qemu reads. UmlError."""
    return int(_facts(image)["virtual-size"])


def _facts(image: Image) -> dict[str, Any]:
    path = image.path
    command = [find_program("qemu-img", "qemu-utils"), "info", "-U", "-f", image.format.value, "--output=json"]
    done = run_program([*command, os.path.abspath(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().removeprefix("qemu-img: ")
        raise UmlError(f"{path}: qemu-img cannot read it: {words}", "see 'qemu-img check'")
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts
