"""New disk images with nothing in them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

from runtime.host.needs import find_program
from runtime.host.scratch import scratch_directory
from runtime.images import ext4
from runtime.images.formats import Format, Image, source
from runtime.images.output import output_file, require_free
from runtime.images.streams import failed, require_room
from umlfs.errors import UsageError
from umlfs.host.programs import run_program

_MAKERS: Final = {Format.XFS: ("mkfs.xfs", "-q"), Format.BTRFS: ("mkfs.btrfs", "-q")}


def create(image: Image, size: int | None, *, backing: Image | None = None, force: bool = False) -> None:
    """Make an image of `size` bytes: a disk of zeroes, one in a format of qemu's, over `backing` if that is given, or a
    new filesystem. It is durable, and appears when it is complete. UsageError, UmlError; nothing is left then."""
    require_free(image, force)
    if backing is not None and image.format is not Format.QCOW2:
        raise UsageError(f"{image.name}: only a qcow2 lies over another image here", "see 'uml cow create'")
    if size is None and backing is None:
        raise UsageError(f"{image.name}: of no size", "name one, such as 8G")
    if not image.format.is_disk or image.format in (Format.SQUASHFS, Format.EROFS):
        raise UsageError(f"{image.name}: a {image.format.value} is made of files", "see 'uml image convert'")
    if image.format.qemu is not None:
        _create_with_qemu(image, size, backing, force)
    elif image.format in _MAKERS:
        _create_filesystem(image, size or 0, force)
    else:
        with output_file(image.path, force=force) as fd:
            if image.format is Format.EXT4:
                ext4.make_filesystem(fd, ext4.Settings(size or 0))
            else:
                os.ftruncate(fd, size or 0)


def _create_with_qemu(image: Image, size: int | None, backing: Image | None, force: bool) -> None:
    arguments = ["create", "-q", "-f", image.format.qemu or ""]
    if backing is not None:
        if backing.format is Format.COW or not backing.format.is_disk or backing.partition is not None:
            raise UsageError(f"{backing.name}: a qcow2 lies over a raw image or one of qemu's", "convert it first")
        arguments += ["-b", os.path.abspath(backing.path), "-F", backing.format.qemu or "raw"]
    with scratch_directory(image.path.parent) as scratch:
        made = scratch / image.path.name
        _run("qemu-img", [*arguments, str(made), *([str(size)] if size is not None else [])])
        _place(made, image, force)


def _create_filesystem(image: Image, size: int, force: bool) -> None:
    program, *options = _MAKERS[image.format]
    with scratch_directory(image.path.parent) as scratch:
        made = scratch / image.path.name
        with open(made, "xb") as file:
            file.truncate(size)
        _run(program, [*options, str(made)])
        _place(made, image, force)


def _place(made: Path, image: Image, force: bool) -> None:
    from runtime.images.blocks import place

    fd = os.open(made, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    place(made, image.path, force=force)


def _run(program: str, arguments: list[str]) -> None:
    done = run_program([find_program(program), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        require_room(lines)
        raise failed(f"{program} failed", lines)


# Snapshots ------------------------------------------------------------------------------------


def snapshots(path: str) -> list[str]:
    """The names of the snapshots in a qcow2. UsageError, UmlError."""
    from runtime.images.blocks import facts_of

    return [str(each.get("name")) for each in facts_of(_qcow2(path)).get("snapshots") or []]


def change_snapshot(path: str, what: str, name: str) -> None:
    """`create`, `apply` or `delete` the snapshot `name` in a qcow2. UsageError; UmlError, of an image in use too."""
    image = _qcow2(path)
    there = snapshots(path)
    if (name in there) != (what != "create"):
        found = ", ".join(there) or "none"
        raise UsageError(f"{path}: {'has' if name in there else 'has no'} snapshot {name}", f"there is {found}")
    letter = {"create": "-c", "apply": "-a", "delete": "-d"}[what]
    _run("qemu-img", ["snapshot", letter, name, os.path.abspath(image.path)])


def _qcow2(path: str) -> Image:
    image = source(path)
    if image.format is not Format.QCOW2 or image.partition is not None:
        raise UsageError(f"{path}: only a qcow2 has snapshots in it", "a layer over it is one: 'uml cow create'")
    return image
