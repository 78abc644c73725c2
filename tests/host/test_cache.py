from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.host import cache


def test_stored_content_is_loaded_again() -> None:
    path = cache.store("name", b"content")
    assert path is not None
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert cache.load("name") == b"content"
    assert [each.name for each in path.parent.iterdir()] == ["name"]


def test_storing_replaces_the_whole() -> None:
    cache.store("name", b"a longer content")
    cache.store("name", b"short")
    assert cache.load("name") == b"short"


def test_what_is_not_there_is_none() -> None:
    assert cache.load("name") is None


def test_relative_cache_home_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.directory() == tmp_path / ".cache/umlfs"


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_directory_that_others_write_is_no_cache(mode: int) -> None:
    root = cache.directory()
    assert root is not None
    root.chmod(mode)
    assert cache.directory() is None
    assert cache.store("name", b"content") is None
    assert cache.load("name") is None


def test_file_that_others_write_is_not_read() -> None:
    path = cache.store("name", b"content")
    assert path is not None
    path.chmod(0o620)
    assert cache.load("name") is None


def test_nothing_of_another_user_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    path = cache.store("name", b"content")
    assert path is not None
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert cache.open_ours(path) is None
    assert cache.directory() is None
    assert cache.store("name", b"content") is None


def test_neither_symlink_nor_fifo_is_read() -> None:
    path = cache.store("name", b"content")
    assert path is not None
    (path.parent / "link").symlink_to(path)
    os.mkfifo(path.parent / "fifo", 0o600)
    assert cache.load("link") is None
    assert cache.load("fifo") is None


def test_symlink_as_directory_is_no_cache(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/umlfs").symlink_to(elsewhere)
    assert cache.directory() is None


def test_no_directory_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert cache.store("name", b"content") is None
    assert cache.load("name") is None
    cache.prune("*", 0)


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    with pytest.raises(OSError, match="directory"):
        cache.write_atomically(tmp_path / "target", b"content")
    assert list(tmp_path.glob(".*")) == []


def test_use_makes_a_file_no_younger() -> None:
    for index in range(3):
        path = cache.store(f"file-{index}", b"")
        assert path is not None
        os.utime(path, ns=(index, index))
    root = cache.directory()
    assert root is not None
    cache.note_use(root / "file-0")
    assert (root / "file-0").stat().st_mtime_ns == 0
    cache.prune("file-*", keep=1)
    assert [path.name for path in root.iterdir()] == ["file-0"]


def test_prune_keeps_those_used_last() -> None:
    for index in range(5):
        path = cache.store(f"file-{index}", b"")
        assert path is not None
        os.utime(path, ns=(index, index))
    cache.store("other", b"")
    cache.prune("file-*", keep=2)
    root = cache.directory()
    assert root is not None
    assert sorted(path.name for path in root.iterdir()) == ["file-3", "file-4", "other"]
