"""What is particular to hostfs: descriptors, handles, threads, read-only exports, mounts of the host."""

from __future__ import annotations

import errno
import os
import resource
import stat
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
import trio
import trio.testing

from hostfs import Cache, HostFilesystem
from hostfs.descriptors import HELD_LONG_MAX, HELD_MAX, PINNED_MAX, limits
from tests.contract.filesystem import Subject
from tests.contract.subject import failing
from tests.hostfs.features import features_of
from umlfs.filesystem import NO_HANDLE, ROOT, Caller, SetAttr
from umlfs.host.closing import WAITING_MAX


def make(directory: Path, **options: object) -> Subject:
    return Subject(HostFilesystem(directory, **options), features_of(directory))  # type: ignore[arg-type]


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# Descriptors ----------------------------------------------------------------------------------


def test_limits_leave_room_for_others() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    for stateless in (False, True):
        held, pinned, opened = limits(stateless)
        assert held <= (HELD_LONG_MAX if stateless else HELD_MAX)
        assert pinned <= PINNED_MAX
        assert held + pinned < soft
        assert soft * 3 // 4 < opened < soft


async def test_descriptors_stay_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hostfs.resolver.limits", lambda *_: (40, 20, 100))
    for top in range(60):
        (tmp_path / f"{top}").mkdir()
        for number in range(20):
            (tmp_path / f"{top}" / f"{number}").write_bytes(b"%d" % number)
    s = make(tmp_path)
    before = open_descriptors()
    files = []
    for _, directory in await s.entries(ROOT, True):
        assert directory is not None
        for name, entry in await s.entries(directory.ino, True):
            assert entry is not None
            assert await s.read(entry.ino) == name
            assert (await s.attr(entry.ino)).size == len(name)
            files.append((directory.ino, name, entry.ino))
            assert open_descriptors() <= before + 41
    for directory_ino, name, ino in files:
        await s.fs.unlink(directory_ino, name)
        assert (await s.attr(ino)).nlink == 0
        assert open_descriptors() <= before + 61 + WAITING_MAX
    with failing(errno.ESTALE):
        await s.attr(files[0][2])  # its last descriptor had to go
    assert (await s.attr(files[-1][2])).nlink == 0
    s.forget_all()
    await s.fs.resolver.closer.drain()  # type: ignore[attr-defined]
    assert open_descriptors() <= before
    await s.fs.close()


async def test_handles_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hostfs.resolver.limits", lambda *_: (40, 20, 5))
    s = make(tmp_path, stateless=False)
    inos = [await s.file(ROOT, b"%d" % number) for number in range(6)]
    handles = [await s.open(ino) for ino in inos[:5]]
    with failing(errno.ENFILE):
        await s.open(inos[5])
    with failing(errno.ENFILE):
        await s.file(ROOT, b"new")
    assert not (tmp_path / "new").exists()
    again = [await s.open(inos[0]) for _ in range(5)]  # by the descriptor that is there
    await s.close(inos[4], handles[4])
    await s.open(inos[5])
    with failing(errno.EBADF):
        await s.fs.read_into(inos[0], 999, 0, [memoryview(bytearray(1))])
    await s.close(inos[0], handles[0])
    assert await s.fs.read_into(inos[0], again[0], 0, [memoryview(bytearray(1))]) == 0
    before = open_descriptors()
    s.fs.disconnect()
    assert open_descriptors() <= before - 5
    await s.fs.close()


