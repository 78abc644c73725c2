"""Snapshots of disks, without the guest that they are of."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtime.machines.snapshot import take
from tests.cow.files import pair
from umlfs.blocks.raw import open_raw
from umlfs.cow.open import open_cow
from umlfs.errors import UmlError, UsageError
from umlfs.virtio.blk import VirtioBlk

SIZE = 64 << 10


class Guest:
    """Whether it may run, and what there was when it went on."""

    def __init__(self, folder: Path) -> None:
        self.paused = 0
        self.seen: set[str] = set()
        self._folder = folder

    @contextlib.asynccontextmanager
    async def pause(self) -> AsyncIterator[None]:
        self.paused += 1
        yield
        self.seen = {path.name for path in self._folder.iterdir()}


async def disk(folder: Path, *, read_only: bool = False) -> VirtioBlk:
    folder.mkdir()
    return VirtioBlk(await open_cow(str(pair(folder, SIZE)[0]), read_only=read_only))


async def test_all_that_is_written_to(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    one, other = await disk(tmp_path / "one"), await disk(tmp_path / "other", read_only=True)
    raw = VirtioBlk(open_raw(str(tmp_path / "one/backing"), read_only=True))
    guest = Guest(out)
    (copy,) = await take([raw, one, other], str(out), guest.pause)
    assert guest.paused == 1
    assert not guest.seen  # it went on before the copy was durable and had its name
    assert Path(copy).parent == out
    assert Path(copy).read_bytes() == (tmp_path / "one/cow").read_bytes()
    (beside,) = await take([one], "", guest.pause)
    assert Path(beside).parent == tmp_path / "one"
    for each in (raw, one, other):
        await each.device.close()


async def test_what_cannot_be(tmp_path: Path) -> None:
    """The guest is not paused for that."""
    guest = Guest(tmp_path)
    with pytest.raises(UmlError, match="no COW file"):
        await take([], "", guest.pause)
    disks = [await disk(tmp_path / "one"), await disk(tmp_path / "other")]
    with pytest.raises(UsageError, match="two COW files have one name"):
        await take(disks, str(tmp_path), guest.pause)
    assert guest.paused == 0
    with pytest.raises(FileNotFoundError):
        await take(disks[:1], str(tmp_path / "nowhere"), guest.pause)
    for each in disks:
        await each.device.close()
