"""The `uml` command: one thin module per noun, no logic.

A noun is a line of `COMMANDS`: its name and the module that holds it. Such a module defines
`command: click.Command`, and is imported only when that command is asked for (or listed by `uml --help`).
What the callback of a command returns is the exit status; None is 0.

This module imports next to nothing: a command that a standby does (`runtime.standby`) needs no more.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # as in typing, which takes long to import
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

COMMANDS = {
    "boot": "runtime.cli.boot",
    "bug-report": "runtime.cli.bug_report",
    "cad": "runtime.cli.power.cad",
    "cat": "runtime.cli.cat",
    "chmod": "runtime.cli.chmod",
    "chown": "runtime.cli.chown",
    "class": "runtime.cli.class_",
    "clone": "runtime.cli.clone",
    "cluster": "runtime.cli.cluster",
    "completion": "runtime.cli.completion",
    "config": "runtime.cli.config",
    "console": "runtime.cli.console",
    "cow": "runtime.cli.cow",
    "cp": "runtime.cli.cp",
    "df": "runtime.cli.df",
    "diff": "runtime.cli.diff",
    "doctor": "runtime.cli.doctor",
    "edit": "runtime.cli.edit",
    "exec": "runtime.cli.exec",
    "explain": "runtime.cli.explain",
    "find": "runtime.cli.find",
    "forward": "runtime.cli.forward",
    "gdb": "runtime.cli.gdb",
    "go": "runtime.cli.power.go",
    "halt": "runtime.cli.power.halt",
    "help": "runtime.cli.help",
    "humfs": "runtime.cli.humfs",
    "image": "runtime.cli.image",
    "kernel": "runtime.cli.kernel",
    "kill": "runtime.cli.kill",
    "ln": "runtime.cli.ln",
    "logs": "runtime.cli.logs",
    "ls": "runtime.cli.ls",
    "mconsole": "runtime.cli.mconsole",
    "mkdir": "runtime.cli.mkdir",
    "mount": "runtime.cli.mount",
    "move": "runtime.cli.move",
    "mv": "runtime.cli.mv",
    "net": "runtime.cli.net",
    "proxy": "runtime.cli.proxy",
    "ps": "runtime.cli.ps",
    "reboot": "runtime.cli.power.reboot",
    "rm": "runtime.cli.rm",
    "run": "runtime.cli.run",
    "serve": "runtime.cli.serve",
    "share": "runtime.cli.share",
    "snapshot": "runtime.cli.snapshot",
    "sources": "runtime.cli.sources",
    "ssh": "runtime.cli.ssh",
    "stat": "runtime.cli.stat",
    "stop": "runtime.cli.power.stop",
    "test": "runtime.cli.test",
    "top": "runtime.cli.top",
    "tree": "runtime.cli.tree",
    "umount": "runtime.cli.umount",
    "watch": "runtime.cli.watch",
    "web": "runtime.cli.web",
}
"""Every command and the module that defines it."""

GARBAGE_AFTER = 20_000
"""How many objects are made between two searches for garbage: a few megabytes."""


def invoke(args: Sequence[str]) -> int:
    """Run the command line `args` (without the program's name) and give its exit status; errors are reported."""
    # The programs of old are in this package too, and one of them does without click: it starts in half the time.
    from runtime.cli.group import run

    return run(args)


def open_standard_descriptors() -> None:
    """Put /dev/null where the caller closed one of 0 to 2: a disk image opened next must not get that number."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def main() -> NoReturn:
    """The entry point of the `uml` program."""
    import gc

    from runtime.standby.client import hand_over
    from umlfs import entry

    # Loading makes many objects and no garbage: searched through at each 700th, it takes a tenth longer.
    gc.set_threshold(GARBAGE_AFTER)
    entry.end_by_interrupts()
    open_standard_descriptors()
    status = hand_over(sys.argv[1:])
    if status is None:
        entry.complete()
        from runtime.tty.stdout import named

        if sys.stdout:
            sys.stdout = named(sys.stdout)
        import runtime.cli.group  # noqa: F401 - takes a while

        entry.raise_interrupts()
        status = invoke(sys.argv[1:])
    sys.exit(status)
