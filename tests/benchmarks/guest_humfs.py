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
from runtime import HostMount, Options, run
from runtime.process.processes import for_machines
from runtime.tty.caller import DEFAULT_PATH
from tests.benchmarks.guest_files import make_tree, medians

SCRIPT = r"""
mkdir -p /kernel && mount -t hostfs none /kernel -o "$1" || exit 1
job() {
    begin=$(date +%s%N); sh -c "$3" >/dev/null 2>&1 || echo "failed: $3" >&2; end=$(date +%s%N)
    echo "$1 $2 $(((end - begin) / 1000))"
}
cold() { sync; echo 3 >/proc/sys/vm/drop_caches; }
for round in $(seq "$2"); do
    for side in ours kernel; do
        d=/$side
        cold; job "find, cold" $side "find $d/include"
        job "find, warm" $side "find $d/include"
        cold; job "ls -lR, cold" $side "ls -lR $d/include"
        job "ls -lR, warm" $side "ls -lR $d/include"
        cold; job "read all, cold" $side "tar cf - $d/include | cat"
        job "read all, warm" $side "tar cf - $d/include | cat"
        mkdir $d/work
        job "untar" $side "tar xf /kernel/include.tar -C $d/work"
        job "rm -rf" $side "rm -rf $d/work"
    done
done
"""


def show(results: dict[str, dict[str, float]]) -> str:
    """The table; a ratio below 1 is in our favour."""
    lines = [f"{'':<20}{'kernel hostfs':>14}{'humfs':>9}{'ratio':>7}"]
    for job, sides in results.items():
        kernel, ours = sides["kernel"], sides["ours"]
        lines.append(f"{job:<20}{kernel:>13.2f}s{ours:>8.2f}s{ours / kernel:>7.2f}")
    return "\n".join(lines)


async def main(rounds: int, directory: str) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(dir=directory) as name:
        tree, root = Path(name, "tree"), Path(name, "humfs")
        await trio.to_thread.run_sync(tree.mkdir)
        await trio.to_thread.run_sync(make_tree, tree)
        create(root, 4 << 30)
        await import_archive(root, str(tree / "include.tar"))
        options = Options(memory=512 << 20, mounts=[HostMount("/ours", f"humfs:{root}")])
        with for_machines():  # as `uml run`
            done = await run(
                ["sh", "-c", SCRIPT, "sh", str(tree), str(rounds)], options, environment={"PATH": DEFAULT_PATH}
            )
    print(done.stderr.decode(), end="", file=sys.stderr)
    print(show(medians(done.stdout.decode())))


if __name__ == "__main__":
    words = sys.argv[1:]
    trio.run(main, int(words[0]) if words else 5, words[1] if words[1:] else "/var/tmp")
