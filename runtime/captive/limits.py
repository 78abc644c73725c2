"""What a captive guest may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from umlfs.errors import UsageError

MEMORY: Final = 256 << 20
MEMORY_MIN: Final = 32 << 20
OUTPUT: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """UsageError for what cannot be meant."""

    memory: int = MEMORY
    """The guest's, in bytes: its processes and what it writes to a root that is not written through."""
    boot_seconds: float = 60.0
    """How long it may take to come up."""
    hang_seconds: float = 60.0
    """After so long without a sign of life the guest's kernel is taken to hang (`EventKind.HANG`); 0: never."""
    output: int = OUTPUT
    """Bytes of each stream that `run` gathers. More is an error of the command and of the call."""
    time_limit: float = 30.0
    """Seconds that a method of a mounted tree may take: then it is EIO in the guest."""

    def __post_init__(self) -> None:
        if self.memory < MEMORY_MIN:
            raise UsageError(f"memory={self.memory}: too little for a guest", f"give it {MEMORY_MIN >> 20} MiB")
        for name in ("boot_seconds", "time_limit", "output"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name}={getattr(self, name)}: not a limit", "give a number above 0")
        if self.hang_seconds < 0:
            raise UsageError(f"hang_seconds={self.hang_seconds}: not a time", "give 0 for never")
