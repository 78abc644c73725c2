"""The tools of humfs against their peers: `python -m tests.benchmarks.humfs_tools [DIRECTORY]`, as root.

* humfsify of 50,000 files, against the historical one
* import of a root filesystem's tar archive of some 230 MB, against `tar x`

Each on fresh directories in DIRECTORY (default /var/tmp), in turn, and the caches warm. Medians of the rounds.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.ratio import rounds
from tests.humfs import debian

ROUNDS = rounds(3)
PACKAGES = ("apt", "git", "python3", "binutils", "systemd", "qemu-utils")
"""With what they depend on, of the size of a Debian that is of some use."""
FILES = 50_000
IN_DIRECTORY = 100
HISTORICAL = "/usr/bin/humfsify"
OURS = [sys.executable, "-c", "from runtime.cli.historical.humfsify import main; main()"]
UML = [sys.executable, "-c", "from runtime.cli import main; main()", "humfs"]
REPO = Path(__file__).parents[2]


def seconds(command: Sequence[str | Path], directory: Path) -> float:
    """How long a command takes in a directory."""
    start = time.perf_counter()
    environment = {"PYTHONPATH": str(REPO), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    subprocess.run(command, cwd=directory, check=True, capture_output=True, env=environment)
    return time.perf_counter() - start


def make_tree(data: Path) -> None:
    for number in range(FILES):
        if not number % IN_DIRECTORY:
            directory = data / str(number // IN_DIRECTORY)
            directory.mkdir(parents=True)
        (directory / str(number)).write_bytes(b"contents")


def compare_humfsify(directory: Path) -> None:
    times: dict[str, list[float]] = {"historical": [], "ours": []}
    for _ in range(ROUNDS):
        for name, program in (("historical", [HISTORICAL]), ("ours", OURS)):
            make_tree(directory / name / "data")
            times[name].append(seconds([*program, "nobody", "daemon", "8G"], directory / name))
            shutil.rmtree(directory / name)
    theirs, ours = map(statistics.median, times.values())
    print(f"humfsify of {FILES} files: historical {theirs:.1f} s, ours {ours:.1f} s, {theirs / ours:.1f}x")


def compare_import(directory: Path) -> None:
    archive = directory / "root.tar"
    debian.pack(archive, PACKAGES)
    times: dict[str, list[float]] = {"tar": [], "ours": []}
    for _ in range(ROUNDS):
        (directory / "tree").mkdir()
        seconds([*UML, "create", "root", "--size", "8G"], directory)
        times["tar"].append(seconds(["tar", "xf", archive, "-C", "tree"], directory))
        times["ours"].append(seconds([*UML, "import", "root", archive], directory))
        shutil.rmtree(directory / "tree")
        shutil.rmtree(directory / "root")
    size = archive.stat().st_size >> 20
    theirs, ours = map(statistics.median, times.values())
    print(f"import of {size} MiB: tar x {theirs:.2f} s, ours {ours:.2f} s, ratio {ours / theirs:.2f}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if sys.argv[1:] else "/var/tmp") as text:
        compare_import(Path(text))
        compare_humfsify(Path(text))
