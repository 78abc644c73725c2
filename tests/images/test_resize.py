"""Images that become larger, smaller, and emptier."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from runtime import cli
from runtime.images import formats
from runtime.images.compact import compact
from runtime.images.convert import convert
from runtime.images.resize import resize
from tests import needs
from tests.guest.disks import MIB, allocated, empty, guest, make_filesystem
from tests.images.making import disk_of
from umlfs.blocks.partitions import SECTOR
from umlfs.blocks.raw import open_raw
from umlfs.cow.create import create
from umlfs.errors import UmlError, UsageError

MOUNTED = "mount /dev/ubd{0} /mnt; "


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def blocks(path: Path) -> int:
    """Bytes of an ext4, as its own tools say."""
    done = subprocess.run([needs.program("dumpe2fs"), "-h", path], capture_output=True, text=True, check=True)
    facts = dict(line.split(":", 1) for line in done.stdout.splitlines() if ":" in line)
    return int(facts["Block count"]) * int(facts["Block size"])


def require_sound(path: Path) -> None:
    done = subprocess.run([needs.program("e2fsck"), "-fn", path], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout


def fill(path: Path) -> None:
    """Put a file of 8 MiB into an ext4."""
    data = path.with_name("data")
    data.write_bytes(os.urandom(8 * MIB))
    done = subprocess.run([needs.program("debugfs"), "-w", "-R", f"write {data} file", path], capture_output=True)
    assert done.returncode == 0


async def test_ext4_grows_and_shrinks(tmp_path: Path) -> None:
    image = make_filesystem("ext4", tmp_path / "x.img", 64 * MIB)
    fill(image)
    image.chmod(0o640)
    for size in (200 * MIB, 40 * MIB):
        await resize(formats.source(str(image)), size)
        assert (image.stat().st_size, blocks(image)) == (size, size)
        require_sound(image)
    assert image.stat().st_mode & 0o777 == 0o640
    before = digest(image)
    with pytest.raises(UmlError, match="resize2fs refuses"):
        await resize(formats.source(str(image)), 4 * MIB)
    assert digest(image) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "x.img"]


@pytest.mark.guest
@pytest.mark.parametrize(("kind", "sizes"), [("xfs", [400]), ("btrfs", [400, 300])])
async def test_others_change_in_a_guest(kind: str, sizes: list[int], tmp_path: Path) -> None:
    start = {"xfs": 320, "btrfs": 128}[kind]
    image = make_filesystem(kind, tmp_path / "x.img", start * MIB)
    for size in sizes:
        await resize(formats.source(str(image)), size * MIB)
        assert image.stat().st_size == size * MIB
    total = int(
        await guest("mount /dev/ubda /mnt; stat -f -c '%b %S' /mnt | (read a b; echo $((a*b)))", f"ubd0r={image}")
    )
    assert (sizes[-1] - 70) * MIB < total <= sizes[-1] * MIB
    if kind == "xfs":
        with pytest.raises(UsageError, match="cannot be made smaller"):
            await resize(formats.source(str(image)), start * MIB)


async def test_an_image_in_use_stays_as_it_is(tmp_path: Path) -> None:
    image = make_filesystem("ext4", tmp_path / "x.img")
    device = open_raw(image)
    try:
        with pytest.raises(UmlError, match=f"pid {os.getpid()}"):
            await resize(formats.source(str(image)), 64 * MIB)
        with pytest.raises(UmlError, match=f"pid {os.getpid()}"):
            await compact(formats.source(str(image)))
    finally:
        await device.close()
    assert image.stat().st_size == 24 * MIB


async def test_what_cannot_be_resized(tmp_path: Path) -> None:
    image = make_filesystem("ext4", tmp_path / "x.img")
    create(str(tmp_path / "cow"), str(image))
    (tmp_path / "dir").mkdir()
    nothing = empty(tmp_path / "nothing", MIB)
    for path, why in (
        (tmp_path / "cow", "backing file"),
        (tmp_path / "dir", "no size"),
        (nothing, "cannot be resized"),
    ):
        with pytest.raises(UsageError, match=why):
            await resize(formats.source(str(path)), 64 * MIB)
    with pytest.raises(UsageError, match="multiple"):
        await resize(formats.source(str(image)), 64 * MIB + 1)
    subprocess.run([needs.program("sfdisk"), "-q", nothing], input=b",\n", check=True)
    with pytest.raises(UsageError, match=r"last partition cannot grow: there is 1 \(unknown\)"):
        await resize(formats.source(str(nothing)), 64 * MIB)
    with pytest.raises(UsageError, match="partition has no size of its own"):
        await resize(formats.source(f"{nothing}:1"), 64 * MIB)
    with pytest.raises(UsageError, match="leave out the number"):
        await compact(formats.source(f"{nothing}:1"))
    logical = disk_of(tmp_path / "logical", make_filesystem("ext4", tmp_path / "fs"), "label: dos\n,,E\nstart=4096\n")
    before = digest(logical)
    with pytest.raises(UsageError, match="a logical one"):
        await resize(formats.source(str(logical)), 64 * MIB)
    with pytest.raises(UsageError, match="only becomes larger"):
        await resize(formats.source(str(logical)), 4 * MIB)
    assert digest(logical) == before


@pytest.mark.guest
@pytest.mark.parametrize("label", ["gpt", "dos"])
async def test_the_last_partition_grows(label: str, tmp_path: Path) -> None:
    table = f"label: {label}\nstart=2048, size=2048\nstart=4096\n"
    disk = disk_of(tmp_path / "disk", make_filesystem("ext4", tmp_path / "fs", 64 * MIB), table)
    first = disk.read_bytes()[2048 * SECTOR : 4096 * SECTOR]
    await resize(formats.source(str(disk)), 200 * MIB)
    assert disk.stat().st_size == 200 * MIB
    assert disk.read_bytes()[2048 * SECTOR : 4096 * SECTOR] == first
    verified = subprocess.run([needs.program("sfdisk"), "--verify", disk], capture_output=True, text=True, check=True)
    assert "No errors" in verified.stdout
    await convert(formats.source(f"{disk}:2"), formats.destination(f"{tmp_path / 'part.img'}"))
    require_sound(tmp_path / "part.img")
    assert 196 * MIB < blocks(tmp_path / "part.img") <= 198 * MIB


@pytest.mark.guest
async def test_what_is_not_used_is_given_back(tmp_path: Path) -> None:
    image = make_filesystem("ext4", tmp_path / "x.img", 64 * MIB)
    subprocess.run([needs.program("debugfs"), "-w", "-R", "mkdir kept", image], capture_output=True, check=True)
    create(str(tmp_path / "cow"), str(image))
    write = "mount /dev/{0} /mnt; head -c 20000000 /dev/urandom >/mnt/x; sync; rm /mnt/x; umount /mnt; "
    await guest(write.format("ubdb"), f"ubd1={tmp_path / 'cow'}")
    assert allocated(tmp_path / "cow") > 20_000_000
    assert await compact(formats.source(str(tmp_path / "cow"))) > 18_000_000
    (tmp_path / "cow").unlink()
    with open(image, "r+b") as file:
        file.seek(40 * MIB)
        file.write(os.urandom(4 * MIB))
    assert await compact(formats.source(str(image))) > 3 * MIB
    require_sound(image)
    said = subprocess.run([needs.program("debugfs"), "-R", "ls", image], capture_output=True, text=True, check=True)
    assert "kept" in said.stdout


async def test_nothing_to_compact(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no disk"):
        await compact(formats.source(str(tmp_path)))


def test_a_qcow2_is_written_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "x.qcow2"
    subprocess.run([needs.program("qemu-img"), "create", "-q", "-f", "qcow2", image, "16M"], check=True)
    for data in ("0x55", "0"):
        subprocess.run(
            [needs.program("qemu-io"), "-c", f"write -P {data} 0 8M", image], check=True, capture_output=True
        )
    assert cli.invoke(["image", "compact", str(image)]) == 0
    assert capsys.readouterr().out.startswith("8.")
