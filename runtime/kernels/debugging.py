"""gdb on a kernel: what it is told, so that it does not stop for what a UML kernel lives by."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from runtime.host.needs import find_program
from umlfs.errors import UmlError

SIGNALS: Final = ("SIGSEGV", "SIGALRM", "SIGIO", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGWINCH")
"""Page faults, the timer, devices: the kernel's own, some thousands of them a second. Not SIGINT, which is Ctrl-C in
gdb."""
SCRIPTS: Final = "vmlinux-gdb.py"
STARTS_INIT: Final = "run_init_process"
"""The kernel's function that becomes process 1 of the guest."""


def gdb_command(pid: int, kernel: Path, *, before_init: bool = False) -> list[str]:
    """The command that attaches gdb to the kernel process `pid` of the file `kernel`. With `before_init` the kernel has
    just begun, and goes on to where it starts its init if it has symbols to find that by. UmlError without gdb."""
    commands = ["set pagination off", f"handle {' '.join(SIGNALS)} nostop noprint pass"]
    if scripts := find_scripts(kernel):
        commands += [f"add-auto-load-safe-path {scripts.parent}", f"source {scripts}"]
    words = [word for each in commands for word in ("-iex", each)]
    steps = [f"tbreak {STARTS_INIT}", "continue"] if before_init and STARTS_INIT.encode() in kernel.read_bytes() else []
    return [gdb_path(), "-q", *words, "-p", str(pid), str(kernel), *(word for step in steps for word in ("-ex", step))]


def gdb_path() -> str:
    """Where gdb is. UmlError if it is not there."""
    return find_program("gdb")


def find_scripts(kernel: Path) -> Path | None:
    """The kernel's own scripts for gdb: beside it in the tree that it was built in, or in its folder of the store."""
    for place in (kernel.parent, kernel.parent / "gdb"):
        if (place / SCRIPTS).is_file():
            return place / SCRIPTS
    return None


def advice(kernel: Path) -> str | None:
    """What to tell somebody who debugs a kernel that has no symbols; None if it has."""
    with open(kernel, "rb") as file:
        has_symbols = b".debug_info" in file.read()[-(1 << 20) :]
    if has_symbols:
        return None
    return f"{kernel}: the kernel has no symbols; 'uml kernel build --flavour debug' makes one that has"


def check_may_attach(command: str) -> None:
    """UmlError if gdb may not attach to processes of one's own; `command` is what root might do instead."""
    try:
        scope = Path("/proc/sys/kernel/yama/ptrace_scope").read_text().strip()
    except OSError:
        return
    if os.geteuid() and scope != "0":
        raise UmlError(
            f"ptrace_scope is {scope}: only root may attach gdb to a kernel",
            f"`sudo sysctl kernel.yama.ptrace_scope=0`, or `sudo {command}`",
        )
