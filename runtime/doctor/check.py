"""What was looked for, and what mends it."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked for."""

    name: str
    ok: bool
    required: bool
    """Whether `uml run` cannot do without it."""
    found: str
    """What is there, or what is wrong."""
    purpose: str
    """What it is for."""
    mend: str | None = None
    """The shell command that mends it; None where all is well or no one command does."""


def sudo(command: str) -> str:
    """The command, as this user has to give it."""
    return command if os.geteuid() == 0 else f"sudo {command}"
