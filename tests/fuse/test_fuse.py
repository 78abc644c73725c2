"""A FUSE session and what a kernel may do to it: requests cut short, out of order, out of range, without room."""

from __future__ import annotations

import errno
import os
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import trio
from hypothesis import given

from hostfs import HostFilesystem
from tests.contract.providers import FILE, NAME, Broken, OneFile, fail
from tests.contract.subject import failing
from tests.contract.transports import Direct, answered, scattered
from tests.fuse.fuse_client import LISTING, OFFERED, FuseClient, encode_setattr, parse_listing
from tests.wire.test_fuse import INIT
from umlfs.filesystem import ROOT, Caller, DirSink, Filesystem, SetAttr, Traits
from umlfs.fuse.files import CONTENTS_MAX, COPY_MAX, LISTING_MAX
from umlfs.fuse.session import FuseSession
from umlfs.wire import fuse as wire
from umlfs.wire.fuse import Init, Opcode

READ = struct.Struct("<QQIIQII")


async def mounted(filesystem: Filesystem | None = None, *, read_only: bool = False) -> FuseClient:
    client = FuseClient(Direct(FuseSession(filesystem or OneFile(), read_only=read_only)))
    await client.mount()
    return client


async def refused(code: int, client: FuseClient, opcode: int, node: int, *body: bytes, room: int = 4096) -> None:
    with failing(code):
        await client.ask(opcode, node, *body, room=[room])