async def test_two_deep_directories_with_few_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way to one costs all that leads to the other."""
    monkeypatch.setattr("hostfs.resolver.limits", lambda *_: (3, 3, 100))
    s = make(tmp_path)
    ends = []
    for name in (b"one", b"two"):
        parent = await s.mkdir(ROOT, name)
        for _ in range(20):
            parent = await s.mkdir(parent, b"below")
        ends.append(parent)
    ino = await s.file(ends[0], b"file", b"x")
    await s.fs.rename(ends[0], b"file", ends[1], b"moved")
    await s.link(ino, ends[0], b"linked")
    assert await s.read(ino) == b"x"
    assert await s.names(ends[1]) == [b"moved"]
    await s.fs.close()


async def test_a_new_consumer_starts_afresh(tmp_path: Path) -> None:
    s = make(tmp_path)
    ino = await s.file(ROOT, b"file", b"x")
    s.fs.disconnect()
    with failing(errno.ESTALE):
        await s.attr(ino)
    s.fs.forget(ino, 1)
    again = (await s.lookup(ROOT, b"file")).ino
    assert again != ino
    assert await s.read(again) == b"x"
    await s.fs.close()
    with failing(errno.ESTALE):
        await s.fs.lookup(ROOT, b"file")


# Threads --------------------------------------------------------------------------------------


class SlowDisk:
    """Reading without waiting finds nothing; reading in a thread waits until told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self._preadv = os.preadv
        monkeypatch.setattr(os, "preadv", self._read)
        monkeypatch.setattr("hostfs.devices.is_memory", lambda _: False)

    def _read(self, fd: int, buffers: Sequence[memoryview], offset: int, flags: int = 0) -> int:
        if flags:
            raise BlockingIOError(errno.EAGAIN, "not now")
        self.begun.set()
        self.go_on.wait()
        return self._preadv(fd, buffers, offset)


async def test_a_slow_read_delays_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s = make(tmp_path)
    ino = await s.file(ROOT, b"file", b"contents")
    disk = SlowDisk(monkeypatch)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            read: list[bytes] = []

            async def slow() -> None:
                read.append(await s.read(ino))

            nursery.start_soon(slow)
            await trio.to_thread.run_sync(disk.begun.wait)
            assert (await s.attr(ino)).size == 8
            await s.lookup(ROOT, b"file")
            await s.write(ino, b"CON")
            assert not read
            disk.go_on.set()
    assert read == [b"CONtents"]
    await s.fs.close()


async def test_a_descriptor_closed_and_used_again_while_a_thread_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s = make(tmp_path)
    ino = await s.file(ROOT, b"file", b"contents")
    others = [await s.file(ROOT, b"%d" % number, b"WRONG!!!") for number in range(20)]
    disk = SlowDisk(monkeypatch)
    read: list[bytes] = []
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:

            async def slow() -> None:
                read.append(await s.read(ino))

            nursery.start_soon(slow)
            await trio.to_thread.run_sync(disk.begun.wait)
            await s.fs.unlink(ROOT, b"file")
            s.fs.forget(ino, s.lookups.pop(ino))
            for other in others:
                await s.set(other, SetAttr(size=8))
            disk.go_on.set()
    assert read == [b"contents"]
    await s.fs.close()


async def test_a_cancelled_operation_leaves_no_descriptor(tmp_path: Path) -> None:
    s = make(tmp_path, stateless=True)
    ino = await s.file(ROOT, b"file", bytes(1 << 20))
    before = open_descriptors()
    for _ in range(3):
        with trio.CancelScope() as scope:
            scope.cancel()
            await s.fs.fsync(ino, NO_HANDLE)
    assert scope.cancelled_caught
    assert open_descriptors() == before
    await s.fs.close()


async def test_large_unlinked_files_are_freed_off_the_loop(tmp_path: Path) -> None:
    s = make(tmp_path)
    for name in (b"one", b"two"):
        ino = await s.file(ROOT, name)
        await s.fs.fallocate(ino, await s.open(ino), 0, 0, 32 << 20)
    before = open_descriptors()
    await s.fs.unlink(ROOT, b"one")
    await s.fs.rename(ROOT, b"two", ROOT, b"three")
    await s.fs.unlink(ROOT, b"three")
    s.forget_all()
    with trio.fail_after(10):
        while open_descriptors() > before - 2:
            await trio.testing.wait_all_tasks_blocked(0.001)
    await s.fs.close()


# Read-only ------------------------------------------------------------------------------------


