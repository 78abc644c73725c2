"""Which lines of a guest's kernel were run: what a kernel that counts them (gcov) has in its debugfs, on the host."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from runtime.kernels.features import features
from runtime.kernels.kernel import Kernel
from runtime.machine.equipment import HostMount
from runtime.machine.script import BUSYBOX, RunsJobs, run_script
from umlfs.errors import UmlError

PLACE: Final = "/run/coverage"
"""Where the guest has the host's directory."""
SECONDS: Final = 120.0
"""How long it may take: thousands of small files."""
SCRIPT: Final = f"""\
box={BUSYBOX}
counts=/sys/kernel/debug/gcov
[ -d $counts ] || $box mount -t debugfs debugfs /sys/kernel/debug
[ -d $counts ] || {{ echo "the kernel has no $counts" >&2; exit 1; }}
$box cp -R $counts/. "$1" && $box rm -f "$1/reset"
"""
"""The links to what the compiler wrote (.gcno) are copied as links."""


def mount(kernel: Kernel, directory: Path) -> HostMount:
    """What a guest of the kernel needs in order to write its counts to `directory` of the host, which is made. UmlError
    if it counts nothing."""
    if not features(kernel).has_option("CONFIG_GCOV_KERNEL"):
        build = "build one that does: 'uml kernel build --flavour gcov'"
        raise UmlError(f"--coverage: Linux {kernel.version} does not count what it runs", build)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UmlError(f"--coverage {directory}: {error.strerror}", "name a directory that can be written") from error
    return HostMount(PLACE, f"hostfs:{directory.absolute()}")


async def collect(machine: RunsJobs) -> None:
    """Have the guest write its counts. UmlError."""
    await run_script(machine, SCRIPT, [PLACE], seconds=SECONDS)
