"""Files: reading, writing, creating, and living on without a name."""

from __future__ import annotations

import errno
import os
import random
import stat
from itertools import pairwise

import trio

from tests.contract.subject import Subject, check, failing
from umlfs.filesystem import ROOT, SetAttr


def _pattern(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


@check
async def contents_are_kept(s: Subject) -> None:
    ino = await s.file(ROOT, b"file")
    assert await s.read(ino) == b""
    await s.write(ino, b"hello")
    await s.write(ino, b"J", 0)
    await s.write(ino, b"y!", 4)
    assert await s.read(ino) == b"Jelly!"
    assert (await s.attr(ino)).size == 6


@check
async def reading_ends_at_the_end(s: Subject) -> None:
    ino = await s.file(ROOT, b"file", b"0123456789")
    assert await s.read(ino, 4, 8) == b"89"
    assert await s.read(ino, 10, 0) == b"0123456789"
    assert await s.read(ino, 4, 10) == b""
    assert await s.read(ino, 4, 1 << 40) == b""


@check
async def buffers_are_filled_in_turn(s: Subject) -> None:
    data = _pattern(1 << 20)
    ino = await s.file(ROOT, b"file", data)
    sizes = [1, 4096, 1, 65536, 3, 500_000, 7, 100_000]
    read = [bytearray(size) for size in sizes]
    async with s.opened(ino, os.O_RDONLY) as handle:
        assert await s.fs.read_into(ino, handle, 13, [memoryview(part) for part in read]) == sum(sizes)
        assert b"".join(read) == data[13 : 13 + sum(sizes)]
        short = [bytearray(10), bytearray(10)]
        assert await s.fs.read_into(ino, handle, len(data) - 15, [memoryview(part) for part in short]) == 15
        assert bytes(short[0] + short[1][:5]) == data[-15:]


@check
async def more_buffers_than_one_system_call_takes(s: Subject) -> None:
    data = _pattern(3000 * 7)
    parts = [memoryview(data)[start : start + 7] for start in range(0, len(data), 7)]
    ino = await s.file(ROOT, b"file")
    async with s.opened(ino) as handle:
        assert await s.fs.write_from(ino, handle, 5, parts) == len(data)
        read = [memoryview(bytearray(7)) for _ in parts]
        assert await s.fs.read_into(ino, handle, 5, read) == len(data)
        assert b"".join(read) == data
        assert await s.fs.read_into(ino, handle, 5 + 7 * 2990, read) == 70


@check
async def buffers_are_written_in_turn(s: Subject) -> None:
    data = _pattern(3 << 20)
    cuts = [0, 1, 4097, 100_000, 1 << 20, len(data)]
    parts = [memoryview(data)[start:end] for start, end in pairwise(cuts)]
    ino = await s.file(ROOT, b"file")
    async with s.opened(ino) as handle:
        assert await s.fs.write_from(ino, handle, 0, parts) == len(data)
    assert await s.read(ino, len(data) + 1) == data


@check
async def empty_reads_and_writes(s: Subject) -> None:
    ino = await s.file(ROOT, b"file", b"x")
    async with s.opened(ino) as handle:
        assert await s.fs.read_into(ino, handle, 0, []) == 0
        assert await s.fs.write_from(ino, handle, 0, []) == 0
        assert await s.fs.write_from(ino, handle, 100, [memoryview(b"")]) == 0
    assert (await s.attr(ino)).size == 1


@check
async def appends_go_where_the_consumer_says(s: Subject) -> None:
    ino = await s.file(ROOT, b"file", b"0123456789")
    async with s.opened(ino, os.O_WRONLY | os.O_APPEND) as handle:
        assert await s.fs.write_from(ino, handle, 2, [memoryview(b"ab")]) == 2
    assert await s.read(ino) == b"01ab456789"


@check
async def writing_past_the_end_leaves_zeroes(s: Subject) -> None:
    ino = await s.file(ROOT, b"file", b"a")
    await s.write(ino, b"z", 100_000)
    assert await s.read(ino, 200_000) == b"a" + bytes(99_999) + b"z"


@check
async def writing_touches_the_file(s: Subject) -> None:
    ino = await s.file(ROOT, b"file", b"a")
    await s.set(ino, SetAttr(mtime_ns=10**18, atime_ns=10**18))
    await s.write(ino, b"b")
    attr = await s.attr(ino)
    assert attr.mtime_ns > 10**18
    assert attr.ctime_ns >= attr.mtime_ns


@check
async def handles_are_independent(s: Subject) -> None:
    ino = await s.file(ROOT, b"file", b"contents")
    async with s.opened(ino) as one, s.opened(ino, os.O_RDONLY) as two:
        await s.fs.write_from(ino, one, 0, [memoryview(b"CON")])
        data = bytearray(8)
        assert await s.fs.read_into(ino, two, 0, [memoryview(data)]) == 8
        assert data == b"CONtents"


@check
async def create_opens_what_is_there(s: Subject) -> None:
    ino = await s.file(ROOT, b"file", b"contents", 0o600)
    entry, opened = await s.fs.create(ROOT, b"file", 0o644, os.O_RDWR | os.O_CREAT, 0, s.caller)
    s.counted(entry)
    assert entry.ino == ino
    assert stat.S_IMODE(entry.attr.mode) == 0o600
    assert entry.attr.size == 8
    await s.fs.write_from(ino, opened.handle, 8, [memoryview(b"!")])
    await s.close(ino, opened.handle)
    entry, opened = await s.fs.create(ROOT, b"file", 0o644, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0, s.caller)
    s.counted(entry)
    assert entry.attr.size == 0
    await s.close(ino, opened.handle)
    assert await s.read(ino) == b""


@check
async def create_over_what_is_no_file(s: Subject) -> None:
    await s.mkdir(ROOT, b"directory")
    with failing(errno.EISDIR, errno.EEXIST):
        await s.fs.create(ROOT, b"directory", 0o644, os.O_RDWR | os.O_CREAT, 0, s.caller)
    await s.mknod(ROOT, b"fifo", stat.S_IFIFO | 0o600)
    with failing(errno.EINVAL, errno.EEXIST, errno.ENXIO, errno.EPERM):
        await s.fs.create(ROOT, b"fifo", 0o644, os.O_RDWR | os.O_CREAT, 0, s.caller)
    await s.symlink(ROOT, b"link", b"target")
    with failing(errno.EINVAL, errno.EEXIST, errno.ELOOP, errno.ESTALE):
        await s.fs.create(ROOT, b"link", 0o644, os.O_RDWR | os.O_CREAT, 0, s.caller)
    assert await s.find(ROOT, b"target") is None


@check
async def created_read_only_is_writable_until_closed(s: Subject) -> None:
    entry, opened = await s.fs.create(ROOT, b"file", 0o444, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0, s.caller)
    s.counted(entry)
    assert stat.S_IMODE(entry.attr.mode) == 0o444
    assert await s.fs.write_from(entry.ino, opened.handle, 0, [memoryview(b"x")]) == 1
    await s.close(entry.ino, opened.handle)
    assert await s.read(entry.ino) == b"x"


@check
async def an_unlinked_file_lives_on(s: Subject) -> None:
    ino = await s.file(ROOT, b"file", b"contents")
    async with s.opened(ino) as handle:
        await s.fs.unlink(ROOT, b"file")
        assert await s.find(ROOT, b"file") is None
        attr = await s.attr(ino)
        assert attr.nlink == 0
        assert attr.size == 8
        assert await s.fs.write_from(ino, handle, 8, [memoryview(b"!")]) == 1
        data = bytearray(20)
        assert await s.fs.read_into(ino, handle, 0, [memoryview(data)]) == 9
        attr = (await s.fs.setattr(ino, SetAttr(size=3, mode=0o600), handle, s.caller))[0]
        assert attr.size == 3
        assert await s.fs.read_into(ino, handle, 0, [memoryview(data)]) == 3
        await s.file(ROOT, b"file", b"another")
        assert await s.fs.read_into(ino, handle, 0, [memoryview(data)]) == 3
        await s.fs.fsync(ino, handle)


@check
async def a_replaced_file_lives_on(s: Subject) -> None:
    ino = await s.file(ROOT, b"old", b"old")
    await s.file(ROOT, b"new", b"new")
    async with s.opened(ino) as handle:
        await s.fs.rename(ROOT, b"new", ROOT, b"old")
        data = bytearray(3)
        assert await s.fs.read_into(ino, handle, 0, [memoryview(data)]) == 3
        assert data == b"old"


@check
async def an_unlinked_file_without_handle_keeps_its_attributes(s: Subject) -> None:
    ino = await s.file(ROOT, b"file", b"contents", 0o640)
    await s.fs.unlink(ROOT, b"file")
    attr = await s.attr(ino)
    assert attr.nlink == 0
    assert attr.size == 8
    link = await s.symlink(ROOT, b"link", b"target")
    await s.fs.unlink(ROOT, b"link")
    assert await s.fs.readlink(link) == b"target"


@check
async def a_removed_directory_is_empty(s: Subject) -> None:
    ino = await s.mkdir(ROOT, b"directory")
    await s.fs.rmdir(ROOT, b"directory")
    assert stat.S_ISDIR((await s.attr(ino)).mode)
    assert await s.names(ino) == []
    with failing(errno.ENOENT):
        await s.file(ino, b"file")
    assert await s.find(ino, b"file") is None


@check
async def many_open_files(s: Subject) -> None:
    inos = [await s.file(ROOT, b"%d" % number, b"%d" % number) for number in range(200)]
    handles = [await s.open(ino) for ino in inos]
    for number, (ino, handle) in enumerate(zip(inos, handles, strict=True)):
        data = bytearray(8)
        count = await s.fs.read_into(ino, handle, 0, [memoryview(data)])
        assert data[:count] == b"%d" % number
        await s.close(ino, handle)


@check
async def requests_run_side_by_side(s: Subject) -> None:
    ino = await s.file(ROOT, b"file", bytes(1 << 20))

    async def work(number: int) -> None:
        own = await s.file(ROOT, b"%d" % number)
        for turn in range(5):
            data = bytes([number]) * 100_000
            await s.write(own, data, turn * len(data))
            async with s.opened(ino) as handle:
                await s.fs.write_from(ino, handle, number << 16, [memoryview(bytes([number]) * 65536)])
            assert len(await s.read(own, 1 << 20)) == (turn + 1) * len(data)
        async with s.opened(own) as handle:
            await s.fs.fsync(own, handle)
        await s.fs.rename(ROOT, b"%d" % number, ROOT, b"done%d" % number)
        await s.fs.unlink(ROOT, b"done%d" % number)

    async with trio.open_nursery() as nursery:
        for number in range(16):
            nursery.start_soon(work, number)
    assert await s.read(ino, 1 << 20) == b"".join(bytes([number]) * 65536 for number in range(16))
    assert await s.names() == [b"file"]


@check
async def fsync_of_files_and_directories(s: Subject) -> None:
    directory = await s.mkdir(ROOT, b"directory")
    ino = await s.file(directory, b"file", b"x")
    async with s.opened(ino) as handle:
        await s.fs.fsync(ino, handle)
        await s.fs.fsync(ino, handle, True)
    handle = await s.opendir(directory)
    await s.fs.fsyncdir(directory, handle)
    await s.closedir(directory, handle)
    await s.fs.syncfs()
