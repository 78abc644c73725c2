"""Converting against its peers: `python -m tests.benchmarks.images [DIRECTORY [ARCHIVE]]`, as root.

* a root filesystem's tar archive into an ext4 image, against `mkfs.ext4 -d` on the tree unpacked
* the same into a humfs, against `tar x`
* that image into a humfs, read by a guest, against the same peer
* that image into a tar archive, against tar on a loop mount; and guestfish, where it runs
* the second look into a compressed archive of many files, against `tar t`
* disks from one format to another, against `qemu-img convert`

ARCHIVE is by default a Debian of 230 MB, built by mmdebstrap. Everything in DIRECTORY (default /var/tmp), in turn.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tests.benchmarks.ratio import measure, rounds, table
from tests.ordinary import ROOT

ROUNDS = rounds(5)
UML = [sys.executable, "-P", "-c", "from runtime.cli import main; main()"]
CONVERT = [*UML, "image", "convert", "--force"]
PACKAGES = "systemd-sysv,udev,kmod,iproute2,e2fsprogs,vim,perl"
COPIES = 8
"""Of the tree, in the archive that is looked into."""
DISK = 2 << 30
FORMATS = ("qcow2", "vmdk", "vdi")
START_SECONDS = 120
"""Without KVM guestfish takes long to start."""

Run = Callable[..., None]
Runs = dict[str, Callable[[], object]]


def run(*command: str | Path, directory: Path) -> None:
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(directory)}
    environment["LIBGUESTFS_BACKEND"] = "direct"  # root's default would be libvirt
    subprocess.run(command, cwd=directory, check=True, capture_output=True, env=environment)


def fresh(path: Path) -> Path:
    """An empty directory."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    return path


def into_trees(do: Run, directory: Path, archive: Path) -> None:
    """An archive and an image into ext4 and humfs."""

    def mkfs() -> None:
        do("truncate", "-s", "0", "peer.img")
        do("truncate", "-s", "1G", "peer.img")
        do("mkfs.ext4", "-q", "-F", "-d", "tree", "peer.img")

    def unpack() -> None:
        do("tar", "xf", archive, "-C", fresh(directory / "peer"))

    def ours(source: Path | str, target: str) -> None:
        shutil.rmtree(directory / target, ignore_errors=True)
        do(*CONVERT, source, target)

    both: Runs = {"mkfs.ext4 -d": mkfs, "tar to ext4": partial(ours, archive, "x.img")}
    print(table(measure(both, ROUNDS), "mkfs.ext4 -d"), flush=True)
    three: Runs = {
        "tar x": unpack,
        "tar to humfs": partial(ours, archive, "x.humfs"),
        "ext4 to humfs": partial(ours, "source.img", "x.humfs"),
    }
    print(table(measure(three, ROUNDS), "tar x"), flush=True)


def from_image(do: Run, directory: Path) -> None:
    """An image's files as an archive, and as a directory."""
    loop = "mount -o loop,ro source.img /mnt && "

    def on_loop(script: str) -> None:
        do("unshare", "--mount", "sh", "-c", loop + script)

    # What tar must be told to keep what is kept by us.
    options = "--format=pax --xattrs --xattrs-include='*' --sparse --numeric-owner"
    runs: Runs = {
        "tar, loop": partial(on_loop, "tar cf peer.tar -C /mnt ."),
        "tar of all, loop": partial(on_loop, f"tar cf peer.tar {options} -C /mnt ."),
        "ext4 to tar": partial(do, *CONVERT, "source.img", "x.tar"),
    }
    guestfish = ("guestfish", "--ro", "-a", "source.img", "-m", "/dev/sda")
    if shutil.which("guestfish") and starts(partial(do, "timeout", str(START_SECONDS), *guestfish, "ls", "/")):
        runs["guestfish tar-out"] = partial(do, *guestfish, "tar-out", "/", "fish.tar")
    else:
        print("guestfish: does not run here")
    print(table(measure(runs, ROUNDS), "tar, loop"), flush=True)


def starts(command: Callable[[], None]) -> bool:
    try:
        command()
    except subprocess.CalledProcessError:
        return False
    return True


def second_look(do: Run, directory: Path) -> None:
    """A listing of a compressed archive of `COPIES` trees."""
    many = fresh(directory / "many")
    for number in range(COPIES):
        (many / str(number)).symlink_to("../tree")
    do("sh", "-c", "tar chf - --hard-dereference -C many . | gzip -1 >many.tar.gz")
    do(*UML, "ls", "many.tar.gz:/0")
    runs: Runs = {
        "tar t": partial(do, "tar", "tf", "many.tar.gz"),
        "uml ls, second look": partial(do, *UML, "ls", "many.tar.gz:/7/usr/bin"),
    }
    print(f"an archive of {(directory / 'many.tar.gz').stat().st_size >> 20} MiB")
    print(table(measure(runs, ROUNDS), "tar t"), flush=True)


def formats(do: Run, directory: Path) -> None:
    """A disk, a third of which holds data."""
    with (directory / "disk.raw").open("wb") as file:
        file.truncate(DISK)
        for place in range(0, DISK, 96 << 20):
            file.seek(place)
            file.write(os.urandom(32 << 20))
    for name in FORMATS:
        there, back = f"disk.{name}", f"back.{name}.raw"
        runs: Runs = {
            f"qemu-img to {name}": partial(do, "qemu-img", "convert", "-f", "raw", "-O", name, "disk.raw", f"p.{name}"),
            f"raw to {name}": partial(do, *CONVERT, "disk.raw", there),
        }
        print(table(measure(runs, ROUNDS), f"qemu-img to {name}"), flush=True)
        runs = {
            f"qemu-img from {name}": partial(do, "qemu-img", "convert", "-f", name, "-O", "raw", f"p.{name}", "p.raw"),
            f"{name} to raw": partial(do, *CONVERT, there, back),
        }
        print(table(measure(runs, ROUNDS), f"qemu-img from {name}"), flush=True)


def compare(directory: Path, archive: Path) -> None:
    do = partial(run, directory=directory)
    do("tar", "xf", archive, "-C", fresh(directory / "tree"))
    do(*CONVERT, archive, "source.img")
    size = archive.stat().st_size >> 20
    print(f"a root of {size} MiB, {sum(1 for _ in (directory / 'tree').rglob('*'))} files", flush=True)
    into_trees(do, directory, archive)
    from_image(do, directory)
    second_look(do, directory)
    formats(do, directory)


def main(words: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory(dir=words[0] if words else "/var/tmp") as text:
        archive = Path(words[1]).absolute() if words[1:] else Path(text) / "root.tar"
        if not words[1:]:
            options = ["--quiet", "--variant=minbase", f"--include={PACKAGES}"]
            subprocess.run(["mmdebstrap", *options, "bookworm", str(archive)], check=True)
        compare(Path(text), archive)


if __name__ == "__main__":
    main(sys.argv[1:])
