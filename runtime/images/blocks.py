"""Disks into disks, block by block: what they hold is not looked at."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import trio

from runtime.host.needs import find_program
from runtime.host.scratch import scratch_directory
from runtime.images.formats import Format, Image
from runtime.images.output import output_file
from runtime.images.sink import Tick, no_tick, ticking
from runtime.images.streams import convert_with_qemu
from umlfs.blocks import probe, sparse
from umlfs.blocks.raw import open_file, open_raw
from umlfs.cow.merge import merge
from umlfs.cow.open import open_cow
from umlfs.errors import UmlError
from umlfs.host.programs import run_program


async def holds(image: Image) -> str | None:
    """What is on a disk, as `umlfs.blocks.probe` calls it; None if it is not known, or qemu alone reads the disk."""
    if image.format.qemu is not None:
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
            if target.format.qemu is not None:
                await convert_blocks(flat, target, force=force, progress=progress)
            else:
                place(flat.path, target.path, force=force)
        return
    with output_file(target.path, force=force) as fd:
        if source.format.qemu is not None or target.format.qemu is not None:
            await convert_with_qemu(source, fd, target.format.qemu or "raw")
        else:
            await trio.to_thread.run_sync(_copy, source.path, fd, ticking(progress))
        await trio.lowlevel.checkpoint_if_cancelled()


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
    """Refuse an image that has part of its contents in other files, for whoever made it may name any of this host's;
    and one that is encrypted. UmlError."""
    facts = facts_of(image)
    details = (facts.get("format-specific") or {}).get("data") or {}
    extents = [each.get("filename") for each in details.get("extents") or [] if isinstance(each, dict)]
    others = [facts.get("backing-filename"), details.get("data-file"), *extents]
    other = next((each for each in others if each and os.path.realpath(each) != os.path.realpath(image.path)), None)
    if other:
        raise UmlError(
            f"{image.name}: part of it is in another file, {other}", "if you trust it: 'qemu-img convert' it first"
        )
    if facts.get("encrypted"):
        raise UmlError(f"{image.name}: it is encrypted", "'qemu-img convert' with its --object secret decrypts it")


def virtual_size(image: Image) -> int:
    """The bytes of the disk in an image of qemu's. UmlError."""
    return int(facts_of(image)["virtual-size"])


def facts_of(image: Image) -> dict[str, Any]:
    """What `qemu-img info` says of an image of qemu's. UmlError."""
    command = [find_program("qemu-img"), "info", "-U", "-f", image.format.qemu or "raw", "--output=json"]
    done = run_program([*command, os.path.abspath(image.path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().removeprefix("qemu-img: ")
        raise UmlError(f"{image.name}: qemu-img cannot read it: {words}", "see 'qemu-img check'")
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts
