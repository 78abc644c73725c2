"""Creating, merging, checking, rebasing and comparing COW files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cow.files import BROKEN, as_version, bitmap_of, change, contents, pair
from umlfs.block import ExtentKind
from umlfs.blocks.raw import open_file, open_raw
from umlfs.cow.check import Severity, check, worst
from umlfs.cow.create import create
from umlfs.cow.diff import differences
from umlfs.cow.file import header_at
from umlfs.cow.info import info, present
from umlfs.cow.merge import merge, merge_in_place
from umlfs.cow.open import open_cow
from umlfs.cow.rebase import rebase
from umlfs.errors import UmlError

SIZES = (0, 1, 512, 4096, 82020, 1 << 20, (3 << 20) + 1536)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def status_of(command: list[str]) -> int:
    return subprocess.run(command, check=False).returncode


# Create ---------------------------------------------------------------------------------------


def test_created_file_is_as_long_as_it_says(tmp_path: Path) -> None:
    cow, _ = pair(tmp_path, 82020)
    assert cow.stat().st_size == header_at(str(cow)).data_offset + 82020
    assert cow.stat().st_blocks <= 16


def test_create_refuses(tmp_path: Path) -> None:
    cow, backing = pair(tmp_path, 8192)
    before = names(tmp_path)
    with pytest.raises(FileExistsError):
        create(str(cow), str(backing))
    with pytest.raises(FileNotFoundError):
        create(str(tmp_path / "new"), str(tmp_path / "missing"))
    with pytest.raises(FileNotFoundError):
        create(str(tmp_path / "no" / "new"), str(backing))
    with pytest.raises(UmlError, match="itself a COW file"):
        create(str(tmp_path / "new"), str(cow))
    with pytest.raises(UmlError, match="neither a file"):
        create(str(tmp_path / "new"), str(tmp_path))
    with pytest.raises(UmlError, match="names itself"):
        create(str(backing), str(backing), force=True)
    os.utime(backing, (0, 2**33))
    with pytest.raises(UmlError, match="its mtime 8589934592 does not fit"):
        create(str(tmp_path / "new"), str(backing))
    assert names(tmp_path) == before


async def test_forced_create_leaves_nothing_of_the_old(tmp_path: Path) -> None:
    cow, backing = pair(tmp_path, 1 << 20)
    await change(cow)
    file = open_file(cow)
    with pytest.raises(UmlError, match="in use"):
        create(str(cow), str(backing), force=True)
    file.close()
    create(str(cow), str(backing), force=True)
    assert await contents(cow) == backing.read_bytes()
    assert present(str(cow)) == []


def test_path_in_the_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "dir").symlink_to("real")
    (tmp_path / "real" / "image").write_bytes(b"x")
    (tmp_path / "real" / "link").symlink_to("image")
    monkeypatch.chdir(tmp_path)
    create("cow", "dir/link")
    assert header_at("cow").backing == os.fsencode(tmp_path / "real" / "link"), "the directory resolved, the link kept"
    monkeypatch.chdir(tmp_path / "real")
    create("cow", "image")
    assert header_at("cow").backing == os.fsencode(tmp_path / "real" / "image")


# Merge ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
async def test_merge(tmp_path: Path, size: int) -> None:
    cow, backing = pair(tmp_path, size)
    content = await change(cow, count=60)
    new, before = tmp_path / "new", (cow.read_bytes(), backing.read_bytes())
    told: list[tuple[int, int]] = []
    merge(str(cow), str(new), progress=lambda done, of: told.append((done, of)))
    assert new.read_bytes() == content
    assert (cow.read_bytes(), backing.read_bytes()) == before
    assert names(tmp_path) == {"cow", "backing", "new"}
    assert told[-1:] == ([(size, size)] if size else [])


@pytest.mark.parametrize("size", SIZES)
async def test_merge_in_place(tmp_path: Path, size: int) -> None:
    cow, backing = pair(tmp_path, size)
    content = await change(cow, count=60)
    merge_in_place(str(cow))
    assert backing.read_bytes() == content
    assert await contents(cow) == content
    assert present(str(cow)) == []
    merge_in_place(str(cow))
    assert backing.read_bytes() == content


async def test_merge_in_place_makes_other_cow_files_invalid(tmp_path: Path) -> None:
    cow, backing = pair(tmp_path, 8192)
    create(str(tmp_path / "other"), str(backing))
    await change(cow)
    merge_in_place(str(cow))
    assert not info(str(tmp_path / "other")).valid, "also when all of it happens within a second"
    assert info(str(cow)).valid


@pytest.mark.parametrize("version", [1, 2, BROKEN])
async def test_merge_of_old_versions(tmp_path: Path, version: int) -> None:
    cow, backing = pair(tmp_path, 1 << 20)
    as_version(cow, version)
    content = await change(cow)
    merge(str(cow), str(tmp_path / "new"))
    assert (tmp_path / "new").read_bytes() == content
    merge_in_place(str(cow))
    assert backing.read_bytes() == content
    assert await contents(cow) == content


async def test_holes_stay_holes(tmp_path: Path) -> None:
    backing, cow, new = tmp_path / "backing", tmp_path / "cow", tmp_path / "new"
    with backing.open("wb") as file:
        file.write(b"b" * (1 << 20))
        file.truncate(64 << 20)
    create(str(cow), str(backing))
    device = await open_cow(str(cow))
    await device.write_from(32 << 20, [memoryview(b"c" * 8192)])
    await device.discard(0, 1 << 19)
    await device.close()
    merge(str(cow), str(new))
    assert new.stat().st_blocks * 512 < (1 << 19) + 65536
    assert new.stat().st_size == 64 << 20
    merge_in_place(str(cow))
    assert backing.stat().st_blocks * 512 < (1 << 19) + 65536
    assert status_of(["cmp", str(backing), str(new)]) == 0


async def test_merge_replaces_only_when_complete(tmp_path: Path) -> None:
    cow, backing = pair(tmp_path, 8192)
    new, mtime = tmp_path / "new", header_at(str(cow)).mtime
    new.write_bytes(b"precious")
    os.utime(backing, (1, 1))
    with pytest.raises(UmlError, match="has changed"):
        merge(str(cow), str(new))
    os.utime(backing, (mtime, mtime))
    file = open_file(new)
    with pytest.raises(UmlError, match="in use"):
        merge(str(cow), str(new))
    file.close()
    assert new.read_bytes() == b"precious"
    for same in (cow, backing):
        with pytest.raises(UmlError, match="itself"):
            merge(str(cow), str(same))
    merge(str(cow), str(new))
    assert new.read_bytes() == backing.read_bytes()
    assert names(tmp_path) == {"cow", "backing", "new"}


def test_merge_under_locks(tmp_path: Path) -> None:
    cow, backing = pair(tmp_path, 8192)
    for path in (cow, backing):
        file = open_file(path)
        with pytest.raises(UmlError, match="in use"):
            merge(str(cow), str(tmp_path / "new"))
        file.close()
    reader = open_file(backing, read_only=True)
    with pytest.raises(UmlError, match="in use"):
        merge_in_place(str(cow))
    reader.close()
    assert header_at(str(cow)).merging is None


async def test_merge_with_the_backing_file_elsewhere(tmp_path: Path) -> None:
    cow, backing = pair(tmp_path, 8192)
    content = await change(cow)
    moved = tmp_path / "moved"
    shutil.copy2(backing, moved)
    backing.unlink()
    with pytest.raises(UmlError, match="no such file"):
        merge(str(cow), str(tmp_path / "new"))
    merge(str(cow), str(tmp_path / "new"), backing=str(moved))
    assert (tmp_path / "new").read_bytes() == content
    with pytest.raises(UmlError, match="names itself"):
        merge(str(cow), str(tmp_path / "new"), backing=str(cow))


KILLED = """
import os, sys
from umlfs.blocks import sparse
from umlfs.cow import file, merge
left = int(sys.argv[2])
def dying(function):
    def call(*args):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), 9)
        return function(*args)
    return call
