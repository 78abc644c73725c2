"""Answers of another end that may be anything."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umlfs.filesystem import FOREVER, Attr, Entry
from umlfs.wire import fuse as wire
from umlfs.wire import stream_replies as replies
from umlfs.wire.stream_replies import Pending, ProtocolError, ReplyDecoder

ATTR = Attr(7, 0o100644, 2, 1000, 100, 0, 5000, 16, -1, 1_500_000_000_123_456_789, 2 * 10**9, 1024)


def answer(unique: int, body: bytes = b"", error: int = 0) -> bytes:
    return wire.OUT_HEADER.pack(16 + len(body), -error, unique) + body


@given(st.lists(st.integers(1, 40), max_size=30))
def test_answers_come_in_pieces_of_any_size(cuts: list[int]) -> None:
    decoder = ReplyDecoder()
    into = bytearray(10)
    first, second, third = Pending(100), Pending(10, [memoryview(into)[:3], memoryview(into)[3:]]), Pending(0)
    decoder.pending = {2: first, 4: second, 6: third}
    data = answer(2, b"x" * 50) + answer(6, error=2) + answer(4, b"0123456789")
    edges = [0, *itertools.accumulate(cuts), len(data)]
    done = []
    for start, end in itertools.pairwise(edges):
        done += decoder.feed(memoryview(data)[start:end])
    assert done == [first, third, second]
    assert first.data == b"x" * 50
    assert third.error == 2
    assert (bytes(into), second.size) == (b"0123456789", 10)
    assert not decoder.pending


@pytest.mark.parametrize(
    "data",
    [
        answer(8),
        answer(2, bytes(101)),
        answer(2, b"x", error=5),
        answer(2, error=512),
        wire.OUT_HEADER.pack(15, 0, 2),
        wire.OUT_HEADER.pack(16, 1, 2),
        wire.OUT_HEADER.pack(0xFFFFFFFF, 0, 2),
    ],
)
def test_what_cannot_be_an_answer(data: bytes) -> None:
    decoder = ReplyDecoder()
    decoder.pending = {2: Pending(100)}
    with pytest.raises(ProtocolError):
        decoder.feed(memoryview(data))


def test_an_abandoned_answer_leaves_the_buffers_alone() -> None:
    decoder = ReplyDecoder()
    into = bytearray(b"mine")
    decoder.pending = {2: Pending(4, [memoryview(into)])}
    decoder.pending[2].abandon()
    assert len(decoder.feed(memoryview(answer(2, b"data")))) == 1
    assert into == b"mine"


def test_entries_are_what_the_server_wrote() -> None:
    found = replies.entry(wire.entry_out(Entry(5, ATTR, 1, 1, 9)))
    assert found == Entry(5, ATTR, FOREVER, FOREVER, 9)
    assert replies.attr(wire.attr_out(ATTR, 1)) == ATTR
    space = bytearray(1000)
    listing = wire.Listing(memoryview(space), plus=True)
    listing.add(b".", 1, 7, 0o40000, None)
    listing.add("ä".encode(), 2, 7, 0o100000, Entry(5, ATTR, 0, 0))
    dot, name = replies.listing(space[: listing.size], plus=True)
    assert (dot.name, dot.entry, dot.mode) == (b".", None, 0o40000)
    assert (name.name, name.offset, name.mode) == ("ä".encode(), 2, 0o100000)
    assert name.entry is not None
    assert name.entry.attr == ATTR


@pytest.mark.parametrize("name", [b"a/b", b"a\0", b""])
def test_names_that_are_none(name: bytes) -> None:
    data = wire.DIRENT.pack(1, 1, len(name), 4) + name + bytes(-len(name) % 8)
    with pytest.raises(ProtocolError):
        replies.listing(data, plus=False)


@given(st.binary(max_size=400))
def test_no_bytes_do_worse_than_an_error(data: bytes) -> None:
    def listing(data: bytes) -> object:
        return replies.listing(data, plus=bool(len(data) % 2))

    def count(data: bytes) -> object:
        return replies.count(data, 10)

    for parse in (replies.entry, replies.attr, replies.opened, replies.offset, replies.statfs, listing, count):
        with contextlib.suppress(ProtocolError):
            parse(data)
