"""The limit: ENOSPC at it and not before, and what is freed is there again."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from humfs.check import check
from humfs.filesystem import HumFilesystem, open_filesystem
from humfs.volume import create
from tests.contract.filesystem import Subject
from tests.contract.subject import failing
from umlfs.errors import UmlError
from umlfs.filesystem import NO_HANDLE, ROOT, SetAttr

PAGE = 4096
SIZE = 1 << 20
KEEP_SIZE, PUNCH_HOLE = 1, 2


@pytest.fixture
async def small(tmp_path: Path) -> HumFilesystem:
    create(tmp_path / "fs", SIZE)
    return open_filesystem(tmp_path / "fs")


async def fill(fs: HumFilesystem, ino: int, offset: int = 0, step: int = 10 * PAGE) -> int:
    """Write until nothing more goes in; returns how much went in."""
    start = offset
    with failing(errno.ENOSPC):
        while True:
            offset += await fs.write_from(ino, NO_HANDLE, offset, [memoryview(b"x" * step)])
    return offset - start


async def test_enospc_at_the_limit_and_not_before(small: HumFilesystem) -> None:
    subject = Subject(small)
    ino = await subject.file(ROOT, b"file")
    written = await fill(small, ino)
    assert written == SIZE - PAGE  # all but the root directory
    assert (await subject.attr(ino)).size == written
    free = await small.statfs()
    assert (free.blocks, free.blocks_free) == (SIZE // PAGE, 0)
    assert await subject.read(ino, SIZE) == b"x" * written
    await subject.write(ino, b"over")  # what is allocated can be written
    with failing(errno.ENOSPC):
        await subject.mkdir(ROOT, b"directory")
    await subject.file(ROOT, b"empty")
    await small.close()


async def test_what_is_freed_is_there_again(small: HumFilesystem) -> None:
    subject = Subject(small)
    ino = await subject.file(ROOT, b"file")
    whole = await fill(small, ino)
    await subject.set(ino, SetAttr(size=whole // 2))
    assert await fill(small, ino, whole // 2) == whole - whole // 2
    await small.fallocate(ino, NO_HANDLE, PUNCH_HOLE | KEEP_SIZE, 0, 16 * PAGE)
    other = await subject.file(ROOT, b"other")
    assert await fill(small, other) == 16 * PAGE
    await small.unlink(ROOT, b"other")
    with failing(errno.ENOSPC):
        await subject.mkdir(ROOT, b"directory")  # still in use
    subject.forget_all()
    await subject.mkdir(ROOT, b"directory")
    await small.close()


async def test_a_refused_write_leaves_holes_as_they_were(small: HumFilesystem) -> None:
    subject = Subject(small)
    ino = await subject.file(ROOT, b"file")
    sparse = await subject.file(ROOT, b"sparse")
    await subject.set(sparse, SetAttr(size=1 << 30))
    await fill(small, ino)
    with failing(errno.ENOSPC):
        await small.write_from(sparse, NO_HANDLE, 5000, [memoryview(b"x")])
    attr = await subject.attr(sparse)
    assert (attr.size, attr.blocks) == (1 << 30, 0)
    await small.close()


async def test_fallocate_within_the_limit(small: HumFilesystem) -> None:
    subject = Subject(small)
    ino = await subject.file(ROOT, b"file")
    with failing(errno.ENOSPC):
        await small.fallocate(ino, NO_HANDLE, 0, 0, SIZE)
    assert (await subject.attr(ino)).size == 0
    await small.fallocate(ino, NO_HANDLE, 0, 0, SIZE - PAGE)
    assert await small.write_from(ino, NO_HANDLE, 0, [memoryview(b"x" * (SIZE - PAGE))]) == SIZE - PAGE
    await small.close()


async def test_empty_files_have_a_limit_too(small: HumFilesystem) -> None:
    subject = Subject(small)
    with failing(errno.ENOSPC):
        for number in range(2000):
            await subject.file(ROOT, b"%d" % number)
    found = await small.statfs()
    assert found.files_free == 0
    await small.close()


async def test_used_is_right_after_close_and_crash(small: HumFilesystem) -> None:
    root = small.volume.root
    subject = Subject(small)
    ino = await subject.file(ROOT, b"file", b"x" * 10_000)
    await small.setxattr(ino, b"user.a", b"value")
    await subject.mkdir(ROOT, b"directory")
    used = small.volume.used
    assert used == 2 * PAGE + 12288 + len(b"user.a" + b"value")
    await small.close()
    assert check(root) == []
    again = open_filesystem(root)
    assert again.volume.used == used
    await again.write_from(ino, NO_HANDLE, 12288, [memoryview(b"x" * PAGE)])
    await again.fsync(ino, NO_HANDLE)
    await again._core.durability.stop()
    again.volume.close(clean=False)  # as a crash leaves it
    third = open_filesystem(root)
    assert third.volume.used == used + PAGE
    await third.close()


async def test_edits_by_hand_are_counted(root: Path) -> None:
    fs = open_filesystem(root)
    ino = await Subject(fs).file(ROOT, b"file", b"short")
    used = fs.volume.used
    await fs.close()
    path = root / "data/file"
    path.write_bytes(path.read_bytes() + b"x" * 20_000)
    fs = open_filesystem(root)
    assert (await fs.getattr(ino))[0].size == 20_005
    assert fs.volume.used > used
    assert fs.volume.used == os.stat(root / "data/file").st_blocks * 512 + PAGE
    await fs.close()


@pytest.mark.parametrize("there", [False, True])
def test_nothing_is_left_of_a_filesystem_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    root = tmp_path / "fs"
    if there:
        root.mkdir()

    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("humfs.superblock.write", full)
    with pytest.raises(UmlError, match="No space left"):
        create(root, SIZE)
    assert (list(root.iterdir()) if there else root.exists()) == ([] if there else False)
