"""What is kept of machines that have ended."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from runtime.machines.directory import claimed
from runtime.machines.ended import KEPT, Ended, all_ended, keep, remove
from runtime.machines.following import followed
from runtime.machines.machine_log import MOST, LogFile


def end(parent: Path, umid: str, status: int | None = 0) -> None:
    with claimed(parent, umid) as directory:
        (directory / "log").write_text(f"first of {umid}\nlast of {umid}\n\n")
        (directory / "mconsole").touch()
        keep(directory.path, Ended(umid, status, ended=1.0))


def test_the_log_and_the_status_are_kept(tmp_path: Path) -> None:
    end(tmp_path, "it", 3)
    (found,) = all_ended(tmp_path)
    assert (found.umid, found.status, found.last_words) == ("it", 3, "last of it")
    assert [path.name for path in tmp_path.iterdir()] == [".ended"]
    with claimed(tmp_path, "it"):
        assert all_ended(tmp_path) == []
    end(tmp_path, "it", 4)
    assert [each.status for each in all_ended(tmp_path)] == [4]
    assert remove(tmp_path, "it")
    assert not remove(tmp_path, "it")
    assert all_ended(tmp_path) == []


def test_it_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log, the record and the names of both are on the disk before the machine's own directory goes."""
    synced = []
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    end(tmp_path, "it")
    ended = tmp_path / ".ended"
    log, record, *directories = synced
    assert log == str(ended / "it/log")
    assert record.startswith(str(ended / "it/"))
    assert directories == [str(ended / "it"), str(ended)]


def test_only_so_many_are_kept(tmp_path: Path) -> None:
    for number in range(KEPT + 3):
        end(tmp_path, f"m{number}")
    assert len(all_ended(tmp_path)) == KEPT
    assert f"m{KEPT + 2}" in {each.umid for each in all_ended(tmp_path)}


def test_what_somebody_else_wrote_there_is_no_trouble(tmp_path: Path) -> None:
    end(tmp_path, "it")
    (tmp_path / ".ended/it/ended.json").write_text('{"status": []}')
    (tmp_path / ".ended/file").touch()
    assert [(each.umid, each.status, each.how) for each in all_ended(tmp_path)] == [("it", None, "killed")]


async def test_a_log_is_followed_beyond_its_size(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log")
    lines = [b"line %d %s\n" % (number, b"x" * 1000) for number in range(2 * MOST // 1000)]
    written = False
    heard = b""

    async def write() -> None:
        nonlocal written
        for line in lines:
            log.write(line)
            if line.startswith(b"line 500 "):
                await trio.sleep(0.5)
        written = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        async for piece in followed(tmp_path / "log", lambda: not written):
            heard += piece
    log.close()
    assert heard.startswith(lines[0])
    assert heard.endswith(lines[-1])
    assert heard.count(lines[3]) == heard.count(lines[-1]) == 1
