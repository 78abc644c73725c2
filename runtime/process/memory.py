"""The guest's memory: how much, and the directory of the host that its file lies in.

UML keeps the memory of a guest in an unlinked sparse file, which it maps executable, in `$TMPDIR`, `$TMP` or
`$TEMP`, else in /dev/shm or /tmp. A full filesystem there kills the guest with SIGBUS in the middle of its work,
and one mounted noexec stops it at once: so the place is chosen and tried here, before the kernel starts.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path
from typing import Final

from umlfs.errors import UmlError, UsageError
from umlfs.sizes import size_of

DEFAULT: Final = 256 << 20
"""Bytes of guest memory unless told otherwise; the host gives only what the guest touches."""
MINIMUM: Final = 32 << 20
"""Bytes. The stock kernel takes 11 MiB of it. With our initramfs and an overlay it runs `true` in 22 MiB, and aborts
with 20; in 32 MiB a command has 10 to itself."""


BEYOND: Final = 8
"""How many times the host's memory a guest may have. Its kernel takes a 64th of it at once, to keep account of it."""
ACCOUNTED: Final = 64


def needed_at_least(memory: int) -> int:
    """Bytes of the host that must be there for a guest of `memory` bytes: all of it, up to half of what the host has;
    for a larger one what it takes to boot."""
    return memory if memory <= host_memory() // 2 else MINIMUM + memory // ACCOUNTED * 2


def remark(memory: int) -> str:
    """What the person should know of a guest with so much memory; empty for one that has it all. UmlError."""
    directory = memory_directory(needed_at_least(memory))
    status = os.statvfs(directory)
    free = status.f_bavail * status.f_frsize
    if not status.f_blocks or free >= memory:
        return ""
    return f"of {memory >> 20}M of memory {directory} can hold {free >> 20}M: a guest that touches more ends"


def parse_size(text: str) -> int:
    """Bytes of guest memory from `256M`, `1g`, `262144k` or a number of bytes.

    UsageError for what is no size, is too little for a guest to run in, or more than this host could even keep account
    of. It may be more than the host has: it costs what the guest touches.
    """
    size = size_of(text)
    if size is None:
        raise UsageError(f"{text!r} is not a size of memory", "write it like 256M or 2G")
    if size < MINIMUM:
        hint = f"; did you mean {size}M?" if text.strip() == str(size) and size << 20 >= MINIMUM else ""
        raise UsageError(f"{text}: too little memory for a guest", f"give it at least {MINIMUM >> 20}M{hint}")
    total = host_memory()
    if size > total * BEYOND:
        raise UsageError(
            f"{text}: more than {BEYOND} times the memory that this host has", f"{total * BEYOND >> 20}M can be had"
        )
    return size & -mmap.PAGESIZE


def host_memory() -> int:
    """Bytes of memory that this host has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def memory_directory(needed: int | None = None) -> Path:
    """The directory for the file of a guest's memory: give it to the kernel as `TMPDIR`.

    The first of `$TMPDIR`, `$TMP`, `$TEMP`, /dev/shm and /tmp that can be written and mapped executable, and
    has `needed` bytes (by default the least that a guest can do with) free; one held in memory (tmpfs) goes
    before all that are on a disk, where the host would write the guest's memory out. UmlError if none will do.
    """
    needed = MINIMUM if needed is None else needed
    candidates = _candidates()
    volatile = _volatile_devices()
    complaints: list[str] = []
    for path in sorted(candidates, key=lambda path: not _is_on(path, volatile)):
        complaint = _complaint(path, needed)
        if complaint is None:
            return path
        complaints.append(f"{path} {complaint}")
    raise UmlError(
        f"no place for the guest's {needed >> 20} MiB of memory: {', '.join(complaints)}",
        "set TMPDIR to a directory with that much room on a tmpfs without noexec, or lessen --mem",
    )


def _candidates() -> list[Path]:
    named = [os.environ.get(name, "") for name in ("TMPDIR", "TMP", "TEMP")]
    # The kernel appends the file's name to this text and starts in our directory: only absolute paths are sure.
    texts = [os.path.abspath(text) for text in named if text]
    return [Path(text) for text in dict.fromkeys([*texts, "/dev/shm", "/tmp"])]


def is_volatile(path: Path) -> bool:
    """Whether what is in the directory `path` is held in memory."""
    return _is_on(path, _volatile_devices())


def _volatile_devices() -> set[str]:
    """The device numbers (`0:25`) of filesystems that are held in memory."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.split() for line in file]
    except OSError:
        return set()
    return {line[2] for line in lines if line[line.index("-") + 1] in ("tmpfs", "ramfs")}


def _is_on(path: Path, devices: set[str]) -> bool:
    try:
        device = os.stat(path).st_dev
    except OSError:
        return False
    return f"{os.major(device)}:{os.minor(device)}" in devices


def _complaint(path: Path, needed: int) -> str | None:
    """What makes `path` unfit, or None."""
    if any(character.isspace() for character in str(path)):
        return "has a space in its name"
    try:
        with tempfile.TemporaryFile(dir=path) as file:
            file.truncate(mmap.PAGESIZE)
            mmap.mmap(file.fileno(), mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
        status = os.statvfs(path)
    except PermissionError as error:
        mapped = error.filename is None
        return "is mounted noexec" if mapped else "cannot be written"
    except OSError as error:
        return f"cannot be used ({error.strerror})"
    free = status.f_bavail * status.f_frsize
    # A tmpfs with no limit of its own (size=0) says that it has no blocks at all.
    return f"has only {free >> 20} MiB free" if status.f_blocks and free < needed else None
