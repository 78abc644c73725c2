"""What a device holds, told by its first bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests import needs
from umlfs.blocks.padded import Padded
from umlfs.blocks.probe import PARTITIONED, probe
from umlfs.blocks.raw import open_raw


async def probed(path: Path) -> str | None:
    device = open_raw(path)
    try:
        return await probe(Padded(device))
    finally:
        await device.close()


def sparse_file(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


@pytest.mark.parametrize(
    ("command", "size", "expected"),
    [
        (["mkfs.ext4", "-qF"], 16, "ext4"),
        (["mkfs.ext2", "-qF"], 16, "ext4"),
        (["mkfs.xfs", "-q"], 320, "xfs"),
        (["mkfs.btrfs", "-q"], 128, "btrfs"),
        (["mkswap"], 16, "swap"),
    ],
)
async def test_real_filesystems(command: list[str], size: int, expected: str, tmp_path: Path) -> None:
    path = sparse_file(tmp_path / "image", size << 20)
    command = [needs.program(command[0]), *command[1:], str(path)]
    await trio.run_process(command, capture_stdout=True, capture_stderr=True)
    assert await probed(path) == expected


async def test_partition_tables(tmp_path: Path) -> None:
    path = sparse_file(tmp_path / "image", 1 << 20)
    assert await probed(path) is None
    content = bytearray(path.read_bytes())
    content[510:512] = b"\x55\xaa"
    path.write_bytes(content)
    assert await probed(path) == PARTITIONED
    content[82:90] = b"FAT32   "
    path.write_bytes(content)
    assert await probed(path) == "vfat"
    content[512:520] = b"EFI PART"
    content[1080:1082] = b"\x53\xef"
    path.write_bytes(content)
    assert await probed(path) == PARTITIONED


@given(st.binary(max_size=3000))
async def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("probe") / "image"
    path.write_bytes(data)
    assert await probed(path) in (None, PARTITIONED, "ext4", "xfs", "squashfs", "vfat")
