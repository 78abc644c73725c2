"""The superblock's text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from humfs import superblock
from humfs.superblock import Superblock, parse, parse_size
from umlfs.errors import UmlError, UsageError

NUMBERS = st.integers(0, 1 << 62)


@given(NUMBERS, st.integers(1, 1 << 62))
def test_what_is_written_is_read(used: int, total: int) -> None:
    made = Superblock(used, total)
    assert parse(made.format()) == made


def test_the_historical_one() -> None:
    text = "version 2\nmetadata shadow_fs\nused 24576\ntotal 536870912\n"
    assert parse(text) == Superblock(24576, 536870912, "shadow_fs")
    assert parse(text).format() == text


def test_lines_in_any_order_and_without_metadata() -> None:
    assert parse("total 2\nused 1\nversion 2\n") == Superblock(1, 2, "shadow_fs")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "version 2\nused 1\n",
        "version 3\nused 1\ntotal 2\n",
        "version 2\nused 1\ntotal 0\n",
        "version 2\nused 1\ntotal 2\nmore 3\n",
        "version 2\nused 1\nused 1\ntotal 2\n",
        "version 2\nused -1\ntotal 2\n",
        "version 2\nused 1\ntotal 2\nmetadata " + "x" * 60 + "\n",
        "version 2\nused \u0663\ntotal 2\n",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(text)


def test_no_superblock(tmp_path: Path) -> None:
    with pytest.raises(UmlError, match="no superblock"):
        superblock.read(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UmlError, match=r"file: not a directory, so no humfs directory; name the one"):
        superblock.read(tmp_path / "file")


def test_a_write_leaves_nothing_beside(tmp_path: Path) -> None:
    superblock.write(tmp_path, Superblock(1, 2))
    superblock.write(tmp_path, Superblock(3, 4))
    assert superblock.read(tmp_path) == Superblock(3, 4)
    assert [path.name for path in tmp_path.iterdir()] == [superblock.FILE]


@pytest.mark.parametrize(
    ("word", "size"), [("5", 5), ("10K", 10240), ("3m", 3 << 20), ("2G", 2 << 30), ("1T", 1 << 40)]
)
def test_sizes(word: str, size: int) -> None:
    assert parse_size(word) == size


@pytest.mark.parametrize("word", ["", "0", "G", "10X", "-1K", "1.5G", "9999999999T", "1KK", "٣"])
def test_bad_sizes(word: str) -> None:
    with pytest.raises(UsageError, match="Bad filesystem size"):
        parse_size(word)
