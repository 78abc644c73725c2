"""What makes a stock kernel boot fast, and the command line as a whole.

Of a plain boot most goes into measuring what nobody needs: a benchmark of raid6 and xor routines, btrfs's self
test, and the delay loop. docs/boot-costs.md has the figures.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from runtime.host import cache
from runtime.kernels.features import Features, features
from runtime.kernels.kernel import Kernel, identity
from umlfs.errors import UsageError

COMMAND_LINE_MAX: Final = 4096
"""COMMAND_LINE_SIZE of the kernel, with the final NUL; what is longer stops it with an abort."""

APPENDED: Final = len(" root=98:0 console=tty0")
"""What the kernel itself adds to its command line."""

LPJ_RANGE: Final = range(10_000, 1_000_000_000)
"""Loops per jiffy (10 ms) that are believed: 2 to 200,000 BogoMIPS. A lie only makes delays of the guest's
drivers shorter or longer, but zero would divide, and very large values overflow."""

RAID6_BENCHMARK: Final = ("raid6_select_algo", "raid6_init")
"""Initcalls that time the routines of RAID-6, 0.85 s of each boot, and then choose some; the second is Linux 7's. A
kernel passes over the name that it does not have."""

RAID6_USERS: Final = ("init_btrfs_fs", "raid5_init")
"""The initcalls, of modules too, of what would call a null pointer where no routine was chosen: btrfs and md's
raid456."""

XOR_BENCHMARK: Final = "calibrate_xor_blocks"
"""Without it the first routine is taken."""

NO_BSD_PTYS: Final = "pty.legacy_count=0"
"""The kernel would make 512 devices for BSD ptys, which nothing has used in decades, and start /sbin/hotplug (not
there, but a process each time) for every one of them: 0.1 s of a boot, and up to 0.6 on a busy host."""

_CALIBRATED: Final = re.compile(rb"Calibrating delay loop\.\.\. *[0-9.]+ BogoMIPS \(lpj=([0-9]{1,10})\)")


class Tuning(NamedTuple):
    """How a boot is made fast."""

    lpj: int | None = None
    """Loops per jiffy as measured by an earlier boot; None lets the kernel measure (0.1 s or more)."""
    skipped: tuple[str, ...] = ()
    """The initcalls that are left out."""

    def arguments(self) -> list[str]:
        """The words for the kernel's command line."""
        words = [NO_BSD_PTYS] if self.lpj is None else [NO_BSD_PTYS, f"lpj={self.lpj}"]
        return [*words, f"initcall_blacklist={','.join(self.skipped)}"] if self.skipped else words


def tuning(kernel: Kernel, *, raid: bool = False) -> Tuning:
    """The tuning for this kernel on this host; `raid` if a device of the guest may hold btrfs or a part of a RAID."""
    return Tuning(known_lpj(kernel), () if raid else skippable(features(kernel)))


def skippable(known: Features) -> tuple[str, ...]:
    """The initcalls of the kernel that a guest without btrfs and RAID does better without: none in one that was built
    without their benchmarks."""
    raid6 = (*RAID6_BENCHMARK, *RAID6_USERS) if known.has_option("CONFIG_RAID6_PQ_BENCHMARK") else ()
    return (*raid6, XOR_BENCHMARK) if known.has_option("CONFIG_XOR_BLOCKS") else raid6


def known_lpj(kernel: Kernel) -> int | None:
    """The loops per jiffy that this kernel measured on this host's kind of processor; None if not known."""
    text = (cache.load(_lpj_name(kernel), 16) or b"").strip()
    return _believed(text)


def remember_lpj(kernel: Kernel, log: bytes) -> int | None:
    """Remember what the kernel measured, from the log of a boot without `quiet` and `lpj=`.

    Returns the value; None if the log tells none, or none that can be believed.
    """
    found = _CALIBRATED.search(log)
    value = _believed(found[1]) if found else None
    if value is not None and cache.store(_lpj_name(kernel), b"%d\n" % value):
        cache.prune("lpj-*", keep=8)
    return value


def _believed(text: bytes) -> int | None:
    if not text.isdigit():
        return None
    value = int(text)
    return value if value in LPJ_RANGE else None


def _lpj_name(kernel: Kernel) -> str:
    key = f"{identity(kernel.path)}\0{_processor()}"
    return f"lpj-{hashlib.sha256(key.encode()).hexdigest()[:24]}"


def _processor() -> str:
    """The model of the host's first processor. Only the start is read: on large hosts the whole takes long."""
    try:
        fd = os.open("/proc/cpuinfo", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    with open(fd, "rb", buffering=0) as file:
        head = file.read(2048).decode("utf-8", "replace")
    found = re.search(r"^model name\s*:\s*(.*)$", head, re.MULTILINE)
    return found[1] if found else ""


def command_line(arguments: Iterable[str]) -> list[str]:
    """The arguments of the kernel, checked: UsageError for one that the kernel could not take as it is.

    The kernel joins its arguments by spaces into one line and parses that: there is no quoting, and the line
    is limited to `COMMAND_LINE_MAX` bytes.
    """
    words = list(arguments)
    for word in words:
        if not word or any(character.isspace() or not character.isprintable() for character in word):
            raise UsageError(f"{word!r} cannot be given to the kernel", "its arguments cannot hold spaces")
        if '"' in word:
            raise UsageError(f"{word!r} cannot be given to the kernel", "its arguments cannot hold quotes")
    length = sum(len(os.fsencode(word)) + 1 for word in words) + APPENDED
    if length >= COMMAND_LINE_MAX:
        raise UsageError(
            f"the kernel's command line is too long ({length} of {COMMAND_LINE_MAX - 1} bytes)",
            "give fewer arguments or devices, or shorter paths",
        )
    return words
