"""What we take pyfuse3's inside to be, and buffers that answers are read into."""

from __future__ import annotations

from typing import Any

import pyfuse3
import pytest
import trio

from umlfs.mount import pyfuse3_internals as internals
from umlfs.mount.read_buffers import KEPT_MAX, SIZE, ReadBuffers

MODULE: Any = pyfuse3


def test_the_version_that_is_locked_is_as_we_know_it(caplog: pytest.LogCaptureFixture) -> None:
    internals.check()
    assert not caplog.records
    assert internals.HAS_SHOWN_NUMBER
    assert internals.HAS_OWN_TRIO


@pytest.mark.logs_warnings
def test_another_one_is_told_of(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(internals, "HAS_OWN_TRIO", False)
    internals.check()
    assert "requests are slower" in caplog.text
    with internals.reading_eagerly(lambda: False):
        assert MODULE.trio is trio


def test_trio_is_given_back() -> None:
    with internals.reading_eagerly(lambda: False):
        assert MODULE.trio is not trio
        assert MODULE.trio.open_nursery is trio.open_nursery
    assert MODULE.trio is trio


def test_the_shown_number_is_not_the_inode() -> None:
    attributes = pyfuse3.EntryAttributes()
    attributes.st_ino, attributes.st_mode = 7, 0o100600
    internals.set_shown_number(attributes, 1 << 63)
    assert attributes.st_mode == 0o100600


def test_a_buffer_in_use_is_nobody_elses() -> None:
    buffers = ReadBuffers()
    first = buffers.take(10)
    first[:] = b"0123456789"
    part = first[:3]
    first.release()
    second = buffers.take(10)
    second[:] = b"x" * 10
    assert bytes(part) == b"012"
    part.release()
    third = buffers.take(SIZE)
    third[:3] = b"new"
    assert bytes(second) == b"x" * 10


def test_not_all_are_kept() -> None:
    buffers = ReadBuffers()
    views = [buffers.take(1) for _ in range(KEPT_MAX + 3)]
    for view in views:
        view.release()
    assert len(buffers._kept) == KEPT_MAX
    assert len(buffers.take(SIZE + 1)) == SIZE + 1
