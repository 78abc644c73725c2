"""Images of filesystems that their own programs make, without root: in a guest, out of an ext4 with the same files."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from humfs.acl import ACCESS, DEFAULT
from humfs.importer import Member, show
from runtime.host.needs import find_program
from runtime.host.scratch import scratch_file
from runtime.images import ext4, writers
from runtime.images.formats import Format
from runtime.images.inside import in_guest
from runtime.images.sink import ImageReport
from runtime.images.streams import failed, require_room
from umlfs.blocks.raw import open_raw
from umlfs.errors import UmlError
from umlfs.host.programs import run_program

_MIB: Final = 1 << 20
_MOUNT: Final = """\
mkdir -p /run/source /run/target
mount -t ext4 /dev/source /run/source
touch -r /run/source /run/time
rmdir /run/source/lost+found 2>/dev/null || :
touch -r /run/time /run/source
"""
"""Every ext4 has a `lost+found`: one without anything in it is nobody's."""
_COPY: Final = """\
mount -t {kind} /dev/image /run/target
cp -R -P --preserve=mode,ownership,timestamps,links,xattr --sparse=auto -T /run/source /run/target
umount /run/target
"""
_MAKE: Final = {
    Format.EROFS: "mkfs.erofs -E force-inode-extended --quiet /dev/image /run/source >&2\n",
    Format.SQUASHFS: "mksquashfs /run/source /dev/image -noappend -quiet -no-progress >&2\n",
}
_SQUASHFS_USED: Final = 40
_SQUASHFS_UNIT: Final = 4096
_EROFS_SUPERBLOCK: Final = 1024
_EROFS_BITS: Final = 12
_EROFS_BLOCKS: Final = 36


@dataclass(frozen=True, slots=True)
class _Kind:
    program: str
    options: tuple[str, ...]
    least: int
    """Bytes that it is at least made of."""


_KINDS: Final = {
    Format.XFS: _Kind("mkfs.xfs", ("-q", "-f"), 320 * _MIB),
    Format.BTRFS: _Kind("mkfs.btrfs", ("-q", "-f"), 128 * _MIB),
    Format.SQUASHFS: _Kind("mksquashfs", (), 16 * _MIB),
    Format.EROFS: _Kind("mkfs.erofs", (), 16 * _MIB),
}

_NAME_MAX: Final = 255

Fill = Callable[[Callable[[BinaryIO], None]], Awaitable[None]]


async def make(format_: Format, path: Path, settings: ext4.Settings, fill: Fill, report: ImageReport) -> None:
    """Make the new file `path` such a filesystem; `fill` is called with what takes an archive in a thread. UmlError."""
    kind = _KINDS[format_]
    program = find_program(kind.program)
    settings = replace(settings, size=max(settings.size, kind.least))
    check: Callable[[Member], None] | None = None
    long: list[str] = []
    if format_ is Format.SQUASHFS:
        check = partial(_check_squashfs, report=report)
    elif format_ is Format.EROFS:
        check = partial(_note_long_name, long=long)
    with scratch_file(path.parent) as source:
        await fill(partial(writers.to_ext4, fd=source, settings=settings, report=report, check=check))
        _make_empty(path, settings.size)
        if format_ in _MAKE:
            try:
                await _in_guest(source, path, _MAKE[format_])
            except UmlError as error:
                if not long:
                    raise
                what = f"{long[0]}: this mkfs.erofs may not take a name of {_NAME_MAX} bytes"
                raise UmlError(what, "name another format", details=error.details) from error
            os.truncate(path, _size(format_, path))
        else:
            _run([program, *kind.options, str(path)])
            await _in_guest(source, path, _COPY.format(kind=format_.value))


def _check_squashfs(member: Member, report: ImageReport) -> None:
    """What a squashfs cannot hold."""
    if any(name in (ACCESS, DEFAULT) for name, _ in member.xattrs):
        report.losses.add("access lists, of which a squashfs has none, are left out", show(member.path))
    if member.mtime_ns % 10**9:
        report.losses.add("times lose their nanoseconds, of which a squashfs has none", "")


def _note_long_name(member: Member, long: list[str]) -> None:
    """Names as long as they may be, over which mkfs.erofs 1.5 fails without a word of why."""
    if member.path and len(member.path[-1]) == _NAME_MAX and not long:
        long.append(show(member.path))


async def _in_guest(source: int, path: Path, script: str) -> None:
    devices = {"source": open_raw(Path(f"/proc/self/fd/{source}")), "image": open_raw(path)}
    try:
        await in_guest(devices, _MOUNT + script, f"{path.name}: its files could not be copied into it")
        await devices["image"].flush()
    finally:
        for device in devices.values():
            await device.close()


def _make_empty(path: Path, size: int) -> None:
    with open(path, "xb") as file:
        file.truncate(size)


def _size(format_: Format, path: Path) -> int:
    """The bytes that the filesystem takes, by its superblock."""
    with open(path, "rb") as file:
        head = file.read(2048)
    if format_ is Format.SQUASHFS:
        (used,) = struct.unpack_from("<Q", head, _SQUASHFS_USED)
        return -(-int(used) // _SQUASHFS_UNIT) * _SQUASHFS_UNIT
    (blocks,) = struct.unpack_from("<I", head, _EROFS_SUPERBLOCK + _EROFS_BLOCKS)
    return int(blocks) << head[_EROFS_SUPERBLOCK + _EROFS_BITS]


def _run(command: list[str]) -> None:
    done = run_program(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        require_room(lines)
        raise failed(f"{os.path.basename(command[0])} failed", lines, "name another --size")
