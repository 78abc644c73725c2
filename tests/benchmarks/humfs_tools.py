"""The tools of humfs against their peers: `python -m tests.benchmarks.humfs_tools [DIRECTORY]`, as root.

* humfsify of 50,000 files, against the historical one
* import of a root filesystem's tar archive, against `tar x`

Each on fresh directories in DIRECTORY (default /var/tmp), in turn, and the caches warm.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.humfs import debian

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
    times = []
    for name, program in (("historical", [HISTORICAL]), ("ours", OURS)):
        make_tree(directory / name / "data")
        times.append(seconds([*program, "nobody", "daemon", "8G"], directory / name))
        shutil.rmtree(directory / name)
    print(f"humfsify of {FILES} files: historical {times[0]:.1f} s, ours {times[1]:.1f} s, {times[0] / times[1]:.1f}x")


def compare_import(directory: Path) -> None:
    archive = directory / "root.tar"
    debian.pack(archive)
    (directory / "tree").mkdir()
    seconds([*UML, "create", "root", "--size", "8G"], directory)
    peer = seconds(["tar", "xf", archive, "-C", "tree"], directory)
    ours = seconds([*UML, "import", "root", archive], directory)
    size = archive.stat().st_size >> 20
    print(f"import of {size} MiB: tar x {peer:.2f} s, ours {ours:.2f} s, ratio {ours / peer:.2f}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if sys.argv[1:] else "/var/tmp") as text:
        compare_import(Path(text))
        compare_humfsify(Path(text))
