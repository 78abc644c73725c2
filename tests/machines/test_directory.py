"""Machines' directories: one owner at a time, and stale ones taken over."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.machines.directory import check_umid, claimed, is_locked, machines_directory, read_pid
from umlfs.errors import UmlError, UsageError


def test_made_locked_and_removed(tmp_path: Path) -> None:
    parent = tmp_path / "a/b"
    with claimed(parent, "it") as directory:
        assert directory.path == parent / "it"
        assert directory.path.stat().st_mode & 0o777 == 0o700
        assert read_pid(directory.path) == os.getpid()
        assert is_locked(directory.path)
        (directory / "log").write_text("x")
        with pytest.raises(UmlError, match=rf"is running \(pid {os.getpid()}\)"), claimed(parent, "it"):
            pass
        with claimed(parent, "other"):
            pass
    assert list(parent.iterdir()) == []
    assert not is_locked(parent / "it")


def test_a_stale_one_is_taken_over(tmp_path: Path) -> None:
    stale = tmp_path / "it"
    (stale / "deep").mkdir(parents=True)
    (stale / "pid").write_text("1\n")
    (stale / "mconsole").touch()
    with claimed(tmp_path, "it") as directory:
        assert [path.name for path in directory.path.iterdir()] == ["pid"]


def test_a_kernel_started_by_hand_is_respected(tmp_path: Path) -> None:
    (tmp_path / "it").mkdir()
    words = [sys.executable, "-c", "print('ready', flush=True); input()", "umid=it"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as kernel:
        assert kernel.stdout is not None
        kernel.stdout.readline()
        (tmp_path / "it/pid").write_text(f"{kernel.pid}\n")
        with pytest.raises(UmlError, match=rf"pid {kernel.pid}"), claimed(tmp_path, "it"):
            pass
        kernel.kill()


def test_places_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UmlError, match="too long"), claimed(tmp_path / ("x" * 100), "it"):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(UmlError, match="cannot be made"), claimed(tmp_path / "file", "it"):
        pass
    (tmp_path / "link").symlink_to("/")
    with pytest.raises(UmlError, match="is no directory"), claimed(tmp_path, "link"):
        pass
    monkeypatch.delenv("HOME")
    with pytest.raises(UmlError, match="HOME"):
        machines_directory()


@pytest.mark.parametrize("umid", ["", ".", "..", "a/b", "-x", "a b", "x" * 64, "é"])
def test_names_that_cannot_be(umid: str) -> None:
    with pytest.raises(UsageError):
        check_umid(umid)
