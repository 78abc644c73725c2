"""What the kernel's own ubd driver opens: apart from the checks, which take long to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class NativeFiles:
    """What the driver opens for one device: absolute paths, as it names them."""

    read: tuple[Path, ...]
    write: tuple[Path, ...]
    size_max: int
    """Bytes that a file which it writes may come to have."""