class Recorder(Filesystem):
    """Takes every call, and notes it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_") or name in ("calls", "traits", "disconnect", "failure", "quick_answers"):
            return super().__getattribute__(name)

        async def call(*arguments: Any) -> None:
            self.calls.append((name, arguments))

        return call

    def disconnect(self) -> None:
        pass


# Mounting -------------------------------------------------------------------------------------


async def test_mounting_byte_by_byte() -> None:
    session = FuseSession(OneFile())
    answer = bytearray(80)
    assert await session.handle(scattered(bytearray(INIT), [40]), scattered(answer, [16])) == 80
    assert answer[:16] == bytes.fromhex("50000000 00000000 0200000000000000")
    assert answer[16:24] == bytes.fromhex("07000000 26000000")


async def test_nothing_before_mounting_and_nothing_after() -> None:
    filesystem = OneFile()
    client = FuseClient(Direct(FuseSession(filesystem)))
    await refused(errno.EIO, client, Opcode.LOOKUP, ROOT, b"file\0")
    await refused(errno.EIO, client, Opcode.READ, FILE, READ.pack(0, 0, 1, 0, 0, 0, 0))
    await refused(errno.EIO, client, 999, FILE)
    await client.mount()
    await client.lookup(ROOT, NAME)
    assert filesystem.lookups == 1
    await client.close()
    assert filesystem.lookups == 0
    await refused(errno.EIO, client, Opcode.STATFS, ROOT)
    await client.mount()
    await client.statfs()


async def test_a_forget_before_mounting_is_nothing() -> None:
    filesystem = OneFile()
    client = FuseClient(Direct(FuseSession(filesystem)))
    client.forget(FILE, 1)
    assert filesystem.lookups == 0


async def test_mounting_twice_gives_back_the_first() -> None:
    filesystem = OneFile()
    client = await mounted(filesystem)
    await client.lookup(ROOT, NAME)
    await client.mount()
    assert filesystem.lookups == 0


async def test_kernels_of_another_time() -> None:
    client = FuseClient(Direct(FuseSession(OneFile())))
    answer = await client.ask(Opcode.INIT, 0, struct.pack("<IIII48x", 8, 0, 0, OFFERED), room=[64])
    assert answer[:8] == struct.pack("<II", 7, 38)
    await refused(errno.EIO, client, Opcode.STATFS, ROOT)  # it asks again first
    for major, minor in ((6, 99), (7, 30), (0, 0)):
        await refused(errno.EPROTO, client, Opcode.INIT, 0, struct.pack("<IIII48x", major, minor, 0, OFFERED))
    await client.ask(Opcode.INIT, 0, struct.pack("<IIII", 7, 31, 0, OFFERED & 0x0FFFFFFF), room=[64])
    await client.statfs()


@pytest.mark.parametrize("offered", [OFFERED, OFFERED & ~(1 << 29)])
async def test_attributes_of_kernels_old_and_new(offered: int) -> None:
    filesystem = Recorder()
    client = FuseClient(Direct(FuseSession(filesystem)))
    await client.mount(offered)
    await client.setxattr(FILE, b"user.a", b"value", 1)
    assert filesystem.calls == [("setxattr", (FILE, b"user.a", b"value", 1))]


async def test_a_lower_layer_has_no_marks_of_overlays() -> None:
    """Whoever asks for what an overlay leaves in its layers, or for access lists nobody enforces, bothers nobody."""

    class Marked(OneFile):
        async def getxattr(self, ino: int, name: bytes) -> bytes:
            return b"value"

        async def listxattr(self, ino: int) -> list[bytes]:
            return [b"user.a", b"trusted.overlay.opaque", b"system.posix_acl_access"]

    client = FuseClient(Direct(FuseSession(Marked(), lower_layer=True)))
    await client.mount()
    assert await client.getxattr(FILE, b"user.a") == b"value"
    assert await client.listxattr(FILE) == [b"user.a"]
    for name, code in ((b"trusted.overlay.metacopy", errno.ENODATA), (b"system.posix_acl_access", errno.EOPNOTSUPP)):
        with failing(code):
            await client.getxattr(FILE, name)
    lists = Marked()
    lists.traits = Traits(posix_acl=True)
    client = FuseClient(Direct(FuseSession(lists, lower_layer=True)))
    await client.mount()
    assert await client.listxattr(FILE) == [b"user.a", b"system.posix_acl_access"]
    assert await client.getxattr(FILE, b"system.posix_acl_access") == b"value"


@pytest.mark.parametrize(
    ("traits", "flags"),
    [
        (Traits(), Init.HANDLE_KILLPRIV_V2),
        (Traits(writeback=True), Init.HANDLE_KILLPRIV_V2 | Init.WRITEBACK_CACHE),
        (Traits(writeback=True, read_only=True), Init.HANDLE_KILLPRIV_V2),
        (Traits(shared=True, kills_set_id=False), Init.AUTO_INVAL_DATA),
        (Traits(posix_acl=True, kills_set_id=False), Init.POSIX_ACL),
    ],
)
async def test_what_is_taken_of_what_is_offered(traits: Traits, flags: int) -> None:
    filesystem = OneFile()
    filesystem.traits = traits
    client = await mounted(filesystem)
    optional = Init.HANDLE_KILLPRIV_V2 | Init.WRITEBACK_CACHE | Init.AUTO_INVAL_DATA | Init.POSIX_ACL
    assert client.flags & optional == flags
    assert not client.flags & Init.ATOMIC_O_TRUNC
    await client.mount(0)
    assert client.flags == 0


# Malformed requests ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 39])
async def test_requests_without_a_header(size: int) -> None:
    session = FuseSession(OneFile())
    answer = bytearray(16)
    assert await session.handle([memoryview(bytes(size))], [memoryview(answer)]) == 16
    assert answer == struct.pack("<IiQ", 16, -errno.EINVAL, 0)
    assert await session.handle([], []) == 0


@pytest.mark.parametrize("room", range(16))
async def test_no_room_to_say_anything(room: int) -> None:
    filesystem = Recorder()
    client = FuseClient(Direct(FuseSession(filesystem)))
    await client.mount()
    _, header = client._header(Opcode.UNLINK, ROOT, 5, None)
    assert await client._transport.transact([header, b"file\0"], [room]) == b""
    assert filesystem.calls == []


@pytest.mark.parametrize("opcode", [0, 7, 19, 31, 33, 37, 39, 40, 41, 48, 49, 51, 4096, 2**32 - 1])
async def test_opcodes_that_nobody_knows(opcode: int) -> None:
    client = await mounted()
    await refused(errno.ENOSYS, client, opcode, ROOT, bytes(100))


async def test_interrupts_have_no_answer() -> None:
    client = await mounted()
    _, header = client._header(Opcode.INTERRUPT, 0, 8, None)
    assert await client._transport.transact([header, bytes(8)], [16]) == b""


FIXED = {
    Opcode.GETATTR: 16,
    Opcode.SETATTR: 88,
    Opcode.MKNOD: 16,
    Opcode.MKDIR: 8,
    Opcode.RENAME: 8,
    Opcode.RENAME2: 16,
    Opcode.LINK: 8,
    Opcode.OPEN: 8,
    Opcode.READ: 40,
    Opcode.WRITE: 40,
    Opcode.RELEASE: 24,
    Opcode.FSYNC: 16,
    Opcode.SETXATTR: 16,
    Opcode.GETXATTR: 8,
    Opcode.LISTXATTR: 8,
    Opcode.FLUSH: 24,
    Opcode.INIT: 16,
    Opcode.READDIR: 40,
    Opcode.READDIRPLUS: 40,
    Opcode.RELEASEDIR: 24,
    Opcode.FSYNCDIR: 16,
    Opcode.ACCESS: 8,
    Opcode.CREATE: 16,
    Opcode.FALLOCATE: 32,
    Opcode.LSEEK: 24,
    Opcode.COPY_FILE_RANGE: 56,
}


@pytest.mark.parametrize("opcode", FIXED, ids=lambda opcode: opcode.name)
async def test_arguments_cut_short(opcode: Opcode) -> None:
    filesystem = Recorder()
    client = await mounted(filesystem)
    for size in (0, FIXED[opcode] - 1):
        await refused(errno.EINVAL, client, opcode, ROOT, bytes(size))
    assert filesystem.calls == []


NAMED = {
    Opcode.LOOKUP: 0,
    Opcode.MKNOD: 16,
    Opcode.MKDIR: 8,
    Opcode.SYMLINK: 0,
    Opcode.LINK: 8,
    Opcode.UNLINK: 0,
    Opcode.RMDIR: 0,
    Opcode.RENAME: 8,
    Opcode.RENAME2: 16,
    Opcode.CREATE: 16,
}


@pytest.mark.parametrize("opcode", NAMED, ids=lambda opcode: opcode.name)
async def test_names_that_lead_elsewhere(opcode: Opcode) -> None:
    filesystem = Recorder()
    client = await mounted(filesystem)
    for name in (b"", b".", b"..", b"a/b", b"/", b"../a", b"a/"):
        await refused(errno.EINVAL, client, opcode, ROOT, bytes(NAMED[opcode]), name + b"\0", b"target\0")
    if opcode in (Opcode.RENAME, Opcode.RENAME2):
        await refused(errno.EINVAL, client, opcode, ROOT, bytes(NAMED[opcode]), b"good\0", b"../bad\0")
        await refused(errno.EINVAL, client, opcode, ROOT, bytes(NAMED[opcode]), b"good\0", b"no end")
    await refused(errno.EINVAL, client, opcode, ROOT, bytes(NAMED[opcode]), b"no end")
    await refused(errno.ENAMETOOLONG, client, opcode, ROOT, bytes(NAMED[opcode]), b"x" * 256 + b"\0", b"target\0")
    assert filesystem.calls == []


async def test_bodies_that_are_too_long() -> None:
    filesystem = Recorder()
    client = await mounted(filesystem)
    for opcode in (Opcode.LOOKUP, Opcode.SETXATTR, Opcode.READ, Opcode.READDIR, Opcode.STATFS):
        await refused(errno.EINVAL, client, opcode, ROOT, bytes(wire.BODY_MAX + 1))
    client._transport.post([client._header(Opcode.BATCH_FORGET, 0, 0, None)[1], bytes(16)])
    assert filesystem.calls == []


async def test_extended_attributes_that_lie() -> None:
    filesystem = Recorder()
    client = await mounted(filesystem)
    for size, flags, rest in ((4, 0, b"n\0abc"), (2**32 - 1, 0, b"n\0abc"), (0, 4, b"n\0"), (0, 2**31, b"n\0")):
        await refused(errno.EINVAL, client, Opcode.SETXATTR, FILE, struct.pack("<IIII", size, flags, 0, 0), rest)
    for name in (b"", b"x" * 256):
        await refused(errno.ERANGE, client, Opcode.SETXATTR, FILE, bytes(16), name + b"\0")
        await refused(errno.ERANGE, client, Opcode.GETXATTR, FILE, bytes(8), name + b"\0")
        await refused(errno.ERANGE, client, Opcode.REMOVEXATTR, FILE, name + b"\0")
    assert filesystem.calls == []


BIG = 2**63


@pytest.mark.parametrize(
    ("opcode", "body"),
    [
        (Opcode.READ, READ.pack(0, BIG, 1, 0, 0, 0, 0)),
        (Opcode.READ, READ.pack(0, 0, CONTENTS_MAX + 1, 0, 0, 0, 0)),
        (Opcode.READ, READ.pack(0, 0, 2**32 - 1, 0, 0, 0, 0)),
        (Opcode.WRITE, READ.pack(0, BIG, 1, 0, 0, 0, 0) + b"x"),
        (Opcode.WRITE, READ.pack(0, 0, 2, 0, 0, 0, 0) + b"x"),
        (Opcode.WRITE, READ.pack(0, 0, 0, 0, 0, 0, 0) + b"x"),
        (Opcode.WRITE, READ.pack(0, 0, CONTENTS_MAX + 1, 0, 0, 0, 0) + bytes(CONTENTS_MAX + 1)),
        (Opcode.READDIR, READ.pack(0, BIG, 4096, 0, 0, 0, 0)),
        (Opcode.FALLOCATE, struct.pack("<QQQII", 0, BIG, 1, 0, 0)),
        (Opcode.FALLOCATE, struct.pack("<QQQII", 0, BIG - 1, 1, 0, 0)),
        (Opcode.FALLOCATE, struct.pack("<QQQII", 0, 0, 2**64 - 1, 0, 0)),
        (Opcode.LSEEK, struct.pack("<QQII", 0, BIG, 3, 0)),
        (Opcode.LSEEK, struct.pack("<QQII", 0, 0, 0, 0)),
        (Opcode.LSEEK, struct.pack("<QQII", 0, 0, 2**32 - 1, 0)),
        (Opcode.COPY_FILE_RANGE, struct.pack("<7Q", 0, BIG, 2, 0, 0, 1, 0)),
        (Opcode.COPY_FILE_RANGE, struct.pack("<7Q", 0, 0, 2, 0, BIG, 1, 0)),
        (Opcode.COPY_FILE_RANGE, struct.pack("<7Q", 0, 0, 2, 0, 0, 1, 1)),
        (Opcode.ACCESS, struct.pack("<II", 8, 0)),
        (Opcode.ACCESS, struct.pack("<II", 2**32 - 1, 0)),
        (Opcode.RENAME2, struct.pack("<QII", 1, 8, 0) + b"a\0b\0"),
        (Opcode.MKNOD, struct.pack("<IIII", 0o40755, 0, 0, 0) + b"a\0"),
        (Opcode.MKNOD, struct.pack("<IIII", 0o120777, 0, 0, 0) + b"a\0"),
        (Opcode.SETATTR, encode_setattr(SetAttr(size=BIG), 0)),
    ],
)
async def test_numbers_out_of_range(opcode: Opcode, body: bytes) -> None:
    filesystem = Recorder()
    client = await mounted(filesystem)
    await refused(errno.EINVAL, client, opcode, FILE, body)
    assert filesystem.calls == []


async def test_numbers_that_are_cut_to_what_they_can_be() -> None:
    filesystem = OneFile()
    calls: list[tuple[Any, ...]] = []

    async def note(*arguments: Any) -> Any:
        calls.append(arguments)
        raise fail(errno.ENOSPC)

    for name in ("open", "create", "mknod", "mkdir", "copy_file_range"):
        setattr(filesystem, name, note)
    client = await mounted(filesystem)
    most = 2**32 - 1
    await refused(errno.ENOSPC, client, Opcode.OPEN, FILE, struct.pack("<II", most, most))
    await refused(errno.ENOSPC, client, Opcode.CREATE, ROOT, struct.pack("<IIII", most, most, most, most), b"a\0")
    await refused(errno.ENOSPC, client, Opcode.MKNOD, ROOT, struct.pack("<IIII", 0xFFFF_81FF, 0, most, 0), b"a\0")
    await refused(errno.ENOSPC, client, Opcode.MKDIR, ROOT, struct.pack("<II", most, most), b"a\0")
    await refused(errno.ENOSPC, client, Opcode.COPY_FILE_RANGE, FILE, struct.pack("<7Q", 0, 0, 2, 0, 0, 2**64 - 1, 0))
    caller = Caller()
    assert calls == [
        (FILE, 2**31 - 1),
        (ROOT, b"a", 0o7777, 2**31 - 1, 0o777, caller),
        (ROOT, b"a", 0o100777, 0, 0o777, caller),
        (ROOT, b"a", 0o7777, 0o777, caller),
        (FILE, 0, 0, 2, 0, 0, COPY_MAX),
    ]


# Answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opcode", "body", "needed"),
    [
        (Opcode.LOOKUP, b"file\0", 128),
        (Opcode.GETATTR, bytes(16), 104),
        (Opcode.SETATTR, bytes(88), 104),
        (Opcode.MKDIR, bytes(8) + b"a\0", 128),
        (Opcode.MKNOD, bytes(16) + b"a\0", 128),
        (Opcode.SYMLINK, b"a\0b\0", 128),
        (Opcode.LINK, bytes(8) + b"a\0", 128),
        (Opcode.CREATE, bytes(16) + b"a\0", 144),
        (Opcode.OPEN, bytes(8), 16),
        (Opcode.WRITE, bytes(40), 8),
        (Opcode.COPY_FILE_RANGE, bytes(56), 8),
    ],
)
async def test_nothing_is_done_that_could_not_be_answered(opcode: Opcode, body: bytes, needed: int) -> None:
    filesystem = Recorder()
    client = await mounted(filesystem)
    await refused(errno.EINVAL, client, opcode, FILE, body, room=needed - 1)
    assert filesystem.calls == []


async def test_answers_that_do_not_fit() -> None:
    filesystem = OneFile()

    async def long_answer(*_: Any) -> bytes:
        return b"x" * 100

    for name in ("readlink", "getxattr"):
        setattr(filesystem, name, long_answer)
    client = await mounted(filesystem)
    assert len(await client.ask(Opcode.READLINK, FILE, room=[100])) == 100
    await refused(errno.ERANGE, client, Opcode.READLINK, FILE, room=99)
    await refused(errno.ERANGE, client, Opcode.STATFS, FILE, room=79)
    await refused(errno.ERANGE, client, Opcode.GETXATTR, FILE, struct.pack("<II", 99, 0), b"a\0")
    await refused(errno.ERANGE, client, Opcode.GETXATTR, FILE, struct.pack("<II", 100, 0), b"a\0", room=99)
    assert await client.ask(Opcode.GETXATTR, FILE, bytes(8), b"a\0", room=[8]) == struct.pack("<II", 100, 0)


async def test_reads_fill_no_more_than_asked() -> None:
    client = await mounted(OneFile(b"0123456789"))
    assert await client.ask(Opcode.READ, FILE, READ.pack(0, 2, 3, 0, 0, 0, 0), room=[2, 100]) == b"234"
    assert await client.ask(Opcode.READ, FILE, READ.pack(0, 2, 100, 0, 0, 0, 0), room=[3, 1]) == b"2345"
    assert await client.ask(Opcode.READ, FILE, READ.pack(0, 2, 100, 0, 0, 0, 0)) == b""
    assert await client.ask(Opcode.READ, FILE, READ.pack(0, 2**63 - 1, 1, 0, 0, 0, 0), room=[1]) == b""


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("room", [0, 8, 23, 24, 159, 160, 161, 1000, 4096, 200_000])
async def test_listings_of_any_size(plus: bool, room: int) -> None:
    filesystem = OneFile()
    filesystem.entries = [b"%04d" % number * (1 + number % 5) for number in range(3000)]
    client = await mounted(filesystem)
    opcode = Opcode.READDIRPLUS if plus else Opcode.READDIR
    for sizes in ([room], [room // 2, room - room // 2]):
        before = filesystem.lookups
        listing = await client.ask(opcode, ROOT, READ.pack(0, 0, 2**32 - 1, 0, 0, 0, 0), room=sizes)
        found = parse_listing(listing, plus)
        assert [name for name, *_ in found] == filesystem.entries[: len(found)]
        assert filesystem.lookups - before == (len(found) if plus else 0)
        assert len(listing) <= LISTING_MAX


async def test_a_listing_that_fails_in_the_middle_keeps_what_was_taken() -> None:
    class Failing(OneFile):
        async def readdir(self, ino: int, handle: int, offset: int, add: DirSink, plus: bool = False) -> None:
            if not offset:
                await super().readdir(ino, handle, offset, add, plus)
            raise fail(errno.EIO)

    filesystem = Failing()
    client = await mounted(filesystem)
    body = READ.pack(0, 0, LISTING, 0, 0, 0, 0)
    found = parse_listing(await client.ask(Opcode.READDIRPLUS, ROOT, body, room=[LISTING]), True)
    assert [name for name, *_ in found] == [NAME]
    assert filesystem.lookups == 1
    await refused(errno.EIO, client, Opcode.READDIRPLUS, ROOT, READ.pack(0, found[-1][1], LISTING, 0, 0, 0, 0))


# Read-only ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "opcode",
    [
        Opcode.SETATTR,
        Opcode.SYMLINK,
        Opcode.MKNOD,
        Opcode.MKDIR,
        Opcode.UNLINK,
        Opcode.RMDIR,
        Opcode.RENAME,
        Opcode.RENAME2,
        Opcode.LINK,
        Opcode.WRITE,
        Opcode.SETXATTR,
        Opcode.REMOVEXATTR,
        Opcode.CREATE,
        Opcode.FALLOCATE,
        Opcode.COPY_FILE_RANGE,
    ],
    ids=lambda opcode: opcode.name,
)
async def test_changes_to_what_is_read_only(opcode: Opcode) -> None:
    filesystem = Recorder()
    client = await mounted(filesystem, read_only=True)
    await refused(errno.EROFS, client, opcode, ROOT, bytes(100))
    assert filesystem.calls == []


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_TRUNC, 3])
async def test_writable_files_of_what_is_read_only(flags: int) -> None:
    client = await mounted(read_only=True)
    await refused(errno.EROFS, client, Opcode.OPEN, FILE, struct.pack("<II", flags, 0))
    await refused(errno.ENOSYS, client, Opcode.OPEN, FILE, struct.pack("<II", 0, 0))


# Providers with bugs --------------------------------------------------------------------------


@pytest.mark.logs_warnings
async def test_bugs_become_errors_and_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    client = await mounted(Broken())
    for number, (opcode, body) in enumerate(
        ((Opcode.LOOKUP, b"a\0"), (Opcode.READLINK, b""), (Opcode.STATFS, b"")), start=1
    ):
        await refused(errno.EIO, client, opcode, ROOT, body)
        assert len(caplog.records) == number
    for opcode, body in ((Opcode.ACCESS, bytes(8)), (Opcode.FSYNC, bytes(16))):
        await refused(errno.EIO, client, opcode, ROOT, body)
    assert len(caplog.records) == 3


async def test_what_a_provider_has_not_is_not_there() -> None:
    client = await mounted(Filesystem.__new__(type("Bare", (Filesystem,), {"disconnect": lambda self: None})))
    for opcode, size in FIXED.items():
        if opcode is not Opcode.INIT:
            await refused(errno.ENOSYS, client, opcode, FILE, _plausible(opcode, size))


def _plausible(opcode: Opcode, size: int) -> bytes:
    if opcode is Opcode.LSEEK:
        return struct.pack("<QQII", 0, 0, 3, 0)
    return bytes(size) + b"name\0other\0" * (opcode not in (Opcode.WRITE,))


# Anything at all ------------------------------------------------------------------------------

_REQUEST = st.tuples(
    st.integers(0, 55),
    st.one_of(st.integers(0, 5), st.integers(0, 2**64 - 1)),
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.sampled_from([b"a\0", b"b\0", b"..\0", b"dir\0", b"user.x\0"]),
            st.integers(0, 2**64 - 1).map(lambda number: number.to_bytes(8, "little")),
            st.integers(0, 20).map(lambda number: number.to_bytes(4, "little")),
        ),
        max_size=12,
    ),
    st.integers(0, 600),
    st.lists(st.integers(0, 600), max_size=4),
)


async def _answers(session: FuseSession, requests: Sequence[tuple[int, int, list[bytes], int, list[int]]]) -> None:
    for unique, (opcode, node, parts, room, cuts) in enumerate(requests):
        body = b"".join(parts)
        header = struct.pack("<IIQQIIIHH", 40 + len(body), opcode, unique, node, os.geteuid(), os.getegid(), 1, 0, 0)
        memory = bytearray(b"\xaa" * (room + 64))
        writable = scattered(memoryview(memory)[:room], cuts)
        written = await answered(session, scattered(bytearray(header + body), cuts), writable)
        assert memory[room:] == b"\xaa" * 64
        assert written <= sum(map(len, writable))
        if written:
            answer = b"".join(writable)[:written]
            length, error, echoed = struct.unpack_from("<IiQ", answer)
            assert (length, echoed) == (written, unique)
            assert -512 < error <= 0
            assert not error or written == 16


@given(st.lists(_REQUEST, max_size=30))
def test_any_requests_are_answered(requests: list[tuple[int, int, list[bytes], int, list[int]]]) -> None:
    """Over a real directory. A bug that they find shows in the log, which fails the test."""

    async def main(root: Path) -> None:
        filesystem = HostFilesystem(root)
        await _answers(FuseSession(filesystem), [(Opcode.INIT, 0, [INIT[40:]], 80, []), *requests])
        await filesystem.close()

    with tempfile.TemporaryDirectory() as parent:
        root, outside = Path(parent, "root"), Path(parent, "outside")
        outside.write_bytes(b"untouched")
        (root / "dir").mkdir(parents=True)
        (root / "a").write_bytes(b"contents")
        trio.run(main, root)
        assert sorted(os.listdir(parent)) == ["outside", "root"]
        assert outside.read_bytes() == b"untouched"
