"""The reader of archives: what the real tools write it reads, and nothing that anybody writes is more than an error."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from humfs import acl
from humfs.importer import Member
from humfs.losses import Losses
from humfs.tarcopy import pieces
from humfs.tarheader import BLOCK, DamagedError, rounded, with_size
from humfs.tarpax import TIME_MAX, record
from humfs.tarreader import ID_MAX, Reader
from tests import needs

END = bytes(2 * BLOCK)


def block(kind: bytes = b"0", size: int = 0, name: str = "file", **fields: object) -> bytes:
    info = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(info, key, value)
    info.type = kind
    return with_size(info.tobuf(tarfile.GNU_FORMAT), size)


def with_contents(header: bytes, data: bytes) -> bytes:
    return header + data.ljust(rounded(len(data)), b"\0")


def pax(records: Iterable[tuple[bytes, bytes]], member: bytes, kind: bytes = b"x") -> bytes:
    data = b"".join(record(key, value) for key, value in records)
    return with_contents(block(kind, len(data)), data) + member


def read(archive: bytes, losses: Losses | None = None) -> list[Member]:
    found = []
    for member in Reader(cast(io.BufferedReader, io.BytesIO(archive)), losses):
        if member.contents is not None:
            member.contents.read(member.stored)
        found.append(member)
    return found


def only(archive: bytes) -> Member:
    (member,) = read(archive + END)
    return member


def tar(tmp_path: Path, *options: str | Path) -> bytes:
    done = subprocess.run([needs.program("tar"), "-c", *options], cwd=tmp_path, stdout=subprocess.PIPE, check=True)
    return done.stdout


# What tools write -----------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "pax"])
@pytest.mark.parametrize("options", [(), ("-V", "label"), ("-g", "snapshot"), ("-S",)])
def test_every_form_of_gnu_tar(tmp_path: Path, form: str, options: tuple[str, ...]) -> None:
    if form in ("v7", "ustar") and options[:1] in (("-V",), ("-g",), ("-S",)):
        form = "gnu"
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_bytes(b"contents")
    os.utime(tmp_path / "d/f", ns=(0, 1_500_000_000 * 10**9))
    os.chmod(tmp_path / "d", 0o2750)
    with open(tmp_path / "d/holes", "wb") as file:
        file.seek(1 << 20)
        file.write(b"x" * 4096)
        file.truncate(3 << 20)
    archive = tar(tmp_path, f"--format={form}", *options, "d")
    found = {b"/".join(member.path): member for member in read(archive)}
    assert set(found) == {b"d", b"d/f", b"d/holes"}
    assert stat.S_ISDIR(found[b"d"].mode)
    assert found[b"d"].mode & 0o7777 == 0o2750
    assert (found[b"d/f"].uid, found[b"d/f"].size) == (os.getuid(), 8)
    assert found[b"d/f"].mtime_ns == 1_500_000_000 * 10**9
    assert found[b"d/holes"].size == 3 << 20
    assert (found[b"d/holes"].ranges is not None) == (options == ("-S",))


@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0", "old"])
def test_a_sparse_file_of_60_gib(tmp_path: Path, version: str) -> None:
    with open(tmp_path / "large", "wb") as file:
        for at in range(20):
            file.seek(at * (3 << 30))
            file.write(b"%04d" % at * 1024)
        file.truncate(60 << 30)
    (tmp_path / "next").write_bytes(b"n")
    form = ["--format=gnu"] if version == "old" else ["--format=pax", f"--sparse-version={version}"]
    large, after = read(tar(tmp_path, "-S", *form, "large", "next"))
    assert (large.size, after.size) == (60 << 30, 1)
    assert large.ranges is not None
    assert [pair for pair in large.ranges if pair[1]] == [(at * (3 << 30), 4096) for at in range(20)]


def test_more_than_8_gib_of_data_in_a_sparse_file(tmp_path: Path) -> None:
    """The data itself is not made: what follows it must be found behind it."""
    stored, size = (9 << 30) + BLOCK, 10 << 30
    text = f"2\n0\n{9 << 30}\n{size}\n0\n".encode().ljust(BLOCK, b"\0")
    records = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"%d" % size)]
    first = pax([*records, (b"size", b"%d" % stored)], block()) + text
    path = tmp_path / "x.tar"
    with open(path, "wb") as file:
        file.write(first)
        file.seek(len(first) - BLOCK + stored)
        file.write(with_contents(block(size=3, name="next"), b"abc") + END)
    with open(path, "rb") as stream:
        large, after = Reader(stream)
    assert (large.size, large.stored, large.ranges) == (size, 9 << 30, [(0, 9 << 30), (size, 0)])
    assert after.path == (b"next",)


def test_access_lists_of_libarchive_and_gnu_tar(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "d").mkdir()
    subprocess.run([needs.program("setfacl"), "-m", "u:1234:rw,g:77:r", tmp_path / "f"], check=True)
    subprocess.run([needs.program("setfacl"), "-d", "-m", "u:4321:rwx", tmp_path / "d"], check=True)
    bsdtar = subprocess.run(
        [needs.program("bsdtar"), "--acls", "-c", "-f", "-", "f", "d"], cwd=tmp_path, stdout=subprocess.PIPE, check=True
    )
    for archive in (bsdtar.stdout, tar(tmp_path, "--acls", "f", "d"), tar(tmp_path, "--xattrs-include=*", "f", "d")):
        found = {member.path[-1]: member for member in read(archive)}
        assert dict(found[b"f"].xattrs) == {acl.ACCESS: os.getxattr(tmp_path / "f", acl.ACCESS)}
        assert found[b"f"].mode & 0o777 == 0o664
        assert dict(found[b"d"].xattrs) == {acl.DEFAULT: os.getxattr(tmp_path / "d", acl.DEFAULT)}
        copied = b"".join(pieces(cast(io.BufferedReader, io.BytesIO(archive)), Losses(), plain_lists=True))
        assert b"SCHILY.acl." not in copied
        assert {member.path: member.xattrs for member in read(copied)} == {
            member.path: member.xattrs for member in found.values()
        }


def test_who_is_named_only(tmp_path: Path) -> None:
    losses = Losses()
    text = b"user::rw-,user:nobody-of-that-name:rw-,group::r--,mask::rw-,other::r--"
    (member,) = read(pax([(b"SCHILY.acl.access", text)], block()) + END, losses)
    assert member.xattrs == []
    assert "only a name tells" in losses.lines()[0]


# What nobody should write ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("records", "why"),
    [
        ([(b"mtime", b"nan")], "a time of it is none"),
        ([(b"mtime", b"999xxx")], "a time of it is none"),
        ([(b"uid", b"%d" % (1 << 70))], "owner .* is beyond"),
        ([(b"uid", b"%d" % (1 << 40))], "owner .* is beyond"),
        ([(b"gid", b"%d" % (ID_MAX + 1))], "group .* is beyond"),
        ([(b"uid", b"root")], "its uid is no number"),
        ([(b"size", b"-1")], "its size is no number"),
        ([(b"GNU.sparse.map", b"5"), (b"GNU.sparse.size", b"9")], "sparse map is damaged"),
        ([(b"GNU.sparse.map", b"0,5,3,1"), (b"GNU.sparse.size", b"9")], "sparse map is damaged"),
        ([(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0")], "sparse map is damaged"),
        ([(b"GNU.sparse.major", b"2")], "of a version that is not known"),
        ([(b"path", b"a\0b")], "NUL byte"),
        ([(b"SCHILY.acl.access", b"u::rwxx")], "access list of it is none"),
        ([(b"LIBARCHIVE.xattr.user.x", b"A")], "no base64"),
    ],
)
def test_what_is_refused(records: list[tuple[bytes, bytes]], why: str) -> None:
    with pytest.raises(DamagedError, match=why):
        read(pax(records, block()) + END)


def test_times_beyond_all_are_the_nearest() -> None:
    losses = Losses()
    (member,) = read(pax([(b"mtime", b"%d" % (1 << 62))], block()) + END, losses)
    assert member.mtime_ns == TIME_MAX
    assert losses.lines() == ["times that no filesystem has are set to the nearest one: /file"]


def test_a_member_that_leads_out_sets_nothing() -> None:
    losses = Losses()
    found = read(block(b"5", name="..", mode=0o777) + block(b"5", name="a/../..") + block(b"5", name=".") + END, losses)
    assert [member.path for member in found] == [()]
    assert losses.lines() == ["names that lead out of the archive's tree are left out: /../, /a/../../"]


KEYS = st.sampled_from(
    [
        *(b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime", b"atime", b"hdrcharset", b"comment"),
        *(b"GNU.sparse.major", b"GNU.sparse.minor", b"GNU.sparse.realsize", b"GNU.sparse.size", b"GNU.sparse.map"),
        *(b"GNU.sparse.offset", b"GNU.sparse.numbytes", b"GNU.sparse.name", b"SCHILY.acl.access"),
        *(b"SCHILY.acl.default", b"SCHILY.xattr.user.a", b"LIBARCHIVE.xattr.user.b", b"SCHILY.xattr."),
        *(b"SCHILY.xattr.system.posix_acl_access", b"SCHILY.fflags", b""),
    ]
)
NUMBERS = st.one_of(st.integers(-5, 70000), st.integers(-(1 << 80), 1 << 80)).map(lambda number: b"%d" % number)
VALUES = st.one_of(
    NUMBERS,
    st.binary(max_size=40),
    st.sampled_from(
        [b"nan", b"1.5", b"-0.000000001", b"1,2,3,4", b"0,512", b"u::rwx,g::r,o::-", b".", b"..", b"/", b"1_0"]
    ),
)
NAMES = st.text(st.sampled_from("ab./\udcff "), max_size=120)
FIELDS = st.binary(min_size=8, max_size=12) | st.sampled_from(
    [b"\x80" + b"\xff" * 11, b"\xff" * 12, b"-1", b"0x", b" 7 "]
)
TYPES = st.sampled_from([bytes([kind]) for kind in b"0123456780\0xgXLKSDVMNAZ"])


def _at(data: bytes, at: int, field: bytes) -> bytes:
    return data[:at] + field[: BLOCK - at] + data[at + len(field[: BLOCK - at]) :]


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """A block with a checksum that is right, and anything else."""
    made = block(draw(TYPES), name=draw(NAMES) or "x", linkname=draw(NAMES))
    for at in draw(
        st.lists(st.sampled_from([100, 108, 116, 124, 136, 257, 329, 337, 345, 386, 398, 482, 483]), max_size=3)
    ):
        made = _at(made, at, draw(FIELDS))
    size = draw(st.one_of(st.none(), st.integers(0, 2000)))
    if size is not None:
        return with_size(made, size)
    size_field = made[124:136]
    return _at(with_size(made, 0), 124, size_field) if draw(st.booleans()) else with_size(made, 0)


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    parts = []
    for _ in range(draw(st.integers(1, 4))):
        header = draw(headers())
        records = draw(st.lists(st.tuples(KEYS, VALUES), max_size=5))
        kind = draw(st.sampled_from([b"x", b"g", b"X"]))
        member = with_contents(header, draw(st.binary(max_size=1500)))
        parts.append(pax(records, member, kind) if records else member)
    whole = b"".join(parts) + draw(st.sampled_from([END, b"", bytes(BLOCK)]))
    return whole[: draw(st.integers(0, len(whole)))] if draw(st.booleans()) else whole


@given(archives())
@example(block(b"S") + END)
@example(pax([(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0")], with_contents(block(size=512), b"99\n")) + END)
def test_any_header_is_read_or_refused(archive: bytes) -> None:
    for work in (
        lambda: read(archive),
        lambda: list(pieces(cast(io.BufferedReader, io.BytesIO(archive)), Losses(), plain_lists=True)),
    ):
        try:
            found = work()
        except DamagedError:
            pass
        else:
            for member in found:
                if isinstance(member, Member):
                    assert 0 <= member.uid <= ID_MAX
                    assert 0 <= member.gid <= ID_MAX
                    assert abs(member.mtime_ns) <= TIME_MAX
                    assert b".." not in member.path
