"""The log of several machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.machines import common_log
from runtime.machines.common_log import CommonLog


def test_lines_of_several(tmp_path: Path) -> None:
    path = tmp_path / "log"
    one, two = CommonLog(path, "a-1"), CommonLog(path, "a-2")
    one.write(b"first\r\nsec")
    two.write(b"other\n")
    one.write(b"ond\nlast words")
    one.close()
    two.close()
    assert path.read_text().splitlines() == ["a-1: first", "a-2: other", "a-1: second", "a-1: last words"]


def test_it_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common_log, "MOST", 1000)
    path = tmp_path / "log"
    writers = [CommonLog(path, name) for name in "ab"]
    for number in range(500):
        writers[number % 2].write(b"line %d\n" % number)
    assert path.stat().st_size < 1100
    old = Path(f"{path}.old")
    assert old.stat().st_size < 1100
    numbers = [int(line.split()[-1]) for line in (old.read_text() + path.read_text()).splitlines()]
    assert numbers == list(range(numbers[0], 500))
    for each in (path, old):
        each.unlink()
    tmp_path.rmdir()  # the cluster is gone: nothing can be written, and that is no error
    writers[0].write(b"x\n")
    for writer in writers:
        writer.close()
