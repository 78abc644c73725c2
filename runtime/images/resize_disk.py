"""A larger disk with partitions: the last of them, and the filesystem in it, take what is new."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

import trio

from runtime.appliance.disk import parts
from runtime.appliance.part import Part
from runtime.host.needs import find_program
from runtime.images.growing import GROW_OR_EXT4
from runtime.images.inside import NAME, in_guest
from runtime.images.parts import describe
from runtime.images.streams import failed
from umlfs.blocks.file import HostFile
from umlfs.blocks.partitions import SECTOR
from umlfs.blocks.raw import RawDevice
from umlfs.blocks.slice import Slice
from umlfs.errors import UsageError
from umlfs.host.programs import run_program

_LOGICAL: Final = 5
"""The first number of a logical partition, which lies in another that would have to grow, too."""
_GPT: Final = b"EFI PART"
_PROTECTIVE: Final = 0xEE
_FIRST_KIND: Final = 450
_MBR_ENTRY: Final = 16
_TABLE_MAX: Final = 1 << 20
"""Bytes at the beginning of a disk in which its table lies."""


async def grow_last(path: Path, file: HostFile, size: int) -> None:
    """Make the disk `size` bytes long, and the partition that lies last on it and its filesystem as much larger.

    UsageError for a disk that is not to be larger, or whose last partition cannot be; UmlError if a program refuses:
    the table and the size are as before then, unless it was the filesystem that could not be made larger.
    """
    old = file.size()
    if size <= old:
        raise UsageError(f"{path}: a disk with partitions, which only becomes larger", f"name more than {old} bytes")
    last = _last(path, await parts(RawDevice(file, old)))
    program, grow = GROW_OR_EXT4[last.kind or ""]
    find_program(program)
    await trio.to_thread.run_sync(_grow_table, path, file.fileno(), old, size, last)
    device = RawDevice(file, size)
    grown = next(part for part in await parts(device) if part.number == last.number)
    script = f"mount -t {last.kind} /dev/{NAME} /mnt; {grow}"
    what = f"{path}: partition {last.number} is larger now, but the {last.kind} in it cannot be resized"
    await in_guest(Slice(device, grown.offset, grown.size), script, what)
    await device.flush()


def _last(path: Path, found: list[Part]) -> Part:
    """The partition that lies last. UsageError if it cannot grow."""
    last = max(found, key=lambda part: part.offset, default=None)
    if last is None or last.number is None or last.kind not in GROW_OR_EXT4:
        known = ", ".join(sorted(GROW_OR_EXT4))
        raise UsageError(
            f"{path}: its last partition cannot grow: there is {describe(found)}", f"those with {known} can"
        )
    return last


def _has_gpt(path: Path, head: bytes, last: Part) -> bool:
    """Whether the table is a GPT rather than an MBR. UsageError for tables that sfdisk does not change for us."""
    if head[SECTOR : SECTOR + len(_GPT)] == _GPT:
        return True
    if _PROTECTIVE in head[_FIRST_KIND : SECTOR - 2 : _MBR_ENTRY]:
        raise UsageError(f"{path}: its GPT is not for blocks of {SECTOR} bytes", "copy it to another disk")
    if (last.number or 0) >= _LOGICAL:
        raise UsageError(f"{path}: its last partition is a logical one", "copy it to a disk with a GPT")
    return False


def _grow_table(path: Path, fd: int, old: int, size: int, last: Part) -> None:
    head, tail = os.pread(fd, min(_TABLE_MAX, last.offset), 0), last.offset + last.size
    end = os.pread(fd, min(_TABLE_MAX, old - tail), max(tail, old - _TABLE_MAX))
    gpt = _has_gpt(path, head, last)
    os.ftruncate(fd, size)
    try:
        if gpt:
            _sfdisk(path, fd, ["--relocate", "gpt-bak-std"], "")
        _sfdisk(path, fd, ["--no-reread", "--no-tell-kernel", "-N", str(last.number)], ", +\n")
    except BaseException:
        os.ftruncate(fd, old)
        os.pwrite(fd, head, 0)
        os.pwrite(fd, end, old - len(end))
        raise
    os.fsync(fd)


def _sfdisk(path: Path, fd: int, arguments: list[str], said: str) -> None:
    place = f"/proc/self/fd/{fd}"
    command = [find_program("sfdisk"), "--quiet", "--lock=no", *arguments, place]
    done = run_program(
        command,
        input=said.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=[fd],
        env={"PATH": os.defpath, "LC_ALL": "C"},
    )
    if done.returncode:
        words_said = done.stdout.decode(errors="replace").replace(place, str(path))
        raise failed(f"{path}: sfdisk refuses", words_said.strip().splitlines())
