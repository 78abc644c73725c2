"""A mount of hostfs beside bindfs, on the same tree: `python tests/benchmarks/mount.py [DIRECTORY]`.

Both mount the same directory, in turn, in each round; the best of the rounds counts. `cold` is the first time after
mounting, `warm` the second. The host's own caches are warm throughout: what is measured is the way through the mount.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.benchmarks.ratio import rounds

ROUNDS = rounds(3)
DIRECTORIES, FILES = 400, 20
BIG = 256 << 20
UML = (sys.executable, "-c", "from runtime.cli import main; main()")

Work = Callable[[Path], None]
Context = Callable[[Path, Path], contextlib.AbstractContextManager[None]]


def run(*command: str | Path, cwd: Path | None = None) -> None:
    subprocess.run(list(map(str, command)), check=True, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def umlfs(source: Path, mountpoint: Path) -> Iterator[None]:
    run(*UML, "mount", source, mountpoint)
    try:
        yield
    finally:
        run(*UML, "umount", mountpoint)


@contextlib.contextmanager
def bindfs(source: Path, mountpoint: Path) -> Iterator[None]:
    run("bindfs", source, mountpoint)
    try:
        yield
    finally:
        run("fusermount3", "-u", mountpoint)


def fill(tree: Path) -> None:
    """8,000 files of a few KiB, a file of some size, and a clone of this repository."""
    for number in range(DIRECTORIES):
        directory = tree / "files" / f"{number // 20}" / f"{number}"
        directory.mkdir(parents=True)
        for index in range(FILES):
            (directory / f"file-{index}.txt").write_bytes(b"some words\n" * (50 + index * 20))
    with open(tree / "big", "wb") as file:
        for _ in range(BIG >> 20):
            file.write(os.urandom(1 << 20))
    run("git", "clone", "--no-hardlinks", Path(__file__).parents[2], tree / "clone")
    run("git", "status", cwd=tree / "clone")
    run("tar", "cf", tree / "files.tar", "-C", tree, "files")


def read_big(mount: Path) -> None:
    run("dd", f"if={mount / 'big'}", "of=/dev/null", "bs=1M")


def write_zeroes(mount: Path) -> None:
    run("dd", "if=/dev/zero", f"of={mount / 'written'}", "bs=1M", f"count={BIG >> 20}")


def untar(mount: Path) -> None:
    (mount / "new").mkdir()
    run("tar", "xf", mount.parent / "source" / "files.tar", "-C", mount / "new")


def find(mount: Path) -> None:
    run("find", mount / "files", "-ls")


def tar(mount: Path) -> None:
    """Through a pipe: to /dev/null itself tar writes nothing, and so reads nothing."""
    subprocess.run(f"tar cf - -C {mount} files | cat > /dev/null", shell=True, check=True)


def grep(mount: Path) -> None:
    run("sh", "-c", f"grep -r nothing-like-this {mount / 'files'} || true")


def remove(mount: Path) -> None:
    shutil.rmtree(mount / "new")


def git_status(mount: Path) -> None:
    run("git", "-c", "safe.directory=*", "status", cwd=mount / "clone")


STAGES: list[tuple[str, list[tuple[str, Work]]]] = [
    ("find -ls", [("cold", find), ("warm", find)]),
    ("tar to a pipe", [("cold", tar), ("warm", tar)]),
    ("grep -r", [("cold", grep), ("warm", grep)]),
    ("git status", [("cold", git_status), ("warm", git_status)]),
    ("read 256 MiB by 1 MiB", [("cold", read_big), ("warm", read_big)]),
    ("write 256 MiB by 1 MiB", [("", write_zeroes)]),
    ("untar; rm -rf", [("untar", untar), ("rm -rf", remove)]),
]


def times(kind: Context, source: Path, mountpoint: Path, steps: list[tuple[str, Work]]) -> list[float]:
    """Seconds that each of `steps` takes on a fresh mount."""
    taken = []
    with kind(source, mountpoint):
        for _, work in steps:
            start = time.perf_counter()
            work(mountpoint)
            taken.append(time.perf_counter() - start)
    return taken


def compare(source: Path, mountpoint: Path) -> None:
    print(f"{'':32}{'umlfs':>9}{'bindfs':>9}{'ratio':>7}")
    for title, steps in STAGES:
        best: dict[str, list[float]] = {}
        for _ in range(ROUNDS):
            for kind in (umlfs, bindfs):
                taken = times(kind, source, mountpoint, steps)
                former = best.get(kind.__name__, taken)
                best[kind.__name__] = list(map(min, former, taken))
        for (step, _), ours, theirs in zip(steps, best["umlfs"], best["bindfs"], strict=True):
            name = f"{title}, {step}" if step in ("cold", "warm") else step or title
            print(f"{name:32}{ours:8.3f}s{theirs:8.3f}s{ours / theirs:7.2f}", flush=True)


def main(parent: str | None) -> None:
    with tempfile.TemporaryDirectory(dir=parent) as text:
        directory = Path(text)
        source, mountpoint = directory / "source", directory / "mounted"
        source.mkdir()
        mountpoint.mkdir()
        fill(source)
        compare(source, mountpoint)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