async def test_a_read_only_export_refuses_every_change(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"contents")
    (tmp_path / "directory").mkdir()
    s = make(tmp_path, read_only=True, cache=Cache.ALWAYS)
    fs = s.fs
    assert fs.traits.read_only
    assert not fs.traits.writeback
    ino = (await s.lookup(ROOT, b"file")).ino
    caller = Caller()
    changes: list[Callable[[], Awaitable[object]]] = [
        lambda: s.file(ROOT, b"new"),
        lambda: fs.create(ROOT, b"file", 0o644, os.O_RDWR | os.O_CREAT, 0, caller),
        lambda: s.mkdir(ROOT, b"new"),
        lambda: s.mknod(ROOT, b"new", stat.S_IFIFO | 0o644),
        lambda: s.symlink(ROOT, b"new", b"x"),
        lambda: s.link(ino, ROOT, b"new"),
        lambda: fs.unlink(ROOT, b"file"),
        lambda: fs.rmdir(ROOT, b"directory"),
        lambda: fs.rename(ROOT, b"file", ROOT, b"new"),
        lambda: s.set(ino, SetAttr(mode=0o600)),
        lambda: s.set(ino, SetAttr(size=0)),
        lambda: fs.write_from(ino, NO_HANDLE, 0, [memoryview(b"x")]),
        lambda: fs.setxattr(ino, b"user.x", b"x"),
        lambda: fs.removexattr(ino, b"user.x"),
        lambda: fs.fallocate(ino, NO_HANDLE, 0, 0, 100),
        lambda: fs.copy_file_range(ino, NO_HANDLE, 0, ino, NO_HANDLE, 4, 2),
    ]
    for change in changes:
        with failing(errno.EROFS):
            await change()
    assert await s.read(ino) == b"contents"
    await fs.close()
    handles = HostFilesystem(tmp_path, read_only=True, stateless=False)
    ino = (await handles.lookup(ROOT, b"file")).ino
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC):
        with failing(errno.EROFS):
            await handles.open(ino, flags)
    await handles.release(ino, (await handles.open(ino, os.O_RDONLY)).handle)
    await handles.close()


async def test_reading_a_read_only_export_leaves_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    os.utime(path, ns=(0, 10**18))  # old enough for relatime
    s = make(tmp_path, read_only=True)
    assert await s.read((await s.lookup(ROOT, b"file")).ino) == b"x"
    assert path.stat().st_atime_ns == 0
    await s.fs.close()


# Owners ---------------------------------------------------------------------------------------


async def test_set_id_bits_never_stand_with_the_wrong_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    real = os.open

    def watched(path: bytes, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        modes.append(mode)
        return real(path, flags, mode, dir_fd=dir_fd)

    s = make(tmp_path)
    monkeypatch.setattr(os, "open", watched)
    ino = await s.file(ROOT, b"file", mode=0o6755)
    monkeypatch.undo()
    assert not any(mode & 0o6000 for mode in modes)
    assert stat.S_IMODE((await s.attr(ino)).mode) & 0o4777 == 0o4755
    await s.fs.close()


async def test_traits_by_cache(tmp_path: Path) -> None:
    always, auto, never = (HostFilesystem(tmp_path, cache=cache) for cache in Cache)
    assert (always.traits.shared, auto.traits.shared, never.traits.shared) == (False, True, True)
    assert (always.traits.writeback, auto.traits.writeback, never.traits.writeback) == (True, False, False)
    for filesystem in (always, auto, never):
        await filesystem.close()
    (tmp_path / "file").touch()
    never = HostFilesystem(tmp_path, cache=Cache.NEVER)
    opened = await never.open((await never.lookup(ROOT, b"file")).ino, os.O_RDONLY)
    assert opened.direct
    assert opened.handle
    await never.close()
    assert not never.handles


@pytest.mark.mapped_root
async def test_a_directory_that_becomes_readable(tmp_path: Path) -> None:
    """Closed to us when it was made, and opened up later."""
    s = make(tmp_path)
    ino = await s.mkdir(ROOT, b"directory", 0)
    inode = s.fs.resolver.table.nodes[ino]  # type: ignore[attr-defined]
    s.fs.resolver.descriptors.hold(inode, os.open(tmp_path / "directory", os.O_PATH), 0)  # type: ignore[attr-defined]
    (tmp_path / "directory" / "file").touch()
    await s.set(ino, SetAttr(mode=0o700))
    assert await s.names(ino) == [b"file"]
    await s.fs.close()
