"""The space of files: sizes, holes, allocation, copies."""

from __future__ import annotations

import errno
import os

from tests.contract.subject import Subject, check, failing
from umlfs.filesystem import ROOT, SetAttr

KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
_MIB = 1 << 20


@check
async def truncate_down_and_up(s: Subject) -> None:
    ino = await s.file(ROOT, b"file", b"0123456789")
    assert (await s.set(ino, SetAttr(size=4))).size == 4
    assert (await s.set(ino, SetAttr(size=8))).size == 8
    assert await s.read(ino) == b"0123" + bytes(4)
    assert (await s.set(ino, SetAttr(size=0))).size == 0
    assert await s.read(ino) == b""
    await s.write(ino, b"again")
    assert await s.read(ino) == b"again"


@check
async def truncate_within_a_page_leaves_nothing_behind(s: Subject) -> None:
    ino = await s.file(ROOT, b"file", b"x" * 10_000)
    await s.set(ino, SetAttr(size=4097))
    await s.set(ino, SetAttr(size=10_000))
    assert await s.read(ino) == b"x" * 4097 + bytes(5903)


@check
async def truncate_of_a_directory(s: Subject) -> None:
    ino = await s.mkdir(ROOT, b"directory")
    with failing(errno.EISDIR):
        await s.set(ino, SetAttr(size=0))


@check
async def sparse_files(s: Subject) -> None:
    ino = await s.file(ROOT, b"file")
    await s.set(ino, SetAttr(size=64 * _MIB))
    await s.write(ino, b"data", 32 * _MIB)
    attr = await s.attr(ino)
    assert attr.size == 64 * _MIB
    if s.features.holes:
        assert attr.blocks * 512 < 8 * _MIB
    assert await s.read(ino, 10, 32 * _MIB - 3) == bytes(3) + b"data" + bytes(3)
    assert await s.read(ino, 100, 64 * _MIB - 10) == bytes(10)


@check
async def holes_are_found(s: Subject) -> None:
    ino = await s.file(ROOT, b"file")
    await s.write(ino, b"a" * 65536, _MIB)
    await s.set(ino, SetAttr(size=3 * _MIB))
    async with s.opened(ino) as handle:

        async def seek(offset: int, whence: int) -> int:
            return await s.fs.lseek(ino, handle, offset, whence)

        if s.features.holes:
            assert await seek(0, os.SEEK_DATA) == _MIB
            assert await seek(0, os.SEEK_HOLE) == 0
            assert await seek(_MIB, os.SEEK_HOLE) == _MIB + 65536
            with failing(errno.ENXIO):
                await seek(2 * _MIB, os.SEEK_DATA)
        assert await seek(_MIB + 5, os.SEEK_DATA) == _MIB + 5
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            with failing(errno.ENXIO):
                await seek(3 * _MIB, whence)
            with failing(errno.ENXIO):
                await seek(3 * _MIB + 1, whence)


@check
async def a_full_file_has_its_only_hole_at_the_end(s: Subject) -> None:
    ino = await s.file(ROOT, b"file", b"x" * 100_000)
    async with s.opened(ino) as handle:
        assert await s.fs.lseek(ino, handle, 10, os.SEEK_DATA) == 10
        assert await s.fs.lseek(ino, handle, 10, os.SEEK_HOLE) == 100_000
    empty = await s.file(ROOT, b"empty")
    async with s.opened(empty) as handle:
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            with failing(errno.ENXIO):
                await s.fs.lseek(empty, handle, 0, whence)


@check
async def fallocate_extends_or_keeps_the_size(s: Subject) -> None:
    ino = await s.file(ROOT, b"file", b"x")
    async with s.opened(ino) as handle:
        if not s.features.fallocate:
            with failing(errno.EOPNOTSUPP, errno.ENOSYS):
                await s.fs.fallocate(ino, handle, 0, 0, _MIB)
            return
        await s.fs.fallocate(ino, handle, KEEP_SIZE, 0, _MIB)
        assert (await s.attr(ino)).size == 1
        await s.fs.fallocate(ino, handle, 0, 0, _MIB)
        attr = await s.attr(ino)
        assert attr.size == _MIB
        assert attr.blocks * 512 >= _MIB
        await s.fs.fallocate(ino, handle, 0, 0, 100)
        assert (await s.attr(ino)).size == _MIB
        for offset, length in ((0, 0), (-1, 10)):
            with failing(errno.EINVAL):
                await s.fs.fallocate(ino, handle, 0, offset, length)
        with failing(errno.EOPNOTSUPP, errno.EINVAL):
            await s.fs.fallocate(ino, handle, 0x80, 0, 10)
    assert await s.read(ino, 5) == b"x" + bytes(4)


