"""A directory of the host in a guest: our hostfs over virtio-fs against the kernel's own hostfs, in one guest.

    python -m tests.benchmarks.guest_files [ROUNDS]

The tree is a copy of /usr/include (some 8,000 files) and a file of 200 MB. `cold` is after the guest dropped its
caches; the host's are warm throughout. Each job is done by one and then the other, round after round; the
table has medians.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import trio

from runtime import HostMount, Options, run
from runtime.jail.layers import Mode
from runtime.process.processes import for_machines
from runtime.tty.caller import DEFAULT_PATH

SCRIPT = r"""
mkdir -p /kernel && mount -t hostfs none /kernel -o "$1" || exit 1
mkdir -p /over /below && mount -t tmpfs none /over && mkdir /over/upper /over/work || exit 1
mount -t overlay none /below -o lowerdir=/kernel,upperdir=/over/upper,workdir=/over/work || exit 1
job() {
    begin=$(date +%s%N); sh -c "$3" >/dev/null 2>/why || echo "failed: $3: $(head -1 /why)" >&2; end=$(date +%s%N)
    echo "$1 $2 $(((end - begin) / 1000))"
}
cold() { sync; echo 3 >/proc/sys/vm/drop_caches; }
for round in $(seq "$2"); do
    for side in $3; do
        d=/$side
        cold; job "find, cold" $side "find $d/include"
        job "find, warm" $side "find $d/include"
        cold; job "ls -lR, cold" $side "ls -lR $d/include"
        job "ls -lR, warm" $side "ls -lR $d/include"
        cold; job "read all, cold" $side "tar cf - $d/include | cat"
        job "read all, warm" $side "tar cf - $d/include | cat"
        rm -rf $d/work; mkdir $d/work
        if [ -e $d/big ]; then
            cold; job "read 200 MB, cold" $side "cat $d/big"
            job "write 200 MB" $side "dd if=/dev/zero of=$d/work/big bs=1M count=200 && sync $d/work/big"
            rm $d/work/big
        fi
        archive=$d/include.tar; [ -e $archive ] || archive=/kernel/include.tar
        job "untar" $side "tar xf $archive -C $d/work"
        job "rm -rf" $side "rm -rf $d/work"
    done
done
"""


def make_tree(directory: Path) -> None:
    """The files to work on."""
    shutil.copytree("/usr/include", directory / "include", symlinks=True, ignore_dangling_symlinks=True)
    subprocess.run(["tar", "cf", directory / "include.tar", "-C", directory, "include"], check=True)
    with (directory / "big").open("wb") as file:
        for number in range(200):
            file.write(number.to_bytes(2, "little") * (1 << 19))


def medians(output: str) -> dict[str, dict[str, float]]:
    """Seconds by job and side."""
    times: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in output.splitlines():
        job, side, microseconds = line.rsplit(" ", 2)
        times[job][side].append(int(microseconds) / 1e6)
    return {job: {side: statistics.median(all_) for side, all_ in sides.items()} for job, sides in times.items()}


def show(results: dict[str, dict[str, float]]) -> str:
    """The table; a ratio below 1 is in our favour."""
    ours = [side for side in next(iter(results.values())) if side != "kernel"]
    lines = [f"{'':<20}{'kernel hostfs':>14}" + "".join(f"{side:>9}{'ratio':>7}" for side in ours)]
    for job, sides in results.items():
        line = f"{job:<20}{sides['kernel']:>13.2f}s"
        for side in ours:
            if side in sides:
                line += f"{sides[side]:>8.2f}s{sides[side] / sides['kernel']:>7.2f}"
        lines.append(line)
    return "\n".join(lines)


async def compare(tree: Path, mounts: Mapping[str, str], rounds: int, *, snapshot: bool = False) -> str:
    """The table for `tree`, as the kernel's own hostfs shows it, and through `mounts`: sources by the name they get.
    With `snapshot` also as the guest's own root shows it, where what is written stays in the guest's memory, and as
    `--root-driver hostfs` would (`below`): an overlay over the kernel's own hostfs."""
    # The kernel's own hostfs is not there in a jail.
    options = Options(
        memory=1 << 30, jail=Mode.OFF, mounts=[HostMount(f"/{name}", source) for name, source in mounts.items()]
    )
    sides = [*mounts, "kernel", *(["always", "below"] if snapshot else [])]
    link = f"ln -s {tree} /always" if snapshot else ":"
    with for_machines():  # as `uml run`
        done = await run(
            ["sh", "-c", f"{link}; {SCRIPT}", "sh", str(tree), str(rounds), " ".join(sides)],
            options,
            environment={"PATH": DEFAULT_PATH},
        )
    print(done.stderr.decode(), end="", file=sys.stderr)
    return show(medians(done.stdout.decode()))


async def main(rounds: int = 5) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        await trio.to_thread.run_sync(make_tree, Path(name))
        print(await compare(Path(name), {"auto": name}, rounds, snapshot=True))


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if sys.argv[1:] else 5)
