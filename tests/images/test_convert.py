"""Any format into any other and back, compared."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.guest.caller import caller_as
from tests.images import entries
from tests.images.making import disk_of, make
from tests.ordinary import OrdinaryUser
from umlfs.blocks.partitions import SECTOR
from umlfs.cow.create import create
from umlfs.errors import UmlError, UsageError

NAMES = {"raw": "x.img", "qcow2": "x.qcow2", "humfs": "x.humfs", "dir": "dir:x", "tar": "x.tar", "oci": "x.oci"}


def place(directory: Path, name: str) -> str:
    directory.mkdir(exist_ok=True)
    scheme, colon, rest = NAMES[name].rpartition(":")
    return f"{scheme}{colon}{directory / rest}"


@pytest.mark.guest
@pytest.mark.parametrize(
    "first",
    ["raw", "humfs", "tar", *(pytest.param(name, marks=pytest.mark.slow) for name in ("oci", "dir", "qcow2", "cow"))],
)
@pytest.mark.real_root
async def test_there_and_back(first: str, tmp_path: Path) -> None:
    """From an image of each format to each other, and from there into an archive, which must be as it was."""
    entries.make_tree(tmp_path / "tree")
    wanted = entries.of_file(await make(tmp_path / "tree", tmp_path / "tree.tar"))
    if first == "cow":
        create(str(tmp_path / "cow"), str(await make(tmp_path / "tree.tar", tmp_path / "x.img")))
        start = tmp_path / "cow"
    else:
        start = await make(tmp_path / "tree.tar", place(tmp_path / "first", first))
    before = entries.allocated(start)
    for second in NAMES:
        made = await make(start, place(tmp_path / second, second))
        assert entries.allocated(made) < before + (4 << 20), "holes were filled"
        back = await make(made, tmp_path / second / "back.tar")
        assert entries.of_file(back) == wanted, second


@pytest.mark.guest
@pytest.mark.real_root
async def test_an_ordinary_user_takes_an_image_apart(user: OrdinaryUser, tmp_path: Path) -> None:
    """Into a humfs whole; into a directory without what only root can give."""
    entries.make_tree(tmp_path / "tree")
    wanted = entries.of_file(await make(tmp_path / "tree", tmp_path / "tree.tar"))
    image = await make(tmp_path / "tree.tar", tmp_path / "x.img")
    with caller_as(user) as caller:
        subprocess.run(["cp", image, caller.directory], check=True)
        caller.own(caller.directory / "x.img")
        for source, target in (("x.img", "x.humfs"), ("x.humfs", "x.tar"), ("x.tar", "dir:plain")):
            done = caller.finish(caller.command("image", "convert", source, target), 120)
            assert done.returncode == 0, done.stderr
        assert entries.of_file(caller.directory / "x.tar") == wanted
        assert done.stderr.decode().splitlines() == [
            "uml: owners, set-id bits and capabilities, which only root can give, are left out",
            "uml: devices, which only root can make, are left out: /bigdev, /blk, /chr",
        ]
        plain = caller.directory / "plain"
        assert (plain / "dir/f2").stat().st_mode & 0o7777 == 0o755
        assert (plain / "file").stat().st_uid == user.uid
        assert os.getxattr(plain / "dir/f2", "user.note") == b"\x00binary\xff"


@pytest.mark.guest
async def test_a_partition(tmp_path: Path) -> None:
    """Of a raw image, a COW file and a qcow2: as a disk of its own, and its files."""
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub/file").write_text("here\n")
    filesystem = await make(tree, tmp_path / "fs.img")
    sectors = filesystem.stat().st_size // SECTOR
    table = f"label: gpt\nstart=2048, size=2048\nstart=4096, size={sectors}\n"
    disk = disk_of(tmp_path / "disk", filesystem, table)
    create(str(tmp_path / "cow"), str(disk))
    await make(disk, tmp_path / "disk.qcow2")
    part = filesystem.read_bytes()
    for name in ("disk", "cow", "disk.qcow2"):
        made = await make(f"{tmp_path / name}:2", tmp_path / f"{name}.img")
        assert made.read_bytes() == part, name
    made = await make(f"raw:{disk}:2", tmp_path / "files.tar")
    names = subprocess.run(["tar", "tf", made], capture_output=True, text=True, check=True).stdout.split()
    assert names == ["./", "./sub/", "./sub/file"]
    before = sorted(tmp_path.iterdir())
    for name in ("disk", "disk.qcow2"):
        with pytest.raises(UsageError, match=f"{name}: a disk with partitions: 1 .unknown., 2 .ext4.; .*{name}:2"):
            await make(tmp_path / name, tmp_path / "whole.tar")
    with pytest.raises(UsageError, match=r"no partition 3; there is 1 .unknown., 2 .ext4."):
        await make(f"{disk}:3", tmp_path / "none.img")
    with pytest.raises(UmlError, match="disk:1: no filesystem to take files from"):
        await make(f"{disk}:1", tmp_path / "none.tar")
    with pytest.raises(UsageError, match="no disk, so it has no partitions"):
        await make(f"{tree}:1", tmp_path / "none.tar")
    assert sorted(tmp_path.iterdir()) == before
