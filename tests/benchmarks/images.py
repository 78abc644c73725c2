"""Converting against its peers: `python -m tests.benchmarks.images [DIRECTORY [ARCHIVE]]`, as root.

* a root filesystem's tar archive into an ext4 image, against `mkfs.ext4 -d` on the tree unpacked
* the same into a humfs, against `tar x`
* that image into a humfs, read by a guest, against the same peer

ARCHIVE is by default a Debian of 230 MB, built by mmdebstrap. Everything in DIRECTORY (default /var/tmp), in turn.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.ratio import measure, rounds, table
from tests.ordinary import ROOT

ROUNDS = rounds(5)
UML = [sys.executable, "-P", "-c", "from runtime.cli import main; main()", "image", "convert", "--force"]
PACKAGES = "systemd-sysv,udev,kmod,iproute2,e2fsprogs,vim,perl"


def run(*command: str | Path, directory: Path) -> None:
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(directory)}
    subprocess.run(command, cwd=directory, check=True, capture_output=True, env=environment)


def compare(directory: Path, archive: Path) -> None:
    (directory / "tree").mkdir()
    run("tar", "xf", archive, "-C", "tree", directory=directory)
    run(*UML, archive, "source.img", directory=directory)

    def mkfs() -> None:
        run("truncate", "-s", "0", "peer.img", directory=directory)
        run("truncate", "-s", "1G", "peer.img", directory=directory)
        run("mkfs.ext4", "-q", "-F", "-d", "tree", "peer.img", directory=directory)

    def unpack() -> None:
        shutil.rmtree(directory / "peer", ignore_errors=True)
        (directory / "peer").mkdir()
        run("tar", "xf", archive, "-C", "peer", directory=directory)

    def ours(source: Path | str, target: str) -> None:
        shutil.rmtree(directory / target, ignore_errors=True)
        run(*UML, source, target, directory=directory)

    size = archive.stat().st_size >> 20
    print(f"a root of {size} MiB, {sum(1 for _ in (directory / 'tree').rglob('*'))} files")
    both = {"mkfs.ext4 -d": mkfs, "tar to ext4": lambda: ours(archive, "x.img")}
    print(table(measure(both, ROUNDS), "mkfs.ext4 -d"))
    three = {
        "tar x": unpack,
        "tar to humfs": lambda: ours(archive, "x.humfs"),
        "ext4 to humfs": lambda: ours("source.img", "x.humfs"),
    }
    print(table(measure(three, ROUNDS), "tar x"))


def main(words: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory(dir=words[0] if words else "/var/tmp") as text:
        archive = Path(words[1]).absolute() if words[1:] else Path(text) / "root.tar"
        if not words[1:]:
            options = ["--quiet", "--variant=minbase", f"--include={PACKAGES}"]
            subprocess.run(["mmdebstrap", *options, "bookworm", str(archive)], check=True)
        compare(Path(text), archive)


if __name__ == "__main__":
    main(sys.argv[1:])
