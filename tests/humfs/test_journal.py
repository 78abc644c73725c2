"""The journal's lines, and what is left of them after a crash."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from humfs.journal import FILE, Change, Journal, decode, encode, read

VALUES = st.one_of(st.none(), st.integers(-(1 << 63), (1 << 63) - 1), st.binary(max_size=20))
CHANGES = st.lists(st.tuples(st.integers(0, 9), st.lists(VALUES, max_size=4).map(tuple)), max_size=4).map(tuple)


@given(st.integers(0, 1 << 62), CHANGES)
def test_what_is_written_is_read(sequence: int, changes: tuple[Change, ...]) -> None:
    line = encode(sequence, changes)
    assert line.count(b"\n") == 1
    assert decode(line) == (sequence, changes)


@given(CHANGES, st.data())
def test_a_line_cut_short_or_changed_is_no_line(changes: tuple[Change, ...], data: st.DataObject) -> None:
    line = encode(1, changes)
    with pytest.raises(ValueError, match=r"."):
        decode(line[: data.draw(st.integers(0, len(line) - 2))])
    place = data.draw(st.integers(0, len(line) - 2))
    with pytest.raises(ValueError, match=r"."):
        decode(line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :])


@given(st.binary(max_size=100))
def test_rubbish_is_no_line(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(line)


@pytest.mark.parametrize(
    "body", ["__import__('os')", "(1, ((0, ('text',)),))", "(1, 2)", "('1', ())", "(1, ((True, ()),))"]
)
def test_literals_of_other_kinds_are_refused(body: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(b"%08x %b\n" % (zlib.crc32(body.encode()), body.encode()))


def write(path: Path, *sequences: int) -> None:
    journal = Journal(path)
    for sequence in sequences:
        journal.append(sequence, ((0, (sequence,)),))
    journal.close()


def test_what_was_committed_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path / FILE, 5, 6, 7, 8)
    assert [sequence for sequence, _ in read(tmp_path / FILE, 6)] == [7, 8]


def test_a_gap_ends_it(tmp_path: Path) -> None:
    write(tmp_path / FILE, 5, 6, 8)
    assert [sequence for sequence, _ in read(tmp_path / FILE, 4)] == [5, 6]
    assert list(read(tmp_path / FILE, 3)) == []


def test_a_torn_line_ends_it(tmp_path: Path) -> None:
    write(tmp_path / FILE, 1, 2)
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:-3])
    assert [sequence for sequence, _ in read(path, 0)] == [1]


def test_a_cleared_journal_is_empty(tmp_path: Path) -> None:
    journal = Journal(tmp_path / FILE)
    journal.append(1, ())
    journal.clear()
    journal.append(2, ())
    journal.close()
    assert list(read(tmp_path / FILE, 0)) == []
    assert list(read(tmp_path / FILE, 1)) == [(2, ())]
