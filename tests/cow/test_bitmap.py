"""The bitmap in memory against a plain list of truth values."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from umlfs.cow.bitmap import CHUNK, PAGE, Bitmap

ranges = st.lists(st.tuples(st.integers(0, 700), st.integers(1, 200)), max_size=12)


def loaded(bits: int, content: bytes | None = None) -> Bitmap:
    length = -(-bits // 8)
    bitmap = Bitmap(bits, length)
    for chunk in bitmap.missing(0, bits):
        start, size = bitmap.chunk_range(chunk)
        bitmap.load(chunk, (content or bytes(length))[start : start + size])
    return bitmap


@given(ranges, st.integers(0, 899), st.integers(1, 900))
def test_like_a_list(changes: list[tuple[int, int]], first: int, count: int) -> None:
    bitmap, model = loaded(900), [False] * 900
    for start, length in changes:
        end = min(start + length, 900)
        bitmap.set(start, end)
        model[start:end] = [True] * (end - start)
    end = min(first + count, 900)
    assert bitmap.all_set(first, end) == all(model[first:end])
    joined = [value for start, stop, value in bitmap.runs(first, end) for _ in range(start, stop)]
    assert joined == model[first:end]
    runs = list(bitmap.runs(first, end))
    assert all(one[2] != other[2] for one, other in pairwise(runs))


def test_long_runs() -> None:
    bits = 3 * CHUNK * 8
    bitmap = loaded(bits)
    assert list(bitmap.runs(0, bits)) == [(0, bits, False)]
    bitmap.set(5, bits - 3)
    assert list(bitmap.runs(0, bits)) == [(0, 5, False), (5, bits - 3, True), (bits - 3, bits, False)]


def test_bits_that_do_not_exist_are_clear() -> None:
    bitmap = Bitmap(20, 2)
    bitmap.load(0, b"\xff\xff")
    assert list(bitmap.runs(0, 20)) == [(0, 16, True), (16, 20, False)]
    assert not bitmap.all_set(16, 24)
    assert not bitmap.all_set(0, 20)


def test_loading_does_not_undo_what_was_set_meanwhile() -> None:
    bitmap = Bitmap(64, 8)
    assert bitmap.missing(0, 64) == [0]
    bitmap.load(0, bytes(8))
    bitmap.set(0, 8)
    bitmap.load(0, bytes(8))
    assert bitmap.get(0)


def test_dirty_pages_are_joined_and_can_be_put_back() -> None:
    bits = 10 * PAGE * 8
    bitmap = loaded(bits)
    for page in (1, 2, 5):
        bitmap.set(page * PAGE * 8, page * PAGE * 8 + 1)
    assert bitmap.dirty
    taken = bitmap.take_dirty()
    assert {offset: len(content) for offset, content in taken.items()} == {PAGE: 2 * PAGE, 5 * PAGE: PAGE}
    assert not bitmap.dirty
    bitmap.put_back(taken)
    assert bitmap.take_dirty() == taken
