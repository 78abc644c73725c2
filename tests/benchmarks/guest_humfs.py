"""humfs in a guest against the kernel's own hostfs over the same tree.

    python -m tests.benchmarks.guest_humfs [ROUNDS [DIRECTORY]]

The tree is a copy of /usr/include (some 8,000 files) in DIRECTORY (default /var/tmp; on a tmpfs the host's disk plays
no part). hostfs does less: it has no owners to keep. `cold` is after the guest dropped its caches. Each job is
done by one and then the other, round after round; the table has medians.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import trio

from humfs.archive import import_archive
from humfs.volume import create
from tests.benchmarks.guest_files import compare, make_tree


async def main(rounds: int, directory: str) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(dir=directory) as name:
        tree, root = Path(name, "tree"), Path(name, "humfs")
        await trio.to_thread.run_sync(tree.mkdir)
        await trio.to_thread.run_sync(make_tree, tree)
        create(root, 4 << 30)
        await import_archive(root, str(tree / "include.tar"))
        print(await compare(tree, {"humfs": f"humfs:{root}"}, rounds))


if __name__ == "__main__":
    words = sys.argv[1:]
    trio.run(main, int(words[0]) if words else 5, words[1] if words[1:] else "/var/tmp")
