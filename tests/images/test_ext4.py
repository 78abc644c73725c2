"""The ext4 that is written without a kernel: e2fsck finds nothing in it, and nothing in it depends on the clock."""

from __future__ import annotations

import io
import stat
import struct
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from humfs.losses import Losses
from runtime.archives.tree import ArchiveNode
from runtime.images.ext4 import Ext4Writer, Settings, make_filesystem
from runtime.images.ext4_blocks import BLOCK, directory_blocks, encode_time, stretches
from runtime.images.sink import ImageReport, pour
from tests import needs
from umlfs.errors import UmlError

SIZE = 32 << 20
Members = Sequence[tuple[tarfile.TarInfo, bytes]]


def info(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type = kind
    made.mode = 0o755
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def write(path: Path, members: Members, losses: Losses | None = None, size: int = SIZE) -> Path:
    """An image with these members in it, without a fault."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member, data in members:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    packed.seek(0)
    settings = Settings(size, epoch=1_000_000_000)
    with open(path, "wb+") as file:
        make_filesystem(file.fileno(), settings)
        report = ImageReport(losses=Losses() if losses is None else losses)
        with Ext4Writer(str(path), settings, report.losses) as writer:
            pour(packed, writer, report)
    done = subprocess.run([needs.program("e2fsck"), "-fn", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return path


def ask(path: Path, request: str) -> str:
    """What debugfs says."""
    done = subprocess.run([needs.program("debugfs"), "-R", request, path], capture_output=True, text=True, check=True)
    return done.stdout


def test_the_same_members_give_the_same_image(tmp_path: Path) -> None:
    members: Members = [(info("d", tarfile.DIRTYPE), b""), (info("d/f", uid=5), b"x" * 9000)]
    one, two = (write(tmp_path / name, members).read_bytes() for name in ("one", "two"))
    assert one == two


def test_without_an_epoch_filesystems_differ() -> None:
    assert Settings(SIZE).identifier != Settings(SIZE).identifier
    assert Settings(SIZE, epoch=1).identifier != Settings(SIZE, epoch=2).identifier


def test_what_comes_later_replaces(tmp_path: Path) -> None:
    members = [
        (info("a/b/c"), b"old" * 5000),
        (info("twice"), b"first" * 3000),
        (info("hard", tarfile.LNKTYPE, linkname="twice"), b""),
        (info("twice"), b"second"),
        (info("gone"), b"z" * 100_000),
        (info("hard2", tarfile.LNKTYPE, linkname="hard"), b""),
        (info("gone", tarfile.SYMTYPE, linkname="t" * 80), b""),
        (info("gone"), b"again"),
        (info("a", tarfile.SYMTYPE, linkname="elsewhere"), b""),
        (info("elsewhere", tarfile.DIRTYPE, uid=70000), b""),
        (info("elsewhere", tarfile.DIRTYPE, uid=7), b""),
        (info("a/through"), b"followed"),
        (info("lost+found", tarfile.DIRTYPE), b""),
        (info("lost+found/#12"), b"found"),
    ]
    image = write(tmp_path / "x", members)
    contents = {name: ask(image, f"cat {name}") for name in ("twice", "hard", "gone", "elsewhere/through")}
    assert contents == {"twice": "second", "hard": "first" * 3000, "gone": "again", "elsewhere/through": "followed"}
    assert "Links: 2" in ask(image, "stat hard2")
    assert "User:     7" in ask(image, "stat elsewhere")
    assert ask(image, 'cat "lost+found/#12"') == "found"


def test_paths_stay_in_the_tree(tmp_path: Path) -> None:
    members = [
        (info("../../up"), b"1"),
        (info("/absolute"), b"2"),
        (info("link", tarfile.SYMTYPE, linkname="/../../x/.."), b""),
        (info("link/through"), b"3"),
    ]
    with pytest.raises(UmlError, match="/link/through: Not a directory"):
        write(tmp_path / "x", [*members[:2], (info("x"), b""), *members[2:]])
    image = write(tmp_path / "x", [*members[:2], (info("x", tarfile.DIRTYPE), b""), *members[2:]])
    assert [ask(image, f"cat {name}") for name in ("up", "absolute", "through")] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("member", "why"),
    [
        (info("x", tarfile.LNKTYPE, linkname="missing"), "No such file"),
        (info("x", tarfile.LNKTYPE, linkname="."), "not permitted"),
        (info("x", tarfile.SYMTYPE, linkname=""), "No such file"),
        (info("x", tarfile.SYMTYPE, linkname="y" * 5000), "too long"),
        (info("n" * 300), "too long"),
        (info("."), "Is a directory"),
        (info("loop", tarfile.SYMTYPE, linkname="loop"), "symbolic links"),
    ],
)
def test_what_no_filesystem_can_have(tmp_path: Path, member: tarfile.TarInfo, why: str) -> None:
    members: Members = [(member, b"")]
    if member.name == "loop":
        members = [*members, (info("loop/x"), b"")]
    with pytest.raises(UmlError, match=why):
        write(tmp_path / "x", members)


def test_attributes_that_do_not_fit_are_told_of(tmp_path: Path) -> None:
    big = info("big", pax_headers={"SCHILY.xattr.user.big": "v" * 5000, "SCHILY.xattr.user.small": "v"})
    losses = Losses()
    image = write(tmp_path / "x", [(big, b"")], losses)
    assert losses.lines() == ["attributes user.big that ext4 has no room for are left out: /big"]
    assert "user.small" in ask(image, "ea_list big")


def test_many_files_in_one_directory(tmp_path: Path) -> None:
    members: Members = [(info(f"{'n' * 100}{number}"), b"") for number in range(2000)]
    image = write(tmp_path / "x", members)
    assert ask(image, "ls -p /").count("/100755/") == 2000


def test_more_files_than_inodes(tmp_path: Path) -> None:
    with pytest.raises(UmlError, match="no room"):
        write(tmp_path / "x", [(info(str(number)), b"") for number in range(3000)])


@given(st.integers(-(2**31) * 10**9, (2**34 - 2**31) * 10**9 - 1))
def test_times(nanoseconds: int) -> None:
    low, extra = encode_time(nanoseconds)
    seconds = struct.unpack("<i", struct.pack("<I", low))[0] + ((extra & 3) << 32)
    assert (seconds * 10**9 + (extra >> 2)) == nanoseconds


def test_times_beyond_the_range_are_the_nearest() -> None:
    assert encode_time(10**30)[0] == encode_time((2**34 - 2**31 - 1) * 10**9)[0]


@given(st.lists(st.booleans(), max_size=12), st.integers(0, BLOCK - 1))
def test_holes_are_found(blocks: list[bool], tail: int) -> None:
    data = b"".join((b"x" if full else b"\0") * BLOCK for full in blocks) + b"\0" * tail
    rebuilt = bytearray(len(data))
    for start, end in stretches(data, 0):
        assert start % BLOCK == 0
        rebuilt[start:end] = data[start:end]
    assert bytes(rebuilt) == data
    assert sum(end - start for start, end in stretches(data, 0)) == sum(blocks) * BLOCK


@given(st.sets(st.binary(min_size=1, max_size=255), max_size=80))
def test_directories_are_lists_of_names(names: set[bytes]) -> None:
    children = {name: ArchiveNode(number, stat.S_IFREG) for number, name in enumerate(sorted(names), 20)}
    found = {}
    for block in directory_blocks(2, 3, children):
        assert len(block) == BLOCK
        at = 0
        while at < BLOCK - 12:
            ino, length, size, _ = struct.unpack_from("<IHBB", block, at)
            found[block[at + 8 : at + 8 + size]] = ino
            assert length % 4 == 0
            assert length >= 8 + size
            at += length
        assert at == BLOCK - 12
    assert found == {b".": 2, b"..": 3, **{name: node.ino for name, node in children.items()}}