@check
async def punched_holes_read_as_zeroes(s: Subject) -> None:
    ino = await s.file(ROOT, b"file", b"x" * _MIB)
    before = (await s.attr(ino)).blocks
    async with s.opened(ino) as handle:
        if not s.features.punch_hole:
            with failing(errno.EOPNOTSUPP, errno.ENOSYS):
                await s.fs.fallocate(ino, handle, PUNCH_HOLE | KEEP_SIZE, 0, 65536)
            return
        await s.fs.fallocate(ino, handle, PUNCH_HOLE | KEEP_SIZE, 100, 524_288)
        await s.fs.fsync(ino, handle)
        with failing(errno.EOPNOTSUPP, errno.EINVAL):
            await s.fs.fallocate(ino, handle, PUNCH_HOLE, 0, 65536)
    attr = await s.attr(ino)
    assert attr.size == _MIB
    if s.features.holes:
        assert attr.blocks < before
    assert await s.read(ino, _MIB) == b"x" * 100 + bytes(524_288) + b"x" * (_MIB - 524_388)


@check
async def zeroed_ranges_read_as_zeroes(s: Subject) -> None:
    ino = await s.file(ROOT, b"file", b"x" * 100_000)
    async with s.opened(ino) as handle:
        if not s.features.zero_range:
            with failing(errno.EOPNOTSUPP, errno.ENOSYS):
                await s.fs.fallocate(ino, handle, ZERO_RANGE, 10, 50_000)
            return
        await s.fs.fallocate(ino, handle, ZERO_RANGE | KEEP_SIZE, 10, 50_000)
        await s.fs.fallocate(ino, handle, ZERO_RANGE, 99_000, 11_000)
    assert (await s.attr(ino)).size == 110_000
    assert await s.read(ino, 110_000) == b"x" * 10 + bytes(50_000) + b"x" * 48_990 + bytes(11_000)


@check
async def files_over_4_gib(s: Subject) -> None:
    if not s.features.big_files:
        return
    ino = await s.file(ROOT, b"file", b"start")
    far = (5 << 30) + 12_345
    await s.write(ino, b"far away", far)
    assert (await s.attr(ino)).size == far + 8
    assert await s.read(ino, 100, far - 2) == bytes(2) + b"far away"
    assert await s.read(ino, 5) == b"start"
    await s.set(ino, SetAttr(size=far + 3))
    assert await s.read(ino, 100, far) == b"far"
    assert (await s.set(ino, SetAttr(size=1 << 40))).size == 1 << 40


@check
async def copies_within_the_filesystem(s: Subject) -> None:
    data = bytes(range(256)) * 1024
    one = await s.file(ROOT, b"one", data)
    two = await s.file(ROOT, b"two")
    async with s.opened(one) as source, s.opened(two) as target:
        if not s.features.copy_file_range:
            with failing(errno.ENOSYS, errno.EOPNOTSUPP):
                await s.fs.copy_file_range(one, source, 0, two, target, 0, 100)
            return
        done = 0
        while done < 200_000:
            count = await s.fs.copy_file_range(one, source, 7 + done, two, target, 11 + done, 200_000 - done)
            assert count > 0
            done += count
        assert await s.fs.copy_file_range(one, source, len(data), two, target, 0, 100) == 0
    assert await s.read(two, 1 << 20) == bytes(11) + data[7:200_007]


@check
async def statfs_makes_sense(s: Subject) -> None:
    ino = await s.file(ROOT, b"file")
    for number in (ROOT, ino):
        found = await s.fs.statfs(number)
        assert found.block_size >= 512
        assert found.blocks_available <= found.blocks
        assert found.blocks_free <= found.blocks
        assert found.files_free <= found.files
        assert found.name_max == 255
