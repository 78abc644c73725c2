"""Merging a COW file: `python -m tests.benchmarks.cow_merge [DIRECTORY] [ROUNDS]`.

1 GiB of image, 100 MiB of changes scattered over it in pieces of 4 to 64 KiB. `uml cow merge` must be at least 3 times
as fast as uml_moo, and take at most 1.2 times as long as `cp` of the image. Ours leaves a file that survives a power
cut, so there is also a cp followed by sync of the copy; neither cp nor uml_moo alone does that.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import trio

from tests.benchmarks.ratio import measure, table
from umlfs.cow.create import create
from umlfs.cow.merge import merge
from umlfs.cow.open import open_cow

SIZE = 1 << 30
CHANGED = 100 << 20


def prepare(folder: Path) -> tuple[Path, Path]:
    """The backing file, and the COW file with its changes."""
    backing, cow = folder / "backing", folder / "cow"
    with backing.open("wb") as file:
        block = random.Random(1).randbytes(1 << 20)
        for _ in range(SIZE >> 20):
            file.write(block)
    create(str(cow), str(backing))
    trio.run(scatter, cow)
    subprocess.run(["sync"], check=True)
    return cow, backing


async def scatter(cow: Path) -> None:
    chance, left = random.Random(2), CHANGED
    device = await open_cow(str(cow))
    data = chance.randbytes(65536)
    while left > 0:
        length = chance.choice((4096, 8192, 16384, 65536))
        await device.write_from(chance.randrange((SIZE - length) // 4096) * 4096, [memoryview(data)[:length]])
        left -= length
    await device.flush()
    await device.close()


def main(folder: Path, rounds: int) -> None:
    """Print the table."""
    cow, backing = prepare(folder)
    new = folder / "new"

    def fresh(*command: str | Path) -> Callable[[], object]:
        def run() -> object:
            new.unlink(missing_ok=True)
            return subprocess.run(command, check=True)

        return run

    def ours() -> None:
        new.unlink(missing_ok=True)
        merge(str(cow), str(new))

    contestants = {
        "uml cow merge": ours,
        "uml_moo": fresh("/usr/bin/uml_moo", cow, new),
        "cp": fresh("cp", backing, new),
        "cp and sync": fresh("sh", "-c", 'cp "$0" "$1" && sync "$1"', backing, new),
    }
    print(table(measure(contestants, rounds), "uml cow merge"))


if __name__ == "__main__":
    parent = sys.argv[1] if len(sys.argv) > 1 else None
    directory = Path(tempfile.mkdtemp(prefix="uml-benchmark-", dir=parent))
    try:
        main(directory, int(sys.argv[2]) if len(sys.argv) > 2 else 5)
    finally:
        shutil.rmtree(directory)
