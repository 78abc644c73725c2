"""Another size for the filesystem in a raw image, and for the image with it."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path
from typing import Final

import trio

from runtime.host.needs import find_program
from runtime.images.formats import Format, Image
from runtime.images.growing import GROW
from runtime.images.inside import NAME, in_guest
from runtime.images.output import output_file
from runtime.images.resize_disk import grow_last
from runtime.images.streams import failed
from umlfs.blocks import probe, sparse
from umlfs.blocks.file import HostFile
from umlfs.blocks.raw import RawDevice, open_file
from umlfs.errors import UsageError
from umlfs.host.programs import run_program

UNIT: Final = 4096
"""Sizes are multiples of it: a block of any of these filesystems."""
_REPAIRED: Final = 3
"""e2fsck's exit status when all is well now is not above it."""
NO_SIZE: Final = "has no size of its own that could be changed; 'uml image convert' it first"
_OTHERS: Final = {
    Format.COW: "has the size of its backing file; 'uml cow merge' it first",
    Format.QCOW2: "a qcow2 image; 'uml image convert' it to a raw one first",
    Format.HUMFS: "a humfs; 'uml humfs set --size' changes what the guest may take",
}


async def resize(image: Image, size: int) -> None:
    """Make the filesystem in a raw image, and the image, `size` bytes long. On a disk with partitions, the last one and
    the filesystem in it become as much larger.

    Larger works for ext2 to ext4, xfs and btrfs, smaller for all of them but xfs, as far as what is in there allows.
    ext4 shrinks in a copy, which takes the image's place when all went well. UsageError for what has no size to
    change; UmlError if the image is in use, damaged, or cannot be made that small.
    """
    path = image.path
    if image.partition is not None:
        raise UsageError(f"{path}: a partition has no size of its own", f"resize the disk: the last one grows: {path}")
    if image.format is not Format.RAW:
        raise UsageError(f"{path}: {_OTHERS.get(image.format, NO_SIZE)}", None)
    if size <= 0 or size % UNIT:
        raise UsageError(f"{size}: not a size for a filesystem", f"name a multiple of {UNIT} bytes")
    file = open_file(path)
    try:
        kind = await probe.probe(RawDevice(file, file.size()))
        old = file.size()
        if kind == probe.PARTITIONED:
            await grow_last(path, file, size)
        elif kind == "ext4":
            await trio.to_thread.run_sync(_resize_ext4, path, file, size)
        elif kind in GROW:
            await _resize_in_guest(path, file, kind, old, size)
        else:
            raise UsageError(f"{path}: {kind or 'no filesystem that is known'} cannot be resized", None)
    finally:
        file.close()


# ext4 -----------------------------------------------------------------------------------------


def _resize_ext4(path: Path, file: HostFile, size: int) -> None:
    old = file.size()
    if size < old:
        _shrink_ext4(path, file, size)
        return
    _check(path, file.fileno())
    os.ftruncate(file.fileno(), size)
    try:
        _run(path, "resize2fs", [], file.fileno())
    except BaseException:
        os.ftruncate(file.fileno(), max(old, _ext4_size(file.fileno())))
        raise
    os.fsync(file.fileno())


def _shrink_ext4(path: Path, file: HostFile, size: int) -> None:
    found = os.fstat(file.fileno())
    with output_file(path, force=True, mode=found.st_mode & 0o777) as copy:
        os.ftruncate(copy, found.st_size)
        sparse.copy_data(file.fileno(), copy, 0, 0, found.st_size)
        _check(path, copy)
        _run(path, "resize2fs", [f"{size // 1024}K"], copy)
        os.ftruncate(copy, size)
        os.fchmod(copy, found.st_mode & 0o777)
        if os.geteuid() == 0:
            os.fchown(copy, found.st_uid, found.st_gid)


def _check(path: Path, fd: int) -> None:
    """See that the filesystem is sound, which resize2fs asks for; journals are replayed."""
    _run(path, "e2fsck", ["-f", "-p"], fd, most=_REPAIRED)


def _run(path: Path, name: str, arguments: list[str], fd: int, most: int = 0) -> None:
    program = find_program(name)
    place = f"/proc/self/fd/{fd}"
    command = [program, place, *arguments] if name == "resize2fs" else [program, *arguments, place]
    done = run_program(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=[fd],
        env={"PATH": os.defpath, "LC_ALL": "C"},
    )
    if done.returncode > most or done.returncode < 0:
        said = done.stdout.decode(errors="replace").replace(place, str(path))
        raise failed(f"{path}: {name} refuses", said.strip().splitlines(), "its words are above")


def _ext4_size(fd: int) -> int:
    """Bytes of the filesystem, as its superblock says."""
    block = os.pread(fd, 1024, 1024)
    (low,), (scale,), (high,) = (struct.unpack_from("<I", block, at) for at in (4, 24, 0x150))
    has_high = struct.unpack_from("<I", block, 0x60)[0] & 0x80
    return int((low | (high << 32 if has_high else 0)) << (10 + scale))


# Others ---------------------------------------------------------------------------------------


async def _resize_in_guest(path: Path, file: HostFile, kind: str, old: int, size: int) -> None:
    program, grow = GROW[kind]
    find_program(program)
    if size < old and kind == "xfs":
        raise UsageError(f"{path}: xfs cannot be made smaller", "convert it into a new, smaller image")
    if size > old:
        os.ftruncate(file.fileno(), size)
    script = f"mount -t {kind} /dev/{NAME} /mnt; {grow if size > old else f'btrfs filesystem resize {size} /mnt'}"
    device = RawDevice(file, max(old, size))
    await in_guest(device, script, f"{path}: the {kind} in it cannot be resized")
    await device.flush()
    if size < old:
        os.ftruncate(file.fileno(), size)
