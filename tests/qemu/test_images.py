"""Images of qemu's formats as sources: served and written as what they are, or refused in qemu's words."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests import needs
from umlfs.block import BlockDevice
from umlfs.blocks.foreign import format_of
from umlfs.cow.open import create_over, open_cow
from umlfs.errors import UmlError, UsageError
from umlfs.sources import OpenOptions, parse
from umlfs.ubd import parse as parse_ubd
from umlfs.ubd.device import open_ubd
from umlfs.ubd.native import native_argument

SIZE = 4 << 20
FORMATS = ("qcow2", "qed", "vmdk", "vdi", "vpc", "vhdx", "parallels")


def qemu_img(*words: object) -> None:
    subprocess.run([needs.program("qemu-img"), *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def make(path: Path, image_format: str, *words: object) -> Path:
    qemu_img("create", "-q", "-f", image_format, *words, path, SIZE)
    return path


async def put(device: BlockDevice, offset: int, content: bytes) -> None:
    await device.write_from(offset, [memoryview(content)])
    await device.flush()


async def get(device: BlockDevice, offset: int, length: int) -> bytes:
    found = bytearray(length)
    await device.read_into(offset, [memoryview(found)])
    return bytes(found)


@pytest.mark.parametrize("image_format", FORMATS)
async def test_a_disk_is_written_as_what_it_is(image_format: str, tmp_path: Path) -> None:
    image = make(tmp_path / "image", image_format)
    assert format_of(image) == image_format
    source = parse(str(image))
    assert (source.scheme, source.detected) == (image_format, True)
    device = await open_ubd(parse_ubd(f"ubd0={image}"))
    await put(device, 1 << 20, b"x" * 65536)
    await device.close()
    assert format_of(image) == image_format
    device = await parse(f"{image_format}:{image}").device(OpenOptions(read_only=True))
    assert device.size >= SIZE
    assert device.read_only
    assert await get(device, 1 << 20, 65536) == b"x" * 65536
    with pytest.raises(OSError, match="Read-only"):
        await put(device, 0, b"y" * 512)
    await device.close()


async def test_a_vhd_of_fixed_size(tmp_path: Path) -> None:
    image = make(tmp_path / "image.vhd", "vpc", "-o", "subformat=fixed,force_size=on")
    device = await parse(str(image)).device()
    assert device.size == SIZE
    await device.close()


async def test_raw_says_so(tmp_path: Path) -> None:
    image = make(tmp_path / "image", "qcow2")
    device = await open_ubd(parse_ubd(f"ubd0d={image}"))
    assert device.size == image.stat().st_size
    await put(device, 0, bytes(512))
    await device.close()
    assert parse(str(image)).scheme == "raw"


async def test_in_use(tmp_path: Path) -> None:
    image = make(tmp_path / "image", "qcow2")
    device = await parse(str(image)).device()
    with pytest.raises(UmlError, match=r"in use by .* \(pid \d+\); end that first") as raised:
        await parse(str(image)).device()
    assert "\n" not in str(raised.value)
    await device.close()
    await (await parse(str(image)).device()).close()


async def test_without_its_backing_file(tmp_path: Path) -> None:
    base = make(tmp_path / "base", "raw")
    image = make(tmp_path / "image", "qcow2", "-F", "raw", "-b", base)
    base.unlink()
    for _ in range(5):
        with pytest.raises(UmlError, match=r"qemu cannot use it: .*base.*No such file") as raised:
            await parse(str(image)).device(OpenOptions(read_only=True))
        assert "Connection" not in str(raised.value)


async def test_encrypted(tmp_path: Path) -> None:
    secret = ("--object", "secret,id=s,data=x", "-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10")
    image = make(tmp_path / "image", "qcow2", *secret)
    with pytest.raises(UmlError, match="encrypt"):
        await parse(str(image)).device(OpenOptions(read_only=True))


async def test_damaged(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"QFI\xfb" + bytes(4096))
    with pytest.raises(UmlError, match="qemu cannot use it"):
        await parse(str(image)).device()


async def test_missing_and_unknown(tmp_path: Path) -> None:
    with pytest.raises(UmlError, match="No such file"):
        await parse(f"qcow2:{tmp_path}/none").device()
    with pytest.raises(UsageError, match="no file given"):
        await parse("qcow2:").device()
    image = make(tmp_path / "image", "qcow2")
    with pytest.raises(UsageError, match="unknown option 'colour'"):
        await parse(str(image)).device(OpenOptions(extra={"colour": "blue"}))
    with pytest.raises(UsageError, match="an image that qemu serves cannot be shared"):
        await open_ubd(parse_ubd(f"ubd0c={image}"))


async def test_no_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = make(tmp_path / "image", "qcow2")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UmlError, match="takes qemu-nbd; install it with"):
        await parse(str(image)).device()


async def test_the_kernels_own_driver_is_not_given_one(tmp_path: Path) -> None:
    image = make(tmp_path / "image", "qcow2")
    with pytest.raises(UmlError, match="it knows nothing of qcow2 images"):
        await native_argument(parse_ubd(f"ubd0={image}"))


async def test_a_cow_file_over_one(tmp_path: Path) -> None:
    image = make(tmp_path / "image", "qcow2")
    device = await parse(str(image)).device()
    await put(device, 0, b"base" * 128)
    await device.close()
    cow = tmp_path / "cow"
    header = await create_over(str(cow), str(image))
    assert header.backing == f"qcow2://{image}".encode()
    assert header.size == SIZE
    layer = await open_cow(str(cow))
    assert await get(layer, 0, 8) == b"basebase"
    await put(layer, 4096, b"new" + bytes(509))
    await layer.close()
    layer = await open_cow(str(cow))
    assert (await get(layer, 4096, 3), await get(layer, 0, 4)) == (b"new", b"base")
    await layer.close()
    device = await parse(str(image)).device()
    await put(device, 0, b"else" * 128)
    await device.close()
    os.utime(image, (0, 12345))
    with pytest.raises(UmlError, match=r"its backing image .* has changed: its mtime is 12345"):
        await open_cow(str(cow))
