"""Opening: the kernel's rules of validity, backing files that moved, damaged and hostile files, the kinds of source."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
import trio

from tests.cow.files import BROKEN, as_version, bitmap_of, change, contents, pair, whole
from umlfs.block import BlockDevice
from umlfs.blocks.raw import open_file
from umlfs.cow.create import create, create_remote
from umlfs.cow.file import header_at
from umlfs.cow.open import open_cow
from umlfs.cow.rebase import rebase
from umlfs.errors import UmlError, UsageError
from umlfs.sources import OpenOptions, Unopened, parse


async def refused(cow: Path) -> str:
    """Why it cannot be opened. It is left as it was, and not locked."""
    before = await trio.Path(cow).read_bytes()
    with pytest.raises(UmlError) as caught:
        await open_cow(str(cow))
    assert await trio.Path(cow).read_bytes() == before
    open_file(cow).close()
    return str(caught.value)


async def test_created_when_missing(tmp_path: Path) -> None:
    backing = tmp_path / "backing"
    backing.write_bytes(b"b" * 8192)
    device = await open_cow(str(tmp_path / "cow"), str(backing))
    await device.close()
    assert await contents(tmp_path / "cow") == b"b" * 8192
    with pytest.raises(FileNotFoundError):
        await open_cow(str(tmp_path / "other"))


async def test_changed_backing_file(tmp_path: Path) -> None:
    cow, backing = pair(tmp_path, 8192)
    content = await change(cow)
    mtime = header_at(str(cow)).mtime
    os.utime(backing, (mtime + 5, mtime + 5))
    message = await refused(cow)
    command = f"touch -d @{mtime} {backing}"
    assert f"its mtime is {mtime + 5}, it was {mtime}" in message
    assert command in message
    assert f"rm {cow}" in message
    await trio.run_process(command.split())
    assert await contents(cow) == content
    os.truncate(backing, 8191)
    os.utime(backing, (mtime, mtime))
    assert "its size is 8191, it was 8192" in await refused(cow)


async def test_mtime_counts_in_whole_seconds(tmp_path: Path) -> None:
    cow, backing = pair(tmp_path, 8192)
    mtime = header_at(str(cow)).mtime
    os.utime(backing, ns=(0, mtime * 10**9 + 999_999_999))
    await contents(cow)


@pytest.mark.parametrize(
    ("version", "order", "alignment"), [(1, ">", 0), (1, "<", 0), (2, ">", 0), (BROKEN, ">", 4096), (BROKEN, ">", 8)]
)
async def test_moved_backing_file_switches_and_converts(
    tmp_path: Path, version: int, order: str, alignment: int
) -> None:
    cow, backing = pair(tmp_path, 1 << 20)
    as_version(cow, version, order, alignment)
    content = await change(cow)
    moved = tmp_path / "moved"
    shutil.copy2(backing, moved)
    device = await open_cow(str(cow), str(moved), read_only=True)
    assert await whole(device) == content
    await device.close()
    assert header_at(str(cow)).backing == os.fsencode(backing), "a read-only use changes nothing"
    device = await open_cow(str(cow), str(moved))
    with pytest.raises(UmlError, match="in use"):
        open_file(cow)
    await device.write_from(0, [memoryview(b"n" * 512)])
    await device.close()
    backing.unlink()
    header = header_at(str(cow))
    assert (header.version, header.broken, header.backing) == (3, False, os.fsencode(moved))
    assert await contents(cow) == b"n" * 512 + content[512:]


async def test_same_file_by_another_name_changes_nothing(tmp_path: Path) -> None:
    cow, backing = pair(tmp_path, 8192)
    (tmp_path / "link").symlink_to(backing)
    before = cow.read_bytes()
    device = await open_cow(str(cow), str(tmp_path / "link"))
    await device.close()
    assert cow.read_bytes() == before


@pytest.mark.logs_warnings
async def test_wrong_backing_file_is_logged_and_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cow, _ = pair(tmp_path, 8192)
    content = await change(cow)
    other = tmp_path / "other"
    other.write_bytes(bytes(100))
    for wrong in (other, tmp_path / "missing"):
        device = await open_cow(str(cow), str(wrong))
        assert await whole(device) == content
        await device.close()
        assert str(wrong) in caplog.text
        caplog.clear()


async def test_backing_files_that_cannot_be(tmp_path: Path) -> None:
    cow, _ = pair(tmp_path, 8192)
    good = cow.read_bytes()
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path, message in (
        (b"backing", "is relative"),
        (b"/nowhere/at/all", "no such file"),
        (os.fsencode(loop), "lead in a circle"),
        (os.fsencode(cow), "names itself"),
        (os.fsencode(tmp_path), "neither a file nor a block device"),
    ):
        cow.write_bytes(good[:32] + path.ljust(4096, b"\0") + good[4128:])
        assert message in await refused(cow)


@pytest.mark.parametrize(
    ("offset", "content", "message"),
    [
        (24, bytes(4), "alignment 0"),
        (20, b"\0\0\4\0", "sector size 1024"),
        (32, b"x" * 4096, "has no end"),
        (7, b"\4", "version 4"),
        (0, b"x", "not a COW file"),
    ],
)
async def test_damaged_headers(tmp_path: Path, offset: int, content: bytes, message: str) -> None:
    cow, _ = pair(tmp_path, 8192)
    good = cow.read_bytes()
    cow.write_bytes(good[:offset] + content + good[offset + len(content) :])
    assert message in await refused(cow)


async def test_truncated_file(tmp_path: Path) -> None:
    cow, backing = pair(tmp_path, 1 << 20)
    os.truncate(cow, 8192)
    assert "ends within its bitmap" in await refused(cow)
    os.truncate(cow, 12288)
    assert await contents(cow) == backing.read_bytes()
    cow.write_bytes(b"")
    assert "not a COW file" in await refused(cow)


async def test_old_format_without_bits_for_the_last_sectors(tmp_path: Path) -> None:
    cow, backing = pair(tmp_path, 82020)
    as_version(cow, 2)
    assert await contents(cow) == backing.read_bytes()
    message = await refused(cow)
    assert f"uml cow rebase {cow} {backing}" in message
    rebase(str(cow), str(backing))
    content = await change(cow)
    assert await contents(cow) == content


async def test_locks_of_both_files(tmp_path: Path) -> None:
    cow, backing = pair(tmp_path, 8192)
    create(str(tmp_path / "second"), str(backing))
    device, second = await open_cow(str(cow)), await open_cow(str(tmp_path / "second"))
    for path in (cow, backing):
        with pytest.raises(UmlError, match=f"pid {os.getpid()}"):
            open_file(path)
    shared = await open_cow(str(cow), lock=False)
    await shared.close()
    await device.close()
    await second.close()
    open_file(backing).close()


async def test_sources(tmp_path: Path) -> None:
    cow, backing = pair(tmp_path, 8192)
    new = tmp_path / "new"
    for text, scheme, size in (
        (str(cow), "cow", 8192),
        (str(backing), "raw", 8192),
        (f"raw:{cow}", "raw", cow.stat().st_size),
        (f"cow:{cow}", "cow", 8192),
        (f"{new},{backing}", "cow", 8192),
        (f"cow:{new},{backing}", "cow", 8192),
    ):
        source = parse(text)
        assert source.scheme == scheme
        device = await source.open()
        assert isinstance(device, BlockDevice)
        assert device.size == size
        await device.close()
    assert bitmap_of(new)[0].backing == os.fsencode(backing)
    with pytest.raises(UsageError, match="unknown option 'x'"):
        await parse(f"raw:{cow}").open(OpenOptions(extra={"x": "y"}))
    with pytest.raises(UsageError, match="no file given"):
        await parse("cow:").open()


async def test_remote_backing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source of another kind below; `parse` stands in for it, as its kind is not part of this package."""
    backing = tmp_path / "image"
    backing.write_bytes(b"r" * 8192)
    monkeypatch.setattr("umlfs.cow.open.parse", lambda text: parse(f"raw:{backing}"))
    cow = tmp_path / "cow"
    device = await open_cow(str(cow), "nbd://host/name")
    await device.write_from(0, [memoryview(b"c" * 512)])
    await device.close()
    assert header_at(str(cow)).backing == b"nbd://host/name"
    assert await contents(cow) == b"c" * 512 + b"r" * 7680
    os.truncate(backing, 4096)
    assert "its size is 4096, it was 8192" in await refused(cow)
    with pytest.raises(FileExistsError):
        create_remote(str(cow), "nbd://host/name", 4096)


@pytest.mark.parametrize("word", ["raw:{}", "cow:{}", "{}"])
async def test_what_can_only_be_read(word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image"
    path.write_bytes(bytes(8192))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    for name in ("open_file", "open_cow"):
        monkeypatch.setattr(f"umlfs.cow.source.{name}", refuse)
    with pytest.raises(UmlError, match="open it read-only"):
        await parse(word.format(path)).open()
    with pytest.raises(Unopened, match="Permission denied; use a source that you may open"):
        await parse(word.format(path)).open(OpenOptions(read_only=True))
