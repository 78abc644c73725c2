"""How much of the host one kernel process, and all of them together, may take."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from typing import Final

MARGIN: Final = 64 << 20
"""Bytes that a file may be larger than the guest's memory: the kernel's own image goes into it, too."""
DATA: Final = 512 << 20
"""Bytes of memory that is one process's alone. The guest's own memory is shared, and counts elsewhere."""
ADDRESSES: Final = 2 << 30
"""Bytes of addresses besides four times the guest's memory: a page may be mapped more than once."""
PROCESS_MEMORY: Final = 64 << 10
"""Each process of a guest is one of the host, and takes at least so much of the guest's memory."""
PROCESSES_MIN: Final = 1024

Limit = tuple[int, int]


def limits(memory: int, file_size: int, files: int) -> Iterator[Limit]:
    """Resource limits (setrlimit(2)), both soft and hard: of a guest with `memory` bytes whose kernel writes files of
    up to `file_size` bytes, and has up to `files` open."""
    yield resource.RLIMIT_CORE, 0
    yield resource.RLIMIT_FSIZE, max(memory, file_size) + MARGIN
    yield resource.RLIMIT_DATA, DATA
    yield resource.RLIMIT_AS, 4 * memory + ADDRESSES
    yield resource.RLIMIT_NOFILE, files
    yield resource.RLIMIT_MEMLOCK, 0
    yield resource.RLIMIT_MSGQUEUE, 0
    yield resource.RLIMIT_NICE, 0
    yield resource.RLIMIT_RTPRIO, 0


def processes(memory: int) -> int:
    """How many processes it may have."""
    return max(memory // PROCESS_MEMORY, PROCESSES_MIN)


def room(memory: int) -> int:
    """Bytes of the filesystem that its memory's file is on."""
    return memory + MARGIN
