"""Copies of COW files that are in use."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.block import read
from tests.cow.files import pair
from umlfs.cow.check import Severity, check, worst
from umlfs.cow.open import open_cow
from umlfs.cow.snapshot import snapshot

SIZE = 1 << 20


async def test_a_copy_holds_what_was_flushed(tmp_path: Path) -> None:
    cow, _ = pair(tmp_path, SIZE)
    copy = tmp_path / "copy"
    device = await open_cow(str(cow))
    await device.write_from(5 * 4096, [memoryview(b"flushed!" * 512)])
    await device.flush()
    await device.write_from(90 * 4096, [memoryview(b"later..." * 512)])
    expected = bytearray(await read(device, 0, SIZE))
    with snapshot(str(cow), str(copy)):
        await device.write_from(5 * 4096, [memoryview(b"too late" * 512)])
        assert not copy.exists()
    await device.close()
    assert worst(check(str(copy))) in (None, Severity.NOTE)  # what was not flushed has no bit
    assert copy.stat().st_blocks < 64
    of_backing = (tmp_path / "backing").read_bytes()
    expected[90 * 4096 : 91 * 4096] = of_backing[90 * 4096 : 91 * 4096]
    device = await open_cow(str(copy), read_only=True)
    assert await read(device, 0, SIZE) == expected
    await device.close()


def test_nothing_is_left_of_what_fails(tmp_path: Path) -> None:
    cow, _ = pair(tmp_path, SIZE)
    with pytest.raises(FileExistsError), snapshot(str(cow), str(cow)):
        pass
    with pytest.raises(KeyError), snapshot(str(cow), str(tmp_path / "copy")):
        raise KeyError
    assert {path.name for path in tmp_path.iterdir()} == {"backing", "cow"}
