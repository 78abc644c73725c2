from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from umlfs.host.newfile import new_file


@pytest.fixture(params=["unnamed", "named"])
def _kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a filesystem that knows files without a name, and on one that does not."""
    if request.param == "named":
        # What is left of the flag for a kernel that does not know it.
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)


pytestmark = pytest.mark.usefixtures("_kind")


def test_appears_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with new_file(str(path), 0o640) as fd:
        os.write(fd, b"content")
        assert not path.exists()
    assert path.read_bytes() == b"content"
    assert stat.S_IMODE(path.stat().st_mode) & ~0o640 == 0
    assert os.listdir(tmp_path) == ["file"]


def test_replaces_only_if_asked(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(FileExistsError), new_file(str(path)):
        pass
    with new_file(str(path), replace=True) as fd:
        os.write(fd, b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_one_that_came_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(FileExistsError) as raised, new_file(str(path)):
        path.write_bytes(b"theirs")
    assert raised.value.filename == str(path)
    assert path.read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == ["file"]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), new_file(str(tmp_path / "file")):
        raise RuntimeError
    assert os.listdir(tmp_path) == []


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "missing" / "file")
    with pytest.raises(FileNotFoundError) as raised, new_file(path):
        pass
    assert raised.value.filename == path


KILLED = """
import os, signal, sys
from umlfs.host.newfile import new_file
with new_file(sys.argv[1], replace=True) as fd:
    os.write(fd, b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_it_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "file"], cwd=Path(__file__).parents[2])
    assert done.returncode == -signal.SIGKILL
    assert os.listdir(tmp_path) == []
