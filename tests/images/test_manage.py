"""`uml image create|check|snapshot`."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from runtime.images.check import check
from runtime.images.create import change_snapshot, create, snapshots
from runtime.images.formats import destination, source
from tests import needs
from tests.guest.disks import MIB
from tests.images.test_whole import layout
from umlfs.cow.create import create as create_cow
from umlfs.errors import UsageError


def new(path: Path, size: int | None = 16 * MIB, **options: object) -> Path:
    create(destination(str(path)), size, **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("suffix", ["img", "ext4", "btrfs", "qcow2", "vmdk", "vdi", "vhdx"])
async def test_what_is_made_is_sound(tmp_path: Path, suffix: str) -> None:
    image = new(tmp_path / f"x.{suffix}", 128 * MIB)
    with pytest.raises(UsageError, match="exists"):
        new(image)
    new(image, 128 * MIB, force=True)
    assert list(tmp_path.iterdir()) == [image]
    found = source(str(image))
    assert found.format.qemu == (suffix if suffix in ("qcow2", "vmdk", "vdi", "vhdx") else None)
    if suffix != "img":
        assert await check(found) == []
    else:
        assert image.stat().st_size == 128 * MIB
        with pytest.raises(UsageError, match=r"nothing checks it \(unknown\)"):
            await check(found)


async def test_what_is_not_made(tmp_path: Path) -> None:
    for name, size, why in (
        ("x.tar", MIB, "made of files"),
        ("x.qcow2", None, "of no size"),
        ("x.erofs", 1, "of files"),
    ):
        with pytest.raises(UsageError, match=why):
            new(tmp_path / name, size)
    assert list(tmp_path.iterdir()) == []


async def test_over_another(tmp_path: Path) -> None:
    base = new(tmp_path / "base.qcow2")
    layer = new(tmp_path / "layer.qcow2", None, backing=source(str(base)))
    done = subprocess.run([needs.program("qemu-img"), "info", "--output=json", layer], capture_output=True, check=True)
    assert json.loads(done.stdout)["backing-filename-format"] == "qcow2"
    with pytest.raises(UsageError, match="only a qcow2 lies over"):
        new(tmp_path / "x.img", MIB, backing=source(str(base)))


async def test_damage_is_found_and_mended(tmp_path: Path) -> None:
    image = new(tmp_path / "x.ext4")
    damage: list[str | Path] = [needs.program("debugfs"), "-w", "-R", "clri <11>", image]
    subprocess.run(damage, check=True, capture_output=True)
    assert await check(source(str(image))) != []
    await check(source(str(image)), repair=True)
    assert await check(source(str(image))) == []
    disk = new(tmp_path / "x.qcow2")
    subprocess.run([needs.program("qemu-io"), "-c", "write 0 1M", disk], check=True, capture_output=True)
    data = bytearray(disk.read_bytes())
    data[2 * 65536 : 2 * 65536 + 16] = bytes(16)  # counts of references
    disk.write_bytes(data)
    assert await check(source(str(disk))) != []


async def test_what_is_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 100_000)
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "f", "f")
    assert await check(source(str(tmp_path / "x.tar.gz"))) == []
    with pytest.raises(UsageError, match="cannot be mended"):
        await check(source(str(tmp_path / "x.tar.gz")), repair=True)
    image = layout(tmp_path / "image")
    assert await check(source(str(image))) == []
    largest = max((image / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes() + b"\0")
    assert await check(source(str(image))) != []
    base = new(tmp_path / "base.img")
    create_cow(str(tmp_path / "cow"), str(base))
    assert await check(source(str(tmp_path / "cow"))) == []


def test_snapshots(tmp_path: Path) -> None:
    image = str(new(tmp_path / "x.qcow2"))
    change_snapshot(image, "create", "one")
    assert snapshots(image) == ["one"]
    with pytest.raises(UsageError, match="has snapshot one"):
        change_snapshot(image, "create", "one")
    subprocess.run([needs.program("qemu-io"), "-c", "write -P 7 0 64k", image], check=True, capture_output=True)
    change_snapshot(image, "apply", "one")
    subprocess.run([needs.program("qemu-io"), "-c", "read -P 0 0 64k", image], check=True, capture_output=True)
    change_snapshot(image, "delete", "one")
    with pytest.raises(UsageError, match="has no snapshot one; there is none"):
        change_snapshot(image, "delete", "one")
    with pytest.raises(UsageError, match="only a qcow2 has snapshots"):
        snapshots(str(new(tmp_path / "x.img")))
