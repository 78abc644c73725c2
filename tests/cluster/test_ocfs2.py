"""What is read off an ocfs2: the judges are mkfs.ocfs2 and debugfs.ocfs2."""

from __future__ import annotations

import contextlib
import random
import re
import subprocess
from pathlib import Path

import pytest

from runtime.cluster.making import create
from runtime.cluster.ocfs2 import Volume, read_volume
from runtime.machines.description import Description
from tests import needs
from umlfs.blocks.raw import open_raw
from umlfs.errors import UmlError


async def volume(image: Path) -> Volume:
    device = open_raw(image, read_only=True)
    try:
        return await read_volume(device, "image")
    finally:
        await device.close()


@pytest.mark.parametrize(("block", "clusters"), [("4K", "4K"), ("512", "4K"), ("1K", "32K"), ("2K", "128K")])
async def test_any_geometry(tmp_path: Path, block: str, clusters: str) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(256 << 20)
    make = [needs.program("mkfs.ocfs2"), "-q", "-F", "-N", "3", "-b", block, "-C", clusters, "-J", "size=4M"]
    subprocess.run([*make, "--cluster-stack=o2cb", "--cluster-name=x", str(image)], check=True, capture_output=True)
    debug = [needs.program("debugfs.ocfs2"), "-R", "stat //heartbeat", str(image)]
    said = subprocess.run(debug, check=True, capture_output=True, text=True).stdout
    row = said.rpartition("Block#")[2].splitlines()[1].split()
    sectors = {"512": 1, "1K": 2, "2K": 4, "4K": 8}[block]
    found = await volume(image)
    assert (found.start, found.slots, found.stack, found.count) == (int(row[3]) * sectors, 3, "o2cb", 255)
    assert found.uuid in subprocess.run([debug[0], "-R", "stats", str(image)], capture_output=True, text=True).stdout


async def test_damage_is_an_error_of_one_line(tmp_path: Path) -> None:
    cluster, (image,) = create(
        tmp_path / "x.toml", nodes=2, sizes=["64M"], filesystem="ocfs2", machine=Description(init="")
    )
    assert (await volume(image)).slots == 3
    assert re.fullmatch("x-shared.img", cluster.shared[0].image)
    whole, chance = image.read_bytes(), random.Random(1)
    places = [8192, 8192 + 0xC0, 6 * 4096, 10 * 4096]
    for _ in range(60):
        damaged = bytearray(whole[: 4 << 20])
        for _ in range(8):
            at = chance.choice(places) + chance.randrange(320)
            damaged[at] = chance.randrange(256)
        image.write_bytes(damaged)
        with contextlib.suppress(UmlError):
            await volume(image)
    image.write_bytes(bytes(1 << 20))
    with pytest.raises(UmlError, match="no ocfs2 on it"):
        await volume(image)
    image.write_bytes(b"x")
    with pytest.raises(UmlError, match="no ocfs2 on it"):
        await volume(image)


def test_what_cannot_be_made(tmp_path: Path) -> None:
    machine = Description(init="")
    path = tmp_path / "x.toml"

    def refused(match: str, sizes: list[str], filesystem: str = "ocfs2", nodes: int = 2) -> None:
        with pytest.raises(UmlError, match=match):
            create(path, nodes=nodes, sizes=sizes, filesystem=filesystem, machine=machine)
        assert list(tmp_path.iterdir()) == []

    refused("not a size of a disk", ["1K"])
    refused("not a size of a disk", ["much"])
    refused("nodes can have", ["64M"], "ext4")
    refused("mkfs.ocfs2: ", ["32M"], nodes=32)
    create(path, nodes=2, sizes=["32M", "32M"], filesystem="none", machine=machine)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["x-shared.img", "x-shared2.img", "x.toml"]
    with pytest.raises(UmlError, match="is there already"):
        create(path, nodes=2, sizes=["32M"], filesystem="none", machine=machine)