for module, name in ((sparse, "write_all"), (os, "ftruncate"), (os, "fsync"), (os, "fdatasync"), (sparse, "fallocate")):
    setattr(module, name, dying(getattr(module, name)))
merge.merge_in_place(sys.argv[1])
"""


async def test_merge_in_place_killed_anywhere_and_run_again(tmp_path: Path, long: bool) -> None:
    """Killed before each of its changes in turn; what was begun, nobody else opens."""
    cow, backing = pair(tmp_path, 300000)
    content = await change(cow, count=8)
    mtime = header_at(str(cow)).mtime
    original = (cow.read_bytes(), backing.read_bytes())
    for left in range(0, 200, 1 if long else 5):
        cow.write_bytes(original[0])
        backing.write_bytes(original[1])
        os.utime(backing, (mtime, mtime))
        status = status_of([sys.executable, "-c", KILLED, str(cow), str(left)])
        if header_at(str(cow)).merging is not None:
            with pytest.raises(UmlError, match="interrupted"):
                await contents(cow)
            with pytest.raises(UmlError, match="interrupted"):
                merge(str(cow), str(tmp_path / "new"))
        os.utime(backing, (mtime + left, mtime + left)) if header_at(str(cow)).merging else None
        merge_in_place(str(cow))
        assert backing.read_bytes() == content
        assert await contents(cow) == content
        if status == 0:
            break
    assert status == 0


# Info, map, check -----------------------------------------------------------------------------


async def test_info_and_map(tmp_path: Path) -> None:
    cow, backing = pair(tmp_path, 1 << 20)
    device = await open_cow(str(cow))
    await device.write_from(8192, [memoryview(b"x" * 8192)])
    await device.discard(1 << 19, 4096)
    await device.flush()
    found = info(str(cow))
    assert found.in_use_by == os.getpid()
    await device.close()
    assert (found.version, found.backing, found.size, found.sectors) == ("V3", str(backing), 1 << 20, 2048)
    assert (found.sectors_changed, found.valid, found.size_found) == (24, True, 1 << 20)
    ranges = [(each.offset, each.length, each.kind) for each in present(str(cow))]
    assert ranges == [(8192, 8192, ExtentKind.DATA), (1 << 19, 4096, ExtentKind.ZERO)]
    os.utime(backing, (5, 5))
    found = info(str(cow))
    assert (found.valid, found.mtime_found, found.in_use_by) == (False, 5, None)
    backing.unlink()
    assert "no such file" in (info(str(cow)).problem or "")


def whats(path: Path, *, repair: bool = False) -> dict[str, bool]:
    return {each.what: each.repaired for each in check(str(path), repair=repair)}


async def test_check_and_repair(tmp_path: Path) -> None:
    cow, backing = pair(tmp_path, 82020)
    assert whats(cow) == {}
    header = header_at(str(cow))
    content = bytearray(backing.read_bytes())
    content[1024:1536] = b"y" * 512
    with cow.open("r+b") as file:  # one sector alone, as the kernel writes it, and bits of sectors that do not exist
        file.seek(header.bitmap_offset)
        file.write(bytes([4]))
        file.seek(header.bitmap_offset + header.bitmap_length - 1)
        file.write(b"\x80")
        file.seek(header.data_offset + 1024)
        file.write(b"y" * 512)
        file.seek(header.data_offset + 40960)
        file.write(b"orphan")
        file.truncate(header.file_size - 5000)
    expected = {"short", "bits-surplus", "groups-mixed", "data-without-bits"}
    assert set(whats(cow)) == expected
    assert worst(check(str(cow))) is Severity.WARNING
    repaired = whats(cow, repair=True)
    assert repaired == {"short": True, "bits-surplus": True, "groups-mixed": True, "data-without-bits": False}
    assert set(whats(cow)) == {"data-without-bits"}
    assert await contents(cow) == content
    assert bitmap_of(cow)[1].all_set(0, 8)


async def test_check_finds_what_is_lost(tmp_path: Path) -> None:
    cow, backing = pair(tmp_path, 1 << 20)
    device = await open_cow(str(cow))
    await device.write_from((1 << 20) - 4096, [memoryview(b"x" * 4096)])
    await device.discard(0, 8192)
    await device.close()
    os.truncate(cow, cow.stat().st_size - 4096)
    findings = check(str(cow))
    assert worst(findings) is Severity.ERROR
    assert {each.what for each in findings} >= {"truncated", "bits-without-data"}
    os.utime(backing, (5, 5))
    assert "backing" in whats(cow)
    as_version(cow, 2)
    assert "version" in whats(cow)


# Rebase ---------------------------------------------------------------------------------------


async def test_rebase(tmp_path: Path) -> None:
    cow, backing = pair(tmp_path, 8192)
    content = await change(cow, count=3)
    moved = tmp_path / "moved"
    shutil.copy2(backing, moved)
    assert rebase(str(cow), str(moved)).backing == os.fsencode(moved)
    assert await contents(cow) == content
    os.utime(backing, (77, 77))
    with pytest.raises(UmlError, match="--force-mtime"):
        rebase(str(cow), str(backing))
    assert rebase(str(cow), str(backing), force_mtime=True).mtime == 77
    assert await contents(cow) == content
    (tmp_path / "small").write_bytes(b"")
    for wrong, message in ((tmp_path / "small", "its size is 0"), (cow, "names itself")):
        with pytest.raises(UmlError, match=message):
            rebase(str(cow), str(wrong), force_mtime=True)
    assert await contents(cow) == content


# Diff -----------------------------------------------------------------------------------------


async def test_diff(tmp_path: Path) -> None:
    cow, backing = pair(tmp_path, 82020)
    other = tmp_path / "other"
    create(str(other), str(backing))
    one, two = await open_cow(str(cow)), await open_cow(str(other))
    assert await differences(one, two) == []
    await one.write_from(512, [memoryview(b"x" * 512)])
    await one.write_from(81920, [memoryview(b"y" * 100)])
    await two.write_from(4096, [memoryview(b"z" * 1024)])
    assert await differences(one, two) == [(512, 512), (4096, 1024), (81920, 100)]
    await two.write_from(512, [memoryview(b"x" * 512)])
    await one.write_from(4096, [memoryview(b"z" * 1024)])
    assert await differences(one, two) == [(81920, 100)]
    raw = open_raw(backing, read_only=True)
    assert await differences(raw, two) == [(512, 512), (4096, 1024)]
    shorter = tmp_path / "shorter"
    shorter.write_bytes(backing.read_bytes()[:512])
    short = open_raw(shorter)
    assert await differences(short, raw) == [(512, 82020 - 512)]
    for device in (one, two, raw, short):
        await device.close()
