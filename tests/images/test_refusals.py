"""What converting refuses, and that it leaves nothing behind: not when it fails, and not when it is killed."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from humfs.volume import Volume
from humfs.volume import create as create_humfs
from tests import needs
from tests.guest.caller import eventually
from tests.guest.disks import MIB, empty, make_filesystem
from tests.images.making import make
from tests.ordinary import ROOT
from umlfs.blocks.raw import open_raw
from umlfs.cow.create import create
from umlfs.errors import UmlError, UsageError

PROGRAM = [sys.executable, "-P", "-c", "from runtime.cli import main; main()", "image"]
TARGETS = ["x.img", "x.qcow2", "x.humfs", "dir:x", "x.tar.gz", "x.oci"]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A tar file with two files in it."""
    with tarfile.open(tmp_path / "in.tar", "w") as tar:
        for name, size in (("small", 5), ("large", 3 * MIB)):
            info = tarfile.TarInfo(name)
            info.size = size
            tar.addfile(info, io.BytesIO(os.urandom(size)))
    return tmp_path / "in.tar"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where images are made; nothing but what a test names may be in it."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def target(out: Path, name: str) -> str:
    scheme, colon, rest = name.rpartition(":")
    return f"{scheme}{colon}{out / rest}"


@pytest.mark.parametrize("name", TARGETS)
async def test_a_destination_that_exists(archive: Path, out: Path, name: str) -> None:
    made = await make(archive, target(out, name))
    with pytest.raises(UsageError, match="exists"):
        await make(archive, target(out, name))
    inode = made.stat().st_ino
    if name == "dir:x":
        with pytest.raises(UsageError, match="no image"):
            await make(archive, target(out, name), force=True)
    else:
        await make(archive, target(out, name), force=True)
        assert made.stat().st_ino != inode
    assert list(out.iterdir()) == [made]


@pytest.mark.parametrize("name", TARGETS)
async def test_an_archive_that_is_cut_short(archive: Path, out: Path, name: str) -> None:
    os.truncate(archive, 2 * MIB)
    with pytest.raises(UmlError):
        await make(archive, target(out, name))
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("name", ["x.img", "x.tar", "x.oci", "x.humfs"])
async def test_rubbish_that_claims_to_be_an_archive(tmp_path: Path, out: Path, name: str) -> None:
    (tmp_path / "in").write_bytes(b"\x1f\x8b" + os.urandom(5000))
    with pytest.raises(UmlError, match="no archive and no disk"):
        await make(tmp_path / "in", target(out, name))
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("name", ["x.img", "x.qcow2"])
async def test_a_filesystem_that_is_too_small(archive: Path, out: Path, name: str) -> None:
    with pytest.raises(UmlError, match=r"/large: no room in .*; name a larger --size"):
        await make(archive, target(out, name), size=2 * MIB)
    with pytest.raises(UmlError, match="mkfs cannot"):
        await make(archive, target(out, name), size=4096)
    assert list(out.iterdir()) == []


async def test_an_image_in_use(archive: Path, out: Path, tmp_path: Path) -> None:
    image = make_filesystem("ext4", tmp_path / "x.img")
    device = open_raw(image)
    pid = f"pid {os.getpid()}"
    try:
        for name in ("y.img", "y.qcow2", "y.tar"):
            with pytest.raises(UmlError, match=pid):
                await make(image, out / name)
        with pytest.raises(UmlError, match=pid):
            await make(archive, image, force=True)
    finally:
        await device.close()
    create_humfs(tmp_path / "fs", 1 << 30)
    volume = Volume(tmp_path / "fs")
    try:
        with pytest.raises(UmlError, match=str(os.getpid())):
            await make(tmp_path / "fs", out / "y.tar")
    finally:
        volume.close()
    assert list(out.iterdir()) == []


async def test_words_that_mean_nothing(archive: Path, out: Path, tmp_path: Path) -> None:
    create(str(tmp_path / "cow"), str(empty(tmp_path / "backing", MIB)))
    for source, destination, why in (
        (tmp_path / "missing", out / "x.img", "no such file"),
        ("raw:missing", out / "x.img", "no such file"),
        ("/dev/null", out / "x.img", "neither a file"),
        (archive, out / "x", "does not tell the format"),
        (archive, f"cow:{out}/x", "uml cow create"),
        (archive, out / "no/x.img", "no directory"),
        (archive, archive, "exists"),
        (tmp_path, out / "x.tar", "lie in each other"),
    ):
        with pytest.raises(UsageError, match=why):
            await make(source, destination)
    with pytest.raises(UsageError, match="lie in each other"):
        await make(archive, archive, force=True)
    with pytest.raises(UsageError, match="keeps its size"):
        await make(tmp_path / "backing", out / "x.img", size=MIB)


async def test_a_qcow2_that_names_files_of_the_host(out: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s" * 65536)
    words: list[str | Path] = [
        "create",
        "-q",
        "-f",
        "qcow2",
        "-b",
        tmp_path / "secret",
        "-F",
        "raw",
        tmp_path / "x.qcow2",
    ]
    subprocess.run([needs.program("qemu-img"), *words], check=True)
    for name in ("y.img", "y.tar"):
        with pytest.raises(UmlError, match="another file"):
            await make(tmp_path / "x.qcow2", out / name)
    (tmp_path / "x.qcow2").write_bytes(b"QFI\xfb" + bytes(600))
    with pytest.raises(UmlError, match="qemu-img cannot read it"):
        await make(tmp_path / "x.qcow2", out / "y.img")
    assert list(out.iterdir()) == []


@pytest.mark.guest
async def test_a_disk_that_holds_nothing(out: Path, tmp_path: Path) -> None:
    with pytest.raises(UmlError, match="no filesystem"):
        await make(empty(tmp_path / "x.img", MIB), out / "x.tar")
    broken = make_filesystem("ext4", tmp_path / "broken.img")
    with open(broken, "r+b") as file:
        file.seek(1024 + 0x20)
        file.write(b"\xff" * 64)
        file.seek(1080)
        file.write(b"\x53\xef")
    with pytest.raises(UmlError):
        await make(broken, out / "x.tar")
    assert list(out.iterdir()) == []


# Killed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("name", TARGETS)
def test_nothing_is_left_of_one_that_is_killed(out: Path, tmp_path: Path, name: str, number: signal.Signals) -> None:
    """The archive is a pipe that stays open: the work is under way for as long as we like."""
    command = [*PROGRAM, "convert", "--size", "64M", "tar:/dev/stdin", target(out, name)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    info = tarfile.TarInfo("file")
    info.size = 32 * MIB
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(info.tobuf() + bytes(4 * MIB))
        process.stdin.flush()
        process.send_signal(number)
        if number is signal.SIGINT:
            process.stdin.close()  # a thread that waits for input cannot be interrupted
        process.wait(timeout=60)
        if number is signal.SIGINT:
            assert process.returncode == 130, process.stderr.read()
    assert eventually(lambda: list(out.iterdir()) == [])
