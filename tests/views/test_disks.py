"""A block device as files."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from tests import needs
from tests.blocks.test_partitions import gpt, mbr
from tests.contract.subject import Subject, failing
from umlfs.block import BlockDevice
from umlfs.filesystem import ROOT, SetAttr
from umlfs.mount import mount
from umlfs.views.disks import BlockFiles


class Memory(BlockDevice):
    """A device in memory that takes whole blocks only. Reading waits while `gate` is not set."""

    def __init__(self, content: bytes | bytearray, block_size: int = 512, read_only: bool = False) -> None:
        self.content = bytearray(content)
        self.size = len(content)
        self.block_size = block_size
        self.read_only = read_only
        self.flushed = 0
        self.reading = trio.Event()
        self.gate = trio.Event()
        self.gate.set()

    def _check(self, offset: int, length: int) -> None:
        end = offset + length
        if (
            offset % self.block_size
            or (end % self.block_size and end != self.size)
            or not 0 <= offset <= end <= self.size
        ):
            raise OSError(errno.EINVAL, "not whole blocks")

    async def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        self._check(offset, sum(map(len, buffers)))
        self.reading.set()
        await self.gate.wait()
        for buffer in buffers:
            buffer[:] = self.content[offset : offset + len(buffer)]
            offset += len(buffer)

    async def write_from(self, offset: int, buffers: Sequence[memoryview]) -> None:
        self._check(offset, sum(map(len, buffers)))
        for buffer in buffers:
            self.content[offset : offset + len(buffer)] = buffer
            offset += len(buffer)

    async def write_zeroes(self, offset: int, length: int, unmap: bool = True) -> None:
        await self.write_from(offset, [memoryview(bytes(length))])

    async def flush(self) -> None:
        self.flushed += 1

    async def close(self) -> None:
        pass


async def test_names_and_sizes() -> None:
    s = Subject(await BlockFiles.of(Memory(gpt([(256, 511), (600, 600)]))))
    assert await s.names() == [b"disk", b"part1", b"part2"]
    sizes = {name: (await s.lookup(ROOT, name)).attr.size for name in await s.names()}
    assert sizes == {b"disk": 64 << 20, b"part1": 256 * 512, b"part2": 512}
    assert await s.find(ROOT, b"part3") is None


@pytest.mark.parametrize("block_size", [512, 4096])
async def test_reading_and_writing_at_any_offset(block_size: int) -> None:
    content = bytearray(os.urandom(1 << 20) + b"odd end")
    content[:512] = mbr((0x83, 3, 100))
    device = Memory(content, block_size)
    s = Subject(await BlockFiles.of(device))
    disk, part = (await s.lookup(ROOT, b"disk")).ino, (await s.lookup(ROOT, b"part1")).ino
    assert await s.read(disk, 2 << 20) == content
    assert await s.read(disk, 1000, 511) == content[511:1511]
    assert await s.read(part, 1 << 20) == content[3 * 512 : 103 * 512]
    assert await s.read(part, 10, 99 * 512 + 505) == content[102 * 512 + 505 : 103 * 512]
    await s.write(part, b"hello", 510)
    content[3 * 512 + 510 : 3 * 512 + 515] = b"hello"
    await s.write(disk, b"END", len(content) - 3)
    content[-3:] = b"END"
    assert device.content == content


async def test_the_end_is_the_end() -> None:
    s = Subject(await BlockFiles.of(Memory(bytes(4096))))
    ino = (await s.lookup(ROOT, b"disk")).ino
    assert await s.read(ino, 10, 4096) == b""
    assert await s.fs.write_from(ino, 0, 4090, [memoryview(b"0123456789")]) == 6
    with failing(errno.ENOSPC):
        await s.fs.write_from(ino, 0, 4096, [memoryview(b"x")])
    assert (await s.set(ino, SetAttr(size=0))).size == 4096
    with failing(errno.EPERM):
        await s.set(ino, SetAttr(mode=0o777))


async def test_concurrent_changes_within_one_block() -> None:
    device = Memory(bytes(4096), block_size=4096)
    s = Subject(await BlockFiles.of(device))
    ino = (await s.lookup(ROOT, b"disk")).ino
    async with trio.open_nursery() as nursery:
        for index in range(100):
            nursery.start_soon(s.write, ino, b"%c" % (index + 1), index)
    assert device.content[:100] == bytes(range(1, 101))


async def test_read_only_and_flushing() -> None:
    device = Memory(bytes(4096), read_only=True)
    filesystem = await BlockFiles.of(device)
    assert filesystem.traits.read_only
    await filesystem.close()
    assert device.flushed == 0
    device = Memory(bytes(4096))
    filesystem = await BlockFiles.of(device)
    await filesystem.syncfs()
    await filesystem.close()
    assert device.flushed == 2


def _read(path: Path) -> bytes:
    return path.read_bytes()


async def test_a_slow_read_does_not_delay_a_getattr(tmp_path: Path) -> None:
    needs.path("/dev/fuse", "chmod 666 /dev/fuse, or run the tests as root")
    device = Memory(b"x" * 8192)
    filesystem = await BlockFiles.of(device)
    device.gate = trio.Event()
    device.reading = trio.Event()
    contents: list[bytes] = []
    async with trio.open_nursery() as nursery:
        mounted = await nursery.start(mount, filesystem, tmp_path)

        async def read() -> None:
            contents.append(await trio.to_thread.run_sync(_read, tmp_path / "disk"))
            nursery.cancel_scope.cancel()

        nursery.start_soon(read)
        await device.reading.wait()
        for _ in range(20):
            before = mounted.requests
            assert await trio.to_thread.run_sync(os.statvfs, tmp_path)
            assert sorted(await trio.to_thread.run_sync(os.listdir, tmp_path)) == ["disk"]
            assert mounted.requests > before
        assert not contents
        device.gate.set()
    assert contents == [b"x" * 8192]
    assert os.listdir(tmp_path) == []


async def test_tools_use_it_as_a_disk(tmp_path: Path) -> None:
    """mke2fs and fsck on a partition of an image, through the mount."""
    mkfs, fsck = needs.program("mkfs.ext4"), needs.program("fsck.ext4")
    device = Memory(gpt([(2048, 40959)]))
    async with trio.open_nursery() as nursery:
        await nursery.start(mount, await BlockFiles.of(device), tmp_path)
        part = tmp_path / "part1"
        await trio.run_process([mkfs, "-q", part], capture_stdout=True, stderr=subprocess.STDOUT)
        await trio.run_process([fsck, "-fn", part], capture_stdout=True, stderr=subprocess.STDOUT)
        await trio.run_process(["dd", f"of={part}", "if=/dev/zero", "bs=1M", "count=1", "status=none"])
        nursery.cancel_scope.cancel()
    assert device.content[2048 * 512 + 1080 : 2048 * 512 + 1082] == b"\0\0"
    assert device.flushed
