"""Checking any image with what knows it best: qemu-img, the checker of its filesystem, or by reading all of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import trio

from humfs.archive import check_image
from humfs.losses import Losses
from humfs.tarball import plain
from humfs.tarcopy import pieces
from runtime.host.needs import find_program
from runtime.host.scratch import scratch_directory
from runtime.images import blocks, parts
from runtime.images.formats import Format, Image
from runtime.images.prepare import prepared
from runtime.images.sink import no_tick
from umlfs.errors import UmlError, UsageError
from umlfs.host.programs import run_program

_CHECKERS: Final = {
    "ext4": ("e2fsck", ["-f", "-n"], ["-f", "-y"], 3),
    "xfs": ("xfs_repair", ["-f", "-n"], ["-f"], 0),
    "btrfs": ("btrfs", ["check", "--force", "--readonly"], None, 0),
    "vfat": ("fsck.fat", ["-n"], ["-a", "-w"], 1),
}
"""By filesystem: the program, the options that only look and those that mend (None: none that are safe),
and the largest exit status that is a success of those."""
_LINES_MAX: Final = 30


async def check(image: Image, *, repair: bool = False) -> list[str]:
    """What is wrong with an image, in lines; none if nothing is. With `repair` it is mended where that can be done.

    UsageError for a kind that nothing checks, or that cannot be mended; UmlError if it cannot be read.
    """
    if image.reference:
        async with prepared(image, image.path.parent, no_tick) as found:
            return await check(replace(found, reference=""), repair=repair)
    if image.format.qemu is not None:
        return await trio.to_thread.run_sync(_check_with_qemu, image, repair)
    if image.format is Format.HUMFS:
        return await trio.to_thread.run_sync(_check_humfs, image.path, repair)
    if image.format is Format.COW:
        return await trio.to_thread.run_sync(_check_cow, image.path, repair)
    if repair and not image.format.is_disk:
        raise UsageError(f"{image.name}: a {image.format.value} cannot be mended", "make it again")
    if image.format is Format.OCI:
        return await trio.to_thread.run_sync(_read, lambda: check_image(image.path, image.tag))
    if image.format is Format.TAR:
        return await trio.to_thread.run_sync(_read, lambda: _read_tar(image.path))
    if image.compression is None and image.format.is_disk:
        return await _check_disk(image, repair)
    raise UsageError(f"{image.name}: nothing checks a {image.format.value} as it is", "convert it, and check that")


def _read(work: Callable[[], None]) -> list[str]:
    try:
        work()
    except UmlError as error:
        return [error.what]
    return []


def _read_tar(path: Path) -> None:
    losses = Losses()
    with open(path, "rb") as stream, plain(stream) as contents:
        for _ in pieces(contents, losses):
            pass


def _check_with_qemu(image: Image, repair: bool) -> list[str]:
    name = image.format.qemu or ""
    words = [find_program("qemu-img"), "check", "-q", "-f", name, *(["-r", "all"] if repair else [])]
    done = run_program([*words, os.path.abspath(image.path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    said = (done.stdout + done.stderr).decode(errors="replace")
    if done.returncode in (0, 2, 3):
        return [] if done.returncode == 0 else _lines(said) or ["damaged"]
    raise UmlError(f"{image.name}: qemu-img cannot check it: {' '.join(said.split()).removeprefix('qemu-img: ')}")


def _check_humfs(path: Path, repair: bool) -> list[str]:
    from humfs.check import check as check_humfs

    return [str(finding) for finding in check_humfs(path, repair=repair)]


def _check_cow(path: Path, repair: bool) -> list[str]:
    from umlfs.cow.check import Severity
    from umlfs.cow.check import check as check_cow

    return [finding.text for finding in check_cow(str(path), repair=repair) if finding.severity is Severity.ERROR]


async def _check_disk(image: Image, repair: bool) -> list[str]:
    """The filesystem on a raw image; a partition in a copy, which is only looked at."""
    if image.partition is None:
        kind = await blocks.holds(image)
        return await trio.to_thread.run_sync(_check_filesystem, image.path, image.name, kind, repair)
    if repair:
        raise UsageError(f"{image.name}:{image.partition}: a partition is only looked at", "see 'uml image convert'")
    with scratch_directory(image.path.parent) as scratch:
        part = Image(scratch / "part", Format.RAW, shown=f"{image.name}:{image.partition}")
        await parts.extract(image.path, image.name, image.partition, part.path)
        kind = await blocks.holds(part)
        return await trio.to_thread.run_sync(_check_filesystem, part.path, part.name, kind, False)


def _check_filesystem(path: Path, name: str, kind: str | None, repair: bool) -> list[str]:
    from umlfs.blocks.raw import open_file

    known = _CHECKERS.get(kind or "")
    if known is None:
        raise UsageError(f"{name}: nothing checks it ({kind or 'unknown'})", "name a partition, IMAGE:N")
    program, looking, mending, mended = known
    if repair and mending is None:
        raise UsageError(f"{name}: a {kind} is not mended without being asked what", f"see {program}(8)")
    open_file(path, read_only=not repair).close()  # says who has it
    words = [find_program(program), *(mending if repair and mending else looking), str(path)]
    done = run_program(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={"PATH": os.defpath, "LC_ALL": "C"})
    if done.returncode == 0:
        return []
    lines = _lines(done.stdout.decode(errors="replace"))
    if repair and done.returncode > mended:
        raise UmlError(f"{name}: {program} could not mend all", None, details="\n".join(lines))
    return lines


def _lines(said: str) -> list[str]:
    found = [line.strip() for line in said.splitlines() if line.strip()]
    return found[:_LINES_MAX]
