"""The compiled answers: to the byte those of the reference, with the same effect; none where something is unusual."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from hostfs import Cache, HostFilesystem
from hostfs.filesystem import ANSWERS_VERSION
from tests.compiled import compiled
from tests.contract.transports import scattered
from tests.wire.test_fuse import INIT
from umlfs.filesystem import ROOT
from umlfs.fuse.session import FuseSession
from umlfs.wire.fuse import Opcode

HEADER = 16
MOVE = struct.Struct("<QQIIQII")
ROOMS = {Opcode.LOOKUP: 128, Opcode.GETATTR: 104, Opcode.WRITE: 8, Opcode.GETXATTR: 64}


class Two:
    """A session that has the compiled answers, and one that does not, on the same directory."""

    def __init__(self, directory: Path, *, lower_layer: bool = False, read_only: bool = False) -> None:
        compiled("hostfs._answers", ANSWERS_VERSION)
        self.filesystems = [HostFilesystem(directory, cache=Cache.ALWAYS) for _ in range(2)]
        self.sessions = [FuseSession(each, lower_layer=lower_layer, read_only=read_only) for each in self.filesystems]

    async def mount(self) -> None:
        for session in self.sessions:
            await session.handle([memoryview(INIT)], [memoryview(bytearray(80))])

    async def close(self) -> None:
        for each in self.filesystems:
            await each.close()

    async def reference(self, opcode: int, node: int, body: bytes, room: int) -> bytes:
        """What the operations answer."""
        memory = bytearray(room)
        size = await self.sessions[1].handle(_request(opcode, node, body, []), [memoryview(memory)])
        return bytes(memory[:size])

    def quick(self, opcode: int, node: int, body: bytes, room: int, cuts: Sequence[int] = ()) -> bytes | None:
        """What the compiled ones answer, in buffers cut at these places; None for nothing."""
        memory = bytearray(room)
        answer = self.sessions[0].quick_answer
        assert answer is not None
        request, space = _request(opcode, node, body, cuts), scattered(memory, cuts)
        before = len(request), len(space)
        size = answer(request, space)
        assert (len(request), len(space)) == before
        if size < 0:
            assert not any(memory)
            return None
        return bytes(memory[:size])

    async def same(self, opcode: int, node: int, body: bytes = b"", room: int = 0) -> bytes:
        """Both answer the same, and the compiled one does, however the buffers are cut."""
        room = HEADER + (room or ROOMS[Opcode(opcode)])
        expected = await self.reference(opcode, node, body, room)
        for cuts in ((), (HEADER,), (5, 60, 77, 90)):
            if (cuts[0] if cuts else 40) >= 40 or not cuts:
                assert self.quick(opcode, node, body, room, cuts) == expected
        return expected


def _request(opcode: int, node: int, body: bytes, cuts: Sequence[int]) -> list[memoryview]:
    head = struct.pack("<IIQQIIIHH", 40 + len(body), opcode, 7, node, 0, 0, 1, 0, 0)
    return [memoryview(bytearray(head)), *scattered(bytearray(body), cuts)]


def read(size: int, offset: int = 0) -> bytes:
    return MOVE.pack(0, offset, size, 0, 0, 0, 0)


def listed(data: bytes) -> tuple[list[bytes], int]:
    """The entries of a listing, but for the numbers that the inodes have been given; and where it goes on."""
    place, entries, offset = HEADER, [], 0
    while place < len(data):
        _, offset, length, _ = struct.unpack_from("<QQII", data, place + 128)
        end = place + 128 + (24 + length + 7 & ~7)
        entries.append(data[place + 8 : end])
        place = end
    return entries, offset


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """With something of each kind in it."""
    tree = tmp_path / "tree"
    (tree / "directory").mkdir(parents=True)
    (tree / "file").write_bytes(bytes(range(256)) * 40)
    (tree / "link").symlink_to("file")
    for number in range(100):
        (tree / f"name {number} {'x' * (number % 9)}").write_bytes(b"")
    return tree


async def test_the_same_to_the_byte(tree: Path) -> None:
    two = Two(tree)
    await two.mount()
    await two.reference(Opcode.LOOKUP, ROOT, b"file\0", 200)  # numbers are given in the same order
    for each in two.filesystems:
        each.resolver.root.cached_until = float("inf")
    await two.reference(Opcode.FORGET, ROOT, struct.pack("<Q", 0), 0)
    node = struct.unpack_from("<Q", await two.same(Opcode.LOOKUP, ROOT, b"file\0"), HEADER)[0]
    await two.same(Opcode.LOOKUP, ROOT, b"link\0")
    await two.same(Opcode.LOOKUP, ROOT, b"nothing\0")
    await two.same(Opcode.GETATTR, ROOT, bytes(16))
    await two.same(Opcode.GETATTR, node, bytes(16))
    for session in two.sessions:  # so that it is open
        await session.handle(_request(Opcode.READ, node, read(1), []), [memoryview(bytearray(HEADER + 1))])
    for size, offset in ((4096, 0), (4096, 8192), (20000, 0), (16, 1 << 20), (100, 10239)):
        await two.same(Opcode.READ, node, read(size, offset), size)
    await two.same(Opcode.GETXATTR, node, bytes(8) + b"security.capability\0")
    await two.close()


async def test_listings_to_the_byte(tree: Path) -> None:
    two = Two(tree)
    await two.mount()
    for each in two.filesystems:
        each.resolver.root.cached_until = float("inf")
    offset, seen = 0, 0
    while True:
        expected = await two.reference(Opcode.READDIRPLUS, ROOT, read(4096, offset), HEADER + 4096)
        found = two.quick(Opcode.READDIRPLUS, ROOT, read(4096, offset), HEADER + 4096, [HEADER, 99])
        assert found is not None
        if len(expected) == HEADER:
            assert found == expected
            break
        entries, offset = listed(found)
        assert (entries, offset) == listed(expected)
        seen += len(entries)
    assert seen == 105  # with . and ..
    tables = [each.resolver.table for each in two.filesystems]
    assert [{inode.key: inode.lookups for inode in table.nodes.values()} for table in tables] == [
        {inode.key: inode.lookups for inode in tables[1].nodes.values()}
    ] * 2
    await two.close()


async def test_what_is_written(tree: Path) -> None:
    two = Two(tree)
    await two.mount()
    for each in two.filesystems:
        each.resolver.root.cached_until = float("inf")
    node = struct.unpack_from("<Q", await two.same(Opcode.LOOKUP, ROOT, b"file\0"), HEADER)[0]
    body = MOVE.pack(0, 100, 3000, 0, 0, 0, 0) + b"w" * 3000
    for session in two.sessions:
        await session.handle(_request(Opcode.WRITE, node, body, []), [memoryview(bytearray(HEADER + 8))])
    await two.same(Opcode.WRITE, node, body)
    data = (tree / "file").read_bytes()
    assert data == (bytes(range(256)) * 40)[:100] + b"w" * 3000 + (bytes(range(256)) * 40)[3100:]
    assert two.sessions[0].statistics.written_bytes > 3000
    kill = MOVE.pack(0, 100, 1, 4, 0, 0, 0) + b"w"
    for lie in (body[:-1], body + b"x", kill, MOVE.pack(0, 1 << 63, 1, 0, 0, 0, 0) + b"x"):
        assert two.quick(Opcode.WRITE, node, lie, HEADER + 8) is None
    assert (tree / "file").read_bytes() == data
    await two.close()


@pytest.mark.parametrize(
    "name", [b"\0", b".\0", b"..\0", b"a/b\0", b"/\0", b"a", b"a\0b\0", b"x" * 256 + b"\0", b"x" * 900 + b"\0", b""]
)
async def test_names_that_are_none_are_not_for_it(name: bytes, tree: Path) -> None:
    two = Two(tree)
    await two.mount()
    assert two.quick(Opcode.LOOKUP, ROOT, name, 200) is None
    await two.close()


async def test_what_is_unusual_is_not_for_it(tree: Path) -> None:
    two = Two(tree, read_only=True)
    assert two.quick(Opcode.GETATTR, ROOT, bytes(16), 200) is None, "before INIT"
    await two.mount()
    assert two.quick(Opcode.GETATTR, ROOT, bytes(16), 200)
    assert two.quick(Opcode.GETATTR, ROOT, bytes(16), 100) is None, "no room"
    assert two.quick(Opcode.GETATTR, ROOT, bytes(3), 200) is None, "cut short"
    assert two.quick(Opcode.GETATTR, 99, bytes(16), 200) is None, "no such node"
    assert two.quick(Opcode.GETATTR, (1 << 64) - 1, bytes(16), 200) is None
    assert two.quick(Opcode.READ, ROOT, read(10), 200) is None, "a directory"
    assert two.quick(Opcode.READDIRPLUS, ROOT, read(4096, 1 << 63), 5000) is None
    assert two.quick(Opcode.WRITE, ROOT, MOVE.pack(0, 0, 1, 0, 0, 0, 0) + b"x", 200) is None, "read-only"
    assert two.quick(Opcode.UNLINK, ROOT, b"file\0", 200) is None
    assert (tree / "file").exists()
    two.filesystems[0].leave_aside([tree / "file"])
    assert two.quick(Opcode.LOOKUP, ROOT, b"file\0", 200) is None, "set aside"
    two.filesystems[0].resolver.tasks.failure = OSError("of a task")
    assert two.quick(Opcode.GETATTR, ROOT, bytes(16), 200) is None, "failed"
    await two.close()


async def test_marks_of_overlays(tree: Path) -> None:
    two = Two(tree, lower_layer=True)
    await two.mount()
    found = await two.same(Opcode.GETXATTR, ROOT, bytes(8) + b"trusted.overlay.metacopy\0")
    assert struct.unpack_from("<Ii", found)[1] == -61
    assert two.quick(Opcode.GETXATTR, ROOT, bytes(8) + b"trusted.overlay.metacopy", 64) is None, "without an end"
    assert two.quick(Opcode.GETXATTR, ROOT, bytes(8) + b"user.own\0", 64) is None
    await two.close()


async def test_a_name_that_leads_elsewhere_by_now(tree: Path) -> None:
    two = Two(tree)
    await two.mount()
    for each in two.filesystems:
        each.resolver.root.cached_until = float("inf")
    node = struct.unpack_from("<Q", await two.same(Opcode.LOOKUP, ROOT, b"file\0"), HEADER)[0]
    os.replace(tree / "link", tree / "file")
    assert two.quick(Opcode.GETATTR, node, bytes(16), 200) is None
    await two.close()


CHANGE = struct.Struct("<IIQQQqqqIIIIIIII")


def change(
    valid: int,
    *,
    handle: int = 0,
    atime: int = 0,
    mtime: int = 0,
    ns: int = 0,
    mode: int = 0,
    uid: int = 0,
    gid: int = 0,
) -> bytes:
    return CHANGE.pack(valid, 0, handle, 0, 0, atime, mtime, 0, ns, ns, 0, mode, 0, uid, gid, 0)


async def opened(two: Two) -> list[tuple[int, int]]:
    """Number and handle of `file`, open in each, for reading and writing."""
    found = []
    for session, filesystem in zip(two.sessions, two.filesystems, strict=True):
        filesystem.settings.stateless = False
        entry = await filesystem.lookup(ROOT, b"file")
        found.append((entry.ino, (await filesystem.open(entry.ino, os.O_RDWR)).handle))
        assert session.mounted
    return found


async def test_what_is_set(tree: Path) -> None:
    two = Two(tree)
    await two.mount()
    (node, handle), (other, other_handle) = await opened(two)
    mine = {"uid": os.geteuid(), "gid": os.getegid()}
    for changes in (
        {"valid": 1, "mode": 0o640},
        {"valid": 2 | 4 | 2048, **mine},
        {"valid": 16 | 32, "atime": -5, "mtime": 1 << 33, "ns": 999_999_999},
        {"valid": 1 | 2 | 32, "mode": 0o1755, "mtime": 77, **mine},
    ):
        expected = await two.reference(Opcode.SETATTR, other, change(**changes), HEADER + 104)
        found = two.quick(Opcode.SETATTR, node, change(**changes), HEADER + 104)
        assert found is not None
        ctime = slice(HEADER + 16 + 40, HEADER + 16 + 48), slice(HEADER + 16 + 56, HEADER + 16 + 60)
        masked = [bytearray(each) for each in (found, expected)]
        for each in masked:
            for place in ctime:
                each[place] = bytes(place.stop - place.start)
        assert masked[0] == masked[1]
    by_handle = change(1 | 64, handle=handle, mode=0o600)
    assert two.quick(Opcode.SETATTR, node, by_handle, HEADER + 104) is not None
    status = (tree / "file").stat()
    assert (status.st_mode & 0o7777, status.st_mtime_ns) == (0o600, 77 * 10**9)
    (tree / "file").chmod(0o4755)
    for unusual in (
        change(8),
        change(1024),
        change(1 << 20),
        change(16, ns=10**9),
        change(1 | 64, handle=99),
        change(2 | 2048, **mine),
        by_handle[:-1],
    ):
        assert two.quick(Opcode.SETATTR, node, unusual, HEADER + 104) is None
    assert (tree / "file").stat().st_mode & 0o7777 == 0o4755
    for number, (session, opening) in enumerate(zip(two.sessions, (handle, other_handle), strict=True)):
        released = struct.pack("<QIIQ", opening, 0, 0, 0)
        if number:
            await session.handle(_request(Opcode.RELEASE, other, released, []), [memoryview(bytearray(HEADER))])
        else:
            assert two.quick(Opcode.RELEASE, node, struct.pack("<QIIQ", opening, 0, 2, 0), HEADER) is None, "locks"
            assert two.quick(Opcode.RELEASE, node, released, HEADER) is not None
            assert two.quick(Opcode.RELEASE, node, released, HEADER) is None, "once"
        assert not two.filesystems[number].handles
        assert two.filesystems[number].resolver.table.nodes[node].fd == -1
    await two.close()
