"""The program that a kernel starts when its guest opens /dev/watchdog: its path is built into every kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from runtime.jail.grants import Grants

PROGRAM: Final = Path("/usr/bin/uml_watchdog")
_ELF: Final = b"\x7fELF"


def grant_watchdog(grants: Grants) -> None:
    """Let the kernel start it, in its own jail, if this host has it as a program. The interpreter of a script would be
    half of the host."""
    try:
        with PROGRAM.open("rb") as file:
            found = file.read(len(_ELF)) == _ELF
    except OSError:
        return
    if found:
        grants.execute.append(PROGRAM)
