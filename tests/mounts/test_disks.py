"""Block devices as files: through `uml mount`, with the programs that people use on them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import needs
from tests.blocks.test_partitions import gpt
from tests.mounts.conftest import Mount
from tests.mounts.server import UML

MIB = 1 << 20
SECTOR = 512
PART = 2048, 40959
"""The first and the last sector of the partition."""


def run(program: str, *args: str | Path) -> str:
    """What a program says; it must not fail."""
    done = subprocess.run(
        [needs.program(program), *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image with a partition that holds an ext4 with a file in it."""
    path, part, tree = tmp_path / "disk.img", tmp_path / "part", tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_text("content")
    run("mkfs.ext4", "-q", "-d", tree, part, f"{(PART[1] - PART[0] + 1) // 2}k")
    content = gpt([PART])
    path.write_bytes(content)
    with path.open("r+b") as file:
        file.seek(PART[0] * SECTOR)
        file.write(part.read_bytes())
    return path


def check(mounted: Path, size: int, scratch: Path) -> None:
    """fsck, dd, debugfs and mkfs on the partition of the image, mounted at `mounted`."""
    part = mounted / "part1"
    assert (mounted / "disk").stat().st_size == size
    assert part.stat().st_size == (PART[1] - PART[0] + 1) * SECTOR
    run("fsck.ext4", "-fn", part)
    assert run("debugfs", "-R", "cat /file", part).endswith("content")
    run("dd", f"if={mounted / 'disk'}", f"of={scratch / 'copy'}", "bs=1M")
    (scratch / "words").write_text("written through the mount")
    run("debugfs", "-w", "-R", f"write {scratch / 'words'} words", part)
    run("fsck.ext4", "-fn", part)


def test_raw(image: Path, mount: Mount, tmp_path: Path) -> None:
    check(mount(f"raw:{image}"), image.stat().st_size, tmp_path)
    assert b"written through the mount" in image.read_bytes()


def test_cow(image: Path, mount: Mount, tmp_path: Path) -> None:
    """What is written goes to the COW file; the image stays as it was."""
    before = image.read_bytes()
    cow = tmp_path / "disk.cow"
    subprocess.run([*UML, "cow", "create", cow, image], check=True, stdout=subprocess.DEVNULL)
    check(mount(f"cow:{cow}"), image.stat().st_size, tmp_path)
    assert image.read_bytes() == before
    assert b"written through the mount" in cow.read_bytes()


@contextmanager
def nbdkit(image: Path, socket: Path) -> Iterator[None]:
    pidfile = socket.with_suffix(".pid")
    command: list[str | Path] = [needs.program("nbdkit"), "-f", "-U", socket, "-P", pidfile, "file", image]
    with serving(command, pidfile):
        yield


@contextmanager
def qemu_nbd(image: Path, socket: Path) -> Iterator[None]:
    pidfile = socket.with_suffix(".pid")
    command: list[str | Path] = [
        needs.program("qemu-nbd"),
        "-t",
        "-k",
        socket,
        "-f",
        "raw",
        f"--pid-file={pidfile}",
        image,
    ]
    with serving(command, pidfile):
        yield


@contextmanager
def serving(command: list[str | Path], pidfile: Path) -> Iterator[None]:
    """A server, which writes `pidfile` once it can be connected to."""
    server = subprocess.Popen(list(map(str, command)))
    try:
        while not (pidfile.exists() and pidfile.stat().st_size):
            assert server.poll() is None
        yield
    finally:
        server.terminate()
        server.wait(20)


@pytest.mark.interop
@pytest.mark.parametrize("serve", [nbdkit, qemu_nbd])
def test_nbd(serve: Callable[[Path, Path], Iterator[None]], image: Path, mount: Mount, tmp_path: Path) -> None:
    with serve(image, tmp_path / "socket"):  # type: ignore[attr-defined]
        check(mount(f"nbd+unix:///?socket={tmp_path / 'socket'}"), image.stat().st_size, tmp_path)
        # The server must outlive the mount.
        subprocess.run([*UML, "umount", tmp_path / "mounted"], check=True)
    assert b"written through the mount" in image.read_bytes()
