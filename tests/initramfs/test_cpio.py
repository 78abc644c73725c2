from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.guest import cpio
from runtime.guest.cpio import CpioEntry, archive, directory, file, symlink

SAMPLE = [
    file(b"bin/tool", b"#!/bin/sh\n", 0o755),
    file(b"empty", b""),
    file(b"deep/er/file", b"12345"),
    directory(b"deep", 0o700),
    symlink(b"link", b"bin/tool"),
    file("n\udcffäme with space".encode("utf-8", "surrogateescape"), b"x" * 1000),
]


def parse(data: bytes) -> list[tuple[CpioEntry, int]]:
    """What the kernel would read: the entries with their inode numbers."""
    found: list[tuple[CpioEntry, int]] = []
    offset = 0
    while True:
        assert offset % 4 == 0
        assert data[offset : offset + 6] == b"070701"
        fields = [int(data[offset + 6 + 8 * index :][:8], 16) for index in range(13)]
        ino, mode, uid, gid, _, mtime, size, _, _, major, minor, length, _ = fields
        assert (uid, gid, mtime) == (0, 0, 0)
        name = data[offset + 110 :][: length - 1]
        start = offset + (110 + length + 3) // 4 * 4
        if name == b"TRAILER!!!":
            assert not any(data[start:])
            assert len(data) % 512 == 0
            return found
        found.append((CpioEntry(name, mode, data[start : start + size], os.makedev(major, minor)), ino))
        offset = start + (size + 3) // 4 * 4


def test_one_entry_byte_by_byte() -> None:
    data = archive([file(b"ab", b"xyz")])
    assert data[:120] == (
        b"070701" b"00000001" b"000081A4" b"00000000" b"00000000" b"00000001" b"00000000" b"00000003"
        b"00000000" b"00000000" b"00000000" b"00000000" b"00000003" b"00000000" b"ab\0" b"\0\0\0" b"xyz\0"
    )  # fmt: skip
    assert data[120:126] == b"070701"


def test_order_of_the_entries_does_not_matter() -> None:
    assert archive(SAMPLE) == archive(reversed(SAMPLE))


def test_directories_come_before_what_is_in_them() -> None:
    names = [entry.name for entry, _ in parse(archive(SAMPLE))]
    assert names == sorted(names)
    assert names.index(b"deep") < names.index(b"deep/er") < names.index(b"deep/er/file")


def test_a_given_directory_keeps_its_mode() -> None:
    modes = {entry.name: entry.mode for entry, _ in parse(archive(SAMPLE))}
    assert modes[b"deep"] == stat.S_IFDIR | 0o700
    assert modes[b"deep/er"] == stat.S_IFDIR | 0o755


@pytest.mark.parametrize("name", [b"", b"/a", b"a/", b"a//b", b".", b"a/../b", b"./a", b"a\0b", b"TRAILER!!!"])
def test_names_that_cannot_be(name: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be a name"):
        archive([file(name, b"")])


def test_limits() -> None:
    assert archive([file(b"a" * 4095, b""), symlink(b"link", b"t" * 4095)])
    for entry in (file(b"a" * 4096, b""), symlink(b"link", b"t" * 4096)):
        with pytest.raises(ValueError, match="too long"):
            archive([entry])


def test_contradictions() -> None:
    with pytest.raises(ValueError, match="twice"):
        archive([file(b"a", b""), directory(b"a")])
    with pytest.raises(ValueError, match="no directory"):
        archive([file(b"a", b""), file(b"a/b", b"")])
    with pytest.raises(ValueError, match="cannot hold data"):
        archive([CpioEntry(b"a", stat.S_IFDIR | 0o755, b"data")])


names = st.lists(
    st.binary(min_size=1, max_size=9).filter(lambda part: not set(part) & {0, 0x2F} and part not in (b".", b"..")),
    min_size=1,
    max_size=3,
).map(b"/".join)
entries = st.builds(
    CpioEntry,
    names.filter(lambda name: name != b"TRAILER!!!"),
    st.just(stat.S_IFREG | 0o640),
    st.binary(max_size=99),
    st.just(0),
)


@given(st.lists(entries, max_size=12))
def test_whatever_goes_in_comes_out(given_entries: list[CpioEntry]) -> None:
    try:
        data = archive(given_entries)
    except ValueError:
        found = {entry.name for entry in given_entries}
        parents = {name[:index] for name in found for index in range(len(name)) if name[index : index + 1] == b"/"}
        assert len(found) < len(given_entries) or found & parents
        return
    parsed = parse(data)
    assert [ino for _, ino in parsed] == list(range(1, len(parsed) + 1))
    assert {entry.name: entry for entry, _ in parsed if stat.S_ISREG(entry.mode)} == {
        entry.name: entry for entry in given_entries
    }


@pytest.mark.interop
@pytest.mark.parametrize("reader", [["cpio", "-idm", "--quiet"], ["busybox", "cpio", "-idm"]])
def test_cpio_extracts_it(reader: list[str], tmp_path: Path) -> None:
    subprocess.run(reader, input=archive(SAMPLE), cwd=tmp_path, check=True, stderr=subprocess.PIPE)
    assert (tmp_path / "bin/tool").read_bytes() == b"#!/bin/sh\n"
    assert (tmp_path / "bin/tool").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "deep").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "deep/er/file").read_bytes() == b"12345"
    assert (tmp_path / "empty").stat().st_size == 0
    assert os.readlink(tmp_path / "link") == "bin/tool"
    assert Path(os.fsdecode(bytes(tmp_path) + b"/" + SAMPLE[-1].name)).read_bytes() == b"x" * 1000


@pytest.mark.interop
@settings(max_examples=10, deadline=None)
@given(st.lists(entries, max_size=5, unique_by=lambda entry: entry.name.split(b"/")[0]))
def test_cpio_lists_it(given_entries: list[CpioEntry]) -> None:
    data = archive(given_entries)
    done = subprocess.run(["cpio", "-t", "--quiet", "--null"], input=data, capture_output=True, check=True)
    assert done.stderr == b""
    assert done.stdout.split(b"\0")[:-1] == [entry.name for entry, _ in parse(data)]


def test_device_nodes() -> None:
    node = CpioEntry(b"null", stat.S_IFCHR | 0o666, device=os.makedev(1, 3))
    assert parse(cpio.archive([node]))[0][0] == node
