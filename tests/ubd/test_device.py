"""Opening what a ubd spec names: flags, detection, and what is refused; and what the kernel's driver is not given."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import Final

import pytest

from tests.contract.block import check_block_device, expect, read
from tests.cow.files import BROKEN, as_version, assert_whole_groups, pair
from tests.ordinary import OrdinaryUser
from umlfs.block import BlockDevice
from umlfs.blocks.raw import RawDevice
from umlfs.cow.device import CowDevice
from umlfs.cow.file import header_at
from umlfs.cow.open import open_cow
from umlfs.cow.plain import PlainImage
from umlfs.errors import UmlError
from umlfs.ubd import parse
from umlfs.ubd.device import open_ubd
from umlfs.ubd.native import native_argument

SIZE = 256 << 10


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(random.Random(3).randbytes(SIZE))
    return path


async def opened(text: str) -> BlockDevice:
    return await open_ubd(parse(text))


def content(path: Path) -> bytes:
    return path.read_bytes()


def blocks_of(path: Path) -> int:
    return path.stat().st_blocks


def flags_of(fd: int) -> int:
    """The flags that a descriptor was opened with."""
    return int(Path(f"/proc/self/fdinfo/{fd}").read_text().split("flags:")[1].split()[0], 8)


# Opening --------------------------------------------------------------------------------------


async def test_plain_image(image: Path) -> None:
    async def open_device() -> BlockDevice:
        return await opened(f"ubd0={image}")

    await check_block_device(open_device)


async def test_cow_file_is_made_when_missing_and_finds_its_backing(image: Path, tmp_path: Path) -> None:
    cow = tmp_path / "cow"
    device = await opened(f"ubd0={cow},{image}")
    assert isinstance(device, CowDevice)
    await device.write_from(512, [memoryview(b"x" * 512)])
    await device.close()
    device = await opened(f"ubd0={cow}")
    assert isinstance(device, CowDevice)
    assert await read(device, 512, 512) == b"x" * 512
    assert await read(device, 1024, SIZE - 1024) == content(image)[1024:]
    await device.close()
    assert_whole_groups(cow)


async def test_moved_backing_is_noted(image: Path, tmp_path: Path) -> None:
    cow, moved = tmp_path / "cow", tmp_path / "moved"
    await (await opened(f"ubd0={cow},{image}")).close()
    os.rename(image, moved)
    with pytest.raises(UmlError, match=r"uml cow rebase .* PATH"):
        await opened(f"ubd0={cow}")
    await (await opened(f"ubd0={cow},{moved}")).close()
    assert header_at(str(cow)).backing == os.fsencode(moved)


@pytest.mark.parametrize("text", ["ubd0=missing", "ubd0d=missing", "ubd0=.", "ubd0=missing,also", "ubd0r=missing"])
async def test_what_cannot_be_opened(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UmlError):
        await opened(text)
    assert not os.listdir(tmp_path)


async def test_flag_r(image: Path) -> None:
    first = await opened(f"ubd0r={image}")
    second = await opened(f"ubd1r={image}")  # readers go together
    with pytest.raises(UmlError, match="already in use"):
        await opened(f"ubd2={image}")
    await expect(errno.EROFS, first.write_from(0, [memoryview(bytes(512))]))
    await first.close()
    await second.close()


async def test_flag_s_is_o_sync(image: Path) -> None:
    for text, expected in (("ubd0s", os.O_SYNC), ("ubd0", 0)):
        device = await opened(f"{text}={image}")
        assert isinstance(device, RawDevice)
        fd = device.storage.fileno()  # type: ignore[attr-defined]
        assert flags_of(fd) & os.O_SYNC == expected
        await device.close()


async def test_flag_d_takes_a_cow_file_as_it_is(tmp_path: Path) -> None:
    cow, _ = pair(tmp_path, SIZE)
    device = await opened(f"ubd0d={cow}")
    assert device.size == cow.stat().st_size
    assert (await read(device, 0, 4)) == b"OOOM"
    await device.close()


async def test_flag_c_shares_with_those_who_do_so_too(image: Path) -> None:
    first, second = await opened(f"ubd1c={image}"), await opened(f"ubd2c={image}")
    await first.write_from(0, [memoryview(b"one".ljust(512))])
    assert (await read(second, 0, 3)) == b"one"
    reader = await opened(f"ubd3cr={image}")
    for alone in (f"ubd0={image}", f"ubd0r={image}", f"ubd0={image}.cow,{image}"):
        with pytest.raises(UmlError, match="already in use"):
            await opened(alone)
    for device in (first, second, reader):
        await device.close()
    only = await opened(f"ubd0={image}")
    with pytest.raises(UmlError, match="already in use"):
        await opened(f"ubd1c={image}")
    await only.close()


@pytest.mark.parametrize(
    ("holds", "refused"),
    [
        ("ext4", "holds ext4"),
        ("vfat", "holds vfat"),
        ("ocfs2", ""),
        ("gfs2", ""),
        ("partition", r"image:1: holds swap"),
        ("cow", "a COW file cannot be shared"),
    ],
)
async def test_what_flag_c_refuses(tmp_path: Path, holds: str, refused: str) -> None:
    image = tmp_path / "image"
    content = bytearray(4 << 20)
    for at, magic in CONTENTS.get(holds, {}).items():
        content[at : at + len(magic)] = magic
    image.write_bytes(content)
    spec = f"ubd0c={image}"
    if holds == "cow":
        cow, _ = pair(tmp_path, SIZE)
        spec = f"ubd0c={cow}"
    if not refused:
        await (await opened(spec)).close()
        return
    with pytest.raises(UmlError, match=refused):
        await opened(spec)
    await (await opened(spec.replace("0c", "0cd"))).close()
    await (await opened(spec.replace("0c", "0"))).close()


CONTENTS: Final = {
    "ext4": {1080: b"\x53\xef"},
    "vfat": {54: b"FAT12   ", 510: b"\x55\xaa"},
    "ocfs2": {8192: b"OCFSV2"},
    "gfs2": {65536: b"\x01\x16\x19\x70\0\0\0\1"},
    "partition": {
        446: bytes([0, 0, 0, 0, 0x82, 0, 0, 0]) + (2048).to_bytes(4, "little") + (4096).to_bytes(4, "little"),
        510: b"\x55\xaa",
        (1 << 20) + 4086: b"SWAPSPACE2",
    },
}
"""Bytes at offsets, that make an image what it is."""


async def test_flag_t_gives_nothing_back(image: Path) -> None:
    device = await opened(f"ubd0t={image}")
    before = blocks_of(image)
    await device.discard(0, SIZE)
    assert blocks_of(image) == before
    await device.close()


def test_a_file_that_cannot_be_written_is_read_only(user: OrdinaryUser) -> None:
    program = (
        "import trio; from umlfs.ubd import parse; from umlfs.ubd.device import open_ubd\n"
        "device = trio.run(open_ubd, parse('ubd0=/etc/passwd')); print(device.read_only)"
    )
    done = user.run(user.command(f"PYTHONPATH={':'.join(map(str, user.path))}", user.python, "-c", program))
    assert (done.stdout, done.stderr) == ("True\n", "")


# Images that a guest would like to be something else ------------------------------------------


async def test_a_plain_image_gets_no_cow_header(image: Path, tmp_path: Path) -> None:
    """Else the next start would show the guest whatever file of the host it names as its backing file."""
    cow, _ = pair(tmp_path, SIZE)
    head = content(cow)[:8192]
    little = b"MOOO\3\0\0\0"
    before = content(image)
    device = await opened(f"ubd0={image}")
    assert isinstance(device, PlainImage)
    for attempt in (head, head[:512], little.ljust(512, b"\0"), b"OOOM".ljust(512, b"\xff")):
        await expect(errno.EPERM, device.write_from(0, [memoryview(attempt)]))
        await expect(errno.EPERM, device.write_from(0, [memoryview(attempt[:3]), memoryview(attempt[3:])]))
    await device.write_from(512, [memoryview(head[512:])])
    await device.write_from(4096, [memoryview(head[:4096])])
    await device.write_from(0, [memoryview(bytes(6000)), memoryview(b"x" * 4240)])
    assert await read(device, 0, 10240) == bytes(6000) + b"x" * 4240
    await device.close()
    assert content(image)[10240:] == before[10240:]
    device = await opened(f"ubd0d={image}")
    await device.write_from(0, [memoryview(head)])
    await device.close()


@pytest.mark.parametrize(
    "damage", [(24, b"\0\0\0\0"), (20, b"\0\0\4\0"), (4, b"\0\0\0\4"), (32, b"/" * 4096), (12, b"\xff" * 8)]
)
async def test_a_damaged_cow_file_is_not_taken_for_a_plain_image(tmp_path: Path, damage: tuple[int, bytes]) -> None:
    cow, _ = pair(tmp_path, SIZE)
    with cow.open("r+b") as file:
        file.seek(damage[0])
        file.write(damage[1])
    before = content(cow)
    with pytest.raises(UmlError, match="damaged COW header"):
        await opened(f"ubd0={cow}")
    with pytest.raises(UmlError):
        await native_argument(parse(f"ubd0={cow}"))
    with pytest.raises(UmlError, match="takes the size from the COW header"):
        await native_argument(parse(f"ubd0d={cow}"))
    assert content(cow) == before


# The kernel's own driver ----------------------------------------------------------------------


async def test_native_word(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert await native_argument(parse("ubdars=image,,SER")) == f"ubd0rs={image},,SER"
    assert await native_argument(parse("ubd1=new:image")) == f"ubd1={tmp_path}/new,{image}"
    assert header_at("new").backing == os.fsencode(image)


async def test_native_refuses_odd_ends(tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    odd.write_bytes(bytes(82020))
    with pytest.raises(UmlError, match="82020 bytes end within a sector"):
        await native_argument(parse(f"ubd0={odd}"))
    with pytest.raises(UmlError, match="ends within a sector"):
        await native_argument(parse(f"ubd0={tmp_path}/cow,{odd}"))


async def test_native_refuses_small_cow_devices_unless_read_only(tmp_path: Path) -> None:
    cow, _ = pair(tmp_path, 32 << 10)
    with pytest.raises(UmlError, match="would hang on the first write"):
        await native_argument(parse(f"ubd0={cow}"))
    assert await native_argument(parse(f"ubd0r={cow}"))


async def test_native_refuses_mixed_groups(tmp_path: Path) -> None:
    cow, _ = pair(tmp_path, SIZE)
    with cow.open("r+b") as file:
        file.seek(header_at(str(cow)).bitmap_offset)
        file.write(b"\1")
    with pytest.raises(UmlError, match=r"misreads around them; mend it with 'uml cow check --repair"):
        await native_argument(parse(f"ubd0={cow}"))


async def test_native_refuses_what_it_would_miscalculate(tmp_path: Path) -> None:
    cow, _ = pair(tmp_path, SIZE)
    for version, order in ((1, ">"), (1, "<"), (2, ">"), (BROKEN, ">")):
        as_version(cow, version, order)
        if (version, order) == (1, ">"):
            with pytest.raises(UmlError, match="byte order"):
                await native_argument(parse(f"ubd0={cow}"))
        else:
            await native_argument(parse(f"ubd0={cow}"))
    huge = tmp_path / "huge"
    huge.touch()
    os.truncate(huge, 9 << 40)
    with pytest.raises(UmlError, match="miscalculate"):
        await native_argument(parse(f"ubd0={tmp_path}/huge.cow,{huge}"))


async def test_native_refuses_what_its_words_cannot_say(tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    folder.mkdir()
    (folder / "image").write_bytes(bytes(4096))
    with pytest.raises(UmlError, match="cannot be given a name"):
        await native_argument(parse(f"ubd0={folder}/image"))


async def test_native_respects_locks(tmp_path: Path) -> None:
    cow, _ = pair(tmp_path, SIZE)
    device = await open_cow(str(cow))
    with pytest.raises(UmlError, match="in use"):
        await native_argument(parse(f"ubd0={cow}"))
    await device.close()
