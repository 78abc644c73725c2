"""Sizes as people write them: `4096`, `300M`, `64MiB`, `2g`."""

from __future__ import annotations

import re
from typing import Final

UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE: Final = re.compile(r"([0-9]{1,18})(?:([kmgt])(?:i?b)?)?\Z", re.IGNORECASE)


def size_of(word: str) -> int | None:
    """Bytes, from a number and a unit of 1024, K to T, or none; None for what is no size."""
    found = _SIZE.match(word.strip())
    return None if found is None else int(found[1]) * UNITS[(found[2] or "").lower()]
