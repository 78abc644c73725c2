"""Converting, for tests."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from runtime.images import formats
from runtime.images.convert import Writing, convert
from tests import needs
from tests.guest.disks import MIB, empty
from umlfs.blocks.partitions import SECTOR


async def make(source: Path | str, target: Path | str, **options: Any) -> Path:
    """Convert; returns the path of what was made."""
    image = formats.destination(str(target))
    await convert(formats.source(str(source)), image, Writing(**options))
    return image.path


def disk_of(path: Path, filesystem: Path, table: str) -> Path:
    """A disk with this partition table, and the filesystem on the partition that begins at 2 MiB."""
    empty(path, filesystem.stat().st_size + 4 * MIB)
    subprocess.run([needs.program("sfdisk"), "-q", path], input=table.encode(), check=True)
    with path.open("r+b") as file:
        file.seek(4096 * SECTOR)
        file.write(filesystem.read_bytes())
    return path
