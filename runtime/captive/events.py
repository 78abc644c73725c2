"""What a captive guest tells of itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class EventKind(StrEnum):
    """What happened."""

    PANIC = "panic"
    """The kernel panicked; the text is its last word."""
    EXIT = "exit"
    """The kernel has ended; the text says how."""
    HANG = "hang"
    """The watchdog: the kernel gives no sign of life, or a program in the guest has not fed its /dev/watchdog."""
    RECOVERED = "recovered"
    """A kernel that hung is there again."""
    USER = "user"
    """A program in the guest wrote the text to /proc/mconsole."""
    NETWORK = "network"
    """What befell its network."""


@dataclass(frozen=True, slots=True)
class Event:
    """One of them."""

    kind: EventKind
    text: str = ""
