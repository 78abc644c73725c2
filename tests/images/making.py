"""Converting, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runtime.images import formats
from runtime.images.convert import Writing, convert


async def make(source: Path | str, target: Path | str, **options: Any) -> Path:
    """Convert; returns the path of what was made."""
    image = formats.destination(str(target))
    await convert(formats.source(str(source)), image, Writing(**options))
    return image.path
