"""When directories are read on the loop, and when in a thread."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from hostfs.page_cache import STREAK, STREAK_MAX, CacheGuess
from hostfs.resolver import Resolver
from tests.hostfs.test_filesystem import make
from umlfs.filesystem import ROOT


def test_trusted_after_a_streak() -> None:
    guess = CacheGuess()
    for _ in range(STREAK):
        assert not guess.trusted
        guess.saw(from_disk=False)
    assert guess.trusted
    guess.saw(from_disk=True)
    assert not guess.trusted


def test_a_disappointed_trust_takes_longer() -> None:
    guess = CacheGuess()
    needed = STREAK
    for _ in range(20):
        for _ in range(needed):
            assert not guess.trusted
            guess.saw(from_disk=False)
        assert guess.trusted
        guess.saw(from_disk=True)
        needed = min(2 * needed, STREAK_MAX)


def test_a_disk_that_is_never_quick_costs_nothing_later() -> None:
    guess = CacheGuess()
    for _ in range(1000):
        guess.saw(from_disk=True)
    for _ in range(STREAK):
        guess.saw(from_disk=False)
    assert guess.trusted


async def test_threads_read_only_what_may_be_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hostfs.devices.is_memory", lambda _: False)
    monkeypatch.setattr("hostfs.devices.is_read_by_asker", lambda _: True)
    monkeypatch.setattr("hostfs.directories.disk_reads", lambda: 0)
    threads = 0
    in_thread = Resolver.in_thread

    async def counted(*arguments: object) -> object:
        nonlocal threads
        threads += 1
        return await in_thread(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Resolver, "in_thread", counted)
    names = [f"{number}".encode() for number in range(3 * STREAK)]
    for name in names:
        (tmp_path / name.decode() / "below").mkdir(parents=True)
    s = make(tmp_path)
    directories = [(await s.lookup(ROOT, name)).ino for name in names]
    threads = 0
    for directory in directories:
        assert await s.names(directory) == [b"below"]
    assert threads == STREAK

    reads = itertools.count()
    monkeypatch.setattr("hostfs.directories.disk_reads", lambda: next(reads))
    s.fs.disconnect()
    directories = [(await s.lookup(ROOT, name)).ino for name in names]
    threads = 0
    for directory in directories:
        assert await s.names(directory) == [b"below"]
    assert threads == len(directories)
    await s.fs.close()
